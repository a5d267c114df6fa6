package metadata

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// inodesOf counts the inodes that the records in trash/ are.
func (w *world) inodesOf(refs []TrashRef) int {
	inodes := map[uint64]bool{}
	for _, ref := range refs {
		var st unix.Stat_t
		w.must(unix.Lstat(filepath.Join(w.root, ref.dir(), ref.Name), &st))
		inodes[st.Ino] = true
	}
	return len(inodes)
}

func (w *world) temps() (n int) {
	names, err := w.names(deadName, deadTemp)
	w.must(err)
	return len(names)
}

// rm makes and removes files, and looks whether each has its own record.
func (w *world) rm(names ...string) []TrashRef {
	w.t.Helper()
	for _, name := range names {
		w.file(name, name)
		w.must(w.Unlink(ctx, me(name), w.Tree(), name))
	}
	paths := map[string]bool{}
	refs := w.trash()
	for _, ref := range refs {
		r, err := w.ReadTrash(ctx, ref)
		w.must(err)
		if r.Kind != objfmt.RecordFile || !strings.HasPrefix(ref.Name, r.File.String()+"-") {
			w.t.Errorf("%s: %+v", ref.Name, r)
		}
		paths[r.Path] = true
	}
	for _, name := range names {
		if !paths[name] {
			w.t.Errorf("no record of %s", name)
		}
	}
	return refs
}

func TestRecordsShareAnInode(t *testing.T) {
	w := newWorld(t)
	if refs := w.rm("a", "bb", "c"); w.inodesOf(refs) != 1 || w.temps() != 1 {
		t.Errorf("%d inodes, %d ledgers", w.inodesOf(refs), w.temps())
	}
	*w.clock = w.clock.Add(ledgerAge)
	w.rm("d") // ends the first
	if refs := w.rm("e"); w.inodesOf(refs) != 2 || w.temps() != 1 {
		t.Errorf("after a while: %d inodes, %d ledgers", w.inodesOf(refs), w.temps())
	}
	w.must(w.endLedgers())
	if w.temps() != 0 {
		t.Error("a ledger is left")
	}
	if done := w.expire(); done.Destroyed != 5 {
		t.Errorf("%+v", done)
	}
}

// Nobody but its maker knows whether a ledger is in use: a sweep may take it away.
func TestSweptLedger(t *testing.T) {
	w := newWorld(t)
	w.rm("a")
	w.must(w.in(deadName, func(d mdfs.Dir) error {
		return eachEntry(d, deadTemp, func(name string) (bool, error) { return false, d.Remove(name) })
	}))
	if refs := w.rm("b"); len(refs) != 2 || w.inodesOf(refs) != 2 {
		t.Errorf("%d records of %d inodes", len(refs), w.inodesOf(refs))
	}
}

// A record whose bytes a power failure took counts by its name.
func TestTornLedger(t *testing.T) {
	w := newWorld(t)
	refs := w.rm("a", "b")
	w.must(unix.Truncate(filepath.Join(w.root, refs[0].dir(), refs[0].Name), 10))
	for _, ref := range refs {
		_, err := w.ReadTrash(ctx, ref)
		if err == nil {
			t.Errorf("%s can be read", ref.Name)
		}
	}
	w.must(w.endLedgers())
	if done := w.expire(); done.Destroyed != 2 {
		t.Errorf("%+v", done)
	}
}

func TestLedgerAtTheLinkLimit(t *testing.T) {
	w := newWorld(t)
	w.rm("a")
	l := w.ledgers.take()
	for i := 0; ; i++ {
		err := unix.Link(filepath.Join(w.root, deadName, l.name), filepath.Join(w.root, deadName, deadTemp+benchName(i)))
		if err == syscall.EMLINK {
			break
		}
		if err != nil || i > 70000 {
			t.Skip("no limit in sight:", err)
		}
	}
	w.ledgers.keep(l)
	if refs := w.rm("b"); w.inodesOf(refs) != 2 {
		t.Errorf("%d inodes", w.inodesOf(refs))
	}
}

// Whatever happens to one record that shares an inode changes the ctime of all. What
// a gc that died had in its hands is ended by one sweep all the same, however many
// there are, and however busy the records are beside them.
func TestSweepOfSharedRecords(t *testing.T) {
	w := noGrace(t)
	refs := w.rm("taken1", "taken2", "taken3", "begun", "doomed", "gone", "busy")
	for _, ref := range refs {
		r, err := w.ReadTrash(ctx, ref)
		w.must(err)
		if r.Path == "busy" {
			continue
		}
		_, err = w.takeTrash(ref)
		w.must(err)
		switch r.Path {
		case "gone":
			w.must(w.removeHome(stepFile, r.File))
		case "begun":
			w.must(w.moveHome(stepDeadHome, r.File, stagedName, deadName))
			w.must(w.moveHome(stepDeadHome, r.File, deadName, begunPlace))
		case "doomed":
			w.must(w.moveHome(stepDeadHome, r.File, stagedName, deadName))
		}
	}
	time.Sleep(20 * time.Millisecond) // clocks of inodes are coarse
	before := time.Now()
	time.Sleep(20 * time.Millisecond)
	w.rm("another") // in the same ledger

	*w.clock = before
	var left []string
	for l, err := range w.Leftovers(ctx, nil, before) {
		w.must(err)
		if strings.HasPrefix(l.Place, deadName+"/"+deadTrash) {
			left = append(left, l.Record.Path)
			if l.Since.IsZero() {
				t.Errorf("%s: no time", l.Place)
			}
		}
	}
	if len(left) != 6 {
		t.Errorf("to be swept: %v", left)
	}
	var told int
	w.must(w.Sweep(ctx, before, func(d []Doom) error { told += len(d); return nil }))
	if names, err := w.names(deadName, deadTrash); len(names) > 0 || err != nil {
		t.Errorf("left in dead/: %v, %v", names, err)
	}
	if n := len(w.trash()); n != 6 || told != 2 { // taken1 to 3, gone, busy, another
		t.Errorf("%d records in trash, %d destroyed", n, told)
	}
}

// A home that a gc has taken a moment ago is not old because its record is shared.
func TestSweepSparesYoungShared(t *testing.T) {
	w := noGrace(t)
	for _, ref := range w.rm("a", "b") {
		r, err := w.ReadTrash(ctx, ref)
		w.must(err)
		_, err = w.takeTrash(ref)
		w.must(err)
		w.must(w.moveHome(stepDeadHome, r.File, stagedName, deadName))
	}
	*w.clock = time.Now().Add(-time.Hour)
	w.must(w.Sweep(ctx, *w.clock, func(d []Doom) error { t.Errorf("told %+v", d); return nil }))
	if names, err := w.names(deadName, ""); len(names) != 6 || err != nil { // a ledger, versions/, records and homes
		t.Errorf("in dead/: %v, %v", names, err)
	}
}
