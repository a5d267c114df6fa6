package metadata

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"marfs/pkg/mdfs"
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

// fakeCommit gives a file a content in an object without the cost of fsync.
func (w *world) fakeCommit(fl *File) objfmt.Slot {
	top, _, err := fl.newest()
	w.must(err)
	r := ref(w.newObjectID(), 0, 100)
	w.store.put(r)
	top.State, top.Session, top.Size = objfmt.Final, objfmt.ID{}, 100
	top.Content, top.Source = w.newID(), objfmt.Source{Kind: objfmt.SourceObj, Stored: 100, Sum: 1, Object: r}
	top, err = fl.publish(stepPublish, top, top)
	w.must(err)
	w.must(fl.placeHome(0))
	return top
}

// expireWith runs gc over everything in chunks, with so many workers.
func (w *world) expireWith(workers int) (done Expired) {
	var g errgroup.Group
	var mu sync.Mutex
	g.SetLimit(workers)
	for refs := range slices.Chunk(w.trash(), 256) {
		g.Go(func() error {
			d, err := w.Expire(ctx, refs, time.Now().Add(time.Hour), nil)
			mu.Lock()
			defer mu.Unlock()
			done.Destroyed, done.Kept = done.Destroyed+d.Destroyed, done.Kept+d.Kept
			return err
		})
	}
	w.must(g.Wait())
	return done
}

func benchExpire(b *testing.B, fill func(w *world, n int)) {
	for _, workers := range []int{1, 16} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			w := newBenchWorld(b)
			w.o.Grace = 0
			w.o.Clock = func() time.Time { return time.Now().Add(time.Hour) }
			fill(w, b.N)
			w.FS = w.open(w.o)
			b.ResetTimer()
			before := cpuTime(b)
			defer func() { b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op") }()
			if done := w.expireWith(workers); done.Destroyed != b.N {
				b.Errorf("%+v, want %d destroyed", done, b.N)
			}
		})
	}
}

// cpuTime is what the process has used: on a busy machine it says more than the clock.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func BenchmarkExpireDeletions(b *testing.B) {
	benchExpire(b, func(w *world, n int) {
		for i := range n {
			fl, err := w.Create(ctx, me("f"), w.Tree(), benchName(i), 0o644)
			w.must(err)
			w.fakeCommit(fl)
			w.must(fl.Close())
			w.must(w.Unlink(ctx, me("f"), w.Tree(), benchName(i)))
		}
	})
}

// BenchmarkExpireVersions: each file has a hundred.
func BenchmarkExpireVersions(b *testing.B) {
	benchExpire(b, func(w *world, n int) {
		var fl *File
		for i := range n {
			var err error
			if i%100 == 0 {
				fl, err = w.Create(ctx, me("f"), w.Tree(), benchName(i), 0o644)
				w.must(err)
				b.Cleanup(func() { fl.Close() })
			}
			s := w.fakeCommit(fl)
			r := objfmt.Record{Kind: objfmt.RecordVersion, File: fl.id, Content: s.Content, When: time.Now(), Slot: &s}
			bytes, err := r.Encode()
			w.must(err)
			tmp, err := w.putTemp(stepVersion, false, func(f mdfs.File) error { return writeAt(stepVersion, f, bytes, 0) })
			w.must(err)
			_, err = w.enqueue(stepVersion, deadName, tmp, r, false)
			w.must(err)
			w.must(w.placeVersion(stepVersion, deadName, tmp, r, true, false))
			w.must(w.dropTemp(tmp))
			top := s
			top.Content = w.newID()
			_, err = fl.publish(stepPublish, s, top)
			w.must(err)
			w.must(fl.removeSlot(s.Gen))
			w.must(fl.removeSlot(s.Gen - 1))
		}
	})
}

// BenchmarkPack is what a pack costs beside its upload, for staged files and for
// those of a batch: ns/op is for the whole pack.
func BenchmarkPack(b *testing.B) {
	stage := func(w *world, names []string) []PackMember {
		var list []PackMember
		for _, name := range names {
			fl, err := w.Create(ctx, me(name), w.Tree(), name, 0o644)
			w.must(err)
			own, err := fl.Own(ctx, me(name))
			w.must(err)
			// As Commit, without its fsync.
			s, err := fl.publish(stepPublish, own.base, objfmt.Slot{State: objfmt.Final, Content: numbered(own.id, ownContents), Size: 24, MTime: time.Now(),
				Source: objfmt.Source{Kind: objfmt.SourceOwn, Stored: 24, Sum: 1}})
			w.must(err)
			list = append(list, PackMember{Slot: s, Offset: 24 * int64(len(list)), Sum: 1})
			w.must(fl.Close())
		}
		return list
	}
	batch := func(w *world, names []string) []PackMember {
		list, err := w.newMembers(names...)
		w.must(err)
		return list
	}
	for kind, prepare := range map[string]func(w *world, names []string) []PackMember{"staged": stage, "batch": batch} {
		for _, n := range []int{1000, 16_000, 64_000} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				w := newBenchWorld(b)
				b.StopTimer()
				for round := range b.N {
					list := prepare(w, numberedNames(fmt.Sprintf("r%d-", round), n))
					w.must(w.md.Sync())
					b.StartTimer()
					p, err := w.BeginPack(ctx, list)
					w.must(err)
					won, err := p.Publish(ctx, ref(p.Object, 0, 1<<30))
					if w.must(err); won != n {
						b.Fatalf("%d published", won)
					}
					w.must(p.Finish(ctx))
					b.StopTimer()
				}
				b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "members/s")
			})
		}
	}
}
