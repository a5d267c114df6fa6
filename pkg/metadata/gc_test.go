package metadata

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// noGrace lets tests tell what a hold does from what the grace time does.
func noGrace(t *testing.T) *world {
	w := newWorld(t)
	w.o.Grace = 0
	w.FS = w.open(w.o)
	return w
}

// wantTrash: these records, whatever their order, and no others.
func (w *world) wantTrash(want ...TrashRef) {
	w.t.Helper()
	less := func(a, b TrashRef) int { return strings.Compare(a.Day+a.Name, b.Day+b.Name) }
	have := slices.SortedFunc(slices.Values(w.trash()), less)
	if slices.SortFunc(want, less); !slices.Equal(have, want) {
		w.t.Errorf("trash %v, want %v", have, want)
	}
}

// wantExpired runs gc over everything, a month later.
func (w *world) wantExpired(what string, want Expired) {
	w.t.Helper()
	if have := w.expire(); have != want {
		w.t.Errorf("%s: %+v, want %+v", what, have, want)
	}
}

func held(w *world, f *FS, name string) *File {
	w.t.Helper()
	fl, err := f.Open(ctx, f.Tree(), name)
	w.must(err)
	if named, err := fl.Hold(); !named || err != nil {
		w.t.Fatalf("hold: named %t, %v", named, err)
	}
	return fl
}

// A file that somebody holds outlives keep and grace, however it lost its name.
func TestHold(t *testing.T) {
	for name, remove := range map[string]func(w *world) error{
		"unlinked":     func(w *world) error { return w.Unlink(ctx, me("f"), w.Tree(), "f") },
		"renamed over": func(w *world) error { return w.Rename(ctx, me("g"), w.Tree(), "g", w.Tree(), "f", "f", 0) },
		"purged": func(w *world) error {
			if err := w.Unlink(ctx, me("f"), w.Tree(), "f"); err != nil {
				return err
			}
			_, err := w.Purge(ctx, w.trash()[0])
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := noGrace(t)
			w.file("f", "text")
			w.file("g", "other")
			first, second := held(w, w.node("node2"), "f"), held(w, w.FS, "f")
			w.must(remove(w))
			refs := w.trash()
			st, err := first.Inode().Stat()
			w.must(err)
			for _, reader := range []*File{first, second} {
				w.wantExpired("held", Expired{Kept: 1})
				w.wantTrash(refs...)
				w.wantHome(first.ID(), stagedName)
				w.must(reader.Close())
			}
			if now, err := w.StatID(ctx, first.ID()); err != nil || now.Ctim != st.Ctim {
				t.Errorf("the held file was changed: ctime %v, was %v, %v", now.Ctim, st.Ctim, err)
			}
			w.wantExpired("let go", Expired{Destroyed: 1, Bytes: 4})
			w.wantHome(first.ID(), "")
			w.wantTrash()
		})
	}
}

// Whoever holds a file too late is told.
func TestHoldWithoutName(t *testing.T) {
	w := noGrace(t)
	fl := w.file("f", "text")
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	if named, err := fl.Hold(); named || err != nil {
		t.Errorf("after the unlink: named %t, %v", named, err)
	}
	w.must(fl.inode.Flock(unix.LOCK_UN))
	gc, err := w.node("gc").OpenID(ctx, fl.ID())
	w.must(err)
	defer gc.Close()
	if h, err := gc.seize(); h != holderNone || err != nil {
		t.Errorf("seize: %v, %v", h, err)
	}
	if named, err := fl.Hold(); named || err != nil {
		t.Errorf("while a gc is at it: named %t, %v", named, err)
	}
	if h, err := fl.seize(); h != holderGC || err != nil {
		t.Errorf("seize of another gc: %v, %v", h, err)
	}
	w.wantExpired("in the hands of another gc", Expired{Kept: 1})
	w.wantHome(fl.ID(), stagedName)
}

// lockless is a file on a filesystem without flock.
type lockless struct{ mdfs.File }

func (lockless) Flock(int) error { return &os.PathError{Op: "flock", Err: syscall.ENOLCK} }

func TestHoldWithoutLocks(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "text")
	fl.inode = lockless{fl.inode}
	if named, err := fl.Hold(); !named || err != nil {
		t.Errorf("hold: named %t, %v", named, err)
	}
	if h, err := fl.seize(); h != holderNone || err != nil {
		t.Errorf("seize: %v, %v", h, err)
	}
}

// A gc died with the file in its hands: the sweep gives back what is held.
func TestSweepSparesHeld(t *testing.T) {
	for _, purged := range []bool{false, true} {
		w := noGrace(t)
		w.file("f", "text")
		reader := held(w, w.FS, "f")
		w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
		ref := w.trash()[0]
		if purged {
			var err error
			ref, err = w.Purge(ctx, ref)
			w.must(err)
		}
		taken, err := w.takeTrash(ref)
		w.must(err)
		w.must(w.moveHome(stepDeadHome, reader.ID(), stagedName, deadName))
		w.pass(time.Hour)
		w.must(w.Sweep(ctx, *w.clock, nil))
		w.wantHome(reader.ID(), stagedName)
		w.wantTrash(ref)
		w.must(reader.Close())

		_, err = w.takeTrash(ref)
		w.must(err)
		w.must(w.moveHome(stepDeadHome, reader.ID(), stagedName, deadName))
		w.pass(time.Hour)
		var told []Doom
		w.must(w.Sweep(ctx, *w.clock, func(d []Doom) error { told = append(told, d...); return nil }))
		if len(told) != 1 || told[0].Size != 4 {
			t.Errorf("told %+v of %s", told, taken)
		}
		w.wantHome(reader.ID(), "")
		w.wantTrash()
	}
}

// everything puts one of each kind into trash; packed says in what pack f was.
func (w *world) everything() (packed objfmt.ObjectID) {
	w.t.Helper()
	w.file("f", "text")
	w.file("v", "old")
	w.pack(w.pinned("f"))
	_, err := w.stream(w.FS, w.pinned("v"), 100) // "old" is a version
	w.must(err)
	s, err := w.pinned("f").Newest(ctx)
	w.must(err)
	w.must(w.Link(ctx, me("h"), w.Tree(), "f", w.Tree(), "h"))
	w.must(w.Tree().Mkdir("d", 0o755))
	w.must(w.Tree().Symlink("target", "s"))
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	w.must(w.Unlink(ctx, me("h"), w.Tree(), "h"))
	w.must(w.Unlink(ctx, me("s"), w.Tree(), "s"))
	w.must(w.Rmdir(ctx, me("d"), w.Tree(), "d"))
	return s.Source.Object.Object
}

func TestExpireTells(t *testing.T) {
	w := newWorld(t)
	pack := w.everything()
	w.pass(31 * 24 * time.Hour)
	var told []Doom
	done, err := w.Expire(ctx, w.trash(), *w.clock, func(list []Doom) error {
		told = append(told, list...)
		w.wantNames(bodiesName, 1) // nothing is gone yet
		return nil
	})
	w.must(err)
	if done != (Expired{Destroyed: 4, Dropped: 1, Bytes: 7}) { // the second record of f has nothing left
		t.Errorf("%+v", done)
	}
	kinds := map[objfmt.RecordKind]Doom{}
	for _, d := range told {
		kinds[d.Record.Kind] = d
		if d.UID != uint32(os.Geteuid()) {
			t.Errorf("%s: owner %d", d.Record.Kind, d.UID)
		}
	}
	if len(told) != 4 || len(kinds) != 4 {
		t.Fatalf("told %+v", told)
	}
	if d := kinds[objfmt.RecordFile]; d.Size != 4 || len(d.Slots) != 1 || d.Slots[0].Source.Object.Object != pack {
		t.Errorf("file: %+v", d)
	}
	if d := kinds[objfmt.RecordVersion]; d.Size != 3 || len(d.Slots) != 1 || d.Record.Slot == nil || d.Slots[0].Source.Kind != objfmt.SourceBody {
		t.Errorf("version: %+v", d)
	}
	w.wantTrash()

	w.must(w.Retire(pack, "repack"))
	told = nil
	w.pass(31 * 24 * time.Hour)
	_, err = w.Expire(ctx, w.trash(), *w.clock, func(list []Doom) error { told = append(told, list...); return nil })
	w.must(err)
	if len(told) != 1 || told[0].Record.Kind != objfmt.RecordPack || told[0].Record.Object != pack {
		t.Errorf("pack: %+v", told)
	}
}

// When nobody could be told, or the caller has had enough, all is as before.
func TestExpireGivesBack(t *testing.T) {
	boom := errors.New("the log is full")
	for _, purged := range []bool{false, true} {
		for name, fail := range map[string]func(stop func()) error{
			"not told": func(func()) error { return boom },
			"stopped":  func(stop func()) error { stop(); return nil },
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t)
				pack := w.everything()
				w.must(w.Retire(pack, "repack"))
				if purged {
					for _, ref := range w.trash() {
						_, err := w.Purge(ctx, ref)
						w.must(err)
					}
				}
				refs, objects := w.trash(), w.store.len()
				w.pass(31 * 24 * time.Hour)
				ctx, stop := context.WithCancel(ctx)
				done, err := w.Expire(ctx, refs, *w.clock, func([]Doom) error { return fail(stop) })
				if err == nil || done.Destroyed != 0 || done.Dropped != 0 || done.Kept != len(refs) {
					t.Errorf("%+v, %v", done, err)
				}
				w.wantTrash(refs...)
				w.wantNames(versionName, 1)
				w.wantNames(bodiesName, 1)
				if w.store.len() != objects {
					t.Errorf("%d objects, were %d", w.store.len(), objects)
				}
				w.must(w.endLedgers())
				if problems := w.audit(); len(problems) > 0 {
					t.Errorf("%q", problems)
				}
				w.expire()
				w.expire() // the pack waited for its member
				w.wantTrash()
			})
		}
	}
}

// What could not be given back is left in dead/, and the next sweep's to tell and
// to destroy.
func TestExpireCannotGiveBack(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "text")
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	ref := w.trash()[0]
	w.pass(31 * 24 * time.Hour)
	day := filepath.Join(w.root, ref.dir())
	_, err := w.Expire(ctx, w.trash(), *w.clock, func([]Doom) error {
		w.must(os.Remove(day))
		w.must(os.WriteFile(day, nil, 0o600)) // in the way of the record
		return errors.New("not told")
	})
	wantErrno(t, err, syscall.ENOTDIR)
	w.must(os.Remove(day))
	w.wantHome(fl.ID(), stagedName)
	w.pass(2 * time.Hour)
	w.must(w.Sweep(ctx, *w.clock, func([]Doom) error { t.Error("told of a file that is back"); return nil }))
	w.wantTrash(ref)
	w.wantExpired("given back", Expired{Destroyed: 1, Bytes: 4})
}

// A deleted file is read through its home, in every form that content has.
func TestOpenDeleted(t *testing.T) {
	w := newWorld(t)
	w.file("own", "text")
	body := w.file("body", "old")
	w.must(w.replace(w.FS, body, "new body"))
	table := w.file("table", "old")
	w.must(w.change("table", func(s *Session) error { return w.publishTables(s) }))
	for _, name := range []string{"own", "body", "table"} {
		_, s := w.read(w.FS, name)
		before, _ := w.read(w.FS, name)
		w.must(w.Unlink(ctx, me(name), w.Tree(), name))
		fl, err := w.node("reader of "+name).OpenID(ctx, s.File)
		w.must(err)
		defer fl.Close()
		now, err := fl.Newest(ctx)
		w.must(err)
		if text, err := contentOf(fl, now); text != before || err != nil {
			t.Errorf("%s: read %q, %v, want %q", name, text, err, before)
		}
		if st, err := w.StatID(ctx, s.File); err != nil || st.Nlink != 1 {
			t.Errorf("%s: %d links, %v", name, st.Nlink, err)
		}
	}
	for _, fl := range []*File{body, table} { // a version of it, too
		refs, err := w.TrashOf(ctx, fl.ID())
		w.must(err)
		versions := 0
		for _, ref := range refs {
			r, err := w.ReadTrash(ctx, ref)
			w.must(err)
			if r.Kind != objfmt.RecordVersion {
				continue
			}
			versions++
			v, err := w.Version(ctx, r.Content)
			w.must(err)
			if text, err := contentOf(fl, *v.Slot); text != "old" || err != nil {
				t.Errorf("version: read %q, %v", text, err)
			}
			_, err = w.takeVersion(stepTake, r.Content, restorer(objfmt.NewID()))
			w.must(err)
			_, err = w.Version(ctx, r.Content)
			wantErrno(t, err, syscall.ENOENT)
		}
		if versions != 1 {
			t.Errorf("%d versions", versions)
		}
	}
}

// Tables that go on with each other's chunks: an object goes with the last of them,
// also when they go together, and stays with one that lives.
func TestExpireSharedChunks(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "text")
	var objects []objfmt.ObjectRef
	for range 4 {
		objects = append(objects, ref(w.newObjectID(), 0, 10))
		w.store.put(objects[len(objects)-1])
	}
	for _, chunks := range [][]int{{0, 1}, {0, 1, 2}, {1, 2, 3}, {2, 3}} {
		w.must(w.change("f", func(s *Session) error {
			table := &objfmt.ChunkTable{}
			for i, c := range chunks {
				table.Chunks = append(table.Chunks, objfmt.Chunk{Offset: int64(i) * 10, Length: 10, Object: objects[c], Sum: 1})
			}
			content, src, err := s.PutTable(ctx, table)
			if err != nil {
				return err
			}
			_, err = s.Publish(ctx, content, src, src.Stored, time.Now(), objfmt.Final)
			return err
		}))
	}
	w.wantExpired("versions", Expired{Destroyed: 4, Bytes: 4 + 20 + 30 + 30})
	for i, o := range objects {
		if want := i >= 2; w.store.holds(o) != want {
			t.Errorf("object %d: %t, want %t", i, w.store.holds(o), want)
		}
	}
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	w.wantExpired("file", Expired{Destroyed: 1, Bytes: 20})
	w.wantNames(chunksName, 0)
	if w.store.len() != 0 || w.home(fl.ID()) != "" {
		t.Errorf("%d objects are left", w.store.len())
	}
}

// Where there are no locks: a gc that is about to destroy a file has not seen that
// another gave it back, that it was restored, and that a third one, which looked before
// that, has just taken the home and will see the name. Nor does who destroys then.
func TestDestroyLooksOnceMore(t *testing.T) {
	w := noGrace(t)
	fl := w.file("f", "text")
	_, err := w.stream(w.FS, fl, 100)
	w.must(err)
	w.expire() // the version
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	ref := w.trash()[0]
	other := w.node("other")
	w.pass(30 * 24 * time.Hour)
	told := 0
	_, err = w.Expire(ctx, w.trash(), *w.clock, func(list []Doom) error {
		if told += len(list); told > 1 {
			return nil // that it is spared
		}
		r, err := other.recordAt(deadName, deadTrash+ref.Name, ref.Name)
		w.must(err)
		w.must(other.moveHome(stepDeadHome, fl.ID(), deadName, filesName))
		w.must(other.backToTrash(deadTrash+ref.Name, r))
		w.must(other.Restore(ctx, me("f"), ref, w.Tree(), "f"))
		w.must(other.moveHome(stepDeadHome, fl.ID(), filesName, deadName))
		return nil
	})
	w.must(err)
	w.wantHome(fl.ID(), filesName)
	if n := w.store.len(); n != 1 || told != 2 {
		t.Errorf("%d objects, %d told", n, told)
	}
	w.wantTrash()
}

// A version whose file is taken for begun for a moment, though it has a name, is in use.
func TestBegunWithNameIsInUse(t *testing.T) {
	w := noGrace(t)
	fl := w.file("f", "text")
	s, err := fl.Newest(ctx)
	w.must(err)
	w.must(w.moveHome(stepDeadHome, fl.ID(), stagedName, begunPlace))
	if use, err := w.usedBy(ctx, fl.ID(), s.Content); use != usedNewest || err != nil {
		t.Errorf("use %v, %v", use, err)
	}
	w.must(w.moveHome(stepDeadHome, fl.ID(), begunPlace, stagedName))
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	w.must(w.moveHome(stepDeadHome, fl.ID(), stagedName, begunPlace))
	if use, err := w.usedBy(ctx, fl.ID(), s.Content); use != usedNot || err != nil {
		t.Errorf("without names: use %v, %v", use, err)
	}
}

// Two give the same record back: the second finds nothing to do, which is no failure.
func TestGiveBackTwice(t *testing.T) {
	w := noGrace(t)
	w.file("f", "text")
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	refs := w.trash()
	w.pass(30 * 24 * time.Hour)
	full := errors.New("full")
	_, err := w.Expire(ctx, refs, *w.clock, func([]Doom) error {
		if err := w.node("other").Sweep(ctx, *w.clock, func([]Doom) error { return full }); !errors.Is(err, full) {
			t.Errorf("sweep: %v", err)
		}
		return full
	})
	if !errors.Is(err, full) || errors.Is(err, syscall.ENOENT) {
		t.Errorf("gc: %v", err)
	}
	w.wantTrash(refs...)
}

// What cannot be described once is asked again for the file's next record: nothing is
// destroyed that was not told of.
func TestDescribeAgain(t *testing.T) {
	w := noGrace(t)
	fl := w.file("f", "text")
	w.must(w.Link(ctx, me("f"), w.Tree(), "f", w.Tree(), "g"))
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	w.must(w.Unlink(ctx, me("g"), w.Tree(), "g"))
	s, err := fl.Newest(ctx)
	w.must(err)
	taken := filepath.Join(w.root, takenName, s.Content.Fan(), s.Content.String()+".gsomebody")
	w.must(os.MkdirAll(filepath.Dir(taken), 0o700))
	w.must(os.WriteFile(taken, nil, 0o600))
	disarm, err := fault.Arm("metadata.putback.before=error") // the first record stays in dead/
	w.must(err)
	w.pass(30 * 24 * time.Hour)
	_, err = w.Expire(ctx, w.trash(), *w.clock, func(d []Doom) error { t.Errorf("told %+v", d); return nil })
	disarm()
	if !errors.Is(err, syscall.EAGAIN) {
		t.Error(err)
	}
	w.must(os.Remove(taken))
	w.wantHome(fl.ID(), stagedName)
}

// Whoever was told that something goes is told when it stays.
func TestTellsOfWhatIsSpared(t *testing.T) {
	for name, spare := range map[string]func(w *world, fl *File, stop context.CancelFunc){
		"held": func(w *world, fl *File, _ context.CancelFunc) {
			_, err := fl.Hold()
			w.must(err)
		},
		"given back": func(w *world, _ *File, _ context.CancelFunc) {
			full := errors.New("full")
			if err := w.node("other").Sweep(ctx, *w.clock, func([]Doom) error { return full }); !errors.Is(err, full) {
				w.t.Errorf("sweep: %v", err)
			}
		},
		"interrupted": func(_ *world, _ *File, stop context.CancelFunc) { stop() },
		"no sync": func(w *world, _ *File, _ context.CancelFunc) {
			disarm, err := fault.Arm("metadata.syncfs.before=error")
			w.must(err)
			w.t.Cleanup(func() { disarm() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := noGrace(t)
			fl := w.file("f", "text")
			w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
			refs := w.trash()
			w.pass(30 * 24 * time.Hour)
			ctx, stop := context.WithCancel(ctx)
			defer stop()
			var told []bool
			done, _ := w.Expire(ctx, refs, *w.clock, func(list []Doom) error {
				for _, d := range list {
					told = append(told, d.Spared)
					if d.Record.File != fl.ID() || d.Size != 4 {
						t.Errorf("told %+v", d)
					}
				}
				if len(told) == 1 {
					spare(w, fl, stop)
				}
				return nil
			})
			if !slices.Equal(told, []bool{false, true}) || done.Kept != 1 {
				t.Errorf("spared %v, %+v", told, done)
			}
			w.wantTrash(refs...)
		})
	}
}

func (lockless) Lock(int64, int64) error { return &os.PathError{Op: "lock", Err: syscall.ENOLCK} }
