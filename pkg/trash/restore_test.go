package trash

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
)

// acl is a POSIX ACL that gives a user of its own the right to read and enter.
func acl(uid uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 7, ^uint32(0)}, {2, 5, uid}, {4, 5, ^uint32(0)}, {16, 5, ^uint32(0)}, {32, 0, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// plant makes a tree of everything that a user can make below path.
func (w *world) plant(c mdfs.Cred, path string) {
	w.t.Helper()
	w.mkdir(c, path, 0o755)
	w.as(c, path, func(d mdfs.Dir, name string) error { return d.Setxattr(name, "user.colour", []byte("red"), 0) })
	w.mkdir(c, path+"/acl", 0o750)
	w.as(c, path+"/acl", func(d mdfs.Dir, name string) error {
		return d.Setxattr(name, "system.posix_acl_default", acl(1234), 0)
	})
	w.mkdir(c, path+"/acl/inherits", 0o770)
	w.mkdir(c, path+"/acl/has none", 0o700)
	w.as(c, path+"/acl/has none", func(d mdfs.Dir, name string) error {
		if err := d.Removexattr(name, "system.posix_acl_default"); err != nil {
			return err
		}
		return d.Removexattr(name, "system.posix_acl_access")
	})
	w.as(c, path+"/acl/fifo", func(d mdfs.Dir, name string) error { return d.Mknod(name, syscall.S_IFIFO|0o644, 0) })
	w.file(c, path+"/acl/f", "with an ACL")
	w.mkdir(c, path+"/ro", 0o700)
	w.file(c, path+"/ro/f", "in a directory that is read-only")
	w.file(c, path+"/ro/\xff\n ~", "hostile name")
	w.file(c, path+"/"+strings.Repeat("n", 255), "long name")
	w.file(c, path+"/empty", "")
	w.file(c, path+"/a", "two names")
	w.in(path+"/a", func(d mdfs.Dir, name string) error {
		return w.Meta.Link(ctx, who(c, path+"/a"), d, "a", d, "b")
	})
	w.as(c, path+"/link", func(d mdfs.Dir, name string) error { return d.Symlink("../some\nwhere", name) })
	w.mkdir(c, path+"/set", 0o2775)
	w.mkdir(c, path+"/void", map[bool]uint32{true: 0, false: 0o500}[isRoot()])
	old := mdfs.TimeSet{Time: time.Unix(1e9, 123456789)}
	for _, p := range []string{"/link", "/ro", "/acl/inherits", "/acl/fifo", "/acl", "/set", "/void", ""} {
		w.as(c, path+p, func(d mdfs.Dir, name string) error { return d.Lchtimes(name, old, old) })
	}
	w.as(c, path+"/ro", func(d mdfs.Dir, name string) error { return d.Chmod(name, 0o555) })
}

// callers are who restores what a user has removed.
func callers() map[string]mdfs.Cred {
	if !isRoot() {
		return map[string]mdfs.Cred{"me": me}
	}
	return map[string]mdfs.Cred{"owner": alice, "root": me}
}

func TestRestoreTree(t *testing.T) {
	for name, c := range callers() {
		for _, f := range []Filter{{Under: "d"}, {}, {Since: time.Now().Add(-time.Hour)}} {
			t.Run(fmt.Sprint(name, f.Under), func(t *testing.T) {
				w := newWorld(t)
				w.plant(someone(), "d")
				before := w.tree("d")
				w.removeAll("d")
				plan, errs := w.restore(c, Restoration{Filter: f, DryRun: true})
				if len(errs) > 0 || len(plan) != len(before) {
					t.Fatalf("plan: %q, %v", plan, errs)
				}
				w.wantTree("", map[string]string{".": w.tree("")["."]})
				w.mustRestore(c, Restoration{Filter: f}, plan...)
				w.wantTree("d", before)
				w.wantList(c, Filter{})
				w.wantNothingTaken()
			})
		}
	}
}

// removeAll is rm -r of a tree that its owner would have to chmod before.
func (w *world) removeAll(path string) {
	w.t.Helper()
	w.remove(me, path)
}

func TestRestoreTo(t *testing.T) {
	w := newWorld(t)
	u := someone()
	w.mkdir(u, "p", 0o755)
	w.plant(u, "p/d")
	before := w.tree("p/d")
	w.removeAll("p/d")
	w.mkdir(u, "q", 0o755)
	_, errs := w.restore(u, Restoration{Filter: Filter{Under: "p/d"}, To: "none"})
	if len(errs) != 1 {
		t.Fatal(errs)
	}
	wantErrno(t, errs[0], syscall.ENOENT)
	w.mustRestore(u, Restoration{Filter: Filter{Under: "p/d"}, To: "q"})
	w.wantTree("q/d", before)
	w.removeAll("q/d")
	w.mustRestore(u, Restoration{Filter: Filter{Under: "q/d"}, To: "."})
	w.wantTree("d", before)
	w.wantNothingTaken()
}

// Of several lives of a directory only the last one comes back, of several removals
// of one path the newest.
func TestRestoreLastLife(t *testing.T) {
	w := newWorld(t)
	u := someone()
	for i, names := range [][]string{{"old", "both"}, {"both", "new"}} {
		w.mkdir(u, "d", 0o755)
		for _, n := range names {
			w.file(u, "d/"+n, fmt.Sprint(i))
		}
		w.remove(u, "d/both")
		w.file(u, "d/both", fmt.Sprint(i, " newest"))
		w.remove(u, "d")
	}
	w.mustRestore(u, Restoration{Filter: Filter{Under: "d"}}, "d", "d/both", "d/new")
	if have := w.tree("d")["both"]; !strings.HasSuffix(have, `"1 newest"`) {
		t.Error(have)
	}
	// What was not chosen can still be had, beside.
	w.mustRestore(u, Restoration{Filter: Filter{Under: "d"}}, "d", "d/both.~1~", "d/old")
}

func TestRestoreMergesAndNumbers(t *testing.T) {
	w := newWorld(t)
	u := someone()
	w.mkdir(u, "d", 0o755)
	w.file(u, "d/f", "old")
	w.file(u, "d/g", "g")
	w.remove(u, "d")
	w.mkdir(u, "d", 0o711)
	w.file(u, "d/f", "mine")
	w.file(u, "d/f.~1~", "mine too")
	w.mustRestore(u, Restoration{Filter: Filter{Under: "d"}, DryRun: true}, "d", "d/f.~2~", "d/g")
	w.mustRestore(u, Restoration{Filter: Filter{Under: "d"}}, "d", "d/f.~2~", "d/g")
	have := w.tree("d")
	if !strings.HasPrefix(have["."], "40711 ") || !strings.HasSuffix(have["f"], `"mine"`) || !strings.HasSuffix(have["f.~2~"], `"old"`) {
		t.Error(have)
	}
	w.wantList(u, Filter{})
}

// A directory whose name is taken by a file gets a number, and what was in it follows.
func TestRestoreNumberedTree(t *testing.T) {
	w := newWorld(t)
	u := someone()
	w.plant(u, "d")
	before := w.tree("d")
	w.removeAll("d")
	w.file(u, "d", "in the way")
	w.mustRestore(u, Restoration{Filter: Filter{Under: "d"}})
	w.wantTree("d.~1~", before)
}

func TestRestoreForce(t *testing.T) {
	w := newWorld(t)
	u := someone()
	w.file(u, "f", "old")
	w.file(u, "e", "for a directory")
	w.mkdir(u, "d", 0o755)
	w.as(u, "l", func(d mdfs.Dir, name string) error { return d.Symlink("old", name) })
	for _, p := range []string{"f", "e", "d", "l"} {
		w.remove(u, p)
	}
	w.file(u, "f", "new")
	w.mkdir(u, "e", 0o755)
	w.file(u, "d", "new")
	w.file(u, "l", "new")
	have, errs := w.restore(u, Restoration{Force: true})
	if strings.Join(have, " ") != "f l" || len(errs) != 2 {
		t.Fatalf("restored %q, errors %v", have, errs)
	}
	wantErrno(t, errs[0], syscall.ENOTDIR) // d over a file
	wantErrno(t, errs[1], syscall.EISDIR)
	if s := w.tree("")["f"]; !strings.HasSuffix(s, `"old"`) {
		t.Error(s)
	}
	w.wantList(u, Filter{}, "d/", "e", "f", "l")
	w.wantNothingTaken()
}

// Several removals of one path, by their ids, all come back.
func TestRestoreByIDs(t *testing.T) {
	for _, force := range []bool{false, true} {
		w := newWorld(t)
		u := someone()
		var ids []ID
		for i := range 3 {
			w.file(u, "f", fmt.Sprint(i))
			w.remove(u, "f")
		}
		for e, err := range w.List(ctx, u, Filter{}) {
			w.must(err)
			ids = append(ids, e.ID)
		}
		want := []string{"f", "f.~1~", "f.~2~"}
		if force {
			want = []string{"f", "f", "f"}
		}
		w.mustRestore(u, Restoration{IDs: ids, Force: force, DryRun: true}, want...)
		w.mustRestore(u, Restoration{IDs: ids, Force: force}, want...)
		if s := w.tree("")["f"]; !force && !strings.HasSuffix(s, `"2"`) {
			t.Error(s)
		}
		if force {
			w.wantList(u, Filter{}, "f", "f")
		}
	}
}

func TestRestoreMissingParents(t *testing.T) {
	w := newWorld(t)
	u := someone()
	w.mkdir(u, "a", 0o751)
	w.mkdir(u, "a/b", 0o715)
	w.file(u, "a/b/f", "text")
	w.remove(u, "a")
	e := w.only(u, Filter{Match: "f"})
	w.mustRestore(u, Restoration{IDs: []ID{e.ID}}, "a", "a/b", "a/b/f")
	w.wantList(u, Filter{})
	have := w.tree("")
	if !strings.HasPrefix(have["a"], "40751 ") || !strings.HasPrefix(have["a/b"], "40715 ") {
		t.Error(have)
	}
	w.remove(u, "a")
	for e, err := range w.Purge(ctx, u, Filter{Match: "[ab]"}) {
		w.must(err)
		_ = e
	}
	w.mustRestore(u, Restoration{Filter: Filter{Match: "f"}}, "a/b/f")
	if have := w.tree(""); !strings.HasPrefix(have["a"], "40700 ") || !strings.HasPrefix(have["a/b"], "40700 ") {
		t.Error(have)
	}
}

// A name comes back to a file that has another one only with its directory.
func TestRestoreLinks(t *testing.T) {
	w := newWorld(t)
	u := someone()
	w.mkdir(u, "d", 0o755)
	w.file(u, "d/f", "text")
	w.in("d/f", func(d mdfs.Dir, name string) error {
		return w.Meta.Link(ctx, who(u, "d/f"), d, name, w.Meta.Tree(), "kept")
	})
	w.remove(u, "d/f")
	w.wantList(u, Filter{})
	w.mustRestore(u, Restoration{Filter: Filter{Under: "d"}})
	w.in("d/f", func(d mdfs.Dir, name string) error {
		return w.Meta.Link(ctx, who(u, "kept"), w.Meta.Tree(), "kept", d, name)
	})
	w.remove(u, "d")
	w.wantList(u, Filter{}, "d/")
	w.mustRestore(u, Restoration{Filter: Filter{Under: "d"}, DryRun: true}, "d", "d/f")
	w.mustRestore(u, Restoration{Filter: Filter{Under: "d"}}, "d", "d/f")
	if s := w.tree("d")["f"]; !strings.Contains(s, " 3 links ") {
		t.Error(s)
	}
}

// TestRestoreKilled: killed before or after any step, recovered and done again, a
// restore has the same result.
func TestRestoreKilled(t *testing.T) {
	scenario := func(t *testing.T) (*world, map[string]string) {
		w := newWorldIn(t, fastDir(t))
		w.mkdir(me, "x", 0o755)
		w.plant(me, "x/d")
		before := w.tree("x")
		w.removeAll("x")
		return w, before
	}
	w, _ := scenario(t)
	stop := fault.Trace()
	w.mustRestore(me, Restoration{Filter: Filter{Under: "x"}})
	points := stop()
	if len(points) < 10 {
		t.Fatalf("only %d points: %v", len(points), points)
	}
	for point, n := range points {
		for i := 1; i <= n; i = i*2 + 1 {
			t.Run(fmt.Sprintf("%s:%d", point, i), func(t *testing.T) {
				w, before := scenario(t)
				disarm, err := fault.Arm(fmt.Sprintf("%s=dead:%d", point, i))
				w.must(err)
				w.restore(me, Restoration{Filter: Filter{Under: "x"}})
				if !disarm() {
					t.Skip("not reached")
				}
				next := w.node("node2")
				w.must(next.Meta.Recover(ctx, nil))
				if _, errs := restoreBy(next, me, Restoration{Filter: Filter{Under: "x"}}); len(errs) > 0 {
					t.Error(errs)
				}
				w.wantTree("x", before)
				w.wantList(me, Filter{})
				w.wantNothingTaken()
			})
		}
	}
}

// fastDir is a directory in memory, if there is one.
func fastDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "trash")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestForceKilled: what is replaced is never lost, nor is what replaces it.
func TestForceKilled(t *testing.T) {
	scenario := func(t *testing.T) *world {
		w := newWorldIn(t, fastDir(t))
		w.file(me, "f", "old")
		w.as(me, "l", func(d mdfs.Dir, name string) error { return d.Symlink("old", name) })
		w.remove(me, "f")
		w.remove(me, "l")
		w.file(me, "f", "new")
		w.file(me, "l", "new too")
		return w
	}
	r := Restoration{Filter: Filter{Match: "[fl]", Until: time.Now().Add(time.Hour)}, Force: true}
	w := scenario(t)
	r.Filter.Until = w.clock.Add(time.Second)
	stop := fault.Trace()
	w.mustRestore(me, r, "f", "l")
	for point, n := range stop() {
		for i := range n {
			t.Run(fmt.Sprintf("%s:%d", point, i+1), func(t *testing.T) {
				w := scenario(t)
				r := r
				r.Filter.Until = w.clock.Add(time.Second)
				disarm, err := fault.Arm(fmt.Sprintf("%s=dead:%d", point, i+1))
				w.must(err)
				w.clock = w.clock.Add(time.Hour) // what is replaced goes later
				w.restore(me, r)
				if !disarm() {
					if strings.HasPrefix(point, "metadata.fan.") {
						return // ids are random: how many fan-out directories are made differs
					}
					t.Fatal("not reached")
				}
				next := w.node("node2")
				w.must(next.Meta.Recover(ctx, nil))
				w.clock = w.clock.Add(time.Hour)
				if _, errs := restoreBy(next, me, r); len(errs) > 0 {
					t.Error(errs)
				}
				have := w.tree("")
				if !strings.HasSuffix(have["f"], `"old"`) || !strings.HasSuffix(have["l"], "-> old") || len(have) != 3 {
					t.Error(have)
				}
				var sizes []int64
				for e, err := range w.List(ctx, me, Filter{}) {
					w.must(err)
					if !slices.Contains(sizes, e.Size) { // a killed rename may leave a record too many
						sizes = append(sizes, e.Size)
					}
				}
				if slices.Sort(sizes); !slices.Equal(sizes, []int64{3, 7}) {
					t.Errorf("replaced files of %d bytes in trash", sizes)
				}
				w.wantNothingTaken()
			})
		}
	}
}

// TestRestoreMany measures a tree of many files: MARFS_MANY says how many.
func TestRestoreMany(t *testing.T) {
	n := 500
	if _, err := fmt.Sscan(os.Getenv("MARFS_MANY"), &n); err != nil {
		n = 500
	}
	w := newWorld(t)
	u := someone()
	w.mkdir(u, "d", 0o755)
	for i := range n {
		if i%100 == 0 {
			w.mkdir(u, fmt.Sprintf("d/%d", i/100), 0o755)
		}
		w.file(u, fmt.Sprintf("d/%d/f%d", i/100, i), "")
	}
	before := w.tree("d")
	w.remove(u, "d")
	start, cpu := time.Now(), cpuTime()
	w.mustRestore(u, Restoration{Filter: Filter{Under: "d"}})
	d := time.Since(start)
	t.Logf("%d files in %v: %.0f/s, %v of CPU for each", n, d, float64(n)/d.Seconds(), (cpuTime()-cpu)/time.Duration(n))
	w.wantTree("d", before)
}
