package repo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"
	"time"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
)

// TestChaos reads random ranges of random objects while each store does
// something else. What is read is right, always; with at most E bad stores it is read.
func TestChaos(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(uint64(seed), 1))
		g := objfmt.Geometry{Data: 1 + rnd.IntN(6), Parity: rnd.IntN(4), Block: []int{4, 16, 64, 128, 256}[rnd.IntN(5)] * kib}
		rg := newRig(t, g, 1, func(c *Config) {
			c.HedgeAfter = time.Duration(rnd.IntN(5)) * time.Millisecond
			c.Memory = leastMemory(g) << rnd.IntN(6)
			c.StallTimeout = 300 * time.Millisecond
		})
		data := content(byte(seed), rnd.IntN(3*int(g.Stripe())+1))
		l := rg.write(t, "chaos", data, 1+rnd.IntN(200_000))
		bad := 0
		for shard := range g.Shards() {
			if rnd.IntN(3) == 0 {
				bad += rg.spoil(t, rnd, l, shard)
			}
		}
		reads := 10
		if bad > g.Parity {
			reads = 4 // each may wait for what hangs
		}
		for range reads {
			off := rnd.IntN(len(data) + 1)
			p := make([]byte, rnd.IntN(len(data)-off+1))
			n, err := rg.ReadAt(t.Context(), "chaos", l, p, int64(off))
			switch {
			case err == nil && (n != len(p) || !bytes.Equal(p, data[off:off+n])):
				t.Fatalf("seed %d: read of %d at %d: wrong bytes", seed, len(p), off)
			case err != nil && bad <= g.Parity:
				t.Fatalf("seed %d: read with %d bad shards of %d+%d: %v", seed, bad, g.Data, g.Parity, err)
			case err != nil && !errors.Is(err, ErrQuorum) && !errors.Is(err, fs.ErrNotExist):
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		rg.idle(t)
	}
}

// spoil does something to a shard or its store, and returns 1 if it is bad then.
func (rg *rig) spoil(t *testing.T, rnd *rand.Rand, l objfmt.Layout, shard int) int {
	s := rg.store("chaos", l, shard)
	switch rnd.IntN(7) {
	case 0:
		rg.change(t, "chaos", l, shard, func([]byte) []byte { return nil })
	case 1:
		rg.change(t, "chaos", l, shard, func(b []byte) []byte { b[rnd.IntN(len(b))]++; return b })
	case 2:
		rg.change(t, "chaos", l, shard, func(b []byte) []byte { return b[:rnd.IntN(len(b))] })
	case 3:
		s.all = objstore.ErrUnavailable
	case 4: // slow, but good
		wait := time.Duration(rnd.IntN(8)) * time.Millisecond
		s.get = func(ctx context.Context) error {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			return ctx.Err()
		}
		return 0
	case 5: // fails now and then
		lucky := rand.New(rand.NewPCG(rnd.Uint64(), 2))
		s.get = func(context.Context) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if lucky.IntN(2) == 0 {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
	case 6:
		s.get = hang
	}
	return 1
}
