package namespace_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/namespace"
)

func open(t testing.TB, d *namespace.Dir, name string, flags uint32) *namespace.File {
	t.Helper()
	f, err := d.Open(ctx, me, name, flags)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	return f
}

func wantErrno(t testing.TB, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: have %v, want %v", what, err, want)
	}
}

// TestEmptiedUnderReaders empties and writes a file over and over while others read
// it: they get the beginning of what is written, perhaps nothing, and no zeros.
func TestEmptiedUnderReaders(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	content := bytes.Repeat([]byte("x"), 100_000)
	put(t, d, "f", content)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			f := open(t, d, "f", syscall.O_RDONLY)
			defer f.Close()
			p := make([]byte, len(content))
			for {
				select {
				case <-stop:
					return
				default:
				}
				n, err := f.ReadAt(ctx, me, p, 0)
				if err != nil && err != io.EOF || !bytes.HasPrefix(content, p[:n]) {
					t.Errorf("read %d bytes, error %v; they are not the beginning of what was written", n, err)
					return
				}
			}
		})
	}
	for range 200 {
		f := open(t, d, "f", syscall.O_WRONLY|syscall.O_TRUNC)
		write(t, f, 0, content)
		other := open(t, d, "f", syscall.O_WRONLY|syscall.O_TRUNC)
		write(t, other, 0, content)
		if err := errors.Join(f.Flush(ctx), other.Flush(ctx), f.Close(), other.Close()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	readers.Wait()
}

// TestEmptiedByAReader: O_RDONLY|O_TRUNC empties the file for good.
func TestEmptiedByAReader(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	put(t, d, "f", random(1, 1000))
	f := open(t, d, "f", syscall.O_RDONLY|syscall.O_TRUNC)
	if err := errors.Join(f.Flush(ctx), f.Close()); err != nil {
		t.Fatal(err)
	}
	same(t, "emptied", get(t, d, "f"), nil)
	same(t, "elsewhere", get(t, dir(t, w.node("b"), "/proj"), "f"), nil)
}

// TestTwoHandlesWrite: handles of one file write one content, each where it says.
func TestTwoHandlesWrite(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	a := create(t, d, "f")
	b, c := open(t, d, "f", syscall.O_WRONLY), open(t, d, "f", syscall.O_WRONLY|syscall.O_APPEND)
	write(t, a, 0, []byte("aa"))
	write(t, b, 2, []byte("bb"))
	write(t, c, 4, []byte("cc"))
	write(t, a, 6, []byte("aa"))
	_, err := b.WriteAt(ctx, me, []byte("b"), 4)
	wantErrno(t, "write before the end", err, syscall.EOPNOTSUPP)
	if err := b.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	same(t, "after fsync of one, elsewhere", get(t, dir(t, w.node("b"), "/proj"), "f"), []byte("aabbccaa"))

	e := open(t, d, "f", syscall.O_WRONLY|syscall.O_TRUNC)
	write(t, e, 0, []byte("e"))
	_, err = a.WriteAt(ctx, me, []byte("a"), 8)
	wantErrno(t, "write to what another has emptied", err, syscall.ESTALE)
	write(t, c, 1, []byte("c"))
	if err := a.Flush(ctx); err != nil {
		t.Error(err)
	}
	same(t, "after the close of one that has no part in it, elsewhere",
		get(t, dir(t, w.node("c"), "/proj"), "f"), []byte("aabbccaa"))
	for _, f := range []*namespace.File{a, b, c, e} {
		if err := errors.Join(f.Flush(ctx), f.Close()); err != nil {
			t.Error(err)
		}
	}
	same(t, "in the end", get(t, d, "f"), []byte("ec"))
}

// TestSyncedElsewhere: a file that another node has synced and goes on writing is busy.
func TestSyncedElsewhere(t *testing.T) {
	w := newWorld(t)
	a, b := dir(t, w.node("a"), "/proj"), dir(t, w.node("b"), "/proj")
	f := create(t, a, "f")
	write(t, f, 0, []byte("synced"))
	if err := f.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	_, err := b.Open(ctx, me, "f", syscall.O_WRONLY|syscall.O_TRUNC)
	wantErrno(t, "open with O_TRUNC", err, syscall.EBUSY)
	size := int64(3)
	_, err = b.Setattr(ctx, me, "f", namespace.SetAttr{Size: &size, Atime: mdfs.TimeSet{Omit: true}, Mtime: mdfs.TimeSet{Omit: true}})
	wantErrno(t, "truncate", err, syscall.EBUSY)
	if err := errors.Join(f.Flush(ctx), f.Close()); err != nil {
		t.Fatal(err)
	}
	put(t, b, "f", []byte("free again"))
}

// TestCutWhileWriting: ftruncate to 0 under a writer counts at once, for all.
func TestCutWhileWriting(t *testing.T) {
	w := newWorld(t)
	d, e := dir(t, w.node("a"), "/proj"), dir(t, w.node("b"), "/proj")
	f := create(t, d, "f")
	write(t, f, 0, random(1, 1000))
	var none int64
	if _, err := d.Setattr(ctx, me, "f", namespace.SetAttr{Size: &none, Atime: mdfs.TimeSet{Omit: true}, Mtime: mdfs.TimeSet{Omit: true}}); err != nil {
		t.Fatal(err)
	}
	same(t, "cut", get(t, d, "f"), nil)
	write(t, f, 0, []byte("again"))
	if err := f.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	same(t, "elsewhere", get(t, e, "f"), []byte("again"))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestGaps: what one call leaves out is bounded, and a call that nobody waits for
// any more ends.
func TestGaps(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	f := create(t, d, "f")
	write(t, f, 0, []byte("x"))
	_, err := f.WriteAt(ctx, me, []byte("x"), 1<<40)
	wantErrno(t, "write far beyond the end", err, syscall.EOPNOTSUPP)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = f.WriteAt(gone, me, []byte("x"), 1<<30)
	wantErrno(t, "write of a killed process", err, syscall.EINTR)
	if err := errors.Join(f.Flush(ctx), f.Close()); err != nil {
		t.Fatal(err)
	}
	same(t, "f", get(t, d, "f"), []byte("x"))
}

// TestClosedUnderWriters closes everything while files are open: what was being
// replaced stays as it was, what is new is kept.
func TestClosedUnderWriters(t *testing.T) {
	w := newWorld(t)
	fs := w.node("a")
	d := dir(t, fs, "/proj")
	old := random(1, 1000)
	put(t, d, "old", old)
	put(t, d, "synced", old)
	write(t, open(t, d, "old", syscall.O_WRONLY|syscall.O_TRUNC), 0, []byte("half of"))
	write(t, create(t, d, "new"), 0, []byte("half of"))
	f := open(t, d, "synced", syscall.O_WRONLY|syscall.O_TRUNC)
	write(t, f, 0, []byte("half"))
	if err := f.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	write(t, f, 4, []byte(" of"))
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
	e := dir(t, w.node("b"), "/proj")
	same(t, "old", get(t, e, "old"), old)
	same(t, "new", get(t, e, "new"), []byte("half of"))
	same(t, "synced", get(t, e, "synced"), []byte("half of"))
}

// TestIdleWriter keeps a file open for a day: its object ends in time, and what
// follows goes on behind it.
func TestIdleWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := dir(t, w.node("a"), "/proj")
		f := create(t, d, "f")
		content := random(1, stripe+1000)
		write(t, f, 0, content[:stripe])
		time.Sleep(24 * time.Hour)
		r := open(t, d, "f", syscall.O_RDONLY)
		l, err := d.Layout(ctx, me, "f", false)
		if err != nil || len(l.Objects) > 0 {
			t.Errorf("%d objects are published, error %v; want none", len(l.Objects), err)
		}
		write(t, f, stripe, content[stripe:])
		if err := errors.Join(f.Flush(ctx), f.Close()); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(readerAt{r}, 0, 1<<40))
		if err != nil {
			t.Fatal(err)
		}
		same(t, "f", got, content)
		if l, err := d.Layout(ctx, me, "f", true); err != nil || len(l.Objects) != 2 {
			t.Errorf("%d objects, error %v; want 2", len(l.Objects), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}
