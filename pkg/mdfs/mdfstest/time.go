package mdfstest

import (
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

var timeCases = []testCase{
	{name: "Set", run: timeSet},
	{name: "OmitAndNow", run: timeOmitAndNow},
	{name: "Change", run: timeChange},
}

// stamps are the times that every filesystem must keep to the nanosecond.
var stamps = []time.Time{
	time.Unix(0, 0), time.Unix(0, 1), time.Unix(1_000_000_000, 999_999_999), time.Unix(-86400, 5),
	time.Date(2038, 1, 19, 3, 14, 8, 7, time.UTC), time.Date(2100, 2, 3, 4, 5, 6, 7, time.UTC),
}

func atime(st mdfs.Stat) time.Time { return time.Unix(st.Atim.Unix()) }
func mtime(st mdfs.Stat) time.Time { return time.Unix(st.Mtim.Unix()) }
func ctime(st mdfs.Stat) time.Time { return time.Unix(st.Ctim.Unix()) }

// setters are the ways to set times of an inode, which is name in the root.
func (e *env) setters() map[string]func(a, m mdfs.TimeSet) error {
	e.Helper()
	e.file(e.root, "file", 0o644)
	d := e.mkdir(e.root, "directory", 0o755)
	e.ok(e.root.Symlink("file", "symlink"))
	named := func(name string) func(a, m mdfs.TimeSet) error {
		return func(a, m mdfs.TimeSet) error { return e.root.Lchtimes(name, a, m) }
	}
	e.file(e.root, "open", 0o644)
	e.file(e.root, "pinned", 0)
	e.ok(e.root.Mknod("fifo", unix.S_IFIFO|0o600, 0))
	return map[string]func(a, m mdfs.TimeSet) error{
		"file":      named("file"),
		"symlink":   named("symlink"),
		"fifo":      named("fifo"),
		"open":      e.open(e.root, "open", unix.O_RDONLY, 0).Chtimes,
		"pinned":    e.open(e.root, "pinned", unix.O_PATH, 0).Chtimes,
		"directory": func(a, m mdfs.TimeSet) error { return d.Lchtimes(".", a, m) },
	}
}

func timeSet(e *env) {
	for name, set := range e.setters() {
		for i, at := range stamps {
			mt := stamps[(i+1)%len(stamps)]
			e.ok(set(mdfs.TimeSet{Time: at}, mdfs.TimeSet{Time: mt}))
			st := e.lstat(e.root, name)
			if !atime(st).Equal(at) || !mtime(st).Equal(mt) {
				e.Errorf("%s: got %v and %v, want %v and %v", name, atime(st), mtime(st), at, mt)
			}
		}
	}
}

func timeOmitAndNow(e *env) {
	omit, now := mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Now: true}
	old := time.Unix(1e9, 5)
	for name, set := range e.setters() {
		check := func(what string, wantA, wantM bool) {
			e.Helper()
			st := e.lstat(e.root, name)
			if atime(st).Equal(old) != wantA || mtime(st).Equal(old) != wantM {
				e.Errorf("%s, %s: times are %v and %v", name, what, atime(st), mtime(st))
			}
		}
		e.ok(set(mdfs.TimeSet{Time: old}, mdfs.TimeSet{Time: old}))
		e.ok(set(omit, omit))
		check("both omitted", true, true)
		e.ok(set(omit, mdfs.TimeSet{Omit: true, Now: true, Time: time.Unix(3, 3)}))
		check("omitted whatever else is said", true, true)
		e.ok(set(omit, now))
		check("mtime now", true, false)
		e.ok(set(now, mdfs.TimeSet{Time: old}))
		check("atime now", false, true)
		if d := time.Since(atime(e.lstat(e.root, name))); d < -time.Minute || d > time.Minute {
			e.Errorf("%s: now is %v away from this clock", name, d)
		}
	}
}

// timeChange: writing and changing attributes move the times that they should.
func timeChange(e *env) {
	f := e.file(e.root, "f", 0o644)
	past := mdfs.TimeSet{Time: time.Unix(1e9, 0)}
	e.ok(f.Chtimes(past, past))
	before := e.lstat(e.root, "f")
	e.ok(f.Setxattr(attr, []byte("v"), 0))
	e.ok(e.root.Chmod("f", 0o600))
	st := e.lstat(e.root, "f")
	if !mtime(st).Equal(past.Time) {
		e.Errorf("mtime after Setxattr and Chmod: %v", mtime(st))
	}
	if ctime(st).Before(ctime(before)) {
		e.Errorf("ctime went back from %v to %v", ctime(before), ctime(st))
	}
	e.write(f, "x")
	if mtime(e.lstat(e.root, "f")).Equal(past.Time) {
		e.Error("a write left mtime as it was")
	}
}
