package metadata

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
