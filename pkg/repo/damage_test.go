package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
)

// change puts back a shard's file as edit leaves it; nil removes it.
func (rg *rig) change(t testing.TB, key string, l objfmt.Layout, shard int, edit func(b []byte) []byte) {
	t.Helper()
	s := &rg.store(key, l, shard).Store
	body, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	b := edit(readAll(t, body))
	if b == nil {
		err = s.Delete(t.Context(), key)
	} else {
		err = putAll(t, s, key, b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// regions of a shard's file: a byte of each is hit.
func regions(l objfmt.Layout, key string, shard int) map[string]int64 {
	m := map[string]int64{"magic": 0, "version": 9, "header": 20, "key": 50, "header checksum": l.HeaderSize(key) - 1}
	for c := range l.Cells(shard) {
		m[fmt.Sprintf("cell %d", c)] = l.CellPos(key, c) + int64(l.CellLen(shard, c))/2
		m[fmt.Sprintf("cell %d first", c)] = l.CellPos(key, c)
		m[fmt.Sprintf("cell %d checksum", c)] = l.CellPos(key, c) + int64(l.CellLen(shard, c)) + 3
	}
	end := l.ShardSize(key, shard)
	for i, name := range []string{"footer magic", "footer shard", "footer write id", "footer size", "footer payload", "footer checksum"} {
		m[name] = end - objfmt.ShardFooterSize + []int64{0, 11, 16, 39, 47, 55}[i]
	}
	return m
}

// Whatever byte of a shard is damaged, reads are right, a deep inspection finds
// it and a rebuild puts it right.
func TestEveryByteClass(t *testing.T) {
	rg := newRig(t, small, 1, nil)
	data := content(1, int(small.Stripe())+100_000)
	l := rg.write(t, "a/b", data, 1<<20)
	for shard := range small.Shards() {
		for name, pos := range regions(l, "a/b", shard) {
			rg.change(t, "a/b", l, shard, func(b []byte) []byte {
				b[pos] ^= 0x10
				return b
			})
			rg.wantRead(t, "a/b", l, data, 0, len(data))
			shards := rg.wantShards(t, "a/b", l, ShardOK, shard)
			if s := shards[shard].State; s != ShardCorrupt && !(name == "version" && s == ShardUnavailable) {
				t.Fatalf("shard %d with bad %s: %s, %v", shard, name, s, shards[shard].Err)
			}
			if name == "version" { // a version of the future is left alone
				rg.change(t, "a/b", l, shard, func(b []byte) []byte { b[pos] ^= 0x10; return b })
				continue
			}
			if _, err := rg.Rebuild(t.Context(), "a/b", l); err != nil {
				t.Fatalf("rebuild after bad %s: %v", name, err)
			}
			rg.wantShards(t, "a/b", l, ShardOK)
		}
	}
	rg.idle(t)
}

// Any E shards may be lost, one more may not; the loss is an error, not bytes.
func TestLoss(t *testing.T) {
	const key = "loss/object"
	for _, size := range []int{10, 5000, 300_000, int(small.Stripe()) * 2, int(small.Stripe())*2 + 77_777} {
		rg := newRig(t, small, 1, nil)
		data := content(3, size)
		l := rg.write(t, key, data, 1<<20)
		for lost := range 1 << small.Shards() {
			var gone []int
			for i := range small.Shards() {
				if lost>>i&1 == 1 {
					gone = append(gone, i)
				}
			}
			if len(gone) == 0 || len(gone) > small.Parity+1 {
				continue
			}
			for i, shard := range gone {
				rg.change(t, key, l, shard, func(b []byte) []byte {
					if (lost+i)%2 == 0 {
						return nil
					}
					return b[:len(b)*2/3] // torn
				})
			}
			if len(gone) <= small.Parity {
				rg.wantRead(t, key, l, data, 0, size+1)
				off := rand.IntN(size)
				rg.wantRead(t, key, l, data, off, rand.IntN(size-off)+1)
				if found, err := rg.Find(t.Context(), key); found != l || err != nil {
					t.Fatalf("find without %v: %+v, %v", gone, found, err)
				}
				if _, err := rg.Rebuild(t.Context(), key, l); err != nil {
					t.Fatalf("rebuild of %v: %v", gone, err)
				}
				rg.wantShards(t, key, l, ShardOK)
				rg.damage.take()
				continue
			}
			rg.lost(t, key, l, data, gone)
			l = rg.write(t, key, data, 1<<20)
		}
		rg.idle(t)
	}
}

// lost checks an object that lacks too many shards.
func (rg *rig) lost(t *testing.T, key string, l objfmt.Layout, data []byte, gone []int) {
	t.Helper()
	p := make([]byte, len(data))
	n, err := rg.ReadAt(t.Context(), key, l, p, 0)
	needed := slices.ContainsFunc(gone, func(i int) bool { return i < l.Data && l.Payload(i) > 0 })
	switch {
	case !needed && (err != nil || string(p) != string(data)):
		t.Fatalf("read without %v: %v", gone, err)
	case needed && err == nil && string(p) != string(data):
		t.Fatalf("read without %v: wrong bytes", gone)
	case needed && err != nil && !errors.Is(err, ErrQuorum) && !errors.Is(err, fs.ErrNotExist):
		t.Fatalf("read without %v: %d, %v", gone, n, err)
	}
	if l.Payload(l.Data-1) > 0 && needed && err == nil {
		t.Fatalf("read without %v worked", gone)
	}
	if _, err := rg.Find(t.Context(), key); !errors.Is(err, ErrQuorum) {
		t.Fatalf("find without %v: %v", gone, err)
	}
}

// A shard of another write is never used, nor a cell that was moved.
func TestMixedWrites(t *testing.T) {
	const key = "mixed/object"
	rg := newRig(t, small, 1, nil)
	other, data := content(1, 600_000), content(2, 600_000)
	old := rg.write(t, key, other, 1<<20)
	var stale [][]byte
	for i := range small.Shards() {
		rg.change(t, key, old, i, func(b []byte) []byte { stale = append(stale, slices.Clone(b)); return b })
	}
	l := rg.write(t, key, data, 1<<20)
	for a := range small.Shards() {
		for b := range a {
			for _, i := range []int{a, b} {
				rg.change(t, key, l, i, func([]byte) []byte { return stale[i] })
			}
			rg.wantRead(t, key, l, data, 0, len(data))
			for _, s := range rg.wantShards(t, key, l, ShardOK, a, b) {
				if (s.Index == a || s.Index == b) && s.State != ShardStale {
					t.Fatalf("shard %d of another write: %s, %v", s.Index, s.State, s.Err)
				}
			}
			if found, err := rg.Find(t.Context(), key); found != l || err != nil {
				t.Fatalf("find: %+v, %v", found, err)
			}
			if _, err := rg.Rebuild(t.Context(), key, l); err != nil {
				t.Fatal(err)
			}
			rg.wantShards(t, key, l, ShardOK)
		}
	}
	// Three old ones are too many, for both writes.
	for i := range 3 {
		rg.change(t, key, l, i, func([]byte) []byte { return stale[i] })
	}
	for _, l := range []objfmt.Layout{l, old} {
		if _, err := rg.ReadAt(t.Context(), key, l, make([]byte, 600_000), 0); !errors.Is(err, ErrQuorum) {
			t.Fatalf("read of a mixture: %v", err)
		}
		if _, err := rg.Rebuild(t.Context(), key, l); !errors.Is(err, ErrQuorum) {
			t.Fatalf("rebuild of a mixture: %v", err)
		}
	}
}

// Cells that change places within a write are found out.
func TestMovedCells(t *testing.T) {
	rg := newRig(t, small, 1, nil)
	data := make([]byte, 2*small.Stripe()) // zeros: all cells have equal bytes
	l := rg.write(t, "moved", data, 1<<20)
	var first []byte
	rg.change(t, "moved", l, 1, func(b []byte) []byte { first = slices.Clone(b); return b })
	n := int64(l.Cell() + objfmt.SumSize)
	swapped := slices.Clone(first)
	copy(swapped[l.CellPos("moved", 0):][:n], first[l.CellPos("moved", 2):])
	copy(swapped[l.CellPos("moved", 2):][:n], first[l.CellPos("moved", 0):])
	for shard, b := range map[int][]byte{1: swapped, 0: first} {
		rg.change(t, "moved", l, shard, func([]byte) []byte { return b })
		if s := rg.wantShards(t, "moved", l, ShardOK, shard)[shard]; s.State != ShardCorrupt {
			t.Errorf("cells of shard %d from elsewhere: %s", shard, s.State)
		}
		if _, err := rg.Rebuild(t.Context(), "moved", l); err != nil {
			t.Fatal(err)
		}
	}
}

// A rebuild uses every good cell, even of shards that are bad elsewhere, writes
// only bad shards, and leaves everything alone when it cannot be done.
func TestRebuild(t *testing.T) {
	const key = "rebuild/object"
	rg := newRig(t, small, 1, nil)
	data := content(7, 3*int(small.Stripe())+1000)
	l := rg.write(t, key, data, 1<<20)
	flip := func(shard int, cell int64) {
		rg.change(t, key, l, shard, func(b []byte) []byte { b[l.CellPos(key, cell)+5]++; return b })
	}
	for shard := range small.Shards() { // every shard bad, each row at most in one
		flip(shard, int64(shard))
	}
	rg.wantRead(t, key, l, data, 0, len(data))
	if _, err := rg.Rebuild(t.Context(), key, l); err != nil {
		t.Fatal(err)
	}
	rg.wantShards(t, key, l, ShardOK)

	mods := make(map[int]objstore.Info)
	for i := range small.Shards() {
		mods[i], _ = rg.store(key, l, i).Stat(t.Context(), key)
	}
	flip(2, 1)
	rg.change(t, key, l, 5, func([]byte) []byte { return nil })
	if _, err := rg.Rebuild(t.Context(), key, l); err != nil {
		t.Fatal(err)
	}
	for i, before := range mods {
		after, err := rg.store(key, l, i).Stat(t.Context(), key)
		if err != nil || (after == before) == (i == 2 || i == 5) {
			t.Errorf("shard %d: %+v, then %+v, %v", i, before, after, err)
		}
	}
	for shard := range 3 {
		flip(shard, 1)
	}
	if _, err := rg.Rebuild(t.Context(), key, l); !errors.Is(err, ErrQuorum) {
		t.Errorf("rebuild with three bad cells in a row: %v", err)
	}
	rg.wantShards(t, key, l, ShardOK, 0, 1, 2)
	if err := rg.Remove(t.Context(), key, l); err != nil {
		t.Fatal(err)
	}
	if _, err := rg.Rebuild(t.Context(), key, l); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rebuild of a removed object: %v", err)
	}
	if _, err := rg.ReadAt(t.Context(), key, l, make([]byte, 10), 0); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrQuorum) {
		t.Errorf("read of a removed object: %v", err)
	}
	rg.idle(t)
}

// A rebuild that fails halfway leaves every shard as it was: cells of bad ones may
// be all there is when a good one is lost too. The error says once why.
func TestRebuildFailsHalfway(t *testing.T) {
	const key = "rebuild/object"
	rg := newRig(t, objfmt.Geometry{Data: 2, Parity: 2, Block: 128 * kib}, 1, nil)
	data := content(7, 20*256*kib) // several rounds of rows
	l := rg.write(t, key, data, 1<<20)
	var before []objstore.Info
	for i := range 4 {
		if i >= 2 {
			rg.change(t, key, l, i, func(b []byte) []byte { b[l.CellPos(key, int64(i))]++; return b })
		}
		info, _ := rg.store(key, l, i).Stat(t.Context(), key)
		before = append(before, info)
	}
	var gets atomic.Int32
	rg.store(key, l, 0).get = func(context.Context) error {
		if gets.Add(1) > 4 { // header, footer, all of it, rows of one round
			return objstore.ErrUnavailable
		}
		return nil
	}
	_, err := rg.Rebuild(t.Context(), key, l)
	if !errors.Is(err, ErrQuorum) || strings.Count(err.Error(), ErrQuorum.Error()) != 1 {
		t.Errorf("rebuild without a quorum: %v", err)
	}
	for i := range 4 {
		if after, err := rg.store(key, l, i).Stat(t.Context(), key); err != nil || after != before[i] {
			t.Errorf("shard %d was %+v, is %+v, %v", i, before[i], after, err)
		}
	}
	rg.wantRead(t, key, l, data, 0, len(data))
	rg.idle(t)
}

// Rebuilds of an object at the same time do no harm to what the others made.
func TestConcurrentRebuilds(t *testing.T) {
	const key = "rebuild/object"
	rg := newRig(t, small, 1, nil)
	data := content(7, 3*int(small.Stripe()))
	l := rg.write(t, key, data, 1<<20)
	s := rg.store(key, l, 1)
	var deletes atomic.Int32
	s.del = func(context.Context) error {
		deletes.Add(1)
		return nil
	}
	rg.change(t, key, l, 1, func(b []byte) []byte { b[l.CellPos(key, 1)]++; return b })
	var all errgroup.Group
	for range 4 {
		all.Go(func() error {
			_, err := rg.Rebuild(t.Context(), key, l)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	rg.wantShards(t, key, l, ShardOK)
	if n := deletes.Load(); n > 0 {
		t.Errorf("a rebuild deleted a shard %d times", n)
	}
}

// A rebuild reads around a source that hangs, and does not let a target that
// hangs keep it from the others.
func TestRebuildBesideHanging(t *testing.T) {
	const key = "rebuild/object"
	for name, spoil := range map[string]func(source, target *trouble){
		"source": func(source, _ *trouble) {
			var gets atomic.Int32
			source.get = func(ctx context.Context) error {
				if gets.Add(1) > 3 { // header, footer, all of it
					return hang(ctx)
				}
				return nil
			}
		},
		"target": func(_, target *trouble) {
			target.put = func(ctx context.Context, _ io.Reader) error { return hang(ctx) }
		},
		"target at its end": func(_, target *trouble) { target.done = hang },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rg := newRig(t, small, 1, func(c *Config) { c.StallTimeout = 900 * time.Millisecond; c.HedgeAfter = time.Minute })
			data := content(7, 3*int(small.Stripe()))
			l := rg.write(t, key, data, 1<<20)
			lost, except := []int{2, 4}, []int{2}
			if name == "source" {
				lost, except = []int{4}, nil
			}
			for _, i := range lost {
				rg.change(t, key, l, i, func([]byte) []byte { return nil })
			}
			spoil(rg.store(key, l, 0), rg.store(key, l, 2))
			_, err := rg.Rebuild(t.Context(), key, l)
			rg.store(key, l, 0).set(func() { rg.store(key, l, 0).get = nil })
			switch {
			case name == "source" && err != nil:
				t.Errorf("rebuild beside a hanging source: %v", err)
			case name == "target" && (!errors.Is(err, objstore.ErrUnavailable) || !strings.Contains(err.Error(), "shard 2: ")):
				t.Errorf("rebuild to a hanging target: %v", err)
			}
			rg.wantShards(t, key, l, ShardOK, except...)
			rg.idle(t)
		})
	}
}

// Damage is reported once, with the shards and the reason.
func TestDamageReported(t *testing.T) {
	const key = "report/object"
	rg := newRig(t, small, 1, nil)
	data := content(9, 600_000)
	l := rg.write(t, key, data, 1<<20)
	rg.change(t, key, l, 1, func([]byte) []byte { return nil })
	rg.change(t, key, l, 0, func(b []byte) []byte { b[l.CellPos(key, 0)]++; return b })
	for range 5 {
		rg.wantRead(t, key, l, data, 0, len(data))
	}
	if d := rg.damage.take(); !slices.Equal(d, []int{0, 1}) || !errors.Is(rg.damage.why, objstore.ErrCorrupt) {
		t.Errorf("reported %v: %v", d, rg.damage.why)
	}
}

// More bad shards than E are reported too, when the object could be read: no row
// of it lacks more than E cells yet. A removed object is no damage.
func TestDamageInDifferentRows(t *testing.T) {
	const key = "report/object"
	rg := newRig(t, objfmt.Geometry{Data: 2, Parity: 1, Block: 128 * kib}, 1, nil)
	data := content(9, 600_000)
	l := rg.write(t, key, data, 1<<20)
	for i := range 2 {
		rg.change(t, key, l, i, func(b []byte) []byte { b[l.CellPos(key, int64(i))]++; return b })
	}
	rg.wantRead(t, key, l, data, 0, len(data))
	if d := rg.damage.take(); !slices.Equal(d, []int{0, 1}) {
		t.Errorf("reported %v: %v", d, rg.damage.why)
	}
	if err := rg.Remove(t.Context(), key, l); err != nil {
		t.Fatal(err)
	}
	_, err := rg.ReadAt(t.Context(), key, l, make([]byte, 10), 0)
	if d := rg.damage.take(); d != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reported of a removed object: %v; %v", d, err)
	}
}
