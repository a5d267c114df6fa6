package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/objstore/memstore"
	"marfs/pkg/objstore/objstoretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const kib = 1 << 10

// small is a geometry whose stripes, blocks and cells are soon filled.
var small = objfmt.Geometry{Data: 4, Parity: 2, Block: 128 * kib}

// rig is a repo over memory stores that can be made to fail.
type rig struct {
	*Repo
	pods   [][]*trouble
	damage damageLog
}

// damageLog collects what a repo reports.
type damageLog struct {
	mu     sync.Mutex
	shards []int
	why    error
}

func (d *damageLog) add(_ string, _ objfmt.Layout, shards []int, why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shards, d.why = append(d.shards, shards...), why
}

func (d *damageLog) take() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	shards := d.shards
	d.shards = nil
	slices.Sort(shards)
	return shards
}

// trouble is a memory store with hooks that run before its calls, and after a Put has all bytes.
type trouble struct {
	memstore.Store
	mu   sync.Mutex
	put  func(ctx context.Context, r io.Reader) error
	get  func(ctx context.Context) error
	del  func(ctx context.Context) error
	stat func(ctx context.Context) error
	done func(ctx context.Context) error
	all  error
}

func (s *trouble) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *trouble) hooks() (put func(context.Context, io.Reader) error, get func(context.Context) error, all error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put, s.get, s.all
}

func (s *trouble) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	put, _, all := s.hooks()
	if all != nil {
		return all
	}
	if put != nil {
		if err := put(ctx, r); err != nil {
			return err
		}
	}
	s.mu.Lock()
	done := s.done
	s.mu.Unlock()
	if err := s.Store.Put(ctx, key, r, size); err != nil || done == nil {
		return err
	}
	return done(ctx)
}

func (s *trouble) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	_, get, all := s.hooks()
	if all != nil {
		return nil, all
	}
	if get != nil {
		if err := get(ctx); err != nil {
			return nil, err
		}
	}
	return s.Store.Get(ctx, key, off, n)
}

func (s *trouble) Stat(ctx context.Context, key string) (objstore.Info, error) {
	s.mu.Lock()
	stat, all := s.stat, s.all
	s.mu.Unlock()
	if all != nil {
		return objstore.Info{}, all
	}
	if stat != nil {
		if err := stat(ctx); err != nil {
			return objstore.Info{}, err
		}
	}
	return s.Store.Stat(ctx, key)
}

func (s *trouble) Delete(ctx context.Context, key string) error {
	s.mu.Lock()
	del, all := s.del, s.all
	s.mu.Unlock()
	if all != nil {
		return all
	}
	if del != nil {
		if err := del(ctx); err != nil {
			return err
		}
	}
	return s.Store.Delete(ctx, key)
}

// newRig returns a repo of so many pods. change may adapt its configuration.
func newRig(t testing.TB, g objfmt.Geometry, pods int, change func(*Config)) *rig {
	t.Helper()
	rg := &rig{}
	cfg := Config{Name: "test", Geometry: g, StallTimeout: 10 * time.Second, Memory: 64 << 20, Damaged: rg.damage.add}
	for p := range pods {
		pod := Pod{Name: fmt.Sprintf("pod%d", p), Weight: 100}
		var stores []*trouble
		for i := range g.Shards() {
			s := &trouble{}
			stores = append(stores, s)
			pod.Stores = append(pod.Stores, Store{Store: s, Name: fmt.Sprintf("p%d/s%d", p, i)})
		}
		cfg.Pods = append(cfg.Pods, pod)
		rg.pods = append(rg.pods, stores)
	}
	if change != nil {
		change(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	rg.Repo = r
	return rg
}

// store returns the store of a shard in the first pod.
func (rg *rig) store(key string, l objfmt.Layout, shard int) *trouble {
	return rg.pods[0][l.Place(key, shard)]
}

func content(seed byte, n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

// write stores data in pieces.
func (rg *rig) write(t testing.TB, key string, data []byte, piece int) objfmt.Layout {
	t.Helper()
	w, err := rg.Create(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for p := range slices.Chunk(data, max(piece, 1)) {
		if n, err := w.Write(p); n != len(p) || err != nil {
			t.Fatalf("write %d: %d, %v", len(p), n, err)
		}
	}
	l, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	rg.idle(t)
	return l
}

// idle checks that no memory is held.
func (rg *rig) idle(t testing.TB) {
	t.Helper()
	for _, b := range []*budget{rg.writes, rg.reads, rg.repairs} {
		deadline := time.Now().Add(5 * time.Second)
		for !b.sem.TryAcquire(b.size) {
			if time.Now().After(deadline) {
				t.Fatalf("memory of %s still held: %d", b.what, b.used)
			}
			time.Sleep(time.Millisecond)
		}
		b.sem.Release(b.size)
	}
}

func (rg *rig) wantRead(t testing.TB, key string, l objfmt.Layout, want []byte, off, n int) {
	t.Helper()
	got := make([]byte, n)
	have, err := rg.ReadAt(t.Context(), key, l, got, int64(off))
	left := max(len(want)-off, 0)
	if have != min(n, left) || (err == nil) != (n <= left) || err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("read %d at %d of %d: %d, %v", n, off, len(want), have, err)
	}
	if have > 0 && !bytes.Equal(got[:have], want[off:off+have]) {
		t.Fatalf("read %d at %d of %d: wrong bytes", n, off, len(want))
	}
}

func readAll(t testing.TB, r io.ReadCloser) []byte {
	t.Helper()
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func putAll(t testing.TB, s objstore.Store, key string, b []byte) error {
	return s.Put(t.Context(), key, bytes.NewReader(b), int64(len(b)))
}

// sizes are around every boundary of a layout.
func sizes(g objfmt.Geometry) []int {
	var all []int
	for _, n := range []int{0, 4096, g.Cell(), g.Block, g.Block * 2, int(g.Stripe()), int(g.Stripe()) + g.Block, int(g.Stripe()) * 3} {
		all = append(all, n, n+1)
		if n > 0 {
			all = append(all, n-1)
		}
	}
	return append(all, 10, 5*int(g.Stripe())+12345)
}

func TestSizes(t *testing.T) {
	for _, g := range []objfmt.Geometry{
		small, {Data: 1, Parity: 0, Block: 64 * kib}, {Data: 1, Parity: 2, Block: 4 * kib}, {Data: 3, Parity: 0, Block: 8 * kib},
		{Data: 8, Parity: 3, Block: 64 * kib}, {Data: 2, Parity: 1, Block: 1 << 20},
	} {
		t.Run(fmt.Sprintf("%d+%dx%d", g.Data, g.Parity, g.Block), func(t *testing.T) {
			rg := newRig(t, g, 1, nil)
			for i, n := range sizes(g) {
				key := fmt.Sprintf("sizes/%d", i)
				data := content(byte(i), n)
				l := rg.write(t, key, data, []int{1 << 20, 100_001, g.Cell(), n}[i%4])
				if l.Size != int64(n) || l.Geometry != g || l.Pod != "pod0" || l.Repo != "test" {
					t.Fatalf("layout of %d bytes: %+v", n, l)
				}
				rg.wantRead(t, key, l, data, 0, n+1)
				for range 20 {
					off := rand.IntN(n + 1)
					rg.wantRead(t, key, l, data, off, rand.IntN(n-off+10))
				}
				rg.wantShards(t, key, l, ShardOK)
				if found, err := rg.Find(t.Context(), key); found != l || err != nil {
					t.Fatalf("find: %+v, %v; want %+v", found, err, l)
				}
			}
			if d := rg.damage.take(); d != nil {
				t.Errorf("damage reported: %v, %v", d, rg.damage.why)
			}
			rg.idle(t)
		})
	}
}

// wantShards checks the state of all shards but those listed.
func (rg *rig) wantShards(t testing.TB, key string, l objfmt.Layout, want ShardState, except ...int) []Shard {
	t.Helper()
	shards, err := rg.Inspect(t.Context(), key, l, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range shards {
		if s.State != want && !slices.Contains(except, s.Index) {
			t.Fatalf("shard %d: %s, want %s: %v", s.Index, s.State, want, s.Err)
		}
	}
	return shards
}

func TestConformance(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Store { return newRig(t, small, 2, nil).Repo },
		objstoretest.Options{PartSize: small.Stripe(), SkipConcurrentReplace: true})
}

// A repo of repos: erasure coding over erasure coding.
func TestConformanceStacked(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	objstoretest.Run(t, func(t *testing.T) objstore.Store {
		inner := objfmt.Geometry{Data: 2, Parity: 1, Block: 64 * kib}
		var stores []Store
		for i := range 2 {
			stores = append(stores, Store{Store: newRig(t, inner, 1, nil).Repo, Name: fmt.Sprint("inner", i)})
		}
		r, err := New(Config{Name: "outer", Geometry: objfmt.Geometry{Data: 1, Parity: 1, Block: 256 * kib}, Pods: []Pod{{Name: "p", Weight: 1, Stores: stores}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}, objstoretest.Options{PartSize: 256 * kib, SkipConcurrentReplace: true})
}

// The shards of many objects, and their parity, spread evenly over the stores.
func TestSpread(t *testing.T) {
	rg := newRig(t, small, 3, func(c *Config) { c.Pods[1].Weight = 200; c.Pods[2].Weight = 0 })
	pods, first := make(map[string]int), make(map[int]int)
	const n = 3000
	for i := range n {
		key := objfmt.ObjectKey("ns", objfmt.NewObjectID(time.Now()), uint32(i%3))
		pods[rg.rank(key)[0].Name]++
		first[small.Place(key, 0)]++
	}
	if pods["pod2"] != 0 || pods["pod1"] < n*60/100 || pods["pod1"] > n*73/100 {
		t.Errorf("objects by pod, of weights 100, 200 and 0: %v", pods)
	}
	for s, count := range first {
		if count < n/6*80/100 || count > n/6*120/100 {
			t.Errorf("store %d has %d first shards of %d objects", s, count, n)
		}
	}
}
