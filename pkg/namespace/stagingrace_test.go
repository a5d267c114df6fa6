package namespace_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/namespace"
)

// between is what happens before the next read and the next punch, and the next fsyncs that fail.
type between struct {
	read  atomic.Pointer[func()]
	punch atomic.Pointer[func()]
	syncs atomic.Int64
}

type betweenFS struct {
	mdfs.FS
	b *between
}

type betweenDir struct {
	mdfs.Dir
	b *between
}

type betweenFile struct {
	mdfs.File
	b *between
}

func (f betweenFS) Root() mdfs.Dir { return betweenDir{f.FS.Root(), f.b} }

func (d betweenDir) OpenDir(name string) (mdfs.Dir, error) {
	dir, err := d.Dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return betweenDir{dir, d.b}, nil
}

func (d betweenDir) Again() (mdfs.Dir, error) {
	dir, err := d.Dir.Again()
	if err != nil {
		return nil, err
	}
	return betweenDir{dir, d.b}, nil
}

func (d betweenDir) Link(name string, to mdfs.Dir, newname string) error {
	return d.Dir.Link(name, to.(betweenDir).Dir, newname)
}

func (d betweenDir) Rename(name string, to mdfs.Dir, newname string, flags uint) error {
	return d.Dir.Rename(name, to.(betweenDir).Dir, newname, flags)
}

func (d betweenDir) OpenFile(name string, flag int, perm uint32) (mdfs.File, error) {
	fl, err := d.Dir.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return betweenFile{fl, d.b}, nil
}

func (f betweenFile) ReadAt(p []byte, off int64) (int, error) {
	if do := f.b.read.Swap(nil); do != nil {
		(*do)()
	}
	return f.File.ReadAt(p, off)
}

func (f betweenFile) Allocate(mode uint32, off, n int64) error {
	if do := f.b.punch.Swap(nil); do != nil {
		(*do)()
	}
	return f.File.Allocate(mode, off, n)
}

func (f betweenFile) Sync() error {
	if f.b.syncs.Add(-1) >= 0 {
		return &os.PathError{Op: "fsync", Path: "x", Err: syscall.ENOSPC}
	}
	return f.File.Sync()
}

// TestReleasedUnderReader: what a reader is about to get from the own body of a file
// that is being written is committed, packed and released before it does.
func TestReleasedUnderReader(t *testing.T) {
	w := stagingWorld(t)
	var b between
	w.md = func(md mdfs.FS) mdfs.FS { return betweenFS{md, &b} }
	d := dir(t, w.node("a"), "/proj")
	want := random(1, 9000)
	f := create(t, d, "f")
	write(t, f, 0, want)
	r := open(t, d, "f", syscall.O_RDONLY)
	defer r.Close()
	pack := func() {
		if err := f.Flush(ctx); err != nil {
			t.Error(err)
		}
		w.packStaged(true)
	}
	b.read.Store(&pack)
	got := make([]byte, len(want))
	if _, err := r.ReadAt(ctx, me, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("wrong bytes, or error %v", err)
	}
	closeFile(t, f)
}

// TestSyncFails: a filesystem that finds out at the fsync that it has no room for
// the bytes may have dropped them, and succeeds the next time. They are not taken for
// durable then.
func TestSyncFails(t *testing.T) {
	for _, mode := range []string{"new", "emptied", "appended"} {
		w := stagingWorld(t)
		var b between
		w.md = func(md mdfs.FS) mdfs.FS { return betweenFS{md, &b} }
		d := dir(t, w.node("a"), "/proj")
		put(t, d, "before", []byte("waits"))
		f := create(t, d, "f")
		off := int64(0)
		switch mode {
		case "emptied":
			write(t, f, 0, []byte("older"))
			closeFile(t, f)
			f = open(t, d, "f", syscall.O_WRONLY|syscall.O_TRUNC)
		case "appended":
			write(t, f, 0, []byte("old "))
			if err := f.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			off = 4
		}
		write(t, f, off, []byte("content"))
		b.syncs.Store(1)
		closeFile(t, f)
		wantType(t, d, "f", "uni")
		want := "content"
		if off > 0 {
			want = "old content"
		}
		same(t, mode, get(t, d, "f"), []byte(want))
	}
}

// TestPackedOnTheWay: a content that was packed and then replaced by another of the
// same write is no version; the pack is known to hold it in vain.
func TestPackedOnTheWay(t *testing.T) {
	w := stagingWorld(t)
	d := dir(t, w.node("a"), "/proj")
	put(t, d, "f", []byte("older"))
	f := open(t, d, "f", syscall.O_WRONLY|syscall.O_TRUNC)
	write(t, f, 0, []byte("first"))
	if err := f.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	w.packStaged(true)
	write(t, f, 5, []byte(", second"))
	closeFile(t, f)
	list, err := w.packers["a"].Plan(ctx)
	if err != nil || len(list) != 1 || list[0].Live != 0 || list[0].Members != 1 {
		t.Errorf("packs to rewrite: %+v, error %v; want that of the first content", list, err)
	}
	same(t, "f", get(t, d, "f"), []byte("first, second"))
}

// TestTouchedWhileReleased: what is done about a file's time while its body is being
// released stays.
func TestTouchedWhileReleased(t *testing.T) {
	at, omit := mdfs.TimeSet{Time: time.Unix(1_000_000_000, 5)}, mdfs.TimeSet{Omit: true}
	set := namespace.SetAttr{Atime: omit, Mtime: at}
	for name, touch := range map[string]func(d *namespace.Dir, f *namespace.File) error{
		"by name":   func(d *namespace.Dir, _ *namespace.File) error { _, err := d.Setattr(ctx, me, "f", set); return err },
		"by handle": func(_ *namespace.Dir, f *namespace.File) error { _, err := f.Setattr(ctx, me, set); return err },
		"with another content": func(d *namespace.Dir, _ *namespace.File) error {
			f, err := d.Open(ctx, me, "f", syscall.O_WRONLY|syscall.O_TRUNC)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(ctx, me, []byte("another"), 0)
			_, err2 := f.Setattr(ctx, me, set)
			return errors.Join(err, err2, f.Flush(ctx), f.Close())
		},
	} {
		w := stagingWorld(t)
		var b between
		w.md = func(md mdfs.FS) mdfs.FS { return betweenFS{md, &b} }
		d, e := dir(t, w.node("a"), "/proj"), dir(t, w.node("b"), "/proj")
		put(t, d, "f", random(1, 5000))
		f := open(t, e, "f", syscall.O_RDONLY)
		defer f.Close()
		w.packStaged(false)
		do := func() {
			if err := touch(e, f); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		b.punch.Store(&do)
		w.packStaged(true)
		if b.punch.Load() != nil {
			t.Errorf("%s: nothing was released", name)
		}
		a, err := d.Lookup(ctx, me, "f")
		if got := time.Unix(a.Mtim.Sec, int64(a.Mtim.Nsec)); err != nil || !got.Equal(at.Time) {
			t.Errorf("%s: mtime %v, error %v, want %v", name, got, err, at.Time)
		}
	}
}

// TestQuotaFull: a user who goes on trying with a full quota does not have the files
// of others packed a few at a time.
func TestQuotaFull(t *testing.T) {
	w := stagingWorld(t)
	var full room
	w.md = func(md mdfs.FS) mdfs.FS { return fullFS{md, &full} }
	d := dir(t, w.node("a"), "/proj")
	for i := range 10 {
		put(t, d, fmt.Sprint("others", i), []byte("waits"))
		full.slots.Store(1 << 30)
		_, _, err := d.Create(ctx, me, "f", syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, 0o644)
		wantErrno(t, "create", err, syscall.EDQUOT)
		full.slots.Store(0)
	}
	if n := len(w.objectKeys()); n != 1 {
		t.Errorf("%d packs, want one", n)
	}
}

// TestReplacedByLarge: what is staged and then replaced by a large content leaves no
// bytes in its own body.
func TestReplacedByLarge(t *testing.T) {
	for _, middle := range []bool{false, true} { // with another small content in between
		w := stagingWorld(t)
		d := dir(t, w.node("a"), "/proj")
		put(t, d, "f", random(1, stageLimit))
		replace := func(content []byte) {
			f := open(t, d, "f", syscall.O_WRONLY|syscall.O_TRUNC)
			write(t, f, 0, content)
			closeFile(t, f)
		}
		r := open(t, d, "f", syscall.O_RDONLY)
		defer r.Close()
		if middle {
			replace(random(2, stageLimit))
		}
		large := random(3, 2*stageLimit)
		replace(large)
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(w.meta, "tree", "f"), &st); err != nil || st.Blocks > 16 { // those of xattrs
			t.Errorf("%d blocks are left, error %v", st.Blocks, err)
		}
		same(t, "f", get(t, d, "f"), large)
	}
}

// TestOverwriteDamaged: a file whose own body is damaged can be given another content,
// and its version is as damaged as it was.
func TestOverwriteDamaged(t *testing.T) {
	w := stagingWorld(t)
	d := dir(t, w.node("a"), "/proj")
	put(t, d, "f", random(1, 5000))
	old := layout(t, d, "f").Slot
	fl, err := os.OpenFile(filepath.Join(w.meta, "tree", "f"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fl.WriteAt(make([]byte, 1000), 2000)
	if err := errors.Join(err, fl.Close()); err != nil {
		t.Fatal(err)
	}
	f := open(t, d, "f", syscall.O_WRONLY|syscall.O_TRUNC)
	write(t, f, 0, []byte("new"))
	closeFile(t, f)
	same(t, "f", get(t, d, "f"), []byte("new"))
	v, err := w.last.Version(ctx, old.Content)
	if err != nil || v.Slot == nil || v.Slot.Source.Sum != old.Source.Sum {
		t.Errorf("version %+v, error %v; want the old content", v, err)
	}
}
