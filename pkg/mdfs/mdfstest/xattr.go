package mdfstest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

var xattrCases = []testCase{
	{name: "Name", run: xattrName},
	{name: "File", run: xattrFile},
	{name: "Flags", run: xattrFlags},
	{name: "Sizes", run: xattrSizes},
	{name: "List", run: xattrList},
	{name: "Race", run: xattrRace},
	{name: "Trusted", root: true, run: xattrTrusted},
}

// userAttrs leaves out what the system adds of its own accord.
func userAttrs(list []string) []string {
	return slices.DeleteFunc(list, func(name string) bool { return !strings.HasPrefix(name, "user.") })
}

// xattrs are the four calls on one inode.
type xattrs struct {
	get    func(attr string) ([]byte, error)
	set    func(attr string, value []byte, flags int) error
	list   func() ([]string, error)
	remove func(attr string) error
}

func byName(d mdfs.Dir, name string) xattrs {
	return xattrs{
		get:    func(attr string) ([]byte, error) { return d.Getxattr(name, attr) },
		set:    func(attr string, value []byte, flags int) error { return d.Setxattr(name, attr, value, flags) },
		list:   func() ([]string, error) { return d.Listxattr(name) },
		remove: func(attr string) error { return d.Removexattr(name, attr) },
	}
}

func byFile(f mdfs.File) xattrs {
	return xattrs{get: f.Getxattr, set: f.Setxattr, list: f.Listxattr, remove: f.Removexattr}
}

func xattrName(e *env) {
	e.file(e.root, "f", 0o644)
	e.basics(byName(e.root, "f"))
	d := e.mkdir(e.root, "d", 0o755)
	e.basics(byName(e.root, "d"))
	e.basics(byName(d, "."))
	e.basics(byName(e.root, "."))
}

func xattrFile(e *env) {
	e.basics(byFile(e.file(e.root, "f", 0o644)))
	e.basics(byFile(e.open(e.root, "f", unix.O_RDONLY, 0)))
	e.basics(byFile(e.open(e.root, "f", unix.O_PATH, 0)))
	e.mkdir(e.root, "d", 0o755)
	e.basics(byFile(e.open(e.root, "d", unix.O_RDONLY, 0)))
	e.basics(byFile(e.open(e.root, "d", unix.O_PATH|unix.O_DIRECTORY, 0)))
}

func (e *env) basics(x xattrs) {
	e.Helper()
	for _, value := range []string{"", "v", "\x00\xff\n", "other"} {
		e.ok(x.set(attr, []byte(value), 0))
		got, err := x.get(attr)
		e.ok(err)
		same(e, "value", string(got), value)
	}
	e.ok(x.set(attr+".2", []byte("2"), 0))
	list, err := x.list()
	e.ok(err)
	list = userAttrs(list)
	slices.Sort(list)
	same(e, "names", strings.Join(list, " "), attr+" "+attr+".2")
	e.ok(x.remove(attr))
	_, err = x.get(attr)
	e.fails("Getxattr of a removed one", err, unix.ENODATA)
	e.fails("Removexattr of a removed one", x.remove(attr), unix.ENODATA)
	e.fails("Setxattr outside of any class", x.set("mdfstest", nil, 0), unix.EOPNOTSUPP)
	_, err = x.get("mdfstest")
	e.fails("Getxattr outside of any class", err, unix.EOPNOTSUPP)
	e.ok(x.remove(attr + ".2"))
	list, err = x.list()
	e.ok(err)
	same(e, "names when all are removed", len(userAttrs(list)), 0)
}

func xattrFlags(e *env) {
	for _, x := range []xattrs{byFile(e.file(e.root, "f", 0o644)), byName(e.root, "f")} {
		e.fails("REPLACE of a missing one", x.set(attr, []byte("1"), unix.XATTR_REPLACE), unix.ENODATA)
		e.ok(x.set(attr, []byte("1"), unix.XATTR_CREATE))
		e.fails("CREATE of one that is there", x.set(attr, []byte("2"), unix.XATTR_CREATE), unix.EEXIST)
		e.fails("CREATE with the same value", x.set(attr, []byte("1"), unix.XATTR_CREATE), unix.EEXIST)
		got, err := x.get(attr)
		e.ok(err)
		same(e, "value", string(got), "1")
		e.ok(x.set(attr, []byte("3"), unix.XATTR_REPLACE))
		e.ok(x.remove(attr))
		e.ok(x.set(attr, []byte("4"), unix.XATTR_CREATE))
		e.fails("unknown flag", x.set(attr, nil, 1<<10), unix.EINVAL)
		e.ok(x.remove(attr))
	}
}

func xattrSizes(e *env) {
	f := e.file(e.root, "f", 0o644)
	for _, x := range []xattrs{byFile(f), byName(e.root, "f")} {
		for _, size := range []int{448, 511, 512, 513, 1024, 3000} {
			value := bytes.Repeat([]byte{byte(size), 0, 255}, size)[:size]
			e.ok(x.set(attr, value, 0))
			got, err := x.get(attr)
			e.ok(err)
			if !bytes.Equal(got, value) {
				e.Errorf("value of %d bytes: got another of %d", size, len(got))
			}
		}
		e.fails("value over 64 KiB", x.set(attr, make([]byte, 64<<10+1), 0), unix.E2BIG, unix.ENOSPC, unix.ERANGE)
		e.fails("name over 255 bytes", x.set("user."+long(251), nil, 0), unix.ERANGE, unix.ENAMETOOLONG)
		e.fails("empty name", x.set("", nil, 0), unix.ERANGE, unix.EINVAL)
		e.fails("name with NUL", x.set("user.a\x00b", nil, 0), unix.EINVAL)
	}
}

// xattrList: long lists come whole.
func xattrList(e *env) {
	f := e.file(e.root, "f", 0o644)
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("user.%02d.%s", i, long(60)))
		e.ok(f.Setxattr(want[i], []byte("v"), 0))
	}
	for _, x := range []xattrs{byFile(f), byName(e.root, "f")} {
		got, err := x.list()
		e.ok(err)
		got = userAttrs(got)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			e.Errorf("names: got %q", got)
		}
	}
}

// xattrRace: of many that create one xattr, exactly one succeeds, and its value
// stays. The commit protocol rests on this.
func xattrRace(e *env) {
	const racers = 16
	f := e.file(e.root, "f", 0o644)
	for round := range 30 {
		name := fmt.Sprintf("%s.%d", attr, round)
		errs := make([]error, racers)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range racers {
			x := byFile(f)
			if i%2 == 1 {
				x = byName(e.root, "f")
			}
			wg.Go(func() {
				<-start
				errs[i] = x.set(name, fmt.Append(nil, i), unix.XATTR_CREATE)
			})
		}
		close(start)
		wg.Wait()
		e.oneWinner(f, name, errs)
		e.ok(f.Removexattr(name))
	}
}

func (e *env) oneWinner(f mdfs.File, name string, errs []error) {
	e.Helper()
	winners := 0
	got, err := f.Getxattr(name)
	e.ok(err)
	for i, err := range errs {
		switch {
		case err == nil:
			winners++
			same(e, "value", string(got), fmt.Sprint(i))
		case !errors.Is(err, unix.EEXIST):
			e.Errorf("a loser got %v, want EEXIST", err)
		}
	}
	same(e, "winners", winners, 1)
}

func xattrTrusted(e *env) {
	const trusted = "trusted.mdfstest"
	f := e.file(e.root, "f", 0o644)
	e.ok(f.Setxattr(trusted, []byte("v"), unix.XATTR_CREATE))
	list, err := e.root.Listxattr("f")
	e.ok(err)
	if !slices.Contains(list, trusted) {
		e.Errorf("names: got %q", list)
	}
	e.ok(e.root.Mknod("fifo", unix.S_IFIFO|0o644, 0))
	e.ok(e.root.Setxattr("fifo", trusted, []byte("v"), 0))
	value, err := e.root.Getxattr("fifo", trusted)
	e.ok(err)
	same(e, "value on a FIFO", string(value), "v")
	e.fails("user xattr on a FIFO", e.root.Setxattr("fifo", attr, []byte("v"), 0), unix.EPERM)
}
