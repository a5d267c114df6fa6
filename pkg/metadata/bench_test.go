package metadata

import (
	"fmt"
	"testing"
	"time"

	"marfs/pkg/objfmt"
)

// The cost of the operations that an untar, an ls -l and an rm -rf consist of,
// on the filesystem of TMPDIR.

func newBenchWorld(b *testing.B) *world {
	now := time.Now()
	w := &world{t: b, root: b.TempDir(), store: &store{}, clock: &now}
	md := w.mount()
	w.must(Init(md, "test"))
	md.Close()
	w.o = Options{Namespace: "test", Node: "node1", Grace: time.Hour, Objects: w.store, SkipTest: true}
	w.FS = w.open(w.o)
	return w
}

func benchName(i int) string { return fmt.Sprintf("f%d", i) }

func (w *world) benchFile(name string, commit bool) {
	fl, err := w.Create(ctx, me(name), w.Tree(), name, 0o644)
	w.must(err)
	defer fl.Close()
	if commit {
		w.must(w.commitOwn(fl, "four bytes and some more"))
	}
}

func BenchmarkCreate(b *testing.B) {
	w := newBenchWorld(b)
	for i := range b.N {
		w.benchFile(benchName(i), false)
	}
}

func BenchmarkCreateCommitSmall(b *testing.B) {
	w := newBenchWorld(b)
	for i := range b.N {
		w.benchFile(benchName(i), true)
	}
}

func BenchmarkOpenNewest(b *testing.B) {
	w := newBenchWorld(b)
	w.benchFile("f", true)
	for b.Loop() {
		fl, err := w.Open(ctx, w.Tree(), "f")
		w.must(err)
		_, err = fl.Newest(ctx)
		w.must(err)
		fl.Close()
	}
}

func BenchmarkUnlink(b *testing.B) {
	w := newBenchWorld(b)
	for i := range b.N {
		w.benchFile(benchName(i), i == 0)
		if i > 0 { // committed without the cost of its fsync
			fl, err := w.Open(ctx, w.Tree(), benchName(i))
			w.must(err)
			top, _, err := fl.newest()
			w.must(err)
			top.State, top.Session = objfmt.Final, objfmt.ID{}
			_, err = fl.publish(stepPublish, top, top)
			w.must(err)
			fl.Close()
		}
	}
	b.ResetTimer()
	for i := range b.N {
		w.must(w.Unlink(ctx, me(benchName(i)), w.Tree(), benchName(i)))
	}
}
