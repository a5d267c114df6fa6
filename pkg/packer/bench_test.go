package packer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// BenchmarkIngest stages 4 KiB files by four writers, as a mount does, with and
// without a packer at work in the background. ns/op is for one file.
func BenchmarkIngest(b *testing.B) {
	for _, run := range []string{"alone", "packing"} {
		b.Run(run, func(b *testing.B) {
			o := policy
			o.TargetSize, o.Linger, o.MinFiles, o.MaxAge = 64<<20, 100*time.Millisecond, 1000, time.Second
			w := newWorld(b, o)
			c, stop := context.WithCancel(ctx)
			var done sync.WaitGroup
			if run == "packing" {
				done.Go(func() { w.Run(c) })
			}
			content := text(4096, 1)
			var n atomic.Int64
			b.SetParallelism(2)
			b.ResetTimer()
			before := cpu()
			b.RunParallel(func(pb *testing.PB) {
				me := n.Add(1)
				for i := 0; pb.Next(); i++ {
					w.file(fmt.Sprintf("w%d/d%d/f%d", me, i/1000, i), content)
				}
			})
			b.StopTimer()
			b.ReportMetric(float64(cpu()-before)/1e3/float64(b.N), "cpu-µs/op")
			backlog, err := w.Backlog(ctx)
			w.must(err)
			b.ReportMetric(100*(1-float64(backlog.Files)/float64(b.N)), "%packed")
			stop()
			done.Wait()
		})
	}
}

// cpu is what this process has used of the processors.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPack packs staged files of 4 KiB, and says what one costs.
func BenchmarkPack(b *testing.B) {
	o := policy
	o.TargetSize = 256 << 20
	w := newWorld(b, o)
	content := text(4096, 1)
	for i := range b.N {
		w.file(fmt.Sprintf("d%d/f%d", i/1000, i), content)
	}
	b.ResetTimer()
	before := cpu()
	r := w.pack(PackOptions{All: true})
	b.ReportMetric(float64(cpu()-before)/1e3/float64(b.N), "cpu-µs/op")
	b.StopTimer()
	if r.Files != int64(b.N) {
		b.Fatalf("%+v", r)
	}
}
