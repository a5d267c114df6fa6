package metadata

import (
	"testing"

	"marfs/pkg/mdfs"
)

// A record goes back to a day whose directories have been removed meanwhile, however
// they came to be held open.
func TestBackToAPrunedDay(t *testing.T) {
	for name, hold := range map[string]func(w *world, ref TrashRef){
		"read":    func(w *world, ref TrashRef) { _, err := w.ReadTrash(ctx, ref); w.must(err) },
		"made in": func(w *world, ref TrashRef) { w.must(w.inMade(ref.dir(), func(mdfs.Dir) error { return nil })) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.file("f", "text")
			w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
			w.FS = w.open(w.o)
			ref := w.trash()[0]
			hold(w, ref)
			r, err := w.ReadTrash(ctx, ref)
			w.must(err)
			taken, err := w.takeTrash(ref)
			w.must(err)
			w.must(w.PruneDay(ctx, ref.Day))
			w.must(w.backToTrash(taken, r))
			if refs := w.trash(); len(refs) != 1 || refs[0] != ref {
				t.Errorf("records %v, want %v", refs, ref)
			}
		})
	}
}
