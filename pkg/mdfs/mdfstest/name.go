package mdfstest

import (
	"golang.org/x/sys/unix"
)

var nameCases = []testCase{
	{name: "Invalid", run: nameInvalid},
	{name: "Self", run: nameSelf},
	{name: "TooLong", run: nameTooLong},
	{name: "Missing", run: nameMissing},
	{name: "Taken", run: nameTaken},
	{name: "Odd", run: nameOdd},
}

func nameInvalid(e *env) {
	e.file(e.root, "there", 0o644)
	e.mkdir(e.root, "dir", 0o755)
	names := []string{"", "..", "/", "/there", "dir/", "dir/x", "../x", "a\x00b", "\x00", "there\x00"}
	for _, c := range calls {
		for _, name := range names {
			e.fails(c.name+" "+name, c.do(e.root, name), unix.EINVAL)
		}
		if !c.self {
			e.fails(c.name+" .", c.do(e.root, "."), unix.EINVAL)
		}
	}
}

// nameSelf: "." is the directory itself for what changes attributes.
func nameSelf(e *env) {
	d := e.mkdir(e.root, "d", 0o755)
	e.ok(d.Setxattr(".", attr, []byte("mine"), 0))
	value, err := e.root.Getxattr("d", attr)
	e.ok(err)
	same(e, "xattr set on .", string(value), "mine")
	e.ok(d.Chmod(".", 0o1711))
	same(e, "mode set on .", mode(e.lstat(e.root, "d")), 0o1711)
	for _, c := range calls {
		if !c.self {
			continue
		}
		if err := c.do(d, "."); err != nil {
			e.Errorf("%s .: %v", c.name, err)
		}
	}
	same(e, "mtime set on .", e.lstat(e.root, "d").Mtim.Sec, 1)
}

func nameTooLong(e *env) {
	e.file(e.root, "there", 0o644)
	for _, c := range calls {
		e.fails(c.name, c.do(e.root, long(256)), unix.ENAMETOOLONG)
	}
}

func nameMissing(e *env) {
	for _, c := range calls {
		if !c.makes {
			e.fails(c.name, c.do(e.root, "missing"), unix.ENOENT)
		}
	}
}

func nameTaken(e *env) {
	e.file(e.root, "there", 0o644)
	e.file(e.root, "taken", 0o644)
	for _, c := range calls {
		if c.makes {
			e.fails(c.name, c.do(e.root, "taken"), unix.EEXIST)
		}
	}
}

// nameOdd: a name is bytes.
func nameOdd(e *env) {
	names := []string{
		long(255), "a", "A", " ", "...", ".x", "..x", "-rf", "*", "a b", "\n", "\t\\", "\x01", "\x7f",
		"\xff\xfe", "\xc3", "\u00e9", "e\u0301", "a|b#c;d&$(e)`f`'\"", "%s%n", "con", "\u202e",
	}
	want := map[string]bool{}
	for _, name := range names {
		f := e.file(e.root, name, 0o644)
		e.ok(f.Setxattr(attr, []byte(name), 0))
		want[name] = true
	}
	for _, name := range names {
		value, err := e.root.Getxattr(name, attr)
		e.ok(err)
		same(e, "the file's name in its xattr", string(value), name)
	}
	for _, ent := range e.list(e.root) {
		if !want[ent.Name] {
			e.Errorf("unexpected entry %q", ent.Name)
		}
		delete(want, ent.Name)
	}
	if len(want) != 0 {
		e.Errorf("not listed: %v", want)
	}
	for _, name := range names {
		e.ok(e.root.Rename(name, e.root, "tmp", 0))
		e.ok(e.root.Remove("tmp"))
	}
}
