package trash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

func TestListIsOfTheOwner(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	w.file(alice, "a", "alice's")
	w.mkdir(alice, "ad", 0o777)
	w.file(bob, "ad/b", "bob's")
	w.rewrite(bob, "ad/b", "again")
	w.remove(bob, "ad/b")
	w.remove(me, "ad") // root removes what is alice's
	w.remove(me, "a")
	w.wantList(alice, Filter{}, "a", "ad/")
	w.wantList(bob, Filter{Versions: true}, "ad/b", "ad/b@")
	w.wantList(alice, Filter{Versions: true}, "a", "ad/")
	w.wantList(me, Filter{Versions: true}, "a", "ad/", "ad/b", "ad/b@")
	uid := bob.UID
	w.wantList(me, Filter{Owner: &uid}, "ad/b")
	w.wantList(me, Filter{By: &uid}, "ad/b")
	for e, err := range w.List(ctx, me, Filter{Owner: &uid, Versions: true}) {
		w.must(err)
		if _, err := w.Get(ctx, bob, e.ID); err != nil {
			t.Error(err)
		}
		_, err := w.Get(ctx, alice, e.ID)
		wantErrno(t, err, syscall.ENOENT)
		_, err = w.PurgeID(ctx, alice, e.ID)
		wantErrno(t, err, syscall.ENOENT)
		for _, r := range []Restoration{{IDs: []ID{e.ID}}, {IDs: []ID{e.ID}, To: "."}} {
			paths, errs := w.restore(alice, r)
			if len(paths) > 0 || len(errs) != 1 {
				t.Fatalf("restored %q, %v", paths, errs)
			}
			wantErrno(t, errs[0], syscall.ENOENT)
		}
	}
	// Another's entries are not restored with one's own.
	w.mustRestore(alice, Restoration{}, "a", "ad")
	w.wantList(bob, Filter{}, "ad/b")
}

// A record whose owner is not that of the inode any more is nobody's but root's.
func TestOwnerIsThatOfTheInode(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.file(alice, "f", "text")
	w.remove(alice, "f")
	e := w.only(alice, Filter{})
	fl, err := w.Meta.OpenID(ctx, id)
	w.must(err)
	w.must(fl.Inode().Chown(int(bob.UID), int(bob.GID)))
	w.must(fl.Close())
	w.wantList(alice, Filter{})
	_, errs := w.restore(alice, Restoration{IDs: []ID{e.ID}})
	wantErrno(t, errors.Join(errs...), syscall.ENOENT)
	x := &restorer{t: w.Trash, ctx: ctx, who: alice}
	_, err = x.take(item{id: e.ID}) // also at the last moment
	wantErrno(t, err, syscall.ENOENT)
	w.wantList(me, Filter{}, "f")
	w.wantNothingTaken()
}

func TestFilter(t *testing.T) {
	w := newWorld(t)
	u := someone()
	w.mkdir(u, "a", 0o755)
	w.mkdir(u, "a/b", 0o755)
	w.file(u, "a/b/x.c", "12345")
	w.file(u, "a/b/\xff\n.c", "123")
	w.file(u, "a/bc", "1")
	w.rewrite(u, "a/bc", "22")
	w.remove(u, "a")
	first := w.clock
	w.clock = w.clock.Add(30 * 24 * time.Hour)
	w.file(u, "later", "")
	w.remove(u, "later")
	for _, tt := range []struct {
		f    Filter
		want string
	}{
		{Filter{}, "a/ a/b/ a/b/x.c a/b/\xff\n.c a/bc later"},
		{Filter{Under: "a/b"}, "a/b/ a/b/x.c a/b/\xff\n.c"},
		{Filter{Under: "a/b/x.c"}, "a/b/x.c"},
		{Filter{Under: "a/b/x"}, ""},
		{Filter{Match: "*.c"}, "a/b/x.c a/b/\xff\n.c"},
		{Filter{Match: "a/*"}, "a/b/ a/bc"},
		{Filter{Match: "a/**/x.{c,h}"}, "a/b/x.c"},
		{Filter{Match: "{a,later}", Versions: true}, "a/ later"},
		{Filter{Match: "bc", Versions: true}, "a/bc a/bc@"},
		{Filter{MinSize: 3}, "a/b/x.c a/b/\xff\n.c"},
		{Filter{MinSize: 1, MaxSize: 3}, "a/b/\xff\n.c a/bc"},
		{Filter{Since: first.Add(time.Hour)}, "later"},
		{Filter{Until: first.Add(time.Hour)}, "a/ a/b/ a/b/x.c a/b/\xff\n.c a/bc"},
		{Filter{Since: w.clock.Add(time.Hour)}, ""},
	} {
		if have := strings.Join(w.list(u, tt.f), " "); have != tt.want {
			t.Errorf("%+v: %q, want %q", tt.f, have, tt.want)
		}
	}
}

func TestPatternsAreBounded(t *testing.T) {
	w := newWorld(t)
	for _, p := range []string{"[", "{a", strings.Repeat("a", MaxPattern+1), strings.Repeat("{,a}", 1000), strings.Repeat("{", 1000),
		// Takes two minutes for a path of 64 KiB in long names.
		"**/*" + strings.Repeat("a", 127) + "{" + strings.Repeat(",", 999) + "}b",
		"{[}]" + strings.Repeat(",*", 1000) + "}b"} {
		for _, err := range w.List(ctx, me, Filter{Match: p}) {
			wantErrno(t, err, syscall.EINVAL)
		}
		_, errs := w.restore(me, Restoration{Filter: Filter{Match: p}})
		wantErrno(t, errors.Join(errs...), syscall.EINVAL)
	}
	start := time.Now()
	f := Filter{Match: "**/*" + strings.Repeat("a", 127) + "{" + strings.Repeat(",", 23) + "}b"}
	w.must(f.Check())
	if f.matches(strings.Repeat(strings.Repeat("a", 255)+"/", 255)) {
		t.Error("matched")
	}
	t.Log("the worst pattern that was found takes", time.Since(start))
}

func TestAlternatives(t *testing.T) {
	for pattern, want := range map[string]int{
		"": 1, "a,b": 1, "*.{h5,nc}": 2, "{a}": 1, "{a,b}{c,d,e}": 6, "{a,{b,c}{d,e}}f": 5, `{a\,b}`: 1, `\{a,b`: 1, "{[},{],b}": 2, "[{,]": 1,
		"{a,b}{c,d}{e,f}{g,h}": 16,
	} {
		if got := alternatives(pattern); got != want {
			t.Errorf("%q: %d, want %d", pattern, got, want)
		}
	}
	if got := alternatives(strings.Repeat("{a,b}", 800)); got <= maxWritten || got > 2*maxWritten {
		t.Error(got)
	}
}

func TestListLeavesOutWhatIsNotInTrash(t *testing.T) {
	w := newWorld(t)
	u := someone()
	gone := w.file(u, "gone", "1")
	w.file(u, "f", "first")
	w.rewrite(u, "f", "second")
	w.file(u, "linked", "1")
	w.in("linked", func(d mdfs.Dir, name string) error {
		return w.Meta.Link(ctx, who(u, "other"), d, name, d, "other")
	})
	w.remove(u, "linked")
	w.remove(u, "gone")
	w.wantList(u, Filter{Versions: true}, "f@", "gone")
	w.must(os.Rename(filepath.Join(w.root, "staged", gone.Fan(), gone.String()), filepath.Join(w.root, "dead", "h."+gone.String())))
	w.wantList(u, Filter{Versions: true}, "f@")
	v := w.only(u, Filter{Versions: true})
	if v.Size != 5 || v.Record.Slot == nil {
		t.Errorf("%+v", v)
	}
	w.in("f", func(d mdfs.Dir, name string) error {
		fl, err := w.Meta.Open(ctx, d, name)
		if err != nil {
			return err
		}
		defer fl.Close()
		list, err := w.Versions(ctx, u, fl.ID())
		if err != nil || len(list) != 1 || list[0].ID != v.ID {
			t.Errorf("versions %v, %v", list, err)
		}
		if _, err = w.Meta.RestoreVersion(ctx, fl, who(u, "f"), v.Record.Content); err != nil {
			return err
		}
		list, err = w.Versions(ctx, u, fl.ID())
		if err != nil || len(list) != 1 || list[0].Size != 6 {
			t.Errorf("versions %v, %v", list, err)
		}
		if isRoot() {
			_, err = w.Versions(ctx, bob, fl.ID())
			wantErrno(t, err, syscall.EPERM)
		}
		return nil
	})
	if e := w.only(u, Filter{Versions: true}); e.Size != 6 {
		t.Errorf("%+v", e)
	}
}

// A version whose record was made anew, as its content moved, is one version.
func TestVersionsAreListedOnce(t *testing.T) {
	w := newWorld(t)
	u := someone()
	id := w.file(u, "f", "1")
	for i := range 5 {
		w.rewrite(u, "f", fmt.Sprint(i))
	}
	var first Entry
	for e, err := range w.List(ctx, u, Filter{Versions: true}) {
		w.must(err)
		first = e
	}
	stale := filepath.Join(w.root, "trash", first.ID.Day, first.ID.Name[:2], first.ID.Name)
	b, err := os.ReadFile(stale)
	w.must(err)
	r, err := objfmt.ParseRecord(b)
	w.must(err)
	r.When = r.When.Add(-time.Minute)
	b, err = r.Encode()
	w.must(err)
	w.must(os.WriteFile(filepath.Join(filepath.Dir(stale), id.String()+"-0123456789abcdef"), b, 0o600))
	if have := w.list(u, Filter{Versions: true}); len(have) != 5 {
		t.Errorf("listed %q", have)
	}
	list, err := w.Versions(ctx, u, id)
	if err != nil || len(list) != 5 || !slices.IsSortedFunc(list, func(a, b Entry) int { return b.Record.When.Compare(a.Record.When) }) {
		t.Errorf("versions %v, %v", list, err)
	}
}

// A record whose bytes a power failure has taken counts by its name.
func TestTornRecord(t *testing.T) {
	w := newWorld(t)
	u := someone()
	id := w.file(u, "f", "text")
	w.remove(u, "f")
	e := w.only(u, Filter{})
	w.must(os.Truncate(filepath.Join(w.root, "trash", e.ID.Day, e.ID.Name[:2], e.ID.Name), 0))
	e = w.only(me, Filter{})
	if e.Record.Path != "" || e.Record.File != id || e.UID != u.UID || e.Size != 4 {
		t.Errorf("%+v", e)
	}
	if isRoot() {
		w.wantList(bob, Filter{})
	}
	_, errs := w.restore(me, Restoration{IDs: []ID{e.ID}})
	wantErrno(t, errors.Join(errs...), syscall.EINVAL) // nobody knows where it was
	w.mustRestore(me, Restoration{IDs: []ID{e.ID}, To: "."}, id.String())
	if s := w.tree("")[id.String()]; !strings.HasSuffix(s, `"text"`) {
		t.Error(s)
	}
}

func TestPurge(t *testing.T) {
	w := newWorld(t)
	u := someone()
	for _, p := range []string{"a", "b", "c"} {
		w.file(u, p, p)
		w.remove(u, p)
	}
	for e, err := range w.Purge(ctx, u, Filter{Match: "[ab]"}) {
		w.must(err)
		if !e.Purged || e.ID.Day != metadata.PurgedDay {
			t.Errorf("%+v", e)
		}
	}
	w.wantList(u, Filter{}, "c")
	w.wantList(u, Filter{Purged: true}, "a", "b", "c")
	e := w.only(u, Filter{Purged: true, Match: "a"})
	w.mustRestore(u, Restoration{IDs: []ID{e.ID}}, "a") // until gc has taken it
	if _, err := w.PurgeID(ctx, u, e.ID); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	p, err := w.PurgeID(ctx, u, w.only(u, Filter{}).ID)
	if err != nil || !p.Purged {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestListManyOfOthers measures what a user waits for who owns few entries of many:
// MARFS_MANY says how many.
func TestListManyOfOthers(t *testing.T) {
	n := 3000
	if _, err := fmt.Sscan(os.Getenv("MARFS_MANY"), &n); err != nil {
		n = 3000
	}
	w := newWorld(t)
	u := someone()
	w.file(u, "mine", "1")
	w.remove(u, "mine")
	w.manyRecords(n, 99)
	start, cpu := time.Now(), cpuTime()
	if isRoot() {
		w.wantList(u, Filter{}, "mine")
	}
	d := time.Since(start)
	t.Logf("%d entries in %v: %.0f/s, %v of CPU for each", n, d, float64(n)/d.Seconds(), (cpuTime()-cpu)/time.Duration(n))
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// manyRecords makes records of removals of files that are gone.
func (w *world) manyRecords(n int, uid uint32) {
	w.t.Helper()
	for i := range n {
		id := objfmt.NewID()
		r := objfmt.Record{Kind: objfmt.RecordFile, File: id, When: w.clock, Node: "node1", Why: "unlink", By: uid,
			Path: fmt.Sprintf("some/deep/directory/of/a/project/file%08d", i), Mode: syscall.S_IFREG | 0o644, UID: uid, GID: uid, MTime: w.clock}
		w.writeRecord(id, r)
	}
}

// writeRecord puts a record into trash under the name of a file.
func (w *world) writeRecord(id objfmt.ID, r objfmt.Record) {
	w.t.Helper()
	b, err := r.Encode()
	w.must(err)
	dir := filepath.Join(w.root, "trash", r.When.UTC().Format(time.DateOnly), id.Fan())
	name := filepath.Join(dir, id.String()+"-0123456789abcdef")
	if os.WriteFile(name, b, 0o600) != nil {
		w.must(os.MkdirAll(dir, 0o700))
		w.must(os.WriteFile(name, b, 0o600))
	}
}
