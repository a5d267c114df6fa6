package mdfstest

import (
	"io"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

var dirCases = []testCase{
	{name: "Root", run: dirRoot},
	{name: "Open", run: dirOpen},
	{name: "Again", run: dirAgain},
	{name: "Walk", run: dirWalk},
	{name: "Moved", run: dirMoved},
	{name: "Removed", run: dirRemoved},
	{name: "Remove", run: dirRemove},
	{name: "Closed", run: dirClosed},
	{name: "Sync", run: dirSync},
}

func dirRoot(e *env) {
	st, err := e.root.Stat()
	e.ok(err)
	same(e, "type of the root", kind(st), unix.S_IFDIR)
	same(e, "the root by Lstat", e.lstat(e.root, ".").Ino, st.Ino)
	e.ok(e.root.Close())
	e.ok(e.Root().Mkdir("after Close of the root", 0o755))
}

func dirOpen(e *env) {
	sub := e.mkdir(e.root, "d", 0o755)
	st, err := sub.Stat()
	e.ok(err)
	same(e, "inode", st.Ino, e.lstat(e.root, "d").Ino)
	e.file(e.root, "f", 0o644)
	_, err = e.root.OpenDir("f")
	e.fails("OpenDir of a file", err, unix.ENOTDIR)
	e.ok(e.root.Mknod("fifo", unix.S_IFIFO|0o644, 0))
	_, err = e.root.OpenDir("fifo")
	e.fails("OpenDir of a FIFO", err, unix.ENOTDIR)
	e.fails("Mkdir over a directory", e.root.Mkdir("d", 0o755), unix.EEXIST)
	e.fails("Mkdir over a file", e.root.Mkdir("f", 0o755), unix.EEXIST)
}

func dirAgain(e *env) {
	sub, err := e.mkdir(e.root, "d", 0o755).Again()
	e.ok(err)
	again, err := sub.Again()
	e.ok(err)
	e.ok(sub.Close())
	e.ok(again.Mkdir("x", 0o755))
	e.ok(again.Close())
	root, err := e.root.Again()
	e.ok(err)
	e.lstat(root, "d")
	e.ok(root.Close())
	e.lstat(e.root, "d")
}

func dirWalk(e *env) {
	b := e.mkdir(e.mkdir(e.root, "a", 0o755), "b", 0o755)
	e.file(b, "f", 0o644)
	for path, want := range map[string]uint64{
		"":    e.lstat(e.root, ".").Ino,
		"a":   e.lstat(e.root, "a").Ino,
		"a/b": e.lstat(b, ".").Ino,
	} {
		d, err := mdfs.Walk(e.root, path)
		e.ok(err)
		same(e, "inode at "+path, e.lstat(d, ".").Ino, want)
		e.ok(d.Close())
	}
	for _, path := range []string{"/", "/a", "a/", "a//b", ".", "a/.", "..", "a/../a"} {
		_, err := mdfs.Walk(e.root, path)
		e.fails("Walk to "+path, err, unix.EINVAL)
	}
	_, err := mdfs.Walk(e.root, "a/none/b")
	e.fails("Walk to what is missing", err, unix.ENOENT)
	_, err = mdfs.Walk(e.root, "a/b/f")
	e.fails("Walk to a file", err, unix.ENOTDIR)
}

// A Dir is the directory, not its name.
func dirMoved(e *env) {
	d := e.mkdir(e.root, "d", 0o755)
	e.ok(e.root.Rename("d", e.root, "moved", 0))
	e.mkdir(e.root, "d", 0o755)
	e.file(d, "f", 0o644)
	e.lstat(e.opendir(e.root, "moved"), "f")
	e.absent(e.opendir(e.root, "d"), "f")
}

func dirRemoved(e *env) {
	d := e.mkdir(e.root, "d", 0o755)
	ents, err := d.Entries()
	e.ok(err)
	defer ents.Close()
	e.ok(e.root.RemoveDir("d"))
	_, err = d.OpenFile("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	e.fails("create in a removed directory", err, unix.ENOENT)
	e.fails("mkdir in a removed directory", d.Mkdir("x", 0o755), unix.ENOENT)
	if _, err = d.Stat(); err != nil {
		e.Errorf("Stat of a removed directory: %v", err)
	}
	if _, err = ents.Next(); err != io.EOF {
		e.Errorf("entries of a removed directory: got %v, want EOF", err)
	}
}

func dirRemove(e *env) {
	d := e.mkdir(e.root, "d", 0o755)
	e.file(d, "f", 0o644)
	e.fails("RemoveDir of a full directory", e.root.RemoveDir("d"), unix.ENOTEMPTY, unix.EEXIST)
	e.fails("RemoveDir of a file", d.RemoveDir("f"), unix.ENOTDIR)
	e.fails("Remove of a directory", e.root.Remove("d"), unix.EISDIR, unix.EPERM)
	e.ok(d.Remove("f"))
	e.absent(d, "f")
	e.ok(e.root.RemoveDir("d"))
	e.absent(e.root, "d")
}

func dirClosed(e *env) {
	d := e.mkdir(e.root, "d", 0o755)
	f := e.file(d, "f", 0o644)
	ents, err := d.Entries()
	e.ok(err)
	e.ok(d.Close())
	e.ok(f.Close())
	e.ok(ents.Close())
	_, err = d.Stat()
	e.fails("Stat of a closed directory", err, unix.EBADF)
	e.fails("Mkdir in a closed directory", d.Mkdir("x", 0o755), unix.EBADF)
	e.fails("Rename to a closed directory", e.root.Rename("d", d, "x", 0), unix.EBADF)
	e.fails("second Close of a directory", d.Close(), unix.EBADF)
	_, err = f.Stat()
	e.fails("Stat of a closed file", err, unix.EBADF)
	_, err = f.ReadAt(make([]byte, 1), 0)
	e.fails("ReadAt of a closed file", err, unix.EBADF)
	e.fails("second Close of a file", f.Close(), unix.EBADF)
	_, err = ents.Next()
	e.fails("Next of closed entries", err, unix.EBADF)
	e.fails("second Close of entries", ents.Close(), unix.EBADF)
}

func dirSync(e *env) {
	d := e.mkdir(e.root, "d", 0o755)
	e.file(d, "f", 0o644)
	e.ok(d.Sync())
	e.ok(e.root.Sync())
	e.ok(e.FS.Sync())
	st, err := e.Statfs()
	e.ok(err)
	if st.Bsize <= 0 || st.Bfree > st.Blocks {
		e.Errorf("implausible Statfs: %+v", st)
	}
}
