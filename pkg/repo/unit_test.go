package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
)

// Objects of another geometry, or of a pod that takes no more, stay readable.
func TestOldGeometry(t *testing.T) {
	old := objfmt.Geometry{Data: 2, Parity: 1, Block: 64 * kib}
	rg := newRig(t, small, 1, nil)
	before, err := New(Config{Name: "test", Geometry: old, Pods: rg.cfg.Pods})
	if err != nil {
		t.Fatal(err)
	}
	w, err := before.Create(t.Context(), "old")
	if err != nil {
		t.Fatal(err)
	}
	data := content(1, 500_000)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	l, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	rg.change(t, "old", l, 1, func([]byte) []byte { return nil })
	rg.wantRead(t, "old", l, data, 0, len(data))
	if _, err := rg.Rebuild(t.Context(), "old", l); err != nil {
		t.Fatal(err)
	}
	rg.wantShards(t, "old", l, ShardOK)
	if found, err := rg.Find(t.Context(), "old"); found != l || err != nil {
		t.Fatalf("find: %+v, %v", found, err)
	}
	elsewhere := l
	elsewhere.Pod = "gone"
	if _, err := rg.ReadAt(t.Context(), "old", elsewhere, make([]byte, 1), 0); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "gone") {
		t.Errorf("read from a pod that is not configured: %v", err)
	}
}

// Layouts and keys come from disk: no values of them do harm.
func TestHostileLayouts(t *testing.T) {
	rg := newRig(t, small, 1, nil)
	good := rg.write(t, "good", content(1, 100_000), 1<<20)
	values := []int{-1 << 62, -1, 0, 1, 2, 3, 4096, 12288, 65536, 1 << 20, 1 << 30, 1 << 62}
	pick := func() int { return values[rand.IntN(len(values))] }
	for range 300 {
		l := good
		for range 1 + rand.IntN(3) {
			switch rand.IntN(5) {
			case 0:
				l.Data = pick()
			case 1:
				l.Parity = pick()
			case 2:
				l.Block = pick()
			case 3:
				l.Size = int64(pick())
			case 4:
				l.WriteID = objfmt.ID{}
			}
		}
		if l == good {
			continue
		}
		off := int64(pick())
		n, err := rg.ReadAt(t.Context(), "good", l, make([]byte, 5000), off)
		if err == nil && n > 0 && l.Geometry != good.Geometry {
			// A cell of the same bytes at the same place may be right by geometry.
			continue
		}
		_, _ = rg.Inspect(t.Context(), "good", l, true)
		_, _ = rg.Locate("good", l)
	}
	rg.wantRead(t, "good", good, content(1, 100_000), 0, 100_000)
	for _, key := range []string{"", "/", "../x", objfmt.StoreIdentityKey, strings.Repeat("x/", 2000)} {
		_, err1 := rg.Create(t.Context(), key)
		_, err2 := rg.ReadAt(t.Context(), key, good, make([]byte, 1), 0)
		_, err3 := rg.Find(t.Context(), key)
		for _, err := range []error{err1, err2, err3, rg.Remove(t.Context(), key, good), rg.Delete(t.Context(), key)} {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("key %.10q: %v", key, err)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	pods := newRig(t, small, 1, nil).cfg.Pods
	for name, c := range map[string]Config{
		"no geometry":       {Pods: pods},
		"no pods":           {Geometry: small},
		"two of a name":     {Geometry: small, Pods: append(pods[:1:1], pods[0])},
		"too few stores":    {Geometry: objfmt.Geometry{Data: 8, Parity: 2, Block: 4096}, Pods: pods},
		"negative weight":   {Geometry: small, Pods: []Pod{{Name: "p", Weight: -1, Stores: pods[0].Stores}}},
		"min_write below N": {Geometry: small, Pods: pods, MinWrite: 3},
		"min_write > N+E":   {Geometry: small, Pods: pods, MinWrite: 7},
		"memory":            {Geometry: small, Pods: pods, Memory: 1000},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The store's own identity is no object of the repo.
func TestIdentityHidden(t *testing.T) {
	rg := newRig(t, small, 1, nil)
	for _, s := range rg.pods[0] {
		if err := putAll(t, &s.Store, objfmt.StoreIdentityKey, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	rg.write(t, "a", nil, 1)
	rg.write(t, "z", []byte("z"), 1)
	var keys []string
	for info, err := range rg.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	if strings.Join(keys, " ") != "a z" {
		t.Errorf("list: %v", keys)
	}
}

// A listing works without E stores, and names what a broken write left.
func TestListWithFailures(t *testing.T) {
	rg := newRig(t, small, 1, nil)
	l := rg.write(t, "object", content(1, 1000), 1000)
	rg.write(t, "rest", content(1, 1000), 1000)
	for i := range 5 {
		rg.change(t, "rest", l, i, func(b []byte) []byte { return nil })
	}
	if err := rg.pods[0][0].Delete(t.Context(), "object"); err != nil {
		t.Fatal(err)
	}
	sizes := make(map[string]int64)
	for info, err := range rg.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		sizes[info.Key] = info.Size
	}
	if len(sizes) != 2 || sizes["object"] != 1000 || sizes["rest"] != 1000 {
		t.Errorf("list: %v", sizes)
	}
}

// unlisted is a store that cannot list.
type unlisted struct{ objstore.Store }

func (unlisted) List(context.Context, string, string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) { yield(objstore.Info{}, objstore.ErrUnavailable) }
}

// Of N shards, all that an object may have left, one at least must be seen: a
// listing says that it failed rather than hide an object.
func TestListHidesNothing(t *testing.T) {
	for _, g := range []objfmt.Geometry{{Data: 1, Parity: 1, Block: 64 * kib}, {Data: 2, Parity: 2, Block: 64 * kib}, {Data: 4, Parity: 2, Block: 64 * kib}} {
		for failing := range g.Parity + 1 {
			rg := newRig(t, g, 1, nil)
			rg.write(t, "object", content(1, 1000), 1000)
			cfg := rg.cfg
			for i := range g.Parity {
				if err := rg.pods[0][g.Shards()-1-i].Delete(t.Context(), "object"); err != nil {
					t.Fatal(err)
				}
			}
			for i := range failing {
				cfg.Pods[0].Stores[i].Store = unlisted{cfg.Pods[0].Stores[i].Store}
			}
			r, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			seen, failed := 0, error(nil)
			for _, err := range r.List(t.Context(), "", "") {
				if err != nil {
					failed = err
				} else {
					seen++
				}
			}
			if wantErr := failing >= g.Data; (failed != nil) != wantErr || !wantErr && seen != 1 {
				t.Errorf("%d+%d, %d listings fail: %d of 1 objects, %v", g.Data, g.Parity, failing, seen, failed)
			}
		}
	}
}

func TestHealth(t *testing.T) {
	var h health
	now := time.Now()
	for range maxFailures - 1 {
		h.report(objstore.ErrUnavailable)
	}
	h.report(fmt.Errorf("no such key: %w", fs.ErrNotExist)) // an answer
	for range maxFailures {
		if v := h.ask(now); v != use {
			t.Fatalf("avoided too soon: %v", v)
		}
		h.report(objstore.ErrUnavailable)
		h.report(context.Canceled) // says nothing
	}
	if v := h.ask(time.Now()); v != avoid {
		t.Errorf("after %d failures: %v", maxFailures, v)
	}
	later := time.Now().Add(maxPause)
	if v := h.ask(later); v != probe {
		t.Errorf("after the pause: %v", v)
	}
	if v := h.ask(later); v != avoid {
		t.Errorf("second probe: %v", v)
	}
	h.report(nil)
	if v := h.ask(later); v != use {
		t.Errorf("after success: %v", v)
	}
}

// TestHealthAfterBurst: calls that fail together are one failure, but each probe
// that fails doubles the pause.
func TestHealthAfterBurst(t *testing.T) {
	var h health
	for range 10 * maxFailures {
		h.report(objstore.ErrUnavailable)
	}
	for pause := minPause; pause < maxPause; pause *= 2 {
		now := time.Now()
		if v := h.ask(now.Add(pause / 2)); v != avoid {
			t.Errorf("before the end of a pause of %v: %v", pause, v)
		}
		if v := h.ask(now.Add(pause)); v != probe {
			t.Errorf("after a pause of %v: %v", pause, v)
		}
		h.report(objstore.ErrUnavailable)
	}
}

func TestLatency(t *testing.T) {
	l := latency{credit: 2}
	if d := l.late(1); d != hedgeStart {
		t.Errorf("at first: %v", d)
	}
	for i := range 64 {
		l.observe(time.Duration(float64(i%16+1)*float64(time.Millisecond)*weight(4)), 4)
	}
	if d := l.late(0); d != 4*16*time.Millisecond {
		t.Errorf("4 times a p95 of 16 ms: %v", d)
	}
	if a, b := l.late(16), l.late(0); a != 2*b {
		t.Errorf("1 MiB is late after %v, nothing after %v", a, b)
	}
	hedges := 0
	for range 100 {
		if l.spend() {
			hedges++
		}
	}
	if want := 2 + 6; hedges != want {
		t.Errorf("%d hedges after 64 reads, want %d", hedges, want)
	}
}

func TestRecent(t *testing.T) {
	var r recent
	now := time.Now()
	for i := range 3 * recentMax {
		if !r.first(fmt.Sprint(i), now) {
			t.Fatal("seen before it was")
		}
		if r.first(fmt.Sprint(i), now) {
			t.Fatal("not remembered")
		}
	}
	if n := len(r.young) + len(r.old); n > 2*recentMax {
		t.Errorf("%d remembered", n)
	}
	last := fmt.Sprint(3*recentMax - 1)
	if r.first(last, now.Add(recentAge-1)) || !r.first(last, now.Add(3*recentAge)) {
		t.Error("remembered for less than recentAge, or more than twice that")
	}
}
