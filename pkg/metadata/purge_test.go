package metadata

import (
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"marfs/internal/fault"
)

func (w *world) purge(ref TrashRef) TrashRef {
	w.t.Helper()
	now, err := w.Purge(ctx, ref)
	w.must(err)
	return now
}

func TestPurge(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "text")
	w.file("g", "other")
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	w.must(w.Unlink(ctx, me("g"), w.Tree(), "g"))
	refs, err := w.TrashOf(ctx, fl.ID())
	w.must(err)
	ref := w.purge(refs[0])
	if ref.Day != PurgedDay {
		t.Errorf("purged to %+v", ref)
	}
	if days, err := w.TrashDays(ctx); err != nil || len(days) != 2 || days[1] != PurgedDay {
		t.Errorf("days %v, %v", days, err)
	}
	if refs, err := w.TrashOf(ctx, fl.ID()); err != nil || !slices.Equal(refs, []TrashRef{ref}) {
		t.Errorf("records of the file %v, %v", refs, err)
	}
	if again, err := w.Purge(ctx, ref); err != nil || again != ref {
		t.Errorf("a second purge of what is there: %+v, %v", again, err)
	}
	_, err = w.Purge(ctx, refs[0])
	wantErrno(t, err, syscall.ENOENT)
	if r, err := w.ReadTrash(ctx, ref); err != nil || r.Path != "f" {
		t.Errorf("record %+v, %v", r, err)
	}

	// Too young by the record, then by the inode's ctime: it stays purged.
	for _, before := range []time.Time{w.clock.Add(-time.Hour), time.Now().Add(-time.Minute)} {
		w.pass(time.Minute)
		done, err := w.Expire(ctx, []TrashRef{ref}, before, nil)
		w.must(err)
		if done != (Expired{Kept: 1}) {
			t.Errorf("before %v: %+v", before, done)
		}
		w.pass(2 * time.Hour)
	}
	done, err := w.Expire(ctx, []TrashRef{ref}, w.clock.Add(-time.Hour), nil)
	w.must(err)
	if done.Destroyed != 1 {
		t.Errorf("after grace: %+v", done)
	}
	w.wantHome(fl.ID(), "")
	if n := len(w.trash()); n != 1 {
		t.Errorf("%d records are left, want that of g", n)
	}
	w.must(w.PruneDay(ctx, PurgedDay))
	if days, err := w.TrashDays(ctx); err != nil || len(days) != 2 || days[1] != PurgedDay {
		t.Errorf("days %v, %v", days, err)
	}
}

// A full filesystem has no inode for a directory; one of a namespace that was made
// before Init made them gets it when it is needed.
func TestPurgeMakesNothing(t *testing.T) {
	for _, old := range []bool{false, true} {
		w := newWorld(t)
		if old {
			w.must(os.RemoveAll(w.root + "/trash/purged"))
		}
		w.file("f", "text")
		w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
		stop := fault.Trace()
		w.purge(w.trash()[0])
		if made := stop()["metadata.fan.before"]; old != (made > 0) {
			t.Errorf("steps that make directories: %d; of an old namespace: %v", made, old)
		}
		w.must(w.open(w.o).Close())
	}
}

// The unlink that is going on looks for its record where it was.
func TestPurgeDuringUnlink(t *testing.T) {
	for _, refused := range []bool{false, true} {
		w := newWorld(t)
		fl := w.file("f", "text")
		v, err := w.look(me("f"), w.Tree(), "f", "unlink")
		w.must(err)
		err = v.remove(me("f"), func() error {
			w.purge(w.trash()[0])
			if refused {
				return syscall.EPERM
			}
			return w.Tree().Remove("f")
		})
		v.close()
		if refused != errors.Is(err, syscall.EPERM) {
			t.Fatal(err)
		}
		if refused { // the record is nobody's: gc sees the name
			w.wantExpired("refused", Expired{Dropped: 1})
			w.wantHome(fl.ID(), stagedName)
			w.wantTrash()
			continue
		}
		if n := len(w.trash()); n != 2 {
			t.Errorf("%d records of one removal, want 2", n)
		}
		w.wantExpired("purged meanwhile", Expired{Destroyed: 1, Dropped: 1, Bytes: 4})
		w.wantHome(fl.ID(), "")
		w.wantTrash()
	}
}

// What a restore could not place, or did not live to, is purged as before.
func TestPurgeAndRestore(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "text")
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	ref := w.purge(w.trash()[0])
	w.file("f", "in the way")
	wantErrno(t, w.Restore(ctx, me("f"), ref, w.Tree(), "f"), syscall.EEXIST)
	w.wantTrash(ref)

	dead := w.node("dead")
	work := workName + "/dead/" + workOf(ref, dead.instanceName())
	w.must(os.MkdirAll(w.root+"/"+workName+"/dead", 0o700))
	w.must(os.Rename(w.root+"/"+ref.dir()+"/"+ref.Name, w.root+"/"+work))
	_, err := w.Purge(ctx, ref)
	wantErrno(t, err, syscall.ENOENT)
	w.must(dead.Recover(ctx, nil)) // its own, and it lives
	if _, err := os.Stat(w.root + "/" + work); err != nil {
		t.Errorf("the record of one who lives: %v", err)
	}
	w.must(w.Recover(ctx, nil))
	w.wantTrash(ref)

	w.must(w.Restore(ctx, me("back"), ref, w.Tree(), "back"))
	w.wantTrash()
	if text, s := w.read(w.FS, "back"); text != "text" || s.File != fl.ID() {
		t.Errorf("read %q", text)
	}
}

// A version's entry is one link of its record: purged, it leads to the version.
func TestPurgeVersion(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "old")
	w.must(w.replace(w.FS, fl, "new"))
	ref := w.purge(w.trash()[0])
	r, err := w.ReadTrash(ctx, ref)
	w.must(err)
	_, err = w.RestoreVersion(ctx, fl, me("f"), r.Content)
	w.must(err)
	if text, _ := w.read(w.FS, "f"); text != "old" {
		t.Errorf("read %q", text)
	}
	w.expire() // the entry has no version any more; "new" is one
	w.wantNames(versionName, 0)
	w.wantTrash()
	if text, _ := w.read(w.FS, "f"); text != "old" {
		t.Errorf("read %q after gc", text)
	}
}
