package trash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// A symlink on the way is never followed: not above what is restored, nor in the
// place of what was a directory.
func TestRestorePastSymlinks(t *testing.T) {
	w := newWorld(t)
	u := someone()
	w.mkdir(u, "target", 0o777)
	w.mkdir(u, "d", 0o755)
	w.file(u, "d/f", "text")
	f := Filter{Match: "f"}
	w.remove(u, "d")
	w.as(u, "d", func(d mdfs.Dir, name string) error { return d.Symlink("target", name) })
	_, errs := w.restore(me, Restoration{IDs: []ID{w.only(u, f).ID}})
	wantErrno(t, errors.Join(errs...), syscall.ENOTDIR)
	if !strings.Contains(errs[0].Error(), "restore d:") {
		t.Errorf("the error does not name the component: %v", errs[0])
	}
	_, errs = w.restore(me, Restoration{Filter: Filter{Under: "target"}, To: "d"})
	wantErrno(t, errors.Join(errs...), syscall.ENOTDIR)
	w.mustRestore(me, Restoration{Filter: Filter{Under: "d"}}, "d.~1~", "d.~1~/f")
	if len(w.tree("target")) != 1 {
		t.Error(w.tree("target"))
	}
	w.wantNothingTaken()
}

// A user restores nothing where the user could make nothing.
func TestRestoreWithTheCallersRights(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	w.mkdir(bob, "shared", 0o777)
	w.file(alice, "shared/f", "text")
	w.mkdir(alice, "shared/d", 0o755)
	w.as(alice, "shared/l", func(d mdfs.Dir, name string) error { return d.Symlink("x", name) })
	for _, p := range []string{"f", "d", "l"} {
		w.remove(alice, "shared/"+p)
	}
	for _, mode := range []uint32{0o755, 0o700} {
		w.as(bob, "shared", func(d mdfs.Dir, name string) error { return d.Chmod(name, mode) })
		paths, errs := w.restore(alice, Restoration{})
		if len(paths) > 0 || len(errs) != 3 {
			t.Fatalf("mode %o: restored %q, %v", mode, paths, errs)
		}
		for _, err := range errs {
			wantErrno(t, err, syscall.EACCES)
		}
		_, errs = w.restore(alice, Restoration{Force: true, To: "shared"})
		for _, err := range errs {
			wantErrno(t, err, syscall.EACCES)
		}
	}
	w.wantList(alice, Filter{}, "shared/d/", "shared/f", "shared/l")
	w.wantNothingTaken()
	// What is alice's directory does not let bob put things there.
	w.mustRestore(me, Restoration{}, "shared/d", "shared/f", "shared/l")
	if s := w.tree("shared")["d"]; !strings.HasPrefix(s, "40755 4242:4242") {
		t.Error(s)
	}
}

// A directory that the caller may not pass hides what is below it, whatever its mode.
func TestRestoreNeedsToPass(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	w.mkdir(bob, "closed", 0o755)
	w.mkdir(bob, "closed/open", 0o777)
	w.file(alice, "closed/open/f", "text")
	w.remove(alice, "closed/open/f")
	w.as(bob, "closed", func(d mdfs.Dir, name string) error { return d.Chmod(name, 0o700) })
	for _, r := range []Restoration{{}, {Filter: Filter{Under: "closed/open"}}, {DryRun: true}, {To: "closed/open"}} {
		paths, errs := w.restore(alice, r)
		if len(paths) > 0 {
			t.Errorf("%+v: restored %q", r, paths)
		}
		wantErrno(t, errors.Join(errs...), syscall.EACCES)
	}
}

// Of several who restore one entry, one wins.
func TestRestoreAtOnce(t *testing.T) {
	w := newWorld(t)
	u := someone()
	w.as(u, "l", func(d mdfs.Dir, name string) error { return d.Symlink("x", name) })
	w.mkdir(u, "d", 0o755)
	w.file(u, "f", "text")
	for _, name := range []string{"l", "d", "f"} {
		for range 20 {
			w.remove(u, name)
			id := w.only(u, Filter{}).ID
			nodes := []*Trash{w.Trash, w.Trash, w.Trash}
			errs := make([]error, len(nodes))
			var wg sync.WaitGroup
			for i, n := range nodes {
				wg.Go(func() {
					_, e := restoreBy(n, u, Restoration{IDs: []ID{id}})
					errs[i] = errors.Join(e...)
				})
			}
			wg.Wait()
			won := 0
			for _, err := range errs {
				if err == nil {
					won++
				} else {
					wantErrno(t, err, syscall.ENOENT)
				}
			}
			if won != 1 {
				t.Fatalf("%s: %d won: %v", name, won, errs)
			}
		}
	}
	w.wantNothingTaken()
}

// A tree that is restored by several at once is whole.
func TestRestoreTreeAtOnce(t *testing.T) {
	w := newWorld(t)
	w.plant(me, "d")
	before := w.tree("d")
	w.removeAll("d")
	other := w.node("node2")
	var wg sync.WaitGroup
	for _, n := range []*Trash{w.Trash, other} {
		wg.Go(func() { restoreBy(n, me, Restoration{Filter: Filter{Under: "d"}}) })
	}
	wg.Wait()
	w.restore(me, Restoration{Filter: Filter{Under: "d"}})
	have := w.tree("d")
	for p := range before {
		if _, ok := have[p]; !ok {
			t.Errorf("%s is missing", p)
		}
	}
	w.wantNothingTaken()
}

func TestRestoreStopped(t *testing.T) {
	w := newWorld(t)
	w.plant(me, "d")
	before := w.tree("d")
	w.removeAll("d")
	for range 2 {
		for range w.Restore(ctx, me, Restoration{Filter: Filter{Under: "d"}}) {
			break
		}
		w.wantNothingTaken()
	}
	w.restore(me, Restoration{Filter: Filter{Under: "d"}})
	w.wantTree("d", before)
}

// Bytes of users bound nothing but what they ask for.
func TestRestoreBounds(t *testing.T) {
	p := &plan{dirs: map[string]item{}}
	path := strings.Repeat("p", objfmt.MaxPath)
	var err error
	for n := 0; err == nil; n++ {
		if err = p.add(item{target: path}); n > maxRestorePaths/len(path)+1 {
			t.Fatal("paths without end")
		}
	}
	wantErrno(t, err, syscall.E2BIG)

	w := newWorld(t)
	u := someone()
	deep := strings.Repeat("d/", maxDepth+10) + "f"
	w.trashRecord(u, objfmt.Record{Kind: objfmt.RecordSymlink, Target: "x", Path: deep})
	for _, bad := range []string{"../x", "a/../../x", "/x", "a//x", ".", "a/\x00"} {
		w.trashRecord(u, objfmt.Record{Kind: objfmt.RecordSymlink, Target: "x", Path: bad})
	}
	paths, errs := w.restore(u, Restoration{})
	if len(paths) > 0 || len(errs) != 7 {
		t.Fatalf("restored %q, %v", paths, errs)
	}
	for _, err := range errs {
		if !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENAMETOOLONG) {
			t.Error(err)
		}
	}
	if have := w.tree(""); len(have) > 1 {
		t.Errorf("%d entries", len(have))
	}
	w.wantNothingTaken()
}

// trashRecord puts a record into trash.
func (w *world) trashRecord(c mdfs.Cred, r objfmt.Record) {
	w.t.Helper()
	r.When, r.UID, r.GID, r.MTime = w.clock, c.UID, c.GID, time.Unix(1e9, 0)
	w.writeRecord(objfmt.NewID(), r)
}

func TestNumbered(t *testing.T) {
	for _, tt := range []struct {
		name string
		n    int
		want string
	}{{"f", 0, "f"}, {"f", 1, "f.~1~"}, {"f.~1~", 2, "f.~1~.~2~"}, {strings.Repeat("n", 255), 10, strings.Repeat("n", 250) + ".~10~"}} {
		if have := numbered(tt.name, tt.n); have != tt.want {
			t.Errorf("%q", have)
		}
	}
}

func TestComparePaths(t *testing.T) {
	paths := []string{"a", "a/b", "a/b/c", "a/b.", "a/b0", "a!", "a\x01", "b"}
	for i, p := range paths[:len(paths)-3] {
		if comparePaths(p, paths[i+1]) >= 0 || comparePaths(paths[i+1], p) <= 0 {
			t.Errorf("%q, %q", p, paths[i+1])
		}
	}
}

// Where everybody may make names, a directory that another user has put in the place
// of a removed one does not get what the removed one kept closed: neither when it is
// restored, nor when something in it is.
func TestRestorePastAnothersDirectory(t *testing.T) {
	needRoot(t)
	for name, c := range callers() {
		for _, r := range []Restoration{{}, {Filter: Filter{Under: "d"}}, {Filter: Filter{Match: "f"}}, {Force: true}} {
			for _, dry := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s %+v %v", name, r.Filter, dry), func(t *testing.T) {
					w := newWorld(t)
					w.mkdir(alice, "d", 0o700)
					w.file(alice, "d/f", "secret")
					w.remove(alice, "d")
					w.mkdir(bob, "d", 0o777)
					r.DryRun = dry
					paths, errs := w.restore(c, r)
					if len(errs) > 0 || !slices.Contains(paths, "d.~1~/f") {
						t.Errorf("restored %q, %v", paths, errs)
					}
					if got := w.tree("d"); len(got) != 1 {
						t.Errorf("in bob's directory: %q", got)
					}
				})
			}
		}
	}
}

// Root's directory, and what its owner has made again, is merged into.
func TestRestoreIntoTrustedDirectory(t *testing.T) {
	needRoot(t)
	for _, maker := range []mdfs.Cred{alice, me} {
		w := newWorld(t)
		w.mkdir(alice, "d", 0o700)
		w.file(alice, "d/f", "text")
		w.remove(alice, "d")
		w.mkdir(maker, "d", 0o777)
		w.mustRestore(alice, Restoration{}, "d", "d/f")
		w.wantNothingTaken()
	}
}

// Another user who makes and removes a directory of the same path hides nothing.
func TestRestorePastAnothersLife(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	w.mkdir(alice, "d", 0o700)
	w.file(alice, "d/f", "text")
	w.remove(alice, "d")
	w.mkdir(bob, "d", 0o700)
	w.remove(bob, "d")
	owner := alice.UID
	for _, r := range []Restoration{
		{Filter: Filter{Under: "d"}, DryRun: true},
		{Filter: Filter{Under: "d", Owner: &owner}, DryRun: true},
	} {
		for _, c := range []mdfs.Cred{alice, me} {
			if c.UID == 0 && r.Filter.Owner == nil {
				continue
			}
			paths, errs := w.restore(c, r)
			if len(errs) > 0 || !slices.Contains(paths, "d/f") {
				t.Errorf("%+v: restored %q, %v", r.Filter, paths, errs)
			}
		}
	}
}

// Who is given a file is not given what was taken out of it before.
func TestVersionsOfAGivenFile(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.file(me, "f", "secret of root's")
	w.rewrite(me, "f", "for alice")
	fl, err := w.Meta.OpenID(ctx, id)
	w.must(err)
	defer fl.Close()
	w.must(fl.Inode().Chown(int(alice.UID), int(alice.GID)))
	w.rewrite(me, "f", "by root, for alice")
	w.must(fl.Inode().Chown(int(bob.UID), int(bob.GID)))
	w.rewrite(bob, "f", "bob's")
	w.rewrite(bob, "f", "bob's still")
	for _, c := range []struct {
		who  mdfs.Cred
		want int
	}{{me, 4}, {alice, 0}, {bob, 2}} {
		if got := len(w.list(c.who, Filter{Versions: true})); got != c.want {
			t.Errorf("%d lists %d, want %d", c.who.UID, got, c.want)
		}
		list, err := w.Versions(ctx, c.who, id)
		if c.who.UID == alice.UID {
			wantErrno(t, err, syscall.EPERM)
			continue
		}
		if err != nil || len(list) != c.want {
			t.Errorf("%d has %d versions, want %d, %v", c.who.UID, len(list), c.want, err)
		}
	}
	all, err := w.Versions(ctx, me, id)
	w.must(err)
	for i, e := range all {
		_, err := w.Get(ctx, bob, e.ID)
		if i < 2 {
			w.must(err)
		} else {
			wantErrno(t, err, syscall.ENOENT)
		}
	}
}

// What is another's, what is not there and what cannot be there are told in the same
// words.
func TestNoOracle(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	w.file(alice, "f", "text")
	w.remove(alice, "f")
	there := w.only(alice, Filter{}).ID
	var texts []string
	for _, name := range []string{there.Name, there.Name[:len(there.Name)-1] + "1", "zz" + there.Name[2:], "..x", there.Name[:33] + "x+0+x"} {
		id := ID{there.Day, name}
		_, err := w.Get(ctx, bob, id)
		wantErrno(t, err, syscall.ENOENT)
		texts = append(texts, strings.ReplaceAll(err.Error(), id.String(), "ID"))
		_, err = w.PurgeID(ctx, bob, id)
		wantErrno(t, err, syscall.ENOENT)
		texts = append(texts, strings.ReplaceAll(err.Error(), id.String(), "ID"))
	}
	if slices.Sort(texts); len(slices.Compact(texts)) != 1 {
		t.Errorf("%q", slices.Compact(texts))
	}
}

// However many users list however much, some processors are left for the mount.
func TestUsersScanOnSomeProcessors(t *testing.T) {
	w := newWorld(t)
	u := someone()
	for i := range 40 {
		w.file(u, fmt.Sprint(i), "")
		w.remove(u, fmt.Sprint(i))
	}
	var now, most atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		s := &scan{t: w.Trash, who: u, day: func(string) bool { return true }, entry: func(*Entry) bool { return true },
			record: func(*objfmt.Record) bool {
				n := now.Add(1)
				defer now.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				time.Sleep(time.Millisecond)
				return true
			}}
		wg.Go(func() { s.run(ctx, func(found) bool { return true }) })
	}
	wg.Wait()
	if got := most.Load(); got < 1 || got > int64(cap(usersAtOnce)) {
		t.Errorf("%d records at once, want 1 to %d", got, cap(usersAtOnce))
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for range cap(usersAtOnce) {
		usersAtOnce <- struct{}{}
	}
	s := &scan{who: u}
	if s.enter(ended) {
		t.Error("waits although it has been ended")
	}
	for range cap(usersAtOnce) {
		<-usersAtOnce
	}
}
