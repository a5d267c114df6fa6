package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
)

// hang waits for the context, as a store that does not answer.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// afterBytes makes a Put fail when it has read n bytes, or all.
func afterBytes(n int64, err error) func(context.Context, io.Reader) error {
	return func(ctx context.Context, r io.Reader) error {
		if _, e := io.CopyN(io.Discard, r, n); e != nil && !errors.Is(e, io.EOF) {
			return e
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return hang(ctx)
		}
		return err
	}
}

// wantEmpty checks that no store of a pod has anything.
func (rg *rig) wantEmpty(t testing.TB, pod int) {
	t.Helper()
	for i, s := range rg.pods[pod] {
		for info, err := range s.Store.List(t.Context(), "", "") {
			t.Errorf("left in store %d: %+v, %v", i, info, err)
		}
	}
}

// A write survives as many failing stores as MinWrite allows, wherever they fail,
// and otherwise fails as a whole, says why, and leaves nothing.
func TestWriteFaults(t *testing.T) {
	faults := []struct {
		name string
		put  func(context.Context, io.Reader) error
		want error
	}{
		{"at once", func(context.Context, io.Reader) error { return objstore.ErrUnavailable }, objstore.ErrUnavailable},
		{"denied", func(context.Context, io.Reader) error { return fs.ErrPermission }, fs.ErrPermission},
		{"no space in header", afterBytes(10, objstore.ErrNoSpace), objstore.ErrNoSpace},
		{"no space in stripe 1", afterBytes(200_000, objstore.ErrNoSpace), objstore.ErrNoSpace},
		{"hang at once", func(ctx context.Context, _ io.Reader) error { return hang(ctx) }, objstore.ErrUnavailable},
		{"hang in stripe 1", afterBytes(200_000, context.DeadlineExceeded), objstore.ErrUnavailable},
	}
	for _, f := range faults {
		for _, size := range []int{100, 400_000, 10 * int(small.Stripe())} {
			for bad := 1; bad <= 2; bad++ {
				t.Run(fmt.Sprintf("%s/%d/%d", f.name, size, bad), func(t *testing.T) {
					t.Parallel()
					rg := newRig(t, small, 1, func(c *Config) {
						if strings.HasPrefix(f.name, "hang") {
							c.StallTimeout = 2 * time.Second
						}
					})
					for i := range bad {
						rg.pods[0][i*2].put = f.put
					}
					rg.wantWrite(t, content(1, size), bad, f.want)
				})
			}
		}
	}
}

// wantWrite writes with so many bad stores, of which MinWrite allows one.
func (rg *rig) wantWrite(t *testing.T, data []byte, bad int, want error) {
	t.Helper()
	const key = "fault/object"
	w, err := rg.Create(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for p := range slices.Chunk(data, 50_000) {
		if _, err = w.Write(p); err != nil {
			break
		}
	}
	l, cerr := w.Close()
	if err = errors.Join(err, cerr); bad == 1 && err == nil {
		rg.wantRead(t, key, l, data, 0, len(data))
		if d := rg.damage.take(); len(d) != 1 {
			t.Errorf("shards reported as missing: %v, %v", d, rg.damage.why)
		}
		rg.idle(t)
		return
	}
	if bad == 1 || !errors.Is(err, ErrQuorum) || !errors.Is(err, want) {
		t.Fatalf("write with %d bad stores: %v", bad, err)
	}
	rg.wantEmpty(t, 0)
	rg.idle(t)
}

// A pod that cannot take a write gives way to the next, while that is possible.
func TestPodFallOver(t *testing.T) {
	for _, size := range []int{0, 100, 400_000, int(small.Stripe()), 2 * int(small.Stripe())} {
		rg := newRig(t, small, 3, nil)
		key := "fall/over"
		ranked := rg.rank(key)
		for _, p := range ranked[:2] {
			for _, i := range []int{1, 4} {
				rg.podStores(p)[i].put = afterBytes(120, objstore.ErrNoSpace)
			}
		}
		data := content(2, size)
		l := rg.write(t, key, data, 100_000)
		if l.Pod != ranked[2].Name {
			t.Fatalf("%d bytes went to %s, not %s", size, l.Pod, ranked[2].Name)
		}
		rg.wantRead(t, key, l, data, 0, size)
		if found, err := rg.Find(t.Context(), key); found != l || err != nil {
			t.Fatalf("find: %+v, %v", found, err)
		}
		for i, stores := range rg.pods {
			if rg.cfg.Pods[i].Name != l.Pod {
				rg.wantEmpty(t, i)
			} else if len(stores) == 0 {
				t.Fatal("no stores")
			}
		}
		if d := rg.damage.take(); d != nil {
			t.Errorf("damage: %v", d)
		}
	}
}

func (rg *rig) podStores(p *pod) []*trouble {
	var stores []*trouble
	for _, s := range p.stores {
		stores = append(stores, s.Store.Store.(*trouble))
	}
	return stores
}

// A failed write under the key of an older object leaves that one alone.
func TestFailedReplace(t *testing.T) {
	rg := newRig(t, small, 1, nil)
	old := content(1, 300_000)
	l := rg.write(t, "replace", old, 1<<20)
	for _, i := range []int{0, 3} {
		rg.pods[0][i].put = afterBytes(100, objstore.ErrNoSpace)
	}
	w, err := rg.Create(t.Context(), "replace")
	if err != nil {
		t.Fatal(err)
	}
	for range 500 { // until the failures are noticed: after its end it would replace shards
		if _, err = w.Write(content(2, 300_000)); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if _, cerr := w.Close(); err == nil && cerr == nil {
		t.Fatal("write with two full stores worked")
	}
	rg.wantRead(t, "replace", l, old, 0, len(old))
	w, err = rg.Create(t.Context(), "replace")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content(2, 1000)); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	w.Abort()
	if _, err := w.Write([]byte{1}); err == nil {
		t.Error("write after abort worked")
	}
	if _, err := w.Close(); err == nil {
		t.Error("close after abort worked")
	}
	rg.wantRead(t, "replace", l, old, 0, len(old))
	rg.idle(t)
}

// A read does not wait for a store that hangs, and after a few does not ask it.
func TestHedge(t *testing.T) {
	rg := newRig(t, small, 1, func(c *Config) { c.HedgeAfter = 20 * time.Millisecond; c.StallTimeout = time.Minute })
	data := content(3, 2*int(small.Stripe()))
	l := rg.write(t, "hedge", data, 1<<20)
	var asked atomic.Int32
	rg.store("hedge", l, 1).get = func(ctx context.Context) error {
		asked.Add(1)
		return hang(ctx)
	}
	for range 20 {
		start := time.Now()
		rg.wantRead(t, "hedge", l, data, 0, len(data))
		if d := time.Since(start); d > 5*time.Second {
			t.Fatalf("read beside a hanging store took %v", d)
		}
	}
	if n := asked.Load(); n > 2*maxFailures {
		t.Errorf("the hanging store was asked %d times by 20 reads", n)
	}
	if d := rg.damage.take(); d != nil {
		t.Errorf("slowness reported as damage: %v", d)
	}
	rg.store("hedge", l, 1).set(func() { rg.store("hedge", l, 1).get = nil })
	rg.idle(t)
}

// Two hanging stores are read around, too; three are an error in bounded time.
func TestStalledReads(t *testing.T) {
	rg := newRig(t, small, 1, func(c *Config) { c.HedgeAfter = 10 * time.Millisecond; c.StallTimeout = time.Second })
	data := content(3, int(small.Stripe()))
	l := rg.write(t, "stalled", data, 1<<20)
	for i := range 3 {
		s := rg.store("stalled", l, i)
		s.get = hang
		p := make([]byte, len(data))
		_, err := rg.ReadAt(t.Context(), "stalled", l, p, 0)
		if i < 2 && (err != nil || string(p) != string(data)) {
			t.Fatalf("read with %d hanging stores: %v", i+1, err)
		}
		if i == 2 && (!errors.Is(err, ErrQuorum) || !errors.Is(err, objstore.ErrUnavailable)) {
			t.Fatalf("read with 3 hanging stores: %v", err)
		}
	}
	rg.idle(t)
}

// A fetch that stalls counts once against its store, not again when it has ended.
func TestStallCountsOnce(t *testing.T) {
	rg := newRig(t, small, 1, func(c *Config) { c.HedgeAfter = time.Minute; c.StallTimeout = 700 * time.Millisecond })
	data := content(3, int(small.Stripe()))
	l := rg.write(t, "once", data, 1<<20)
	rg.store("once", l, 1).get = hang
	for i := l.Data; i < l.Shards(); i++ { // in their time the first one ends
		rg.store("once", l, i).get = func(ctx context.Context) error { return wait(ctx, 50*time.Millisecond) }
	}
	rg.wantRead(t, "once", l, data, 0, len(data))
	h := &rg.Repo.pods["pod0"].stores[l.Place("once", 1)].reads
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failures != 1 {
		t.Errorf("%d failures of a store that stalled once", h.failures)
	}
}

// Whatever ends a read, its error says of which object in which pod.
func TestReadErrors(t *testing.T) {
	rg := newRig(t, small, 1, nil)
	data := content(3, 1000)
	l := rg.write(t, "errors/object", data, 1000)
	want := func(ctx context.Context, what string, class error) {
		t.Helper()
		_, err := rg.ReadAt(ctx, "errors/object", l, make([]byte, 1000), 0)
		if !errors.Is(err, class) || strings.Count(err.Error(), "errors/object from repo test, pod pod0") != 1 {
			t.Errorf("%s: %v", what, err)
		}
	}
	b := rg.reads
	b.wait = 10 * time.Millisecond
	if !b.try(b.size, 0) {
		t.Fatal("memory is held")
	}
	want(t.Context(), "no memory", objstore.ErrUnavailable)
	b.release(b.size)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range l.Shards() {
		rg.store("errors/object", l, i).get = func(ctx context.Context) error {
			cancel()
			return hang(ctx)
		}
	}
	want(ctx, "cancelled", context.Canceled)
	for i := range l.Shards() {
		s := rg.store("errors/object", l, i)
		s.set(func() { s.get, s.all = nil, fs.ErrPermission })
	}
	want(t.Context(), "lost", ErrQuorum)
}

// A store that hangs and ignores its context is left behind; it gets no more
// from the caller's memory, and what it holds is counted until it wakes.
func TestDeafStore(t *testing.T) {
	rg := newRig(t, small, 1, func(c *Config) { c.HedgeAfter = 10 * time.Millisecond; c.StallTimeout = 2 * time.Second })
	data := content(4, int(small.Stripe()))
	l := rg.write(t, "deaf", data, 1<<20)
	wake := make(chan struct{})
	deaf := rg.store("deaf", l, 2)
	deaf.set(func() {
		deaf.get = func(context.Context) error { <-wake; return nil }
		deaf.put = func(_ context.Context, r io.Reader) error {
			_, err := io.CopyN(io.Discard, r, 100_000)
			<-wake
			return err
		}
	})
	got := make([]byte, len(data))
	if _, err := rg.ReadAt(t.Context(), "deaf", l, got, 0); err != nil || string(got) != string(data) {
		t.Fatalf("read: %v", err)
	}
	clear(got)
	w, err := rg.Create(t.Context(), "deaf/2")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	rg.writes.mu.Lock()
	held := rg.writes.used
	rg.writes.mu.Unlock()
	if held == 0 {
		t.Error("a Put left behind holds a stripe that is not counted")
	}
	close(wake)
	rg.idle(t)
	if slices.ContainsFunc(got, func(b byte) bool { return b != 0 }) {
		t.Error("a read left behind wrote to the caller's buffer")
	}
}

// A dead store costs a few attempts, then one now and then.
func TestBreaker(t *testing.T) {
	rg := newRig(t, small, 1, nil)
	var puts atomic.Int32
	dead := rg.pods[0][3]
	dead.put = func(context.Context, io.Reader) error {
		puts.Add(1)
		return objstore.ErrUnavailable
	}
	for i := range 30 {
		rg.write(t, fmt.Sprintf("breaker/%d", i), content(1, 1000), 1000)
	}
	if n := puts.Load(); n > maxFailures+2 {
		t.Errorf("%d of 30 writes tried a dead store", n)
	}
	if d := rg.damage.take(); len(d) != 30 {
		t.Errorf("%d degraded objects reported of 30", len(d))
	}
	dead.set(func() { dead.put = nil })
	h := &rg.Repo.pods["pod0"].stores[3].writes
	h.mu.Lock()
	h.retry = time.Now()
	h.mu.Unlock()
	rg.write(t, "breaker/again", content(1, 1000), 1000)
	rg.write(t, "breaker/again2", content(1, 1000), 1000)
	if d := rg.damage.take(); d != nil {
		t.Errorf("a store that works again is left out: %v", d)
	}
}

// trip makes the writes of stores look as if they failed until lately; the next may try after so long.
func trip(stores []*store, after time.Duration) {
	for _, s := range stores {
		s.writes.mu.Lock()
		s.writes.failures, s.writes.pause, s.writes.retry = maxFailures, maxPause, time.Now().Add(after)
		s.writes.mu.Unlock()
	}
}

// keyFor returns a key of which the pod is the first choice.
func (rg *rig) keyFor(pod, what string) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint(what, i); rg.rank(key)[0].Name == pod {
			return key
		}
	}
}

// A pod that was away takes writes again, though its stores may be tried at
// different times: writes that go elsewhere use up none of their probes.
func TestPodBack(t *testing.T) {
	rg := newRig(t, small, 2, func(c *Config) { c.StallTimeout = time.Minute })
	stores := rg.Repo.pods["pod0"].stores
	key := rg.keyFor("pod0", "back/")
	trip(stores[:3], 0)
	trip(stores[3:], time.Hour)
	for range 3 {
		if l := rg.write(t, key, content(1, 1000), 1000); l.Pod != "pod1" {
			t.Fatalf("written to %s, most of which failed lately", l.Pod)
		}
	}
	trip(stores[3:], 0)
	for range 3 {
		if l := rg.write(t, key, content(1, 1000), 1000); l.Pod != "pod0" {
			t.Errorf("written to %s while the first choice works again", l.Pod)
		}
	}
	if d := rg.damage.take(); d != nil {
		t.Errorf("shards left out: %v", d)
	}
}

// A write is not risked to find out that a pod is still away.
func TestPodStillAway(t *testing.T) {
	rg := newRig(t, small, 2, func(c *Config) { c.StallTimeout = 2 * time.Second })
	for _, s := range rg.pods[0] {
		s.put = func(ctx context.Context, _ io.Reader) error { return hang(ctx) }
		s.stat = hang
	}
	stores := rg.Repo.pods["pod0"].stores
	trip(stores, 0)
	data := content(1, 48*int(small.Stripe())) // more than is kept to begin anew elsewhere
	if l := rg.write(t, rg.keyFor("pod0", "away/"), data, 1<<20); l.Pod != "pod1" {
		t.Errorf("written to %s, which is away", l.Pod)
	}
	for i, s := range stores {
		if v := s.writes.ask(time.Now()); v != avoid {
			t.Errorf("store %d after a probe that failed: %v", i, v)
		}
	}
}

// wait is a store that takes so long before it goes on.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A store that failed and works again is readmitted by a write even if it lags
// behind the others: a little to begin, as much as any other to end.
func TestSlowStoreReadmitted(t *testing.T) {
	for name, lag := range map[string]func(*trouble){
		"begin": func(s *trouble) {
			s.put = func(ctx context.Context, _ io.Reader) error { return wait(ctx, 550*time.Millisecond) }
		},
		"end": func(s *trouble) {
			s.done = func(ctx context.Context) error { return wait(ctx, 550*time.Millisecond) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rg := newRig(t, small, 1, func(c *Config) { c.StallTimeout = 16 * time.Second })
			lag(rg.pods[0][3])
			s := rg.Repo.pods["pod0"].stores[3]
			trip([]*store{s}, 0)
			rg.write(t, "slow", content(1, 1000), 1000)
			if d := rg.damage.take(); d != nil {
				t.Errorf("shard left out: %v, %v", d, rg.damage.why)
			}
			if v := s.writes.look(time.Now()); v != use {
				t.Errorf("store after a write it took: %v", v)
			}
		})
	}
}

// A store may take its time after the last byte, as to send what it has gathered
// and to put parts together: the longer, the larger the shard.
func TestSlowFinish(t *testing.T) {
	t.Parallel()
	rg := newRig(t, small, 1, func(c *Config) { c.StallTimeout = 700 * time.Millisecond })
	for _, s := range rg.pods[0] {
		s.done = func(ctx context.Context) error { return wait(ctx, 1100*time.Millisecond) }
	}
	rg.write(t, "slow", content(1, 4<<20), 1<<20)
	if d := rg.damage.take(); d != nil {
		t.Errorf("shards left out: %v, %v", d, rg.damage.why)
	}
}

// After a quorum that took long, the others may be as late again.
func TestSlowFinishOfOne(t *testing.T) {
	t.Parallel()
	rg := newRig(t, small, 1, func(c *Config) { c.StallTimeout = 2 * time.Second })
	for i, s := range rg.pods[0] {
		d := 850 * time.Millisecond
		if i == 4 {
			d = 1400 * time.Millisecond
		}
		s.done = func(ctx context.Context) error { return wait(ctx, d) }
	}
	rg.write(t, "slow", content(1, 1000), 1000)
	if d := rg.damage.take(); d != nil {
		t.Errorf("shards left out: %v, %v", d, rg.damage.why)
	}
}

// A write that leaves shards out is over when that has been recorded; if it cannot
// be, the write fails and leaves nothing.
func TestLeftOut(t *testing.T) {
	const key = "left/out"
	var noted []int
	var noteErr error
	rg := newRig(t, small, 1, func(c *Config) {
		c.LeftOut = func(ctx context.Context, k string, l objfmt.Layout, shards []int, why error) error {
			if k != key || l.Size != 1000 || !errors.Is(why, objstore.ErrNoSpace) || ctx.Err() != nil {
				t.Errorf("left out of %s: %+v, %v, %v", k, l, why, ctx.Err())
			}
			noted = append(noted, shards...)
			return noteErr
		}
	})
	write := func() (objfmt.Layout, error) {
		w, err := rg.Create(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content(1, 1000)); err != nil {
			t.Fatal(err)
		}
		return w.Close()
	}
	l, err := write()
	if err != nil || noted != nil {
		t.Errorf("whole write: noted %v, %v", noted, err)
	}
	if err := rg.Remove(t.Context(), key, l); err != nil {
		t.Fatal(err)
	}
	rg.store(key, l, 1).put = afterBytes(10, objstore.ErrNoSpace)
	noteErr = fs.ErrPermission
	if _, err := write(); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), key) {
		t.Errorf("write that cannot be recorded as degraded: %v", err)
	}
	rg.wantEmpty(t, 0)
	rg.idle(t)
	noteErr = nil
	if l, err = write(); err != nil {
		t.Error(err)
	}
	if !slices.Equal(noted, []int{1, 1}) {
		t.Errorf("noted %v", noted)
	}
	rg.wantRead(t, key, l, content(1, 1000), 0, 1000)
	if d := rg.damage.take(); d != nil {
		t.Errorf("what was left out is reported again: %v", d)
	}
}

// A full store takes no new shards for a while, and serves everything else: else
// nothing could make room in it.
func TestFullStore(t *testing.T) {
	rg := newRig(t, small, 1, nil)
	data := content(1, 300_000)
	l := rg.write(t, "full/old", data, 1<<20)
	var puts, gets atomic.Int32
	full := rg.store("full/old", l, 1)
	full.put = func(context.Context, io.Reader) error {
		puts.Add(1)
		return objstore.ErrNoSpace
	}
	full.get = func(context.Context) error {
		gets.Add(1)
		return nil
	}
	for i := range 3 * maxFailures {
		rg.write(t, fmt.Sprintf("full/%d", i), content(1, 1000), 1000)
	}
	if n := puts.Load(); n > maxFailures+1 {
		t.Errorf("%d of %d writes tried a full store", n, 3*maxFailures)
	}
	rg.wantRead(t, "full/old", l, data, 0, len(data))
	if gets.Load() == 0 {
		t.Error("a read avoided a full store")
	}
	if err := rg.Remove(t.Context(), "full/old", l); err != nil {
		t.Errorf("delete from a full store: %v", err)
	}
	if _, err := full.Stat(t.Context(), "full/old"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("shard in the full store after the delete: %v", err)
	}
}

// Deletes do not wait for ever for a store, even if it ignores its context, and
// not at all for one in which they failed lately. The other stores do theirs.
func TestDeleteDeadStore(t *testing.T) {
	rg := newRig(t, small, 1, func(c *Config) { c.StallTimeout = 800 * time.Millisecond })
	layouts := make([]objfmt.Layout, 3*maxFailures)
	for i := range layouts {
		layouts[i] = rg.write(t, fmt.Sprintf("dead/%d", i), content(1, 1000), 1000)
	}
	var asked atomic.Int32
	wake := make(chan struct{})
	dead := rg.pods[0][2]
	dead.set(func() {
		dead.del = func(context.Context) error {
			asked.Add(1)
			<-wake
			return nil
		}
	})
	remove := func(i int) {
		if err := rg.Remove(t.Context(), fmt.Sprintf("dead/%d", i), layouts[i]); !errors.Is(err, objstore.ErrUnavailable) {
			t.Errorf("delete %d with a dead store: %v", i, err)
		}
	}
	var first sync.WaitGroup
	for i := range maxFailures {
		first.Go(func() { remove(i) })
	}
	first.Wait()
	for i := maxFailures; i < len(layouts); i++ {
		remove(i)
	}
	close(wake)
	if n := asked.Load(); n > maxFailures+1 {
		t.Errorf("%d of %d deletes waited for a dead store", n, len(layouts))
	}
	for i, s := range rg.pods[0] {
		if i != 2 {
			for info := range s.Store.List(t.Context(), "", "") {
				t.Errorf("left in store %d: %+v", i, info)
			}
		}
	}
}

// More writers than stripes fit into memory, all open before any is finished,
// written to in turn by one goroutine.
func TestManyWritersLittleMemory(t *testing.T) {
	g := objfmt.Geometry{Data: 4, Parity: 2, Block: 1 << 20}
	rg := newRig(t, g, 1, func(c *Config) { c.Memory = 16 << 20; c.StallTimeout = 5 * time.Second })
	const writers = 64
	var all []*Writer
	datas := make([][]byte, writers)
	for i := range writers {
		w, err := rg.Create(t.Context(), fmt.Sprintf("many/%d", i))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
		datas[i] = content(byte(i), []int{3_000_000, 100, 200_000, 70_000}[i%4])
	}
	for off := 0; off < 3_000_000; off += 50_000 {
		for i, w := range all {
			if data := datas[i]; off < len(data) {
				if _, err := w.Write(data[off:min(off+50_000, len(data))]); err != nil {
					t.Fatalf("writer %d at %d: %v", i, off, err)
				}
			}
			rg.writes.mu.Lock()
			used := rg.writes.used
			rg.writes.mu.Unlock()
			if used > 8<<20 {
				t.Fatalf("%d bytes in use", used)
			}
		}
	}
	for i, w := range all {
		l, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		rg.wantRead(t, w.key, l, datas[i], 0, len(datas[i]))
	}
	rg.idle(t)
}

// Thousands of small objects at once share the memory of a few stripes.
func TestManySmallObjects(t *testing.T) {
	g := objfmt.Geometry{Data: 4, Parity: 2, Block: 1 << 20}
	rg := newRig(t, g, 1, func(c *Config) { c.Memory = 16 << 20 })
	data := content(1, 4096)
	var group errgroup.Group
	var mu sync.Mutex
	layouts := make(map[string]objfmt.Layout)
	for i := range 1000 {
		group.Go(func() error {
			key := fmt.Sprintf("small/%d", i)
			w, err := rg.Create(t.Context(), key)
			if err != nil {
				return err
			}
			if _, err := w.Write(data); err != nil {
				return err
			}
			l, err := w.Close()
			mu.Lock()
			layouts[key] = l
			mu.Unlock()
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for key, l := range layouts {
		rg.wantRead(t, key, l, data, 0, len(data))
	}
	rg.idle(t)
}

// When memory is all taken by writers that do not go on, the next gets an error
// in bounded time, and goes on when there is some.
func TestNoMemory(t *testing.T) {
	rg := newRig(t, small, 1, func(c *Config) { c.Memory = leastMemory(small); c.StallTimeout = 50 * time.Millisecond })
	var open []*Writer
	defer func() {
		for _, w := range open {
			w.Abort()
		}
		rg.idle(t)
	}()
	for i := range 1000 {
		w, err := rg.Create(t.Context(), fmt.Sprint("memory/", i))
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write([]byte("x"))
		if errors.Is(err, objstore.ErrUnavailable) {
			if i == 0 {
				t.Fatal(err)
			}
			open[0].Abort()
			again, err := rg.Create(t.Context(), "memory/again")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := again.Write([]byte("again")); err != nil {
				t.Fatal(err)
			}
			if _, err := again.Close(); err != nil {
				t.Fatal(err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, w)
	}
	t.Fatal("1000 writers fit into the least memory")
}

// Concurrent readers and writers of objects with a store that fails now and then.
func TestConcurrent(t *testing.T) {
	rg := newRig(t, small, 1, func(c *Config) { c.Memory = 16 << 20 })
	var calls atomic.Int32
	rg.pods[0][2].get = func(context.Context) error {
		if calls.Add(1)%3 == 0 {
			return objstore.ErrUnavailable
		}
		return nil
	}
	var group errgroup.Group
	for i := range 8 {
		group.Go(func() error {
			key := fmt.Sprint("concurrent/", i)
			data := content(byte(i), 700_000+i*1000)
			w, err := rg.Create(t.Context(), key)
			if err != nil {
				return err
			}
			if _, err := w.Write(data); err != nil {
				return err
			}
			l, err := w.Close()
			if err != nil {
				return err
			}
			got := make([]byte, len(data))
			for range 10 {
				if _, err := rg.ReadAt(t.Context(), key, l, got, 0); err != nil || string(got) != string(data) {
					return fmt.Errorf("read %s: %w", key, err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	rg.idle(t)
}

// Cancelling the context ends a write and a read.
func TestCancel(t *testing.T) {
	rg := newRig(t, small, 2, nil)
	data := content(1, int(small.Stripe())*4)
	l := rg.write(t, "cancel/read", data, 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	w, err := rg.Create(ctx, "cancel/write")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = w.Close()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("close after cancel: %v", err)
	}
	if _, err := rg.ReadAt(ctx, "cancel/read", l, make([]byte, 10), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("read after cancel: %v", err)
	}
	if _, err := rg.Find(t.Context(), "cancel/write"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("find of a cancelled write: %v", err)
	}
	rg.idle(t)
}

// Stores that failed lately are asked all the same when the others are not enough.
func TestAvoidedAsLastResort(t *testing.T) {
	for avoided := range 1 << small.Shards() {
		rg := newRig(t, small, 1, nil)
		data := content(5, 300_000)
		l := rg.write(t, "last/resort", data, 1<<20)
		for i, s := range rg.Repo.pods["pod0"].stores {
			if avoided>>i&1 == 1 {
				for _, h := range []*health{&s.reads, &s.writes} {
					h.failures, h.retry = maxFailures, time.Now().Add(time.Hour)
				}
			}
		}
		rg.wantRead(t, "last/resort", l, data, 0, len(data))
		rg.wantRead(t, "last/resort", l, data, 1000, 10)
		rg.write(t, "last/resort2", data, 1<<20)
	}
}
