package mdfstest

import (
	"golang.org/x/sys/unix"
)

var linkCases = []testCase{
	{name: "Count", run: linkCount},
	{name: "Refused", run: linkRefused},
}

func linkCount(e *env) {
	d := e.mkdir(e.root, "d", 0o755)
	f := e.file(e.root, "a", 0o644)
	links := func(want uint64) {
		e.Helper()
		st, err := f.Stat()
		e.ok(err)
		same(e, "links", uint64(st.Nlink), want)
	}
	links(1)
	e.ok(e.root.Link("a", e.root, "b"))
	e.ok(e.root.Link("b", d, "c"))
	links(3)
	same(e, "inode", e.lstat(d, "c").Ino, e.lstat(e.root, "a").Ino)
	e.write(f, "shared")
	same(e, "content by another name", e.read(e.open(d, "c", unix.O_RDONLY, 0)), "shared")
	e.ok(e.root.Remove("a"))
	links(2)
	e.ok(d.Remove("c"))
	links(1)
	e.ok(e.root.Remove("b"))
	links(0)
}

func linkRefused(e *env) {
	d := e.mkdir(e.root, "d", 0o755)
	e.file(e.root, "a", 0o644)
	e.file(e.root, "b", 0o644)
	e.fails("Link over a file", e.root.Link("a", e.root, "b"), unix.EEXIST)
	e.fails("Link over itself", e.root.Link("a", e.root, "a"), unix.EEXIST)
	e.fails("Link over a directory", e.root.Link("a", e.root, "d"), unix.EEXIST)
	e.fails("Link of a directory", e.root.Link("d", e.root, "x"), unix.EPERM)
	e.fails("Link of what is missing", e.root.Link("none", d, "x"), unix.ENOENT)
	same(e, "links", uint64(e.lstat(e.root, "a").Nlink), 1)
}
