package packer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/objstore/faultstore"
	"marfs/pkg/repo"
)

// meddling is something done to the file "f", which holds "text", while it is packed
// or repacked. "g" holds "other", "gone" was removed and held "gone".
type meddling struct {
	name string
	do   func(w *world, m *metadata.FS) error
	want map[string]string // afterwards
	look func(w *world) error
}

var meddlings = []meddling{
	{name: "overwrite", do: func(_ *world, m *metadata.FS) error { return rewrite(m, "f", "overwritten") },
		want: map[string]string{"f": "overwritten", "g": "other"}},
	{name: "unlink", do: func(_ *world, m *metadata.FS) error { return removeAs(m, "f") },
		want: map[string]string{"g": "other"}},
	{name: "rename over", do: func(_ *world, m *metadata.FS) error {
		return m.Rename(ctx, who("g"), m.Tree(), "g", m.Tree(), "f", "f", 0)
	}, want: map[string]string{"f": "other"}},
	{name: "rename", do: func(_ *world, m *metadata.FS) error {
		return m.Rename(ctx, who("f"), m.Tree(), "f", m.Tree(), "h", "h", 0)
	}, want: map[string]string{"h": "text", "g": "other"}},
	{name: "truncate", do: func(_ *world, m *metadata.FS) error {
		return opened(m, "f", func(fl *metadata.File) error { return m.Truncate(ctx, fl, who("f"), 2) })
	}, want: map[string]string{"f": "te", "g": "other"}},
	{name: "empty", do: func(_ *world, m *metadata.FS) error {
		return opened(m, "f", func(fl *metadata.File) error { return m.Truncate(ctx, fl, who("f"), 0) })
	}, want: map[string]string{"f": "", "g": "other"}},
	{name: "chmod", do: func(_ *world, m *metadata.FS) error {
		return opened(m, "f", func(fl *metadata.File) error { return fl.Inode().Chmod(m.DiskMode(0o604)) })
	}, want: map[string]string{"f": "text", "g": "other"}, look: func(w *world) error {
		st, err := w.Tree().Lstat("f")
		if metadata.StatOf(&st); err == nil && st.Mode&0o777 != 0o604 {
			err = fmt.Errorf("mode %o", st.Mode)
		}
		return err
	}},
	{name: "chown", do: func(_ *world, m *metadata.FS) error {
		if os.Geteuid() != 0 {
			return nil
		}
		return opened(m, "f", func(fl *metadata.File) error { return fl.Inode().Chown(4242, 4343) })
	}, want: map[string]string{"f": "text", "g": "other"}, look: func(w *world) error {
		st, err := w.Tree().Lstat("f")
		if err == nil && os.Geteuid() == 0 && (st.Uid != 4242 || st.Gid != 4343) {
			err = fmt.Errorf("owner %d:%d", st.Uid, st.Gid)
		}
		return err
	}},
	{name: "link", do: func(_ *world, m *metadata.FS) error { return m.Link(ctx, who("l"), m.Tree(), "f", m.Tree(), "l") },
		want: map[string]string{"f": "text", "l": "text", "g": "other"}},
	{name: "append", do: func(w *world, m *metadata.FS) error { return w.extend(m, "f", " and more") },
		want: map[string]string{"f": "text and more", "g": "other"}},
	{name: "touch", do: func(_ *world, m *metadata.FS) error {
		at := mdfs.TimeSet{Time: time.Unix(1e9, 0)}
		return opened(m, "f", func(fl *metadata.File) error { return fl.SetTimes(at, at) })
	}, want: map[string]string{"f": "text", "g": "other"}, look: func(w *world) error {
		st, err := w.Tree().Lstat("f")
		if err == nil && st.Mtim.Sec != 1e9 {
			err = fmt.Errorf("mtime %d", st.Mtim.Sec)
		}
		return err
	}},
	{name: "restore from trash", do: func(w *world, m *metadata.FS) error {
		return m.Restore(ctx, who("gone"), w.removals("gone")[0], m.Tree(), "gone")
	}, want: map[string]string{"f": "text", "g": "other", "gone": "gone"}},
	{name: "gc", do: func(w *world, m *metadata.FS) error { w.gc(m); return nil },
		want: map[string]string{"f": "text", "g": "other"}},
	{name: "another packer", do: func(w *world, m *metadata.FS) error {
		_, err := w.packer(m, policy).Pack(ctx, PackOptions{All: true, Others: true, Release: true})
		return err
	}, want: map[string]string{"f": "text", "g": "other"}},
}

// meddle runs what some times for each meddling, which is done by another node just
// before one of the steps that it takes, chosen at random.
func meddle(t *testing.T, prep func(w *world), what func(p *Packer) error) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	steps := stepsOf(t, prep, what, 0, nil)
	for _, m := range meddlings {
		t.Run(m.name, func(t *testing.T) {
			const times = 3
			for range times {
				at := 1 + rnd.IntN(steps)
				stepsOf(t, prep, what, at, &m)
			}
		})
	}
}

// stepsOf runs what, with the meddling before step at (0: none), checks what is left
// afterwards, and returns how many steps it took.
func stepsOf(t *testing.T, prep func(w *world), what func(p *Packer) error, at int, m *meddling) (steps int) {
	t.Helper()
	w := newWorld(t, policy)
	ids := []objfmt.ID{w.file("f", "text"), w.file("g", "other"), w.file("gone", "gone")}
	w.remove("gone")
	prep(w)
	other := w.open("node2")
	count := false
	w.md = func(md mdfs.FS) mdfs.FS {
		return &hooked{FS: md, hook: func(op string) {
			if !count {
				return
			}
			if steps++; steps == at {
				if err := m.do(w, other); err != nil {
					t.Errorf("step %d, before %s: %v", at, op, err)
				}
			}
		}}
	}
	p := w.packer(w.open("node3"), policy)
	p.c.Dead = func([4]byte) bool { return true } // what node1 has staged is to be packed
	count = true
	err := what(p)
	count = false
	if err != nil {
		t.Errorf("step %d: %v", at, err)
	}
	if m == nil {
		return steps
	}
	check := func(when string) {
		t.Helper()
		for name, want := range m.want {
			if got := w.read(name); got != want {
				t.Errorf("step %d, %s: %s holds %q, want %q", at, when, name, got, want)
			}
		}
		if m.look != nil {
			if err := m.look(w); err != nil {
				t.Errorf("step %d, %s: %v", at, when, err)
			}
		}
	}
	check("at once")
	clear(p.troubled)
	if err := what(p); err != nil {
		t.Error(err)
	}
	if _, err := p.Pack(ctx, PackOptions{All: true, Others: true, Release: true}); err != nil {
		t.Error(err)
	}
	check("when all is packed and released")
	w.recover()
	check("after recovery")
	w.wantNoOrphans(ids...)
	return steps
}

func TestPackMeddled(t *testing.T) {
	meddle(t, func(*world) {}, func(p *Packer) error {
		_, err := p.Pack(ctx, PackOptions{All: true, Release: true})
		return err
	})
}

func TestRepackMeddled(t *testing.T) {
	meddle(t, func(w *world) {
		for i := range 2 {
			w.file(fmt.Sprint("dead", i), text(3000, i))
		}
		w.pack(PackOptions{All: true, Release: true})
		object := w.slot("f").Source.Object.Object
		for i := range 2 {
			w.remove(fmt.Sprint("dead", i))
		}
		w.must(os.MkdirAll(w.root+"/repack/"+object.String(), 0o700)) // as of a gc
	}, func(p *Packer) error {
		list, err := p.Plan(ctx)
		if err == nil {
			_, err = p.Repack(ctx, list, nil)
		}
		return err
	})
}

// While its store takes the object, everything may happen.
func TestPackMeddledDuringUpload(t *testing.T) {
	for _, m := range meddlings {
		t.Run(m.name, func(t *testing.T) {
			w := newWorld(t, policy)
			w.file("f", "text")
			w.file("g", "other")
			w.file("gone", "gone")
			w.remove("gone")
			other := w.open("node2")
			p := w.packer(w.FS, policy)
			slow := &pausing{Store: w.stores[0], pause: func() {
				if err := m.do(w, other); err != nil {
					t.Error(err)
				}
			}}
			pod := repo.Pod{Name: "pod0", Weight: 1, Stores: []repo.Store{{Store: slow, Name: "slow"}, {Store: w.stores[1]}, {Store: w.stores[2]}}}
			r, err := repo.New(repo.Config{Name: "small", Geometry: objfmt.Geometry{Data: 2, Parity: 1, Block: 64 << 10}, Pods: []repo.Pod{pod}, Memory: 32 << 20})
			w.must(err)
			p.c.Places = []Place{{Repo: r, Pack: true}}
			if _, err := p.Pack(ctx, PackOptions{All: true}); err != nil {
				t.Error(err)
			}
			w.wantText(m.want)
			if m.look != nil {
				w.must(m.look(w))
			}
		})
	}
}

// pausing is a store that does something else during its first Put.
type pausing struct {
	objstore.Store
	once  sync.Once
	pause func()
}

func (s *pausing) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	s.once.Do(s.pause)
	return s.Store.Put(ctx, key, r, size)
}

// Several packers on one namespace, on one handle and on several, as often as they
// like: no file is packed twice, so no bytes are dead.
func TestPackersAtOnce(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes, " handles"), func(t *testing.T) {
			o := policy
			o.TargetSize = 4000
			w := newWorld(t, o)
			texts := map[string]string{}
			for i := range 60 {
				p := fmt.Sprintf("d%d/%d", i%3, i)
				texts[p] = text(500, i)
				w.file(p, texts[p])
			}
			handles := []*metadata.FS{w.FS}
			for i := 1; i < nodes; i++ {
				handles = append(handles, w.open(fmt.Sprint("other", i)))
			}
			var done sync.WaitGroup
			for i := range 4 {
				p := w.packer(handles[i%nodes], o)
				done.Go(func() {
					for range 3 {
						if _, err := p.Pack(ctx, PackOptions{All: true, Others: true}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			done.Wait()
			w.wantText(texts)
			packs := w.wantPacked(all(texts)...)
			if n := len(w.objectIDs()); n != len(packs) {
				t.Errorf("%d objects for %d packs", n, len(packs))
			}
			for id, n := range packs {
				table, err := w.Members(ctx, id)
				w.must(err)
				if len(table.Members) != n {
					t.Errorf("%d of %d members of pack %s live", n, len(table.Members), id)
				}
			}
			if hints := w.names("repack"); len(hints) != 0 {
				t.Errorf("dead bytes: %v", hints)
			}
		})
	}
}

// Writers, removers, packers, repackers, gc and recovery, all at once, at random.
func TestRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	o := policy
	o.TargetSize, o.BelowLive = 4000, 0.9
	w := newWorld(t, o)
	end := time.Now().Add(3 * time.Second)
	c, stop := context.WithDeadline(ctx, end)
	defer stop()
	var done sync.WaitGroup
	texts := make([]map[string]string, 3)
	for i := range texts { // each writer has files of its own, so it knows what they hold
		texts[i] = map[string]string{}
		m, rnd := w.open(fmt.Sprint("writer", i)), rand.New(rand.NewPCG(seed, uint64(i)))
		done.Go(func() { w.write(c, m, rnd, i, texts[i]) })
	}
	for i := range 2 {
		p := w.packer(w.open(fmt.Sprint("packer", i)), o)
		done.Go(func() {
			workUntil(c, t, func() error { _, err := p.Pack(c, PackOptions{All: true, Others: true, Release: i == 0}); return err })
		})
		done.Go(func() { workUntil(c, t, func() error { return repackWithin(c, p) }) })
	}
	collector := w.open("gc")
	done.Go(func() { workUntil(c, t, func() error { w.gc(collector); return nil }) })
	done.Go(func() {
		workUntil(c, t, func() error { return collector.Recover(c, func(metadata.Node) bool { return true }) })
	})
	remove := w.stores[0].Inject(faultstore.Fault{Op: faultstore.Put, Skip: 20, Count: 3, Do: faultstore.NoSpace()})
	done.Wait()
	remove()
	for i := range texts {
		w.wantText(texts[i])
	}
	w.recover()
	p := w.packer(w.open("last"), o)
	p.c.Dead = func([4]byte) bool { return true }
	if _, err := p.Pack(ctx, PackOptions{All: true, Release: true}); err != nil {
		t.Error(err)
	}
	n := 0
	for i := range texts {
		w.wantText(texts[i])
		n += len(texts[i])
	}
	t.Logf("%d files, %d objects", n, len(w.objectIDs()))
}

func repackWithin(ctx context.Context, p *Packer) error {
	list, err := p.Plan(ctx)
	if err == nil {
		_, err = p.Repack(ctx, list, nil)
	}
	return err
}

// workUntil calls fn until ctx ends. Stores that have no room are no fault.
func workUntil(ctx context.Context, t *testing.T, fn func() error) {
	for ctx.Err() == nil {
		if err := fn(); err != nil && ctx.Err() == nil && !errors.Is(err, objstore.ErrNoSpace) {
			t.Error(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// write changes a writer's files at random until ctx ends.
func (w *world) write(ctx context.Context, m *metadata.FS, rnd *rand.Rand, writer int, texts map[string]string) {
	for n := 0; ctx.Err() == nil; n++ {
		time.Sleep(time.Duration(rnd.IntN(1000)) * time.Microsecond)
		var p string
		if names := all(texts); len(names) > 0 {
			p = names[rnd.IntN(len(names))]
		}
		switch op := rnd.IntN(6); {
		case p == "" || op < 2 && len(texts) < 50:
			p = fmt.Sprintf("w%d/%d", writer, n)
			texts[p] = text(1+rnd.IntN(1000), n)
			w.fileAs(m, p, texts[p])
		case op == 2:
			texts[p] = text(1+rnd.IntN(1000), n)
			w.check(rewrite(m, p, texts[p]))
		case op == 3:
			texts[p] += "more"
			w.check(w.extend(m, p, "more"))
		case op == 4:
			delete(texts, p)
			w.check(removeAs(m, p))
		default:
			k := rnd.IntN(len(texts[p])) + 1
			texts[p] = texts[p][:k]
			w.check(opened(m, p, func(fl *metadata.File) error { return m.Truncate(ctx, fl, who(p), int64(k)) }))
		}
	}
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		w.t.Error(err)
	}
}
