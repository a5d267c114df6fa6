package namespace_test

import (
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/mdfs/posix"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// keepObjects is for a gc whose objects nobody misses.
type keepObjects struct{}

func (keepObjects) Delete(context.Context, objfmt.ObjectRef) error { return nil }
func (keepObjects) DeletePrefix(context.Context, objfmt.ObjectID, func(uint32) bool) error {
	return nil
}

// gc destroys everything in the trash, days later, and tells how many.
func (w *world) gc() int {
	w.t.Helper()
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	md, err := posix.Open(w.meta)
	must(err)
	defer md.Close()
	clock := func() time.Time { return time.Now().Add(48 * time.Hour) }
	m, err := metadata.Open(ctx, md, metadata.Options{Namespace: "proj", Node: "gc", Grace: time.Hour, Objects: keepObjects{}, Clock: clock, SkipTest: true})
	must(err)
	defer m.Close()
	days, err := m.TrashDays(ctx)
	must(err)
	var refs []metadata.TrashRef
	for _, day := range days {
		for ref, err := range m.Trash(ctx, day) {
			must(err)
			refs = append(refs, ref)
		}
	}
	done, err := m.Expire(ctx, refs, clock(), nil)
	must(err)
	return done.Destroyed
}

// TestOpenFilesOutliveGC: what a mount has open is destroyed once the last of its
// handles is closed, whether it was opened or made, on whichever mount.
func TestOpenFilesOutliveGC(t *testing.T) {
	w := newWorld(t)
	a, b := dir(t, w.node("a"), "/proj"), dir(t, w.node("b"), "/proj")
	want := random(1, stripe)
	made := create(t, a, "f")
	write(t, made, 0, want)
	if err := made.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	opened, err := b.Open(ctx, me, "f", syscall.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Unlink(ctx, me, "f"); err != nil {
		t.Fatal(err)
	}
	for _, f := range []io.Closer{opened, made} {
		if n := w.gc(); n != 0 {
			t.Errorf("%d destroyed while the file is open", n)
		}
		got, err := io.ReadAll(io.NewSectionReader(readerAt{made}, 0, 1<<40))
		if err != nil {
			t.Fatal(err)
		}
		same(t, "deleted file", got, want)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.gc(); n != 1 {
		t.Errorf("%d destroyed, want the file", n)
	}
	if _, err := b.Open(ctx, me, "f", syscall.O_RDONLY); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("open: %v", err)
	}
}
