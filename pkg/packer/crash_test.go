package packer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore/faultstore"
)

// staged makes files of every kind that a packer meets.
func (w *world) staged() (texts map[string]string, ids []objfmt.ID) {
	w.t.Helper()
	texts = map[string]string{"a": "a's text", "d/b": text(3000, 1), "d/c": "rewritten", "big": text(largeAbove+1, 2)}
	for _, p := range slices.Sorted(maps.Keys(texts)) {
		first := texts[p]
		if p == "d/c" {
			first = "first"
		}
		ids = append(ids, w.file(p, first))
	}
	w.must(rewrite(w.FS, "d/c", texts["d/c"]))
	return texts, ids
}

func all(texts map[string]string) []string { return slices.Sorted(maps.Keys(texts)) }

// atEachPoint runs what on a fresh world once for every time that it passes a fault
// point, with spec armed there.
func atEachPoint(t *testing.T, action string, prep func(*world), what func(*world) error, check func(*world, string)) {
	t.Helper()
	w := newWorld(t, policy)
	prep(w)
	stop := fault.Trace()
	err := what(w)
	seen := stop()
	w.must(err)
	for _, point := range slices.Sorted(maps.Keys(seen)) {
		for n := 1; n <= seen[point]; n++ {
			spec := fmt.Sprintf("%s=%s:%d", point, action, n)
			t.Run(spec, func(t *testing.T) {
				w := newWorld(t, policy)
				prep(w)
				disarm, err := fault.Arm(spec)
				w.must(err)
				err = what(w)
				if !disarm() {
					t.Fatal("not reached")
				}
				check(w, fmt.Sprint(err))
			})
		}
	}
}

// A packer dies at any point: after recovery everything can be read, nothing is
// left in the stores that nobody names, and another packs what is left.
func TestPackKilled(t *testing.T) {
	var texts map[string]string
	var ids []objfmt.ID
	atEachPoint(t, "dead", func(w *world) { texts, ids = w.staged() },
		func(w *world) error { _, err := w.Pack(ctx, PackOptions{Release: true}); return err },
		func(w *world, _ string) {
			w.wantText(texts)
			w.recover()
			w.wantText(texts)
			w.wantNoOrphans(ids...)
			other := w.packer(w.open("node2"), policy)
			other.c.Dead = func([4]byte) bool { return true }
			if _, err := other.Pack(ctx, PackOptions{All: true, Release: true}); err != nil {
				w.t.Error(err)
			}
			w.wantPacked(all(texts)...)
			w.wantText(texts)
			w.wantNoOrphans(ids...)
		})
}

// A single error anywhere: the same packer goes on, without recovery by others.
func TestPackError(t *testing.T) {
	var texts map[string]string
	var ids []objfmt.ID
	atEachPoint(t, "error", func(w *world) { texts, ids = w.staged() },
		func(w *world) error { _, err := w.Pack(ctx, PackOptions{}); return err },
		func(w *world, why string) {
			clear(w.troubled)
			w.pack(PackOptions{All: true})
			w.wantText(texts)
			w.wantPacked(all(texts)...)
			if n := len(w.names("packs/open")); n != 0 {
				w.t.Errorf("%d open packs are left after %s", n, why)
			}
			w.recover()
			w.wantNoOrphans(ids...)
		})
}

// The stores of the pack fail, or never answer and the packer is stopped.
func TestPackStoreFaults(t *testing.T) {
	for name, do := range map[string]faultstore.Action{"unavailable": faultstore.Unavailable(), "full": faultstore.NoSpace(), "hang": faultstore.Hang()} {
		for failing := 1; failing <= 2; failing++ {
			t.Run(fmt.Sprint(name, failing), func(t *testing.T) {
				w := newWorld(t, policy)
				texts, ids := w.staged()
				for _, s := range w.stores[:failing] {
					s.Inject(faultstore.Fault{Op: faultstore.Put, Do: do})
				}
				c, stop := context.WithTimeout(ctx, 300*time.Millisecond)
				defer stop()
				w.Pack(c, PackOptions{All: true})
				for _, s := range w.stores {
					s.Heal()
				}
				w.wantText(texts)
				w.recover()
				w.wantNoOrphans(ids...)
				if _, err := w.packer(w.FS, policy).Pack(ctx, PackOptions{All: true}); err != nil {
					t.Error(err)
				}
				w.wantPacked(all(texts)...)
				w.wantText(texts)
			})
		}
	}
}

// A repack dies at any point: everything can be read, and another run ends it.
func TestRepackKilled(t *testing.T) {
	texts := map[string]string{"1/live": "one", "2/live": "two", "3/live": text(3000, 3)}
	var ids []objfmt.ID
	prep := func(w *world) { ids = w.halfDead(texts) }
	atEachPoint(t, "dead", prep, func(w *world) error { return w.repackAll(w.Packer) },
		func(w *world, _ string) {
			w.wantText(texts)
			w.recover()
			w.wantText(texts)
			other := w.packer(w.open("node2"), policy)
			w.must(w.repackAll(other))
			w.wantText(texts)
			w.recover()
			w.wantText(texts)
			w.wantNoOrphans(ids...)
			if list, err := other.Plan(ctx); err != nil || len(list) != 0 {
				w.t.Errorf("still to be done: %+v, %v", list, err)
			}
		})
}

// halfDead makes a pack for each of the files, of which the rest is dead.
func (w *world) halfDead(texts map[string]string) (ids []objfmt.ID) {
	w.t.Helper()
	for _, p := range all(texts) {
		ids = append(ids, w.file(p, texts[p]))
		for i := range 2 {
			w.file(fmt.Sprintf("%s.dead%d", p, i), text(3000, i))
		}
		w.pack(PackOptions{All: true})
		for i := range 2 {
			w.remove(fmt.Sprintf("%s.dead%d", p, i))
		}
	}
	w.gc(w.FS)
	return ids
}

func (w *world) repackAll(p *Packer) error {
	list, err := p.Plan(ctx)
	if err != nil {
		return err
	}
	_, err = p.Repack(ctx, list, nil)
	return err
}

func (w *world) remove(p string) {
	w.t.Helper()
	w.must(removeAs(w.FS, p))
}

func removeAs(m *metadata.FS, p string) error {
	return in(m, p, func(d mdfs.Dir, name string) error { return m.Unlink(ctx, who(p), d, name) })
}
