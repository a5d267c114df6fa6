package metadata

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// root gives alice her directory back, while she swaps the name: what she has put
// there is left alone, and what was made becomes hers wherever it is.
func TestFinishDirByHandle(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, plant := range []struct {
		name string
		do   func(w *world) error
	}{
		{"symlink", func(w *world) error { return w.Tree().Symlink("../secret", "d") }},
		{"directory", func(w *world) error { return w.Tree().Mkdir("d", 0o711) }},
		{"file", func(w *world) error { return w.Tree().Link("secret", w.Tree(), "d") }},
	} {
		t.Run(plant.name, func(t *testing.T) {
			w := newWorld(t)
			tree := w.Tree()
			w.file("secret", "root's")
			w.must(tree.Mkdir("d", 0o2750))
			w.must(tree.Lchown("d", 4242, 4242))
			w.must(tree.Chmod("d", 0o2757))
			w.must(w.Rmdir(ctx, me("d"), tree, "d"))
			r, err := w.TakeRemoval(ctx, w.trash()[0])
			w.must(err)
			d, err := r.MakeDir(me("d"), tree, "d")
			w.must(err)
			defer d.Close()
			st, err := tree.Lstat("d")
			if err != nil || st.Mode&0o7777 != 0o700 || st.Uid != 0 {
				t.Errorf("before it is finished: mode %o, uid %d, %v", st.Mode, st.Uid, err)
			}
			w.must(tree.Rename("d", tree, "elsewhere", 0))
			w.must(plant.do(w))
			before, err := tree.Lstat("d")
			w.must(err)
			w.must(r.FinishDir(me("d"), d))
			w.must(w.Restored(tree, r))
			after, err := tree.Lstat("d")
			if err != nil || after != before {
				t.Errorf("what was planted: %+v, was %+v, %v", after, before, err)
			}
			st, err = tree.Lstat("elsewhere")
			if err != nil || st.Uid != 4242 || st.Mode&0o7777 != 0o2757 {
				t.Errorf("what was made: mode %o, uid %d, %v", st.Mode, st.Uid, err)
			}
			w.wantNothingDead()
		})
	}
}

// A mark gives nobody anything: a directory that has the inode number of one that
// was made, but not its owner or mode, is another.
func TestMadeIsNotTrusted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, c := range []struct {
		name  string
		uid   int
		mode  uint32
		other bool
		want  bool
	}{
		{"as it was made", 0, 0o700, false, true},
		{"given to its owner", 4242, 0o700, false, true},
		{"finished", 4242, 0o2751, false, true},
		{"another's", 4343, 0o700, false, false},
		{"of another mode", 0, 0o777, false, false},
		{"another inode", 0, 0o700, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			tree := w.Tree()
			w.must(tree.Mkdir("d", 0o700))
			w.must(tree.Lchown("d", 4242, 4242))
			w.must(tree.Chmod("d", 0o2751))
			w.must(w.Rmdir(ctx, me("d"), tree, "d"))
			ref := w.trash()[0]
			r, err := w.TakeRemoval(ctx, ref)
			w.must(err)
			d, err := r.MakeDir(me("d"), tree, "d")
			w.must(err)
			d.Close()
			w.must(r.Back())
			w.must(tree.Lchown("d", c.uid, c.uid))
			w.must(tree.Chmod("d", c.mode))
			if c.other {
				w.must(tree.Rename("d", tree, "e", 0))
				w.must(tree.Mkdir("d", c.mode))
			}
			r, err = w.TakeRemoval(ctx, ref)
			w.must(err)
			d, made, err := r.Made(me("d"), tree, "d")
			w.must(err)
			if made != c.want {
				t.Errorf("made %v, want %v", made, c.want)
			}
			if made {
				w.must(r.FinishDir(me("d"), d))
				d.Close()
			}
			w.must(r.Back())
		})
	}
}

// What a restore has half made is where nobody reaches it, and a sweep removes it.
func TestScratchIsSwept(t *testing.T) {
	w := newWorld(t)
	w.must(w.Tree().Mkdir("d", 0o755))
	w.must(w.Rmdir(ctx, me("d"), w.Tree(), "d"))
	r, err := w.TakeRemoval(ctx, w.trash()[0])
	w.must(err)
	w.must(r.make(me("d")))
	w.pass(2 * time.Hour)
	w.must(w.Sweep(ctx, *w.clock, nil))
	w.wantNothingDead()
	_, err = r.MakeDir(me("d"), w.Tree(), "d")
	wantErrno(t, err, syscall.ENOENT) // a sleeper finds nothing to move
	w.must(r.Back())
	if len(w.trash()) != 1 {
		t.Error(w.trash())
	}
}

// A file that a killed restore was about to put in the place of another has no name
// in the tree: recovery takes the one in the scratch directory away, before anything
// is decided by counting names.
func TestRecoverReplacement(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "old")
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	ref := w.trash()[0]
	r, err := w.TakeRemoval(ctx, ref)
	w.must(err)
	w.must(r.make(me("f")))
	if named, err := fl.named(); !named || err != nil {
		t.Fatal("nothing was linked", err)
	}
	work := filepath.Join(w.root, workName, w.o.Node, r.name)
	other := ref.Name + ".01020304" // as a process that is dead has it
	w.must(os.Rename(work, filepath.Join(filepath.Dir(work), other)))
	w.must(os.Rename(filepath.Join(w.root, deadName, deadTemp+r.name), filepath.Join(w.root, deadName, deadTemp+other)))
	w.must(w.Recover(ctx, nil))
	if named, err := fl.named(); named || err != nil {
		t.Error("the scratch link is left", err)
	}
	if refs := w.trash(); len(refs) != 1 || refs[0] != ref {
		t.Errorf("trash %v", refs)
	}
	w.wantNothingDead()
}

// A special file's ACL comes back, and one that its directory would give it does not.
func TestRestoreSpecialACL(t *testing.T) {
	w := newWorld(t)
	tree := w.Tree()
	acl := []byte{2, 0, 0, 0,
		1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 57, 48, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255,
		16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255}
	for _, name := range []string{"plain", "acl"} {
		w.must(tree.Mknod(name, syscall.S_IFIFO|0o640, 0))
	}
	w.must(tree.Setxattr("acl", aclPrefix+"access", acl, 0))
	w.must(tree.Setxattr(".", aclPrefix+"default", acl, 0))
	for _, name := range []string{"plain", "acl"} {
		w.must(w.Unlink(ctx, me(name), tree, name))
		w.must(w.Restore(ctx, me(name), w.trash()[0], tree, name))
	}
	if v, err := tree.Getxattr("acl", aclPrefix+"access"); err != nil || string(v) != string(acl) {
		t.Errorf("ACL %x, %v", v, err)
	}
	if v, err := tree.Getxattr("plain", aclPrefix+"access"); err == nil {
		t.Errorf("inherited ACL %x", v)
	}
}

// Records of anything but removals are left alone.
func TestTakeRemovalOfVersion(t *testing.T) {
	w := newWorld(t)
	w.must(w.replace(w.FS, w.file("f", "old"), "new"))
	refs := w.trash()
	_, err := w.TakeRemoval(ctx, refs[0])
	wantErrno(t, err, syscall.EINVAL)
	if have := w.trash(); len(have) != 1 || have[0] != refs[0] {
		t.Errorf("trash %v, was %v", have, refs)
	}
	if r, err := w.ReadTrash(ctx, refs[0]); err != nil || r.Kind != objfmt.RecordVersion {
		t.Error(r.Kind, err)
	}
}

// A directory whose group its owner is not in comes back with another: that one gets
// no rights which it never had.
func TestRestoreOfAStrangeGroup(t *testing.T) {
	if !isRoot() {
		t.Skip("needs root")
	}
	w := newWorld(t)
	tree := w.Tree()
	w.must(tree.Chmod(".", 0o777))
	user := Who{Cred: mdfs.Cred{UID: 4242, GID: 4242}, Path: "d"}
	for _, c := range []struct{ mode, want uint32 }{{0o2770, 0o700}, {0o3775, 0o1755}, {0o2751, 0o711}, {0o755, 0o755}, {0o700, 0o700}, {0o2777, 0o777}} {
		w.must(tree.Mkdir("d", 0o700))
		w.must(tree.Lchown("d", 4242, 60))
		w.must(tree.Chmod("d", c.mode))
		w.must(w.Rmdir(ctx, user, tree, "d"))
		w.must(w.Restore(ctx, user, w.trash()[0], tree, "d"))
		st, err := tree.Lstat("d")
		w.must(err)
		if st.Mode&0o7777 != c.want || st.Uid != 4242 || st.Gid != 4242 {
			t.Errorf("%o: %o of %d:%d, want %o", c.mode, st.Mode&0o7777, st.Uid, st.Gid, c.want)
		}
		w.must(os.Remove(filepath.Join(w.root, treeName, "d")))
	}
}
