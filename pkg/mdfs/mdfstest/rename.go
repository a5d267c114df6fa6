package mdfstest

import (
	"golang.org/x/sys/unix"
)

var renameCases = []testCase{
	{name: "Replace", run: renameReplace},
	{name: "Refused", run: renameRefused},
	{name: "SameInode", run: renameSameInode},
	{name: "NoReplace", run: renameNoReplace},
	{name: "Exchange", run: renameExchange},
}

func renameReplace(e *env) {
	d := e.mkdir(e.root, "d", 0o755)
	e.write(e.file(e.root, "a", 0o644), "a")
	b := e.file(d, "b", 0o644)
	e.write(b, "b")
	ino := e.lstat(e.root, "a").Ino
	e.ok(e.root.Rename("a", d, "b", 0))
	e.absent(e.root, "a")
	same(e, "inode", e.lstat(d, "b").Ino, ino)
	same(e, "content of the replaced file, still open", e.read(b), "b")
	st, err := b.Stat()
	e.ok(err)
	same(e, "links of the replaced file", uint64(st.Nlink), 0)

	full := e.mkdir(e.root, "full", 0o755)
	e.file(full, "f", 0o644)
	e.mkdir(e.root, "empty", 0o755)
	e.ok(e.root.Rename("full", e.root, "empty", 0))
	e.lstat(e.opendir(e.root, "empty"), "f")
	e.absent(e.root, "full")
}

func renameRefused(e *env) {
	d := e.mkdir(e.root, "d", 0o755)
	sub := e.mkdir(d, "sub", 0o755)
	e.mkdir(e.root, "empty", 0o755)
	e.file(e.root, "f", 0o644)
	r := e.root
	e.fails("directory over a full one", r.Rename("empty", r, "d", 0), unix.ENOTEMPTY, unix.EEXIST)
	e.fails("file over a directory", r.Rename("f", r, "empty", 0), unix.EISDIR)
	e.fails("directory over a file", r.Rename("empty", r, "f", 0), unix.ENOTDIR)
	e.fails("directory into itself", r.Rename("d", sub, "x", 0), unix.EINVAL)
	e.fails("missing", r.Rename("none", r, "f", 0), unix.ENOENT)
	e.fails("flags that exclude each other", r.Rename("f", r, "g", unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE), unix.EINVAL)
	e.fails("unknown flag", r.Rename("f", r, "g", 1<<20), unix.EINVAL)
	e.lstat(d, "sub")
	e.lstat(r, "f")
}

// Renaming one name of an inode over another does nothing and succeeds.
func renameSameInode(e *env) {
	e.file(e.root, "a", 0o644)
	e.ok(e.root.Link("a", e.root, "b"))
	e.ok(e.root.Rename("a", e.root, "b", 0))
	same(e, "inode of a", e.lstat(e.root, "a").Ino, e.lstat(e.root, "b").Ino)
	same(e, "links", uint64(e.lstat(e.root, "a").Nlink), 2)
	e.ok(e.root.Rename("a", e.root, "a", 0))
	e.fails("NOREPLACE", e.root.Rename("a", e.root, "b", unix.RENAME_NOREPLACE), unix.EEXIST)
}

func renameNoReplace(e *env) {
	d := e.mkdir(e.root, "d", 0o755)
	e.write(e.file(e.root, "a", 0o644), "a")
	e.write(e.file(d, "b", 0o644), "b")
	e.fails("over a file", e.root.Rename("a", d, "b", unix.RENAME_NOREPLACE), unix.EEXIST)
	e.fails("over a directory", e.root.Rename("a", e.root, "d", unix.RENAME_NOREPLACE), unix.EEXIST)
	same(e, "content of what was there", e.read(e.open(d, "b", unix.O_RDONLY, 0)), "b")
	e.ok(e.root.Rename("a", d, "c", unix.RENAME_NOREPLACE))
	e.absent(e.root, "a")
	same(e, "content", e.read(e.open(d, "c", unix.O_RDONLY, 0)), "a")
}

func renameExchange(e *env) {
	d := e.mkdir(e.root, "d", 0o755)
	sub := e.mkdir(d, "sub", 0o755)
	e.file(sub, "in", 0o644)
	e.write(e.file(e.root, "a", 0o644), "a")
	e.write(e.file(d, "b", 0o644), "b")
	e.ok(e.root.Rename("a", d, "b", unix.RENAME_EXCHANGE))
	same(e, "content of a", e.read(e.open(e.root, "a", unix.O_RDONLY, 0)), "b")
	same(e, "content of b", e.read(e.open(d, "b", unix.O_RDONLY, 0)), "a")
	e.ok(e.root.Rename("a", d, "sub", unix.RENAME_EXCHANGE))
	e.lstat(e.opendir(e.root, "a"), "in")
	same(e, "type of sub", kind(e.lstat(d, "sub")), unix.S_IFREG)
	e.fails("with what is missing", e.root.Rename("a", d, "none", unix.RENAME_EXCHANGE), unix.ENOENT)
}
