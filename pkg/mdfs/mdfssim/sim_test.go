package mdfssim_test

import (
	"errors"
	"io"
	"testing"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/mdfssim"

	"golang.org/x/sys/unix"
)

func create(t *testing.T, d mdfs.Dir, name, content string) mdfs.File {
	t.Helper()
	f, err := d.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(content), 0); err != nil {
		t.Fatal(err)
	}
	return f
}

func content(d mdfs.Dir, name string) string {
	f, err := d.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return "!" + unix.ErrnoName(errnoOf(err))
	}
	b := make([]byte, 64)
	n, err := f.ReadAt(b, 0)
	if err != io.EOF {
		return "!" + err.Error()
	}
	return string(b[:n])
}

func errnoOf(err error) (no unix.Errno) {
	errors.As(err, &no)
	return no
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// TestHashIsCanonical: states reached on different ways hash alike, different states do not.
func TestHashIsCanonical(t *testing.T) {
	im := mdfssim.New(mdfssim.Options{}).Freeze()
	clock := func() int64 { return 7 }
	build := func(swap bool) *mdfssim.Disk {
		d := im.Disk(mdfssim.Options{})
		a, b := d.Mount(mdfssim.MountOptions{ID: 5, Clock: clock}), d.Mount(mdfssim.MountOptions{ID: 6, Clock: clock})
		first, second := func() { create(t, a.Root(), "x", "1") }, func() { create(t, b.Root(), "y", "2") }
		if swap {
			first, second = second, first
		}
		first()
		second()
		return d
	}
	d1, d2 := build(false), build(true)
	if d1.Hash() != d2.Hash() {
		t.Error("order of two independent creates shows in the hash")
	}
	before := d1.Hash()
	r := d1.Mount(mdfssim.MountOptions{Clock: clock}).Root()
	must(t, r.Setxattr("x", "user.a", []byte("v"), 0))
	if d1.Hash() == before {
		t.Error("an xattr does not show in the hash")
	}
	must(t, r.Removexattr("x", "user.a"))
	if d1.Hash() != before {
		t.Error("taking the xattr away again does not restore the hash")
	}
}

// TestFreeze: disks made from an image do not see each other's changes.
func TestFreeze(t *testing.T) {
	d := mdfssim.New(mdfssim.Options{})
	create(t, d.Mount(mdfssim.MountOptions{}).Root(), "f", "base")
	im := d.Freeze()
	one, two := im.Disk(mdfssim.Options{}), im.Disk(mdfssim.Options{})
	f, err := one.Mount(mdfssim.MountOptions{}).Root().OpenFile("f", unix.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("one"), 0)
	must(t, err)
	if got := content(two.Mount(mdfssim.MountOptions{}).Root(), "f"); got != "base" {
		t.Errorf("other disk reads %q", got)
	}
	if got := content(one.Mount(mdfssim.MountOptions{}).Root(), "f"); got != "onee" {
		t.Errorf("own disk reads %q", got)
	}
}

// outcomes collects what every combination of surviving changes leaves.
func outcomes(d *mdfssim.Disk, see func(mdfs.Dir) string) map[string]bool {
	vs := d.Volatile()
	keep := make([]int, len(vs))
	got := map[string]bool{}
	var walk func(i int)
	walk = func(i int) {
		if i == len(vs) {
			got[see(d.Crash(vs, keep).Mount(mdfssim.MountOptions{}).Root())] = true
			return
		}
		for keep[i] = vs[i].Min; keep[i] <= vs[i].Max; keep[i]++ {
			walk(i + 1)
		}
	}
	walk(0)
	return got
}

func TestCrash(t *testing.T) {
	see := func(d mdfs.Dir) string { return content(d, "f") + " " + content(d, "g") }
	tests := []struct {
		name string
		o    mdfssim.Options
		do   func(t *testing.T, d mdfs.Dir)
		want []string
	}{
		{"nothing synced", mdfssim.Options{}, func(t *testing.T, d mdfs.Dir) { create(t, d, "f", "x") },
			[]string{"!ENOENT !ENOENT", " !ENOENT", "\x00 !ENOENT", "x !ENOENT"}},
		{"file synced, name not", mdfssim.Options{}, func(t *testing.T, d mdfs.Dir) { must(t, create(t, d, "f", "x").Sync()) },
			[]string{"!ENOENT !ENOENT", "x !ENOENT"}},
		{"file and directory synced", mdfssim.Options{}, func(t *testing.T, d mdfs.Dir) {
			must(t, create(t, d, "f", "x").Sync(), d.Sync())
		}, []string{"x !ENOENT"}},
		{"fsync covers the name", mdfssim.Options{OneJournal: true}, func(t *testing.T, d mdfs.Dir) { must(t, create(t, d, "f", "x").Sync()) },
			[]string{"x !ENOENT"}},
		{"rename is whole", mdfssim.Options{}, func(t *testing.T, d mdfs.Dir) {
			must(t, create(t, d, "f", "x").Sync(), create(t, d, "g", "y").Sync(), d.Sync(), d.Rename("f", d, "g", 0))
		}, []string{"x y", "!ENOENT x"}},
		{"syncfs", mdfssim.Options{}, func(t *testing.T, d mdfs.Dir) {
			create(t, d, "f", "x")
			must(t, d.Link("f", d, "g"))
		}, []string{"!ENOENT !ENOENT", " !ENOENT", "\x00 !ENOENT", "x !ENOENT", " ", "\x00 \x00", "x x"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Journal = true
			d := mdfssim.New(mdfssim.Options{}).Freeze().Disk(tt.o)
			tt.do(t, d.Mount(mdfssim.MountOptions{}).Root())
			got := outcomes(d, see)
			for _, w := range tt.want {
				if !got[w] {
					t.Errorf("never %q", w)
				}
				delete(got, w)
			}
			for g := range got {
				t.Errorf("impossible %q", g)
			}
		})
	}
}

// TestCrashLinks: link counts after a crash are those of the names that survived.
func TestCrashLinks(t *testing.T) {
	d := mdfssim.New(mdfssim.Options{}).Freeze().Disk(mdfssim.Options{Journal: true})
	r := d.Mount(mdfssim.MountOptions{}).Root()
	must(t, r.Mkdir("sub", 0o755))
	sub, err := r.OpenDir("sub")
	must(t, err, create(t, r, "f", "x").Sync(), r.Sync(), r.Link("f", sub, "g"))
	for _, v := range [][2]int{{0, 1}, {1, 2}} {
		vs := d.Volatile()
		if len(vs) != 1 {
			t.Fatalf("%d volatile domains, want the directory sub alone", len(vs))
		}
		st, err := d.Crash(vs, []int{v[0]}).Mount(mdfssim.MountOptions{}).Root().Lstat("f")
		must(t, err)
		if int(st.Nlink) != v[1] {
			t.Errorf("kept %d changes: %d links, want %d", v[0], st.Nlink, v[1])
		}
	}
}

// With one journal a size that bytes gave a file is never durable before them.
func TestSizeWaitsForData(t *testing.T) {
	for _, one := range []bool{true, false} {
		d := mdfssim.New(mdfssim.Options{Journal: true, OneJournal: one})
		r := d.Mount(mdfssim.MountOptions{}).Root()
		f, err := r.OpenFile("f", unix.O_CREAT|unix.O_RDWR, 0o644)
		if err == nil {
			_, err = f.WriteAt([]byte("bytes"), 0)
		}
		if err == nil {
			err = f.Setxattr("user.slot", []byte("v"), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		vs := d.Volatile()
		keep := make([]int, len(vs))
		for i, v := range vs {
			keep[i] = v.Max
		}
		seen := map[int64]bool{}
		for i := range vs { // all is kept but the changes of one domain
			keep[i] = vs[i].Min
			root := d.Crash(vs, keep).Mount(mdfssim.MountOptions{}).Root()
			keep[i] = vs[i].Max
			g, err := root.OpenFile("f", unix.O_RDONLY, 0)
			if err != nil {
				continue
			}
			if v, err := g.Getxattr("user.slot"); err != nil || string(v) != "v" {
				continue
			}
			st, err := g.Stat()
			if err != nil {
				t.Fatal(err)
			}
			seen[st.Size] = true
		}
		if seen[0] != one || seen[5] == one {
			t.Errorf("one journal: %t: sizes %v with the bytes lost", one, seen)
		}
	}
}
