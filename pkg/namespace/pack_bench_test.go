package namespace_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"marfs/pkg/objstore/faultstore"
)

// BenchmarkPackReads opens, reads and closes 20 k members of 4 KiB of one pack, each
// once, on stores that answer after 1 ms: in order, and at random; by one reader and
// by eight; and without the memory of packs.
func BenchmarkPackReads(b *testing.B) {
	const files = 20_000
	inOrder := make([]int, files)
	for i := range inOrder {
		inOrder[i] = i
	}
	atRandom := rand.New(rand.NewPCG(1, 2)).Perm(files)
	for _, c := range []struct {
		name    string
		order   []int
		readers int
		ahead   int64
	}{
		{"order", inOrder, 1, 0},
		{"order-8", inOrder, 8, 0},
		{"random", atRandom, 1, 0},
		{"random-8", atRandom, 8, 0},
		{"some-at-random", atRandom[:files/100], 1, 0},
		{"order-plain", inOrder[:files/10], 1, 1},
		{"random-plain", atRandom[:files/10], 1, 1},
		{"random-plain-8", atRandom[:files/10], 8, 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := newPackWorld(b)
			w.ahead = c.ahead
			f := w.node("a")
			d := dir(b, f, "/proj")
			p := w.pack(b, w.last, sizes(files, 4096))
			for _, s := range w.stores {
				s.Inject(faultstore.Fault{Op: faultstore.Get, Do: faultstore.Delay(time.Millisecond)})
			}
			w.asked()
			for b.Loop() {
				var next atomic.Int64
				var wg sync.WaitGroup
				for range c.readers {
					wg.Go(func() {
						for i := next.Add(1) - 1; i < int64(len(c.order)); i = next.Add(1) - 1 {
							p.read(b, d, c.order[i])
						}
					})
				}
				wg.Wait()
			}
			gets, bytes := w.asked()
			b.ReportMetric(float64(b.N*len(c.order))/b.Elapsed().Seconds(), "files/s")
			b.ReportMetric(float64(gets)/float64(b.N), "GETs")
			b.ReportMetric(float64(bytes)/float64(b.N)/mib, "MiB")
		})
	}
}
