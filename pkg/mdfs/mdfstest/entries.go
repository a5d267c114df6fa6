package mdfstest

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

var entriesCases = []testCase{
	{name: "Empty", run: entriesEmpty},
	{name: "Types", run: entriesTypes},
	{name: "Many", run: entriesMany},
	{name: "Independent", run: entriesIndependent},
	{name: "Removing", run: entriesRemoving},
}

// list reads all of a directory.
func (e *env) list(d mdfs.Dir) []mdfs.Dirent {
	e.Helper()
	ents, err := d.Entries()
	e.ok(err)
	defer ents.Close()
	return e.rest(ents)
}

// rest reads a stream to its end.
func (e *env) rest(ents mdfs.Entries) (all []mdfs.Dirent) {
	e.Helper()
	for {
		ent, err := ents.Next()
		if err == io.EOF {
			return all
		}
		e.ok(err)
		all = append(all, ent)
	}
}

func (e *env) next(ents mdfs.Entries) mdfs.Dirent {
	e.Helper()
	ent, err := ents.Next()
	e.ok(err)
	return ent
}

func entriesEmpty(e *env) {
	ents, err := e.mkdir(e.root, "d", 0o755).Entries()
	e.ok(err)
	defer ents.Close()
	for range 2 {
		if _, err := ents.Next(); err != io.EOF {
			e.Errorf("Next: got %v, want EOF", err)
		}
	}
	e.ok(ents.SeekTo(0))
	if _, err := ents.Next(); err != io.EOF {
		e.Errorf("Next after SeekTo: got %v, want EOF", err)
	}
	e.fails("SeekTo before the start", ents.SeekTo(-1), unix.EINVAL)
}

func entriesTypes(e *env) {
	e.file(e.root, "file", 0o644)
	e.mkdir(e.root, "directory", 0o755)
	e.ok(e.root.Symlink("x", "symlink"))
	e.ok(e.root.Mknod("fifo", unix.S_IFIFO|0o644, 0))
	e.ok(e.root.Mknod("socket", unix.S_IFSOCK|0o644, 0))
	all := e.list(e.root)
	same(e, "entries", len(all), 5)
	for _, ent := range all {
		st := e.lstat(e.root, ent.Name)
		same(e, "inode of "+ent.Name, ent.Ino, st.Ino)
		if ent.Type != 0 {
			same(e, "type of "+ent.Name, ent.Type, kind(st))
		}
	}
}

// populate makes n links of one file in a new directory: the cheapest names.
func (e *env) populate(n int) mdfs.Dir {
	e.Helper()
	d := e.mkdir(e.root, "many", 0o755)
	e.file(d, "000000", 0o644)
	for i := 1; i < n; i++ {
		e.ok(d.Link("000000", d, fmt.Sprintf("%06d", i)))
	}
	return d
}

// entriesMany: a large directory comes whole and without doubles, and can be
// continued from anywhere.
func entriesMany(e *env) {
	d := e.populate(e.names)
	ents, err := d.Entries()
	e.ok(err)
	defer ents.Close()
	all := e.rest(ents)
	seen := map[string]bool{}
	for _, ent := range all {
		if seen[ent.Name] {
			e.Errorf("%s comes twice", ent.Name)
		}
		seen[ent.Name] = true
	}
	same(e, "names", len(seen), e.names)
	for i := 0; i+1 < len(all); i += max(1, len(all)/50) {
		e.ok(ents.SeekTo(all[i].Next))
		same(e, "entry after "+all[i].Name, e.next(ents).Name, all[i+1].Name)
	}
	e.ok(ents.SeekTo(all[len(all)-1].Next))
	same(e, "entries after the last", len(e.rest(ents)), 0)
	e.ok(ents.SeekTo(0))
	again := e.rest(ents)
	same(e, "names from the start again", len(again), len(all))
	same(e, "first name again", again[0].Name, all[0].Name)
}

func entriesIndependent(e *env) {
	d := e.populate(100)
	a, err := d.Entries()
	e.ok(err)
	defer a.Close()
	first := e.next(a)
	b, err := d.Entries()
	e.ok(err)
	defer b.Close()
	same(e, "first entry of another stream", e.next(b).Name, first.Name)
	same(e, "rest of the other", len(e.rest(b)), 99)
	same(e, "rest of the first", len(e.rest(a)), 99)
}

// entriesRemoving: removing what was read neither hides nor repeats the rest,
// also when the stream is continued where it was.
func entriesRemoving(e *env) {
	const n = 3000
	d := e.populate(n)
	ents, err := d.Entries()
	e.ok(err)
	defer ents.Close()
	removed := 0
	for {
		ent, err := ents.Next()
		if err == io.EOF {
			break
		}
		e.ok(err)
		err = d.Remove(ent.Name)
		if errors.Is(err, unix.ENOENT) {
			e.Fatalf("%s came again", ent.Name)
		}
		e.ok(err)
		if removed++; removed%500 == 0 {
			e.ok(ents.SeekTo(ent.Next))
		}
	}
	same(e, "removed", removed, n)
	same(e, "left", len(e.list(d)), 0)
}
