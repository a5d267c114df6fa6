package packer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/objstore/faultstore"
)

func TestLimit(t *testing.T) {
	w := newWorld(t, policy)
	r := w.repo
	for _, tt := range []struct {
		max    int64
		places []Place
		want   int64
	}{
		{100, nil, 0},
		{0, []Place{{Repo: r, Pack: true}}, 0},
		{100, []Place{{Repo: r, Pack: true}}, 100},
		{100, []Place{{Repo: r}}, 0},
		{100, []Place{{MaxSize: 50, Repo: r, Pack: true}, {Repo: r}}, 50},
		{100, []Place{{MaxSize: 500, Repo: r, Pack: true}, {Repo: r}}, 100},
		{100, []Place{{MaxSize: 50, Repo: r}, {Repo: r, Pack: true}}, 0},
		{100, []Place{{MaxSize: 50, Repo: r, Pack: true}, {Repo: r, Pack: true}}, 100},
	} {
		p := New(Config{Meta: w.FS, Places: tt.places, Policy: Policy{MaxFile: tt.max}})
		if got := p.Limit(); got != tt.want || p.Admit(ctx, 1) != (tt.want > 0) {
			t.Errorf("%d, %+v: limit %d, want %d", tt.max, tt.places, got, tt.want)
		}
	}
}

// Writers are held back before there is too much, and refused then.
func TestAdmit(t *testing.T) {
	o := policy
	o.MaxBytes = 1000
	w := newWorld(t, o)
	admit := func(n int64) (bool, time.Duration) {
		began := time.Now()
		ok := w.Admit(ctx, n)
		return ok, time.Since(began)
	}
	if ok, took := admit(800); !ok || took > 20*time.Millisecond {
		t.Errorf("when there is room: %v after %v", ok, took)
	}
	w.Staged(890)
	if ok, took := admit(10); !ok || took < 40*time.Millisecond || took > 150*time.Millisecond {
		t.Errorf("at 90 %%: %v after %v, want about 50 ms", ok, took)
	}
	if ok, took := admit(200); ok || took > 20*time.Millisecond {
		t.Errorf("beyond the limit: %v after %v", ok, took)
	}
	c, stop := context.WithCancel(ctx)
	stop()
	began := time.Now()
	if w.Admit(c, 90) || time.Since(began) > 20*time.Millisecond {
		t.Error("a writer that is gone was held back")
	}
	select {
	case <-w.hurry:
	default:
		t.Error("the packer was not told to hurry")
	}
}

// What is packed counts until it can be released; what was counted wrong is
// counted again by the next pass.
func TestAdmitCounts(t *testing.T) {
	o := policy
	o.MaxBytes = 10000
	w := newWorld(t, o)
	w.file("f", text(8100, 1))
	w.pack(PackOptions{})
	if used := w.room.used(); used != 8100 {
		t.Errorf("%d bytes used after packing", used)
	}
	w.Packer.resident[0].since = time.Now().Add(-courtesy)
	w.countResident()
	if used := w.room.used(); used != 0 {
		t.Errorf("%d bytes used that can be released", used)
	}
	if freed, err := w.releaseOld(ctx); err != nil || freed != 8100 {
		t.Errorf("released %d, %v", freed, err)
	}
	w.Staged(5000) // nothing came of it
	w.fileAs(w.FS, "g", "nobody told of it")
	w.c.Policy.Linger = time.Hour
	w.pack(PackOptions{})
	if used := w.room.used(); used != 17 {
		t.Errorf("%d bytes counted, want 17", used)
	}
}

// fullFS is a hooked filesystem of which so much is free, of 1000 blocks.
func fullFS(free *atomic.Int64) func(mdfs.FS) mdfs.FS {
	return func(md mdfs.FS) mdfs.FS {
		return &hooked{FS: md, hook: func(string) {}, statfs: func() (syscall.Statfs_t, error) {
			return syscall.Statfs_t{Blocks: 1100, Bfree: uint64(free.Load()) + 100, Bavail: uint64(free.Load())}, nil
		}}
	}
}

// A metadata filesystem that fills up refuses, and has old packs released.
func TestAdmitFull(t *testing.T) {
	w := newWorld(t, policy)
	var free atomic.Int64
	free.Store(500)
	w.md = fullFS(&free)
	p := w.packer(w.open("node2"), policy)
	if !p.Admit(ctx, 1) {
		t.Error("refused when half is free")
	}
	free.Store(60)
	p.room.looked.Store(0)
	if p.Admit(ctx, 1) {
		t.Error("admitted when 6 % are free")
	}
	w.fileAs(p.c.Meta, "f", "text")
	if _, err := p.Pack(ctx, PackOptions{}); err != nil {
		t.Fatal(err)
	}
	if freed, err := p.releaseOld(ctx); err != nil || freed != 0 {
		t.Errorf("released %d of a young pack, %v", freed, err)
	}
	p.resident[0].since = time.Now().Add(-courtesy)
	if freed, err := p.releaseOld(ctx); err != nil || freed != 4 {
		t.Errorf("released %d, %v", freed, err)
	}
	w.wantText(map[string]string{"f": "text"})
}

// Release begins at three quarters and ends at half, with the oldest packs.
func TestReleaseOldest(t *testing.T) {
	o := policy
	o.MaxBytes, o.TargetSize = 10000, 1000
	w := newWorld(t, o)
	for i := range 8 {
		w.file(fmt.Sprint(i), text(1000, i))
		w.pack(PackOptions{})
		w.Packer.resident[i].since = time.Now().Add(time.Duration(i)*time.Second - time.Hour)
	}
	freed, err := w.releaseOld(ctx)
	w.must(err)
	if freed != 3000 {
		t.Errorf("freed %d, want 3000", freed)
	}
	for i := range 8 {
		st, err := os.Stat(filepath.Join(w.root, "tree", fmt.Sprint(i)))
		w.must(err)
		b, err := os.ReadFile(filepath.Join(w.root, "tree", fmt.Sprint(i)))
		w.must(err)
		if held := b[0] != 0; st.Size() != 1000 || held != (i >= 3) {
			t.Errorf("file %d: its body is there: %v", i, held)
		}
		w.wantText(map[string]string{fmt.Sprint(i): text(1000, i)})
	}
	if freed, err = w.releaseOld(ctx); err != nil || freed != 0 {
		t.Errorf("again: %d, %v", freed, err)
	}
}

// Files that are empty stay in staged/ for a while: passes do not open them.
func TestPassOverEmpty(t *testing.T) {
	w := newWorld(t, policy)
	for i := range 20 {
		fl, err := w.Create(ctx, who("f"), w.Tree(), fmt.Sprint(i), 0o644)
		w.must(err)
		w.must(fl.Close())
	}
	w.file("f", "text")
	opened := 0
	w.md = func(md mdfs.FS) mdfs.FS {
		return &hooked{FS: md, hook: func(op string) {
			if op == "open" {
				opened++
			}
		}}
	}
	m := w.open("node2")
	opened = 0
	p := w.packer(m, policy)
	r, err := p.Pack(ctx, PackOptions{All: true, Others: true})
	if err != nil || r.Files != 1 {
		t.Errorf("%d files packed, error %v", r.Files, err)
	}
	if opened > 19 {
		t.Errorf("%d files opened", opened)
	}
}

// However much room there is, packs do not wait for their release without number.
func TestReleaseMany(t *testing.T) {
	w := newWorld(t, policy)
	w.room.most = 8
	for i := range 9 {
		w.file(fmt.Sprint(i), text(1000, i))
		w.pack(PackOptions{})
		w.Packer.resident[i].since = time.Now().Add(time.Duration(i)*time.Second - time.Hour)
	}
	if freed, err := w.releaseOld(ctx); err != nil || freed != 3000 {
		t.Errorf("freed %d, error %v, want 3000", freed, err)
	}
	if left, err := w.Resident(ctx); err != nil || len(left) != 6 {
		t.Errorf("%d packs wait, error %v, want 6", len(left), err)
	}
}

// Many callers share one pass.
func TestMakeRoom(t *testing.T) {
	o := policy
	o.Linger, o.MinFiles, o.MaxAge = time.Hour, 1000, time.Hour
	w := newWorld(t, o)
	texts := map[string]string{}
	for i := range 10 {
		p := fmt.Sprint(i)
		texts[p] = text(100, i)
		w.file(p, texts[p])
	}
	var done sync.WaitGroup
	for range 20 {
		done.Go(func() {
			if !w.MakeRoom(ctx) {
				t.Error("no room was made")
			}
		})
	}
	done.Wait()
	if n := len(w.wantPacked(all(texts)...)); n != 1 {
		t.Errorf("%d packs", n)
	}
	w.wantText(texts)
	b, err := w.Backlog(ctx)
	w.must(err)
	if b != (Backlog{}) {
		t.Errorf("backlog %+v", b)
	}
	if w.MakeRoom(ctx) {
		t.Error("room was made of nothing")
	}
}

// Who makes room may go away; the others go on. Nobody waits longer than he wants.
func TestMakeRoomGoesOn(t *testing.T) {
	w := newWorld(t, policy)
	w.file("f", "text")
	for _, s := range w.stores {
		s.Inject(faultstore.Fault{Op: faultstore.Put, Do: faultstore.Delay(200 * time.Millisecond)})
	}
	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	first := make(chan bool)
	go func() { first <- w.MakeRoom(short) }()
	for w.isMaking() == nil {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	tiny, stop := context.WithTimeout(ctx, 10*time.Millisecond)
	defer stop()
	if w.MakeRoom(tiny) || time.Since(began) > 45*time.Millisecond {
		t.Errorf("a caller with 10 ms waited %v", time.Since(began))
	}
	if !w.MakeRoom(ctx) {
		t.Error("the others did not go on")
	}
	if <-first {
		t.Error("it was ended, and says that it made room")
	}
	w.wantText(map[string]string{"f": "text"})
}

func (p *Packer) isMaking() *flight {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.making
}

// In the background everything is packed when its time has come, and released when
// there is much.
func TestRun(t *testing.T) {
	o := policy
	o.Linger, o.MinFiles, o.MaxAge, o.MaxBytes = 100*time.Millisecond, 3, time.Second, 2000
	w := newWorld(t, o)
	c, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { w.Run(c) })
	defer done.Wait()
	defer stop()
	time.Sleep(50 * time.Millisecond) // its first pass finds nothing
	texts := map[string]string{}
	add := func(p string) { texts[p] = text(100, len(texts)); w.file(p, texts[p]) }
	for i := range 3 {
		add(fmt.Sprint(i))
	}
	w.eventually("three files are packed", func() bool { return w.slot("0").Source.Packed })
	add("alone")
	w.eventually("a file alone is packed when it is old", func() bool { return w.slot("alone").Source.Packed })
	for i := range 17 {
		add(fmt.Sprint("more", i))
	}
	w.eventually("all is packed when it is much", func() bool { return w.slot("more16").Source.Packed })
	w.mu.Lock()
	for i := range w.Packer.resident {
		w.Packer.resident[i].since = time.Now().Add(-time.Hour)
	}
	w.mu.Unlock()
	w.eventually("old packs are released", func() bool { w.Admit(ctx, 1999); return w.room.resided.Load() <= 1000 })
	w.wantText(texts)
	stop()
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not so: %s", what)
		}
	}
}

// Stores that fail are tried again, at growing intervals, until they work.
func TestRunBacksOff(t *testing.T) {
	w := newWorld(t, policy)
	for _, s := range w.stores {
		s.Inject(faultstore.Fault{Op: faultstore.Put, Do: faultstore.NoSpace()})
	}
	c, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { w.Run(c) })
	defer done.Wait()
	defer stop()
	w.file("f", "text")
	time.Sleep(4 * time.Second)
	if n := w.stores[0].Calls(faultstore.Put); n < 1 || n > 12 {
		t.Errorf("%d attempts in four seconds", n)
	}
	for _, s := range w.stores {
		s.Heal()
	}
	w.eventually("it is packed", func() bool { return w.slot("f").Source.Packed })
}

func BenchmarkAdmit(b *testing.B) {
	w := newWorld(b, policy)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w.Admit(ctx, 1)
		}
	})
}

func BenchmarkStaged(b *testing.B) {
	w := newWorld(b, policy)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w.Staged(0)
		}
	})
}

// A recovery that takes a pack under way for a dead one's makes its members lose. They
// have only moved, and are packed soon.
func TestRunAfterRecovery(t *testing.T) {
	o := policy
	o.Linger = 100 * time.Millisecond
	w := newWorld(t, o)
	for _, s := range w.stores {
		s.Inject(faultstore.Fault{Op: faultstore.Put, Count: 1, Do: faultstore.Delay(500 * time.Millisecond)})
	}
	w.file("f", "text")
	c, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { w.Run(c) })
	defer done.Wait()
	defer stop()
	w.eventually("a pack is under way", func() bool { return w.stores[0].Calls(faultstore.Put) > 0 })
	w.must(w.open("recoverer").Recover(ctx, nil))
	w.eventually("it is packed", func() bool { return w.slot("f").Source.Packed })
	if w.stores[0].Calls(faultstore.Put) < 2 {
		t.Error("the recovery came too late")
	}
	stop()
}
