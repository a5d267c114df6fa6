package packer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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
	"marfs/pkg/objstore/faultstore"
)

func TestPack(t *testing.T) {
	w := newWorld(t, policy)
	texts := map[string]string{}
	for i := range 40 {
		p := fmt.Sprintf("dir%d/f%02d", i%3, i)
		texts[p] = text(100+i, i)
		w.file(p, texts[p])
	}
	texts["big"] = text(largeAbove+1, 99)
	w.file("big", texts["big"])
	w.must(rewrite(w.FS, "dir0/f00", "rewritten"))
	texts["dir0/f00"] = "rewritten"
	r := w.pack(PackOptions{})
	if r.Files != 41 || r.Packs != 2 || r.Lost != 0 {
		t.Errorf("result %+v, want 41 files in a pack of either repo", r)
	}
	var paths []string
	for p := range texts {
		paths = append(paths, p)
	}
	if packs := w.wantPacked(paths...); len(packs) != 2 {
		t.Errorf("packs %v", packs)
	}
	w.wantText(texts)
	if again := w.pack(PackOptions{All: true}); again != (Result{}) {
		t.Errorf("again: %+v", again)
	}
	b, err := w.Backlog(ctx)
	w.must(err)
	if b.Files != 0 || b.Packs != 2 {
		t.Errorf("backlog %+v", b)
	}
}

// In a pack files lie as they will be read: by directory, and there by inode number,
// which is by age where none was freed.
func TestPackOrder(t *testing.T) {
	w := newWorld(t, policy)
	ino := map[string]uint64{}
	for i := range 5 {
		for _, dir := range []string{"c", "a", "b"} {
			p := fmt.Sprintf("%s/%d", dir, 9-i)
			w.file(p, p)
			st, err := os.Stat(filepath.Join(w.root, "tree", p))
			w.must(err)
			ino[p] = st.Sys().(*syscall.Stat_t).Ino
		}
	}
	want := slices.SortedFunc(maps.Keys(ino), func(a, b string) int {
		return cmp.Or(strings.Compare(a[:1], b[:1]), cmp.Compare(ino[a], ino[b]))
	})
	w.pack(PackOptions{})
	var got []string
	for _, f := range w.trailer(w.slot("a/9").Source.Object).Files {
		got = append(got, f.Path)
	}
	if !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

// What has not rested waits, and so do few files, but not for ever.
func TestPackWaits(t *testing.T) {
	p := policy
	p.Linger, p.MinFiles, p.MaxAge = time.Hour, 3, 2*time.Hour
	w := newWorld(t, p)
	w.file("f", "text")
	if r := w.pack(PackOptions{}); r.Packs != 0 {
		t.Errorf("a file that has not rested: %+v", r)
	}
	w.c.Policy.Linger = 0
	if r := w.pack(PackOptions{}); r.Packs != 0 {
		t.Errorf("fewer than min_files: %+v", r)
	}
	w.file("g", "text")
	w.file("h", "text")
	if r := w.pack(PackOptions{}); r.Files != 3 {
		t.Errorf("min_files: %+v", r)
	}
	w.file("i", "text")
	w.c.Policy.MaxAge = time.Millisecond
	time.Sleep(5 * time.Millisecond)
	if r := w.pack(PackOptions{}); r.Files != 1 {
		t.Errorf("max_age: %+v", r)
	}
	w.c.Policy.Linger, w.c.Policy.MaxAge = time.Hour, time.Hour
	w.file("j", "text")
	if r := w.pack(PackOptions{All: true}); r.Files != 1 {
		t.Errorf("all: %+v", r)
	}
}

// Packs are cut by bytes.
func TestPackTarget(t *testing.T) {
	p := policy
	p.TargetSize = 10000
	w := newWorld(t, p)
	var paths []string
	for i := range 30 {
		paths = append(paths, fmt.Sprint(i))
		w.file(paths[i], text(3000, i))
	}
	if r := w.pack(PackOptions{}); r.Packs != 10 {
		t.Errorf("%+v, want 10 packs of 3", r)
	}
	for id, n := range w.wantPacked(paths...) {
		if n != 3 {
			t.Errorf("pack %s of %d", id, n)
		}
	}
}

// A content that is not what its slot says is left alone, and does not keep the
// others from being packed; nor is it tried again at once.
func TestPackDamaged(t *testing.T) {
	w := newWorld(t, policy)
	w.file("good", "good")
	w.file("bad", "text")
	w.must(os.WriteFile(filepath.Join(w.root, "tree", "bad"), []byte("TEXT"), 0))
	w.file("short", "text")
	w.must(os.Truncate(filepath.Join(w.root, "tree", "short"), 2))
	r := w.pack(PackOptions{})
	if r.Files != 1 || r.Lost != 2 || r.Packs != 1 {
		t.Errorf("result %+v", r)
	}
	w.wantPacked("good")
	w.wantText(map[string]string{"good": "good"})
	for _, p := range []string{"bad"} {
		if s := w.slot(p); s.Source.Kind != objfmt.SourceOwn {
			t.Errorf("%s was published: %+v", p, s.Source)
		}
	}
	tr := w.trailer(w.slot("good").Source.Object)
	if len(tr.Files) != 1 {
		t.Errorf("the trailer names %d files", len(tr.Files))
	}
	if r := w.pack(PackOptions{}); r != (Result{}) {
		t.Errorf("again: %+v", r)
	}
	clear(w.troubled)
	if r := w.pack(PackOptions{}); r.Packs != 0 || r.Lost != 2 {
		t.Errorf("a pack of damaged files only: %+v", r)
	}
	if n := len(w.objectIDs()); n != 1 {
		t.Errorf("%d objects", n)
	}
}

// A body that was cut has no checksum in its slot.
func TestPackCut(t *testing.T) {
	w := newWorld(t, policy)
	w.file("own", "0123456789")
	w.file("body", "")
	w.must(rewrite(w.FS, "body", "0123456789"))
	for _, p := range []string{"own", "body"} {
		w.must(opened(w.FS, p, func(fl *metadata.File) error { return w.Truncate(ctx, fl, who(p), 4) }))
		w.must(opened(w.FS, p, func(fl *metadata.File) error { return w.Truncate(ctx, fl, who(p), 6) }))
	}
	w.pack(PackOptions{})
	w.wantPacked("own", "body")
	w.wantText(map[string]string{"own": "0123\x00\x00", "body": "0123\x00\x00"})
}

// Stores that fail keep nothing from being packed later, and leave nothing behind.
func TestPackStoresFail(t *testing.T) {
	w := newWorld(t, policy)
	id := w.file("f", "text")
	big := w.file("big", text(largeAbove+1, 1))
	slot, before := w.slot("f"), w.backlog()
	for _, s := range w.stores[:3] {
		s.Inject(faultstore.Fault{Op: faultstore.Put, Do: faultstore.NoSpace()})
	}
	r, err := w.Pack(ctx, PackOptions{})
	if err == nil || r.Files != 1 || r.Packs != 1 {
		t.Errorf("%+v, %v: want the other repo's file packed, and an error", r, err)
	}
	w.wantPacked("big")
	if !time.Now().Before(w.pausedUntil(0)) || time.Now().Before(w.pausedUntil(1)) {
		t.Error("the wrong repo rests")
	}
	if s := w.slot("f"); s != slot {
		t.Errorf("an attempt left %+v, want %+v", s, slot)
	}
	if b := w.backlog(); !b.Oldest.Equal(before.Oldest) {
		t.Errorf("oldest since %v, want %v: status could not tell that files wait", b.Oldest, before.Oldest)
	}
	for _, s := range w.stores {
		s.Heal()
	}
	w.wantNoOrphans(id, big)
	if n := len(w.names("packs/open")); n != 0 {
		t.Errorf("%d open packs", n)
	}
	if r := w.pack(PackOptions{}); r.Files != 1 {
		t.Errorf("later: %+v", r)
	}
}

func (w *world) backlog() Backlog {
	w.t.Helper()
	b, err := w.Backlog(ctx)
	w.must(err)
	return b
}

func (w *world) names(dir string) []string {
	w.t.Helper()
	list, err := os.ReadDir(filepath.Join(w.root, dir))
	w.must(err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// A context that ends stops a pass, and nothing of the pack is left.
func TestPackStops(t *testing.T) {
	w := newWorld(t, policy)
	id := w.file("f", "text")
	stop, cancel := context.WithCancel(ctx)
	for _, s := range w.stores {
		s.Inject(faultstore.Fault{Op: faultstore.Put, Do: faultstore.Hang()})
	}
	time.AfterFunc(50*time.Millisecond, cancel)
	began := time.Now()
	if _, err := w.Pack(stop, PackOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v to stop", took)
	}
	for _, s := range w.stores {
		s.Heal()
	}
	w.recover()
	w.wantNoOrphans(id)
	if w.read("f") != "text" {
		t.Error("content lost")
	}
}

// What another process has staged is its own, until it is dead, or one is told to
// take it.
func TestPackOthers(t *testing.T) {
	w := newWorld(t, policy)
	other := w.open("node2")
	w.fileAs(other, "theirs", "text")
	w.file("mine", "text")
	if r := w.pack(PackOptions{All: true}); r.Files != 1 {
		t.Errorf("%+v: want mine alone", r)
	}
	w.c.Dead = func(i [4]byte) bool { return i == other.Instance() }
	if r := w.pack(PackOptions{}); r.Files != 1 {
		t.Errorf("%+v: want what the dead have left", r)
	}
	w.c.Dead = nil
	w.fileAs(other, "more", "text")
	if r := w.pack(PackOptions{Others: true}); r.Files != 1 {
		t.Errorf("%+v: want others' too", r)
	}
	w.fileAs(other, "claimed", "text")
	release, ok, err := other.Claim(ctx, other.Instance())
	w.must(err)
	if !ok {
		t.Fatal("not claimed")
	}
	if r := w.pack(PackOptions{Others: true}); r.Files != 0 {
		t.Errorf("%+v: its packer is at it", r)
	}
	release()
	if r := w.pack(PackOptions{Others: true}); r.Files != 1 {
		t.Errorf("%+v: released", r)
	}
}

// The trailer has the path that a file has now.
func TestTrailerPaths(t *testing.T) {
	w := newWorld(t, policy)
	w.file("d/there", "text")
	w.file("d/.tmp", "text")
	w.file("d/gone", "text")
	w.file("d/moved", "text")
	w.must(os.Rename(filepath.Join(w.root, "tree/d/.tmp"), filepath.Join(w.root, "tree/d/renamed")))
	w.must(os.Rename(filepath.Join(w.root, "tree/d/moved"), filepath.Join(w.root, "tree/elsewhere")))
	w.must(w.Unlink(ctx, who("d/gone"), mustDir(t, w, "d"), "gone"))
	w.pack(PackOptions{})
	var got []string
	for _, f := range w.trailer(w.slot("d/there").Source.Object).Files {
		got = append(got, f.Path)
		if f.Mode&syscall.S_IFMT != syscall.S_IFREG || f.Size != 4 || f.MTime.IsZero() {
			t.Errorf("trailer: %+v", f)
		}
	}
	slices.Sort(got)
	if want := []string{"d/gone", "d/moved", "d/renamed", "d/there"}; !slices.Equal(got, want) {
		t.Errorf("paths %q, want %q", got, want)
	}
}

// However many files a pack has, few are open, also of those that are read twice.
func TestPackDescriptors(t *testing.T) {
	w := newWorld(t, policy)
	open, most := 0, 0
	w.md = func(md mdfs.FS) mdfs.FS {
		return &hooked{FS: md, hook: func(op string) {
			switch op {
			case "open":
				open++
			case "close":
				open--
			}
			most = max(most, open)
		}}
	}
	p := w.packer(w.open("node2"), policy)
	for i := range 40 {
		name := fmt.Sprint("d/", i)
		w.fileAs(p.c.Meta, name, "")
		w.must(rewrite(p.c.Meta, name, "0123456789"))
		w.must(opened(p.c.Meta, name, func(fl *metadata.File) error { return w.Truncate(ctx, fl, who(name), 4) }))
	}
	before := open
	most = before
	r, err := p.Pack(ctx, PackOptions{All: true, Release: true})
	if err != nil || r.Files != 40 {
		t.Errorf("%+v, %v", r, err)
	}
	if most-before > 5 || open != before {
		t.Errorf("%d files open at once, %d at the end", most-before, open-before)
	}
}

// What others have staged is opened once a minute, not by each pass.
func TestPackForeign(t *testing.T) {
	w := newWorld(t, policy)
	opened := 0
	w.md = func(md mdfs.FS) mdfs.FS {
		return &hooked{FS: md, hook: func(op string) {
			if op == "open" {
				opened++
			}
		}}
	}
	p := w.packer(w.open("node2"), policy)
	for i := range 20 {
		w.file(fmt.Sprint(i), "text")
	}
	var passes []int
	for range 3 {
		opened = 0
		if _, err := p.round(ctx); err != nil {
			t.Fatal(err)
		}
		passes = append(passes, opened)
	}
	if passes[0] < 20 || passes[1] > 2 || passes[2] > 2 {
		t.Errorf("opened %v files", passes)
	}
	p.looked = time.Time{}
	p.c.Dead = func([4]byte) bool { return true }
	if _, err := p.round(ctx); err != nil {
		t.Fatal(err)
	}
	w.wantPacked("0", "19")
}

// A file whose slots cannot be written does not keep the others from being packed.
func TestPackBrokenInode(t *testing.T) {
	w := newWorld(t, policy)
	w.md = func(md mdfs.FS) mdfs.FS { return &hooked{FS: md, hook: func(string) {}} }
	p := w.packer(w.open("node2"), policy)
	texts := map[string]string{"a": "a", "b": "b", "c": "c"}
	for _, name := range all(texts) {
		w.fileAs(p.c.Meta, name, texts[name])
	}
	w.must(opened(w.FS, "b", func(fl *metadata.File) error { return fl.Inode().Setxattr(brokenAttr, nil, 0) }))
	for range 3 {
		if _, err := p.Pack(ctx, PackOptions{}); err != nil {
			t.Error(err)
		}
	}
	w.wantPacked("a", "c")
	w.wantText(texts)
	w.must(opened(w.FS, "b", func(fl *metadata.File) error { return fl.Inode().Removexattr(brokenAttr) }))
	clear(p.troubled)
	if _, err := p.Pack(ctx, PackOptions{}); err != nil {
		t.Error(err)
	}
	w.wantPacked("b")
}
