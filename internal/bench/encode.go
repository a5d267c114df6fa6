package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/klauspost/reedsolomon"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/repo"
)

// discard is a store that takes everything and keeps nothing.
type discard struct{}

func (discard) Put(_ context.Context, _ string, r io.Reader, _ int64) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
func (discard) Get(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return nil, objstore.ErrUnavailable
}
func (discard) Stat(context.Context, string) (objstore.Info, error) {
	return objstore.Info{}, objstore.ErrUnavailable
}
func (discard) Delete(context.Context, string) error { return nil }
func (discard) List(context.Context, string, string) iter.Seq2[objstore.Info, error] {
	return func(func(objstore.Info, error) bool) {}
}

var geometry = objfmt.Geometry{Data: 4, Parity: 2, Block: 1 << 20}

// encode compares a repo's whole write path over discarding stores with a bare
// loop of reedsolomon.Encode and checksums over cells that fit the cache.
func encode(ctx context.Context, o options) error {
	var stores []repo.Store
	for i := range geometry.Shards() {
		stores = append(stores, repo.Store{Store: discard{}, Name: fmt.Sprint("discard", i)})
	}
	r, err := repo.New(repo.Config{Name: "bench", Geometry: geometry, MinWrite: 5,
		Pods: []repo.Pod{{Name: "pod0", Weight: 1, Stores: stores}}})
	if err != nil {
		return err
	}
	res := row{name: "encode + checksum, 4+2", unit: "MB/s", aim: 0.85, note: "repo over discarding stores / reedsolomon.Encode + CRC-64 on 64 KiB cells, one goroutine"}
	for i := range 2*o.rounds + 1 {
		ours, err := encodeRepo(ctx, r, fmt.Sprint("bench/", i), o.size)
		if err != nil {
			return err
		}
		theirs, err := encodeBare(o.size)
		if err != nil {
			return err
		}
		res.ours, res.theirs = append(res.ours, ours), append(res.theirs, theirs)
	}
	res.print()
	return nil
}

func encodeRepo(ctx context.Context, r *repo.Repo, key string, size int64) (float64, error) {
	buf := make([]byte, 1<<20)
	start := time.Now()
	w, err := r.Create(ctx, key)
	if err != nil {
		return 0, err
	}
	for n := int64(0); n < size; n += int64(len(buf)) {
		if _, err := w.Write(buf); err != nil {
			return 0, err
		}
	}
	_, err = w.Close()
	return rate(size, start), err
}

func encodeBare(size int64) (float64, error) {
	rs, err := reedsolomon.New(geometry.Data, geometry.Parity, reedsolomon.WithMaxGoroutines(1))
	if err != nil {
		return 0, err
	}
	cells := make([][]byte, geometry.Shards())
	for i := range cells {
		cells[i] = make([]byte, objfmt.CellSize)
	}
	start := time.Now()
	var sum uint64
	for n := int64(0); n < size; n += int64(geometry.Data * objfmt.CellSize) {
		if err := rs.Encode(cells); err != nil {
			return 0, err
		}
		for _, c := range cells {
			sum ^= objfmt.Checksum(c)
		}
	}
	_ = sum
	return rate(size, start), nil
}

// rate is in MB/s.
func rate(bytes int64, start time.Time) float64 {
	return float64(bytes) / 1e6 / time.Since(start).Seconds()
}
