package repo

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"marfs/pkg/erasure"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/objstore/dirstore"
)

var benchGeometry = objfmt.Geometry{Data: 4, Parity: 2, Block: 1 << 20}

// nullStore takes everything and keeps nothing.
type nullStore struct{ objstore.Store }

func (nullStore) Put(_ context.Context, _ string, r io.Reader, _ int64) error {
	_, err := io.Copy(onlyWriter{}, r)
	return err
}

type onlyWriter struct{}

func (onlyWriter) Write(p []byte) (int, error) { return len(p), nil }

func benchRepo(b *testing.B, open func(i int) objstore.Store) *Repo {
	b.Helper()
	pod := Pod{Name: "pod0", Weight: 1}
	for i := range benchGeometry.Shards() {
		pod.Stores = append(pod.Stores, Store{Store: open(i), Name: fmt.Sprint("s", i)})
	}
	r, err := New(Config{Name: "bench", Geometry: benchGeometry, Pods: []Pod{pod}})
	if err != nil {
		b.Fatal(err)
	}
	return r
}

func writeObject(b *testing.B, r *Repo, key string, data []byte, times int) objfmt.Layout {
	b.Helper()
	w, err := r.Create(b.Context(), key)
	if err != nil {
		b.Fatal(err)
	}
	for range times {
		if _, err := w.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	l, err := w.Close()
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// BenchmarkWriteNull is the whole write path without stores: 256 MiB objects in
// writes of 1 MiB. "of-bare" compares it with copying, encoding and checksumming
// alone, on one core; the two take turns.
func BenchmarkWriteNull(b *testing.B) {
	r := benchRepo(b, func(int) objstore.Store { return nullStore{} })
	data := content(1, 1<<20)
	const times = 256
	stripe, err := erasure.NewStripe(benchGeometry, benchGeometry.Block)
	if err != nil {
		b.Fatal(err)
	}
	var writes, bares []time.Duration
	i := 0
	for b.Loop() {
		i++
		start := time.Now()
		writeObject(b, r, fmt.Sprintf("bench/%d", i), data, times)
		middle := time.Now()
		for k := range times {
			stripe.Fill(data)
			if stripe.Full() {
				if err := stripe.Seal(objfmt.ID{1}, int64(k/4)); err != nil {
					b.Fatal(err)
				}
				stripe.Reset()
			}
		}
		writes, bares = append(writes, middle.Sub(start)), append(bares, time.Since(middle))
	}
	report(b, writes, bares, int64(len(data)*times))
}

func report(b *testing.B, times, bases []time.Duration, bytes int64) {
	slices.Sort(times)
	slices.Sort(bases)
	t, base := times[len(times)/2], bases[len(bases)/2]
	b.ReportMetric(float64(bytes)/t.Seconds()/1e6, "MB/s")
	b.ReportMetric(base.Seconds()/t.Seconds(), "of-bare")
}

// BenchmarkSmallNull writes 4 KiB objects.
func BenchmarkSmallNull(b *testing.B) {
	r := benchRepo(b, func(int) objstore.Store { return nullStore{} })
	data := content(1, 4096)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		writeObject(b, r, fmt.Sprintf("bench/%d", i), data, 1)
	}
}

func dirStores(b *testing.B) func(i int) objstore.Store {
	dir := b.TempDir()
	return func(i int) objstore.Store {
		name := filepath.Join(dir, fmt.Sprint("s", i))
		if err := dirstore.Create(name); err != nil {
			b.Fatal(err)
		}
		s, err := dirstore.Open(name, dirstore.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		return s
	}
}

// BenchmarkWriteDir writes 64 MiB objects to directories. "of-bare" compares with
// six goroutines that write and fsync the same bytes to files.
func BenchmarkWriteDir(b *testing.B) {
	open := dirStores(b)
	r := benchRepo(b, open)
	data := content(1, 1<<20)
	const times = 64
	dir := b.TempDir()
	var writes, bares []time.Duration
	i := 0
	for b.Loop() {
		i++
		start := time.Now()
		l := writeObject(b, r, fmt.Sprintf("bench/%d", i), data, times)
		writes = append(writes, time.Since(start))
		start = time.Now()
		rawWrite(b, dir, data, times/benchGeometry.Data)
		bares = append(bares, time.Since(start))
		if err := r.Remove(b.Context(), fmt.Sprintf("bench/%d", i), l); err != nil {
			b.Fatal(err)
		}
	}
	report(b, writes, bares, int64(len(data)*times))
}

func rawWrite(b *testing.B, dir string, data []byte, times int) {
	done := make(chan error)
	for i := range benchGeometry.Shards() {
		go func() {
			f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
			for k := 0; k < times && err == nil; k++ {
				_, err = f.Write(data)
			}
			if err == nil {
				err = f.Sync()
			}
			f.Close()
			done <- err
		}()
	}
	for range benchGeometry.Shards() {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadDir reads a cached 64 MiB object in pieces, whole, and with a shard
// lost. "of-bare" compares with pread(2) of one file in the same pieces.
func BenchmarkReadDir(b *testing.B) {
	r := benchRepo(b, dirStores(b))
	data := content(1, 64<<20)
	l := writeObject(b, r, "bench/read", data, 1)
	raw := filepath.Join(b.TempDir(), "raw")
	if err := os.WriteFile(raw, data, 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(raw)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	run := func(name string, piece int) {
		b.Run(fmt.Sprintf("%s/%dKiB", name, piece>>10), func(b *testing.B) {
			p := make([]byte, piece)
			var reads, bares []time.Duration
			off := 0
			for b.Loop() {
				start := time.Now()
				if _, err := r.ReadAt(b.Context(), "bench/read", l, p, int64(off)); err != nil {
					b.Fatal(err)
				}
				middle := time.Now()
				if _, err := f.ReadAt(p, int64(off)); err != nil {
					b.Fatal(err)
				}
				reads, bares = append(reads, middle.Sub(start)), append(bares, time.Since(middle))
				off = (off + piece) % len(data)
			}
			report(b, reads, bares, int64(piece))
		})
	}
	for _, piece := range []int{4 << 10, 128 << 10, 1 << 20, 16 << 20} {
		run("whole", piece)
	}
	if err := r.pods["pod0"].place("bench/read", l.Geometry)[1].Delete(b.Context(), "bench/read"); err != nil {
		b.Fatal(err)
	}
	for _, piece := range []int{4 << 10, 1 << 20, 16 << 20} {
		run("shard-lost", piece)
	}
}
