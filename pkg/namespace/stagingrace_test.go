package namespace_test

import (
	"bytes"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	"marfs/pkg/mdfs"
)

// between is what happens before the next read, and the next fsyncs that fail.
type between struct {
	read  atomic.Pointer[func()]
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
