package namespace_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/namespace"
	"marfs/pkg/objfmt"
	"marfs/pkg/packer"
)

const stageLimit = 64 << 10

// stagingWorld stages files of up to stageLimit and packs them when told.
func stagingWorld(t testing.TB) *world {
	w := newWorld(t)
	w.staging = packer.Policy{MaxFile: stageLimit, TargetSize: 1 << 20, MinFiles: 1}
	return w
}

// packStaged packs everything that node a has staged, and with release frees the bodies.
func (w *world) packStaged(release bool) packer.Result {
	w.t.Helper()
	r, err := w.packers["a"].Pack(ctx, packer.PackOptions{All: true, Release: release})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func layout(t testing.TB, d *namespace.Dir, name string) namespace.Layout {
	t.Helper()
	l, err := d.Layout(ctx, me, name, false)
	if err != nil {
		t.Fatalf("layout of %s: %v", name, err)
	}
	return l
}

func wantType(t testing.TB, d *namespace.Dir, name, want string) namespace.Layout {
	t.Helper()
	l := layout(t, d, name)
	if l.Type != want {
		t.Errorf("%s is %s, want %s", name, l.Type, want)
	}
	return l
}

// objectKeys are those of all objects in the stores.
func (w *world) objectKeys() map[string]bool {
	w.t.Helper()
	keys := map[string]bool{}
	for info, err := range w.stores[0].List(ctx, "", "") {
		if err != nil {
			w.t.Fatal(err)
		}
		keys[info.Key] = true
	}
	return keys
}

func closeFile(t testing.TB, f *namespace.File) {
	t.Helper()
	if err := errors.Join(f.Flush(ctx), f.Close()); err != nil {
		t.Fatalf("close: %v", err)
	}
}

// TestStaged: files up to the limit are in their own bodies when they are closed,
// larger ones in objects, and all read the same here and elsewhere, packed or not.
func TestStaged(t *testing.T) {
	w := stagingWorld(t)
	a, b := dir(t, w.node("a"), "/proj"), dir(t, w.node("b"), "/proj")
	kinds := map[int]string{0: "empty", 1: "own", 511: "own", 4096: "own", stageLimit - 1: "own", stageLimit: "own",
		stageLimit + 1: "uni", 150_000: "uni", chunkSize + 1: "multi"}
	contents := map[string][]byte{}
	for n, kind := range kinds {
		name := fmt.Sprint("f", n)
		contents[name] = random(uint64(n), n)
		put(t, a, name, contents[name])
		wantType(t, a, name, kind)
	}
	check := func(when string) {
		t.Helper()
		for name, want := range contents {
			same(t, name+" here "+when, get(t, a, name), want)
			same(t, name+" elsewhere "+when, get(t, b, name), want)
			if st, err := b.Lookup(ctx, me, name); err != nil || st.Size != int64(len(want)) {
				t.Errorf("%s %s: size %d, error %v", name, when, st.Size, err)
			}
		}
	}
	check("staged")
	w.packStaged(false)
	wantType(t, a, "f4096", "packed")
	check("packed")
	w.packStaged(true)
	check("released")
}

// TestOutgrown: what outgrows staging takes along what is staged, in whatever state
// that is, and leaves no bytes in the metadata filesystem.
func TestOutgrown(t *testing.T) {
	want := random(1, 200_000)
	for name, between := range map[string]func(w *world, f *namespace.File) error{
		"at once":           func(*world, *namespace.File) error { return nil },
		"flushed":           func(_ *world, f *namespace.File) error { return f.Flush(ctx) },
		"synced":            func(_ *world, f *namespace.File) error { return f.Commit(ctx) },
		"packed":            func(w *world, f *namespace.File) error { err := f.Flush(ctx); w.packStaged(false); return err },
		"packed, released":  func(w *world, f *namespace.File) error { err := f.Flush(ctx); w.packStaged(true); return err },
		"appended, flushed": func(_ *world, f *namespace.File) error { return appendTo(f, want, 30_000, 50_000) },
		"appended":          func(_ *world, f *namespace.File) error { return appendTo(f, want, 30_000, 0) },
		"packed, appended": func(w *world, f *namespace.File) error {
			err := f.Flush(ctx)
			w.packStaged(true)
			return errors.Join(err, appendTo(f, want, 30_000, 50_000))
		},
	} {
		for _, mode := range []string{"new", "emptied"} {
			t.Run(name+", "+mode, func(t *testing.T) {
				w := stagingWorld(t)
				d := dir(t, w.node("a"), "/proj")
				f := create(t, d, "f")
				if mode == "emptied" {
					write(t, f, 0, []byte("older"))
					closeFile(t, f)
					f = open(t, d, "f", syscall.O_RDWR|syscall.O_TRUNC)
				}
				write(t, f, 0, want[:20_000])
				if err := between(w, f); err != nil {
					t.Fatal(err)
				}
				a, err := f.Stat(ctx)
				if err != nil {
					t.Fatal(err)
				}
				r := open(t, d, "f", syscall.O_RDONLY)
				defer r.Close()
				wantRead(t, r, want[:a.Size])
				write(t, f, a.Size, want[a.Size:])
				wantRead(t, r, want)
				closeFile(t, f)
				wantRead(t, r, want)
				if l := layout(t, d, "f"); l.Type != "uni" && l.Type != "multi" {
					t.Errorf("it is %s, want objects", l.Type)
				}
				var st syscall.Stat_t
				if err := syscall.Stat(filepath.Join(w.meta, "tree", "f"), &st); err != nil || st.Blocks > 16 { // those of xattrs
					t.Errorf("%d blocks are left, error %v", st.Blocks, err)
				}
				same(t, "elsewhere", get(t, dir(t, w.node("b"), "/proj"), "f"), want)
			})
		}
	}
}

// appendTo appends content to f, which has 20,000 bytes of it, in two parts, each
// followed by a flush if more is to come.
func appendTo(f *namespace.File, content []byte, ends ...int64) error {
	off := int64(20_000)
	if err := f.Flush(ctx); err != nil {
		return err
	}
	for _, end := range ends {
		if end == 0 {
			break
		}
		if _, err := f.WriteAt(ctx, me, content[off:end], off); err != nil {
			return err
		}
		if off = end; len(ends) > 1 && ends[1] != 0 {
			if err := f.Flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func wantRead(t testing.TB, f *namespace.File, want []byte) {
	t.Helper()
	got, err := io.ReadAll(io.NewSectionReader(readerAt{f}, 0, 1<<40))
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	same(t, "read", got, want)
}

// TestManyFlushes is a shell loop with its output in a file: no object for a line,
// nor a version, and each line is there when the program that wrote it has ended.
func TestManyFlushes(t *testing.T) {
	for _, mode := range []string{"new", "emptied", "packed on the way"} {
		t.Run(mode, func(t *testing.T) {
			w := stagingWorld(t)
			d, e := dir(t, w.node("a"), "/proj"), dir(t, w.node("b"), "/proj")
			f := create(t, d, "f")
			if mode == "emptied" {
				write(t, f, 0, []byte("older"))
				closeFile(t, f)
				f = open(t, d, "f", syscall.O_RDWR|syscall.O_TRUNC)
			}
			var want []byte
			for i := range 50 {
				line := fmt.Appendf(nil, "line %d\n", i)
				write(t, f, int64(len(want)), line)
				want = append(want, line...)
				if err := f.Flush(ctx); err != nil {
					t.Fatal(err)
				}
				same(t, "elsewhere", get(t, e, "f"), want)
				if mode == "packed on the way" && i == 20 {
					w.packStaged(true)
				}
			}
			closeFile(t, f)
			kind, objects := "own", 0
			switch mode {
			case "emptied":
				kind = "body"
			case "packed on the way":
				kind, objects = "body", 1
			}
			wantType(t, d, "f", kind)
			if n := len(w.objectKeys()); n != objects {
				t.Errorf("%d objects, want %d", n, objects)
			}
			w.packStaged(true)
			wantType(t, d, "f", "packed")
			same(t, "in the end", get(t, d, "f"), want)
		})
	}
}

// TestSmallOverwrite: O_TRUNC and a small content makes no object, others see the
// old content until the commit, and it is a version after.
func TestSmallOverwrite(t *testing.T) {
	for _, packed := range []bool{false, true} {
		w := stagingWorld(t)
		d, e := dir(t, w.node("a"), "/proj"), dir(t, w.node("b"), "/proj")
		put(t, d, "f", []byte("old content"))
		if packed {
			w.packStaged(true)
		}
		before := len(w.objectKeys())
		r := open(t, e, "f", syscall.O_RDONLY)
		defer r.Close()
		f := open(t, d, "f", syscall.O_WRONLY|syscall.O_TRUNC)
		write(t, f, 0, []byte("new"))
		same(t, "elsewhere, before the commit", get(t, e, "f"), []byte("old content"))
		closeFile(t, f)
		if n := len(w.objectKeys()); n != before {
			t.Errorf("%d objects more", n-before)
		}
		l := wantType(t, d, "f", "body")
		if l.Slot.State != objfmt.Final || l.Slot.Source.Sum != objfmt.Checksum([]byte("new")) {
			t.Errorf("slot %+v", l.Slot)
		}
		same(t, "elsewhere", get(t, e, "f"), []byte("new"))
		wantRead(t, r, []byte("old content"))
		w.packStaged(true)
		same(t, "packed", get(t, e, "f"), []byte("new"))
	}
}

// TestReadWhilePacked reads through handles that were opened before, while the file
// is packed and released, dying at each point on the way: they get the right bytes,
// and the names that cached pages are kept by stay.
func TestReadWhilePacked(t *testing.T) {
	contents := [][]byte{random(1, 10_000), make([]byte, 3000), append(random(2, 5000), 0), append(random(3, 600), make([]byte, 5000)...)}
	run := func(t *testing.T, arm func() func() bool) (hit bool) {
		w := stagingWorld(t)
		d := dir(t, w.node("a"), "/proj")
		var files []*namespace.File
		var names []namespace.Bytes
		for i, c := range contents {
			name := fmt.Sprint("f", i)
			put(t, d, name, c)
			f := open(t, d, name, syscall.O_RDONLY)
			defer f.Close()
			if i%2 == 0 { // half of them are read for the first time after
				wantRead(t, f, c)
			}
			files, names = append(files, f), append(names, f.Bytes())
		}
		check := func(when string) {
			t.Helper()
			for i, f := range files {
				wantRead(t, f, contents[i])
				p := make([]byte, 700)
				n, err := f.ReadAt(ctx, me, p, 100)
				if err != nil && err != io.EOF || !bytes.Equal(p[:n], contents[i][100:100+n]) {
					t.Fatalf("%s: wrong bytes or error %v", when, err)
				}
				if f.Bytes() != names[i] {
					t.Errorf("%s: the bytes' name has changed", when)
				}
				same(t, "opened "+when, get(t, d, fmt.Sprint("f", i)), contents[i])
			}
		}
		disarm := arm()
		_, err := w.packers["a"].Pack(ctx, packer.PackOptions{All: true, Release: true})
		if hit = disarm(); !hit && err != nil {
			t.Fatal(err)
		}
		check("in the middle")
		if hit { // another process ends what was begun
			w.node("b")
			if err := w.last.Recover(ctx, nil); err != nil {
				t.Fatal(err)
			}
			check("recovered")
		}
		w.packStaged(true)
		w.packStaged(true)
		check("in the end")
		return hit
	}
	stop := fault.Trace()
	points := map[string]int{}
	run(t, func() func() bool { return func() bool { points = stop(); return false } })
	n := 0
	for point, times := range points {
		for k := 1; k <= min(times, 2); k++ {
			if k > 1 && !strings.Contains(point, "slot") && !strings.Contains(point, "release") {
				break
			}
			n++
			t.Run(fmt.Sprint(point, k), func(t *testing.T) {
				run(t, func() func() bool {
					disarm, err := fault.Arm(fmt.Sprint(point, "=dead:", k))
					if err != nil {
						t.Fatal(err)
					}
					return disarm
				})
			})
		}
	}
	if n < 10 {
		t.Errorf("only %d points: %v", n, points)
	}
}

// TestDamagedBody: an own body whose bytes are not those that were committed is an
// error and told in the log; one that was packed is read from the pack.
func TestDamagedBody(t *testing.T) {
	w := stagingWorld(t)
	d := dir(t, w.node("a"), "/proj")
	want := random(1, 5000)
	damage := func(name string) {
		t.Helper()
		fl, err := os.OpenFile(filepath.Join(w.meta, "tree", name), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = fl.WriteAt([]byte("damage"), 2000)
		if err := errors.Join(err, fl.Close()); err != nil {
			t.Fatal(err)
		}
	}
	put(t, d, "f", want)
	put(t, d, "packed", want)
	damage("f")
	f := open(t, d, "f", syscall.O_RDONLY) // opening does not read
	defer f.Close()
	for _, off := range []int64{0, 4000} {
		_, err := f.ReadAt(ctx, me, make([]byte, 10), off)
		wantErrno(t, "read of a damaged own body", err, syscall.EIO)
	}
	if !strings.Contains(w.log.String(), "own body of file") {
		t.Errorf("the log does not tell: %s", w.log.String())
	}
	w.packStaged(false)
	wantType(t, d, "packed", "packed")
	damage("packed")
	same(t, "packed", get(t, d, "packed"), want)
}

// TestReplacedUnderReader: a reader keeps the staged content it has opened, when
// another node replaces, cuts and extends the file.
func TestReplacedUnderReader(t *testing.T) {
	w := stagingWorld(t)
	a, b := dir(t, w.node("a"), "/proj"), dir(t, w.node("b"), "/proj")
	want := random(1, 4000)
	put(t, a, "f", want)
	fresh, used := open(t, a, "f", syscall.O_RDONLY), open(t, a, "f", syscall.O_RDONLY)
	defer fresh.Close()
	defer used.Close()
	wantRead(t, used, want)
	for _, n := range []int{100, 4000} {
		f := open(t, b, "f", syscall.O_WRONLY|syscall.O_TRUNC)
		write(t, f, 0, random(2, n))
		closeFile(t, f)
		p := make([]byte, 300)
		if _, err := used.ReadAt(ctx, me, p, 50); err != nil || !bytes.Equal(p, want[50:350]) {
			t.Errorf("after %d bytes of another node: wrong bytes, or error %v", n, err)
		}
	}
	wantRead(t, fresh, want)
	wantRead(t, used, want)
}

// TestTimesAndModes: what cp -p, tar and rsync set before they close stays.
func TestTimesAndModes(t *testing.T) {
	w := stagingWorld(t)
	d := dir(t, w.node("a"), "/proj")
	old := time.Unix(1_000_000_000, 123_456_789)
	omit := mdfs.TimeSet{Omit: true}
	for name, n := range map[string]int{"small": 1000, "large": stageLimit + 1} {
		f, _, err := d.Create(ctx, me, name, syscall.O_WRONLY|syscall.O_CREAT, 0o444)
		if err != nil {
			t.Fatal(err)
		}
		write(t, f, 0, random(1, n))
		mode := uint32(0o440)
		if _, err := f.Setattr(ctx, me, namespace.SetAttr{Mode: &mode, Atime: omit, Mtime: mdfs.TimeSet{Time: old}}); err != nil {
			t.Fatal(err)
		}
		check := func(when string) {
			t.Helper()
			a, err := d.Lookup(ctx, me, name)
			if got := time.Unix(a.Mtim.Sec, int64(a.Mtim.Nsec)); err != nil || !got.Equal(old) || a.Mode&0o777 != mode {
				t.Errorf("%s %s: mtime %v, mode %o, error %v", name, when, got, a.Mode, err)
			}
		}
		check("being written")
		closeFile(t, f)
		check("closed")
		w.packStaged(true)
		check("packed")
		if got := layout(t, d, name).Slot.MTime; !got.Equal(old) {
			t.Errorf("%s: the slot says %v", name, got)
		}
	}
	f := create(t, d, "f")
	write(t, f, 0, []byte("x"))
	before, err := f.Stat(ctx)
	closeFile(t, f)
	after, err2 := d.Lookup(ctx, me, "f")
	if err := errors.Join(err, err2); err != nil || before.Mtim != after.Mtim {
		t.Errorf("mtime %v before close, %v after, error %v", before.Mtim, after.Mtim, err)
	}
}

// crampedRoom is how many of these fail from now on.
type crampedRoom struct{ writes, slots, ends atomic.Int64 }

// crampedFS has no room for a while: for files that begin with "big", first slots, and
// the second slots of these.
type crampedFS struct {
	mdfs.FS
	full *crampedRoom
}

type crampedDir struct {
	mdfs.Dir
	full *crampedRoom
}

type crampedFile struct {
	mdfs.File
	full *crampedRoom
}

func (f crampedFS) Root() mdfs.Dir { return crampedDir{f.FS.Root(), f.full} }

func (d crampedDir) OpenDir(name string) (mdfs.Dir, error) {
	dir, err := d.Dir.OpenDir(name)
	return crampedDir{dir, d.full}, err
}

func (d crampedDir) Again() (mdfs.Dir, error) {
	dir, err := d.Dir.Again()
	return crampedDir{dir, d.full}, err
}

func uncramped(d mdfs.Dir) mdfs.Dir {
	if f, ok := d.(crampedDir); ok {
		return f.Dir
	}
	return d
}

func (d crampedDir) Link(name string, to mdfs.Dir, newname string) error {
	return d.Dir.Link(name, uncramped(to), newname)
}

func (d crampedDir) Rename(name string, to mdfs.Dir, newname string, flags uint) error {
	return d.Dir.Rename(name, uncramped(to), newname, flags)
}

func (d crampedDir) OpenFile(name string, flag int, perm uint32) (mdfs.File, error) {
	fl, err := d.Dir.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return crampedFile{fl, d.full}, nil
}

func (f crampedFile) WriteAt(p []byte, off int64) (int, error) {
	if len(p) > 3 && string(p[:3]) == "big" && f.full.writes.Add(-1) >= 0 {
		return 0, &os.PathError{Op: "pwrite", Path: "x", Err: syscall.ENOSPC}
	}
	return f.File.WriteAt(p, off)
}

func (f crampedFile) Setxattr(attr string, v []byte, flags int) error {
	if strings.HasSuffix(attr, ".v1") && f.full.slots.Add(-1) >= 0 || strings.HasSuffix(attr, ".v2") &&
		bytes.Contains(v, []byte(" own=8,")) && f.full.ends.Add(-1) >= 0 {
		return &os.PathError{Op: "setxattr", Path: "x", Err: syscall.EDQUOT}
	}
	return f.File.Setxattr(attr, v, flags)
}

// TestNoRoom: without room in the metadata filesystem what is staged is packed and
// released; if that does not help, files go to objects. None fails.
func TestNoRoom(t *testing.T) {
	const always = 1 << 30
	for _, c := range []struct {
		writes, slots, ends int64
		kind                string
	}{{1, 0, 0, "own"}, {0, 1, 0, "own"}, {0, 0, 2, "own"}, {1, 1, 2, "uni"}, {always, 0, 0, "uni"}, {0, 0, always, "uni"}} {
		w := stagingWorld(t)
		var full crampedRoom
		w.md = func(md mdfs.FS) mdfs.FS { return crampedFS{md, &full} }
		d := dir(t, w.node("a"), "/proj")
		put(t, d, "before", []byte("waits"))
		full.writes.Store(c.writes)
		full.slots.Store(c.slots)
		full.ends.Store(c.ends)
		f, _, err := d.Create(ctx, me, "f", syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, 0o644)
		if err != nil {
			t.Fatalf("%+v: create: %v", c, err)
		}
		write(t, f, 0, []byte("big file"))
		closeFile(t, f)
		wantType(t, d, "f", c.kind)
		wantType(t, d, "before", "packed")
		same(t, "f", get(t, d, "f"), []byte("big file"))
	}
}

// TestSyncLater: with LazySync nothing is synced by close, and all by fsync, of
// whichever handle.
func TestSyncLater(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		w := stagingWorld(t)
		w.lazy = lazy
		d := dir(t, w.node("a"), "/proj")
		put(t, d, "warm", []byte("up"))
		syncs := func(do func()) int {
			stop := fault.Trace()
			do()
			return stop()["metadata.publish.sync.after"]
		}
		want := map[bool]int{false: 1, true: 0}[lazy]
		if n := syncs(func() { put(t, d, "f", []byte("content")) }); n != want {
			t.Errorf("lazy %t: close has synced %d times, want %d", lazy, n, want)
		}
		for _, flags := range []uint32{syscall.O_RDONLY, syscall.O_WRONLY} {
			f := open(t, d, "f", flags)
			if n := syncs(func() {
				if err := f.Commit(ctx); err != nil {
					t.Error(err)
				}
			}); n != 1-want {
				t.Errorf("lazy %t: fsync has synced %d times, want %d", lazy, n, 1-want)
			}
			closeFile(t, f)
		}
		f := create(t, d, "g")
		write(t, f, 0, []byte("content"))
		if n := syncs(func() {
			if err := f.Commit(ctx); err != nil {
				t.Error(err)
			}
		}); n != 1 {
			t.Errorf("lazy %t: fsync of what was written has synced %d times, want 1", lazy, n)
		}
		if n := syncs(func() { closeFile(t, f) }); n != 0 {
			t.Errorf("lazy %t: close after fsync has synced %d times", lazy, n)
		}
		same(t, "g", get(t, d, "g"), []byte("content"))
	}
}

// TestLost: a stream whose right somebody else has taken fails.
func TestLost(t *testing.T) {
	w := stagingWorld(t)
	a, b := dir(t, w.node("a"), "/proj"), dir(t, w.node("b"), "/proj")
	f := create(t, a, "f")
	write(t, f, 0, []byte("mine"))
	put(t, b, "f", []byte("theirs, which is longer"))
	wantErrno(t, "close", f.Flush(ctx), syscall.ESTALE)
	f.Close()
	same(t, "f", get(t, a, "f"), []byte("theirs, which is longer"))

	put(t, a, "g", nil)
	f = create(t, a, "g2")
	write(t, f, 0, []byte("mine"))
	if err := f.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	put(t, b, "g2", []byte("theirs"))
	_, err := f.WriteAt(ctx, me, []byte("more"), 4)
	wantErrno(t, "write behind what was replaced", err, syscall.ESTALE)
	f.Close()
	same(t, "g2", get(t, a, "g2"), []byte("theirs"))
}

// TestEmptiedWhileStaged: O_TRUNC by another handle while bytes are in the own body,
// committed or not, or being appended.
func TestEmptiedWhileStaged(t *testing.T) {
	for name, before := range map[string]func(f *namespace.File) error{
		"uncommitted": func(*namespace.File) error { return nil },
		"committed":   func(f *namespace.File) error { return f.Flush(ctx) },
		"appended": func(f *namespace.File) error {
			err := f.Flush(ctx)
			_, e := f.WriteAt(ctx, me, []byte("more"), 11)
			return errors.Join(err, e)
		},
	} {
		w := stagingWorld(t)
		d := dir(t, w.node("a"), "/proj")
		f := create(t, d, "f")
		write(t, f, 0, []byte("old content"))
		if err := before(f); err != nil {
			t.Fatal(err)
		}
		g := open(t, d, "f", syscall.O_RDWR|syscall.O_TRUNC)
		wantRead(t, g, nil)
		write(t, g, 0, []byte("new"))
		wantRead(t, g, []byte("new"))
		closeFile(t, g)
		closeFile(t, f)
		same(t, name, get(t, d, "f"), []byte("new"))
		same(t, name+", elsewhere", get(t, dir(t, w.node("b"), "/proj"), "f"), []byte("new"))
	}
}

// TestReadersOfStaged reads a file all the time, while it grows from its own body
// into objects, with commits and packing on the way: readers get the beginning of
// what is written.
func TestReadersOfStaged(t *testing.T) {
	w := stagingWorld(t)
	d, e := dir(t, w.node("a"), "/proj"), dir(t, w.node("b"), "/proj")
	content := random(1, 3*stageLimit)
	for round := range 3 {
		name := fmt.Sprint("f", round)
		f := create(t, d, name)
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for i, from := range []*namespace.Dir{d, d, e} {
			readers.Go(func() {
				r := open(t, from, name, syscall.O_RDONLY)
				defer r.Close()
				p := make([]byte, 5000)
				for k := int64(i); ; k += 3 {
					select {
					case <-stop:
						return
					default:
					}
					off := k * 997 % int64(len(content))
					n, err := r.ReadAt(ctx, me, p, off)
					if err != nil && err != io.EOF || !bytes.Equal(p[:n], content[off:off+int64(n)]) {
						t.Errorf("read %d bytes at %d, error %v; they are not what was written", n, off, err)
						return
					}
				}
			})
		}
		for off := 0; off < len(content); off += 8192 {
			write(t, f, int64(off), content[off:min(off+8192, len(content))])
			switch off / 8192 % 4 {
			case round:
				if err := f.Flush(ctx); err != nil {
					t.Error(err)
				}
			case 3:
				w.packStaged(round == 2)
			}
		}
		closeFile(t, f)
		w.packStaged(true)
		close(stop)
		readers.Wait()
		same(t, name, get(t, e, name), content)
	}
}
