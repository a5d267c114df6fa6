package metadata

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

func TestUnlinkExpireDestroys(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "old")
	_, err := w.stream(w.FS, fl, 100)
	w.must(err)
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	w.wantHome(fl.ID(), filesName)
	refs, err := w.TrashOf(ctx, fl.ID())
	w.must(err)
	if len(refs) != 2 { // the version and the deletion
		t.Fatalf("%d records", len(refs))
	}
	done, err := w.Expire(ctx, refs, *w.clock, nil)
	w.must(err)
	if done.Kept != 2 || w.store.len() != 1 {
		t.Errorf("young records: %+v, %d objects", done, w.store.len())
	}
	if done = w.expire(); done.Destroyed != 2 || w.store.len() != 0 {
		t.Errorf("%+v, %d objects", done, w.store.len())
	}
	w.wantHome(fl.ID(), "")
	for _, dir := range []string{bodiesName, versionName, chunksName} {
		w.wantNames(dir, 0)
	}
	if refs := w.trash(); len(refs) != 0 {
		t.Errorf("records left: %v", refs)
	}
	days, err := w.TrashDays(ctx)
	w.must(err)
	for _, d := range days {
		w.must(w.PruneDay(ctx, d))
	}
	if days, err = w.TrashDays(ctx); err != nil || len(days) != 1 || days[0] != PurgedDay {
		t.Errorf("days left: %v, %v", days, err)
	}
}

func TestUnlinkOfUncommitted(t *testing.T) {
	w := newWorld(t)
	fl, err := w.Create(ctx, me("f"), w.Tree(), "f", 0o644)
	w.must(err)
	defer fl.Close()
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	w.wantHome(fl.ID(), "")
	if refs := w.trash(); len(refs) != 0 {
		t.Errorf("records %v", refs)
	}
}

func TestUnlinkRefused(t *testing.T) {
	w := newWorld(t)
	w.file("f", "text")
	wantErrno(t, w.Unlink(ctx, me("none"), w.Tree(), "none"), syscall.ENOENT)
	wantErrno(t, w.Rmdir(ctx, me("f"), w.Tree(), "f"), syscall.ENOTDIR)
	w.must(w.Tree().Mkdir("d", 0o755))
	wantErrno(t, w.Unlink(ctx, me("d"), w.Tree(), "d"), syscall.EISDIR)
	d, err := w.Tree().OpenDir("d")
	w.must(err)
	defer d.Close()
	w.must(d.Mkdir("sub", 0o755))
	wantErrno(t, w.Rmdir(ctx, me("d"), w.Tree(), "d"), syscall.ENOTEMPTY)
	if refs := w.trash(); len(refs) != 0 {
		t.Errorf("records of refused removals: %v", refs)
	}
	if os.Geteuid() == 0 {
		stranger := Who{Cred: mdfs.Cred{UID: 4242, GID: 4242}, Path: "f"}
		wantErrno(t, w.Unlink(ctx, stranger, w.Tree(), "f"), syscall.EACCES)
		if refs := w.trash(); len(refs) != 0 {
			t.Errorf("records of refused removals: %v", refs)
		}
	}
}

// A server that did an unlink, and says ENOENT when it is repeated after a signal:
// the record stays. It goes when another's tells the same, or the file has a name.
func TestUnlinkDoneAndDenied(t *testing.T) {
	for _, c := range []struct {
		name          string
		second, other bool
		want          int
	}{{"alone", false, false, 1}, {"linked", true, false, 0}, {"another was faster", false, true, 1}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			fl := w.file("f", "text")
			if c.second {
				w.must(w.Link(ctx, me("g"), w.Tree(), "f", w.Tree(), "g"))
			}
			v, err := w.look(me("f"), w.Tree(), "f", "unlink")
			w.must(err)
			defer v.close()
			err = v.remove(me("f"), func() error {
				if c.other {
					w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
				} else {
					w.must(w.Tree().Remove("f"))
				}
				return syscall.ENOENT
			})
			wantErrno(t, err, syscall.ENOENT)
			if refs := w.trash(); len(refs) != c.want {
				t.Errorf("records %v, want %d", refs, c.want)
			}
			w.expire()
			w.wantHome(fl.ID(), map[bool]string{true: stagedName}[c.second])
		})
	}
}

// Of two names only the last one's removal ends the file.
func TestUnlinkOfHardLinks(t *testing.T) {
	w := newWorld(t)
	fl := w.file("a", "text")
	_, err := w.stream(w.FS, fl, 10)
	w.must(err)
	w.must(w.Link(ctx, me("b"), w.Tree(), "a", w.Tree(), "b"))
	w.must(w.Unlink(ctx, me("a"), w.Tree(), "a"))
	w.expire()
	if w.store.len() != 1 {
		t.Fatal("a file with a name lost its object")
	}
	w.wantHome(fl.ID(), filesName)
	w.must(w.Unlink(ctx, me("b"), w.Tree(), "b"))
	w.expire()
	if w.store.len() != 0 {
		t.Error("the object stayed")
	}
}

// An old record, of another name or of a removal that never was, says nothing
// about when the last name went: that removal has a record and a keep time.
func TestOldRecordSparesLateRemoval(t *testing.T) {
	w := newWorld(t)
	w.pass(-31 * 24 * time.Hour) // inodes have the real time, which is that of the last removal
	fl, err := w.Create(ctx, me("a"), w.Tree(), "a", 0o644)
	w.must(err)
	defer fl.Close()
	_, err = w.stream(w.FS, fl, 10)
	w.must(err)
	w.must(w.Link(ctx, me("b"), w.Tree(), "a", w.Tree(), "b"))
	w.must(w.Unlink(ctx, me("a"), w.Tree(), "a"))
	_, err = w.putTrash(objfmt.Record{Kind: objfmt.RecordFile, File: fl.ID(), When: *w.clock, Node: "n", Path: "c", Why: "unlink"}, false)
	w.must(err) // of one that was killed
	w.pass(31 * 24 * time.Hour)
	w.must(w.Unlink(ctx, me("b"), w.Tree(), "b"))
	old := w.trash()
	done, err := w.Expire(ctx, old, w.clock.Add(-30*24*time.Hour), nil)
	w.must(err)
	if w.store.len() != 1 || done.Kept != 3 || !slices.Equal(w.trash(), old) {
		t.Fatalf("%+v, %d objects; trash %v, was %v", done, w.store.len(), w.trash(), old)
	}
	w.wantHome(fl.ID(), filesName)

	// A gc that died before it had the home had not decided.
	w.must(os.Rename(filepath.Join(w.root, old[0].dir(), old[0].Name), filepath.Join(w.root, deadName, deadTrash+old[0].Name)))
	w.pass(2 * time.Hour)
	w.must(w.Sweep(ctx, *w.clock, nil))
	if w.store.len() != 1 || !slices.Equal(w.trash(), old) {
		t.Fatalf("after a sweep %d objects, trash %v, was %v", w.store.len(), w.trash(), old)
	}
	w.expire()
	if w.store.len() != 0 || len(w.trash()) != 0 {
		t.Errorf("%d objects and %d records are left", w.store.len(), len(w.trash()))
	}
}

// What has names and no home looks deleted to recovery and gc: nothing may be
// published in it.
func TestLinkWithoutHome(t *testing.T) {
	w := newWorld(t)
	orphan := func(name string) {
		in, err := w.Tree().OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
		w.must(err)
		in.Close()
	}
	orphan("a")
	w.must(w.Link(ctx, me("b"), w.Tree(), "a", w.Tree(), "b"))
	fl, err := w.Open(ctx, w.Tree(), "b")
	w.must(err)
	defer fl.Close()
	w.wantHome(fl.ID(), stagedName)
	_, err = w.stream(w.FS, fl, 10)
	w.must(err)

	orphan("c")
	w.must(w.Tree().Link("c", w.Tree(), "d")) // behind the back of the protocol
	two, err := w.Open(ctx, w.Tree(), "c")
	w.must(err)
	defer two.Close()
	_, err = w.stream(w.FS, two, 10)
	wantErrno(t, err, syscall.ESTALE)
	w.must(w.Tree().Remove("d"))
	one, err := w.Open(ctx, w.Tree(), "c")
	w.must(err)
	defer one.Close()
	_, err = w.stream(w.FS, one, 10)
	w.must(err)
	w.must(w.Recover(ctx, nil))
	if w.store.len() != 2 {
		t.Errorf("%d objects, want 2", w.store.len())
	}
}

func TestRenameOver(t *testing.T) {
	w := newWorld(t)
	w.file("a", "aaa")
	b := w.file("b", "bbb")
	w.must(w.Rename(ctx, me("a"), w.Tree(), "a", w.Tree(), "b", "b", 0))
	if text, _ := w.read(w.FS, "b"); text != "aaa" {
		t.Errorf("read %q", text)
	}
	refs, err := w.TrashOf(ctx, b.ID())
	w.must(err)
	if len(refs) != 1 {
		t.Fatalf("%d records of the replaced file", len(refs))
	}
	r, err := w.ReadTrash(ctx, refs[0])
	w.must(err)
	if r.Path != "b" || r.Why != "rename" || r.Kind != objfmt.RecordFile {
		t.Errorf("record %+v", r)
	}
}

func TestRenameOfTwoNamesOfOneFile(t *testing.T) {
	w := newWorld(t)
	w.file("a", "aaa")
	w.must(w.Link(ctx, me("b"), w.Tree(), "a", w.Tree(), "b"))
	w.must(w.Rename(ctx, me("a"), w.Tree(), "a", w.Tree(), "b", "b", 0))
	if text, _ := w.read(w.FS, "a"); text != "aaa" { // POSIX: nothing happens
		t.Errorf("read %q", text)
	}
	if refs := w.trash(); len(refs) != 0 {
		t.Errorf("records %v", refs)
	}
}

func TestRenameFlags(t *testing.T) {
	w := newWorld(t)
	w.file("a", "aaa")
	w.file("b", "bbb")
	wantErrno(t, w.Rename(ctx, me("a"), w.Tree(), "a", w.Tree(), "b", "b", unix.RENAME_NOREPLACE), syscall.EEXIST)
	w.must(w.Rename(ctx, me("a"), w.Tree(), "a", w.Tree(), "b", "b", unix.RENAME_EXCHANGE))
	if text, _ := w.read(w.FS, "a"); text != "bbb" {
		t.Errorf("read %q", text)
	}
	w.must(w.Rename(ctx, me("a"), w.Tree(), "a", w.Tree(), "c", "c", 0))
	wantErrno(t, w.Rename(ctx, me("c"), w.Tree(), "c", w.Tree(), "d", "d", unix.RENAME_WHITEOUT), syscall.EINVAL)
	if refs := w.trash(); len(refs) != 0 {
		t.Errorf("records %v", refs)
	}
}

func TestRestoreDeletion(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "text")
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	refs := w.trash()
	w.file("busy", "")
	wantErrno(t, w.Restore(ctx, me("busy"), refs[0], w.Tree(), "busy"), syscall.EEXIST)
	refs = w.trash() // put back
	if len(refs) != 1 {
		t.Fatalf("%d records after a restore that failed", len(refs))
	}
	w.must(w.Restore(ctx, me("g"), refs[0], w.Tree(), "g"))
	if text, _ := w.read(w.FS, "g"); text != "text" {
		t.Errorf("read %q", text)
	}
	wantErrno(t, w.Restore(ctx, me("h"), refs[0], w.Tree(), "h"), syscall.ENOENT)
	w.wantNames(workName, 0)
	w.wantHome(fl.ID(), stagedName)
	w.expire()
	if text, _ := w.read(w.FS, "g"); text != "text" {
		t.Errorf("after expiry: read %q", text)
	}
}

func TestRestoreAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	w := newWorld(t)
	w.must(os.Chmod(w.root, 0o700))
	user := Who{Cred: mdfs.Cred{UID: 4242, GID: 4242}, Path: "d/f"}
	w.must(w.Tree().Mkdir("d", 0o755))
	w.must(w.Tree().Lchown("d", 4242, 4242))
	d, err := w.Tree().OpenDir("d")
	w.must(err)
	defer d.Close()
	fl, err := w.Create(ctx, user, d, "f", 0o600)
	w.must(err)
	defer fl.Close()
	w.must(w.commitOwn(fl, "mine"))
	w.must(w.Unlink(ctx, user, d, "f"))
	refs := w.trash()
	wantErrno(t, w.Restore(ctx, user, refs[0], w.Tree(), "f"), syscall.EACCES) // not his directory
	w.must(w.Restore(ctx, user, w.trash()[0], d, "g"))
	st, err := d.Lstat("g")
	w.must(err)
	if st.Uid != 4242 || st.Nlink != 2 {
		t.Errorf("uid %d, nlink %d", st.Uid, st.Nlink)
	}
}

// What a user makes again is his, whatever its name stands for by then; root gives
// it back to its owner.
func TestRestoreOthersAs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	user, root := Who{Cred: mdfs.Cred{UID: 4242, GID: 4242}}, me("")
	for _, c := range []struct {
		who          Who
		owner, group int // in the record
		uid, gid     uint32
	}{{who: user, owner: 4242, group: 4242, uid: 4242, gid: 4242}, {who: user, uid: 4242, gid: 4242}, {who: root, owner: 4242, group: 4243, uid: 4242, gid: 4243}} {
		w := newWorld(t)
		tree := w.Tree()
		w.must(tree.Chmod(".", 0o777))
		w.must(tree.Symlink("some/where", "link"))
		w.must(tree.Mkdir("dir", 0o750))
		w.must(tree.Mknod("fifo", syscall.S_IFIFO|0o640, 0))
		for _, name := range []string{"link", "dir", "fifo"} {
			w.must(tree.Lchown(name, c.owner, c.group))
			if name == "dir" {
				w.must(w.Rmdir(ctx, me(name), tree, name))
			} else {
				w.must(w.Unlink(ctx, me(name), tree, name))
			}
			ref := w.trash()[0]
			w.must(tree.Mkdir(name, 0o700))
			wantErrno(t, w.Restore(ctx, c.who, ref, tree, name), syscall.EEXIST)
			w.must(tree.RemoveDir(name))
			w.must(w.Restore(ctx, c.who, ref, tree, name))
			st, err := tree.Lstat(name)
			if err != nil || st.Uid != c.uid || st.Gid != c.gid {
				t.Errorf("as %d: %s is of %d:%d, want %d:%d, %v", c.who.UID, name, st.Uid, st.Gid, c.uid, c.gid, err)
			}
		}
		w.wantNothingDead()
	}
}

func TestRestoreOthers(t *testing.T) {
	w := newWorld(t)
	tree := w.Tree()
	w.must(tree.Symlink("some/where", "link"))
	w.must(tree.Mkdir("dir", 0o750))
	w.must(tree.Setxattr("dir", "user.colour", []byte("red"), 0))
	old := mdfs.TimeSet{Time: time.Unix(1e9, 0)}
	w.must(tree.Lchtimes("dir", old, old))
	w.must(tree.Mknod("fifo", syscall.S_IFIFO|0o640, 0))
	w.must(w.Unlink(ctx, me("link"), tree, "link"))
	w.must(w.Unlink(ctx, me("fifo"), tree, "fifo"))
	w.must(w.Rmdir(ctx, me("dir"), tree, "dir"))
	for _, ref := range w.trash() {
		r, err := w.ReadTrash(ctx, ref)
		w.must(err)
		w.must(w.Restore(ctx, me(r.Path), ref, tree, r.Path))
	}
	target, err := tree.Readlink("link")
	if err != nil || target != "some/where" {
		t.Errorf("link to %q, %v", target, err)
	}
	st, err := tree.Lstat("dir")
	w.must(err)
	v, err := tree.Getxattr("dir", "user.colour")
	if err != nil || string(v) != "red" || st.Mode&0o7777 != 0o750 || st.Mtim.Sec != 1e9 {
		t.Errorf("dir: %q %v, mode %o, mtime %d", v, err, st.Mode, st.Mtim.Sec)
	}
	st, err = tree.Lstat("fifo")
	if err != nil || st.Mode != syscall.S_IFIFO|0o640 {
		t.Errorf("fifo: mode %o, %v", st.Mode, err)
	}
}

// The record of a removal whose bytes a power failure has taken still leads gc
// to the file, by its name.
func TestTornRecordExpires(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "text")
	_, err := w.stream(w.FS, fl, 10)
	w.must(err)
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	for _, r := range w.trash() {
		rec, err := w.ReadTrash(ctx, r)
		w.must(err)
		if rec.Kind == objfmt.RecordFile {
			w.must(os.Truncate(w.root+"/"+r.dir()+"/"+r.Name, 0))
		}
	}
	w.expire()
	w.wantHome(fl.ID(), "")
	if w.store.len() != 0 {
		t.Error("the object stayed")
	}
}

func TestCopiedDirectoryDestroysNothing(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "text")
	_, err := w.stream(w.FS, fl, 10)
	w.must(err)
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	w.must(os.Rename(w.root+"/files", w.root+"/files.old"))
	w.must(os.CopyFS(w.root+"/files", os.DirFS(w.root+"/files.old")))
	w.must(os.Chmod(w.root+"/files", 0o700))
	f := w.node("node2")
	if !f.Copied() {
		t.Fatal("the copy was not noticed")
	}
	if _, err := f.Expire(ctx, w.trash(), time.Now(), nil); err == nil {
		t.Error("gc of a copy did not fail")
	}
	if w.store.len() != 1 {
		t.Error("gc of a copy deleted an object")
	}
}
