package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/klauspost/reedsolomon"

	"marfs/pkg/erasure"
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

// encode compares, over stores that discard everything: stripes encoded and
// checksummed in place, and a repo's whole write path with its copy of the
// caller's bytes and its queues, each with a bare loop of reedsolomon.Encode and
// CRC-64 over 64 KiB cells of as much memory, by one goroutine.
func encode(ctx context.Context, o options) error {
	seal := row{name: "encode + checksum, 4+2", unit: "MB/s", aim: 0.85, note: "to a discarding store / bare reedsolomon.Encode + CRC-64"}
	write := row{name: "repo write to discarding stores", unit: "MB/s", note: "with the copy of the caller's bytes / the same bare loop"}
	r, err := discarding()
	if err != nil {
		return err
	}
	for i := range 2*o.rounds + 1 {
		bare, err := encodeBare(o.size)
		if err != nil {
			return err
		}
		sealed, err := encodeStripes(ctx, o.size)
		if err != nil {
			return err
		}
		written, err := encodeRepo(ctx, r, fmt.Sprint("bench/", i), o.size)
		if err != nil {
			return err
		}
		seal.add(sealed, bare)
		write.add(written, bare)
	}
	seal.print()
	write.print()
	return nil
}

func discarding() (*repo.Repo, error) {
	var stores []repo.Store
	for i := range geometry.Shards() {
		stores = append(stores, repo.Store{Store: discard{}, Name: fmt.Sprint("discard", i)})
	}
	return repo.New(repo.Config{Name: "bench", Geometry: geometry, MinWrite: 5,
		Pods: []repo.Pod{{Name: "pod0", Weight: 1, Stores: stores}}})
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

func encodeStripes(ctx context.Context, size int64) (float64, error) {
	s, err := erasure.NewStripe(geometry, geometry.Block)
	if err != nil {
		return 0, err
	}
	for s.Fill(noise) > 0 {
	}
	id := objfmt.NewID()
	start := time.Now()
	for n, i := int64(0), int64(0); n < size; n, i = n+geometry.Stripe(), i+1 {
		if err := s.Seal(id, i); err != nil {
			return 0, err
		}
		for shard := range geometry.Shards() {
			if err := (discard{}).Put(ctx, "", bytes.NewReader(s.Shard(shard)), -1); err != nil {
				return 0, err
			}
		}
	}
	return rate(size, start), nil
}

func encodeBare(size int64) (float64, error) {
	rs, err := reedsolomon.New(geometry.Data, geometry.Parity, reedsolomon.WithMaxGoroutines(1))
	if err != nil {
		return 0, err
	}
	blocks := make([][]byte, geometry.Shards())
	for i := range blocks {
		blocks[i] = bytes.Clone(noise[:geometry.Block])
	}
	cells := make([][]byte, len(blocks))
	start := time.Now()
	var sum uint64
	for n := int64(0); n < size; n += geometry.Stripe() {
		for c := 0; c < geometry.Block; c += objfmt.CellSize {
			for i := range cells {
				cells[i] = blocks[i][c : c+objfmt.CellSize]
			}
			if err := rs.Encode(cells); err != nil {
				return 0, err
			}
			for _, cell := range cells {
				sum ^= objfmt.Checksum(cell)
			}
		}
	}
	_ = sum
	return rate(size, start), nil
}

// rate is in MB/s.
func rate(bytes int64, start time.Time) float64 {
	return float64(bytes) / 1e6 / time.Since(start).Seconds()
}
