package metadata

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

func TestCreateCommitRead(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "hello")
	text, s := w.read(w.FS, "f")
	if text != "hello" || s.State != objfmt.Final || s.Source.Kind != objfmt.SourceOwn {
		t.Errorf("read %q of slot %+v", text, s)
	}
	w.wantHome(fl.ID(), stagedName)
	st, err := w.Tree().Lstat("f")
	w.must(err)
	if StatOf(&st); st.Nlink != 1 || st.Size != 5 || st.Mode&0o7777 != 0o644 {
		t.Errorf("stat: nlink %d, size %d, mode %o", st.Nlink, st.Size, st.Mode)
	}
	again, err := w.node("node2").OpenID(ctx, fl.ID())
	w.must(err)
	again.Close()
	_, err = w.Create(ctx, me("f"), w.Tree(), "f", 0o644)
	wantErrno(t, err, syscall.EEXIST)
}

func TestCreateEmptyThenCommitNothing(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "")
	text, s := w.read(w.FS, "f")
	if text != "" || s.State != objfmt.Final || s.Gen != 2 {
		t.Errorf("read %q of slot %+v", text, s)
	}
	w.must(fl.placeHome(0))
	w.wantHome(fl.ID(), filesName)
}

// A name that another node opens between its making and its first slot belongs
// to nobody's own body: the creator goes on as any writer.
func TestCreateOpenedBeforeFirstSlot(t *testing.T) {
	w := newWorld(t)
	in, err := w.Tree().OpenFile("f", syscall.O_CREAT|syscall.O_RDWR, 0o644)
	w.must(err)
	other, err := w.node("node2").Open(ctx, w.Tree(), "f")
	w.must(err)
	defer other.Close()
	fl := &File{f: w.FS, inode: in, id: w.newID()}
	defer fl.Close()
	w.must(fl.first(w.Tree(), "f"))
	if fl.id != other.id || !fl.created.IsZero() {
		t.Errorf("creator has id %s, created %s; opener %s", fl.id, fl.created, other.id)
	}
	_, err = fl.Own(ctx, me("f"))
	wantErrno(t, err, syscall.ESTALE)
	w.must(w.replace(w.FS, fl, "late"))
	if text, _ := w.read(w.FS, "f"); text != "late" {
		t.Errorf("read %q", text)
	}
}

func TestOpenHeals(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "hello")
	w.must(w.replace(w.FS, fl, "other"))
	w.must(w.in(fanned(stagedName, fl.id), func(d mdfs.Dir) error { return d.Remove(fl.id.String()) }))
	w.must(fl.inode.Truncate(77))
	again, err := w.Open(ctx, w.Tree(), "f")
	w.must(err)
	defer again.Close()
	w.wantHome(fl.ID(), stagedName)
	st, err := again.Inode().Stat()
	w.must(err)
	if st.Size != 5 || st.Nlink != 2 {
		t.Errorf("size %d, nlink %d after healing", st.Size, st.Nlink)
	}
}

func TestOpenRefusesOthers(t *testing.T) {
	w := newWorld(t)
	w.must(w.Tree().Symlink("/etc/passwd", "link"))
	w.must(w.Tree().Mkdir("dir", 0o755))
	w.must(w.Tree().Mknod("fifo", syscall.S_IFIFO|0o600, 0))
	for name, want := range map[string]syscall.Errno{"link": syscall.ELOOP, "dir": syscall.EISDIR, "fifo": syscall.EINVAL, "none": syscall.ENOENT} {
		_, err := w.Open(ctx, w.Tree(), name)
		if err == nil {
			t.Errorf("opened %s", name)
			continue
		}
		wantErrno(t, err, want)
	}
}

func TestUnknownSlotVersionIsRefused(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "hello")
	w.must(fl.inode.Setxattr(objfmt.SlotName(w.prefix, 9), []byte("v99 whatever"), 0))
	if _, err := w.Open(ctx, w.Tree(), "f"); err == nil {
		t.Error("a slot of an unknown version was believed")
	}
}

func TestAppend(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "one")
	base, err := fl.Newest(ctx)
	w.must(err)
	o, err := w.Append(ctx, fl, me("f"), base)
	w.must(err)
	if text, _ := w.read(w.FS, "f"); text != "one" {
		t.Errorf("read %q while appending", text)
	}
	_, err = w.node("node2").Append(ctx, fl, me("f"), base)
	wantErrno(t, err, syscall.ESTALE)
	_, err = o.Body().WriteAt([]byte("two"), 3)
	w.must(err)
	s, err := o.Commit(ctx, 6, objfmt.Checksum([]byte("onetwo")), true)
	w.must(err)
	if text, _ := w.read(w.FS, "f"); text != "onetwo" || s.Content == base.Content {
		t.Errorf("read %q, content %s", text, s.Content)
	}
	clean, err := fl.dropLower(me("f"), "test", s.Nonce)
	w.must(err)
	w.wantSlots(fl, s.Gen)
	if w.wantNames(versionName, 0); !clean {
		t.Error("an appended file is not clean")
	}
}

// Many appends do not fill the inode with slots, nor make versions.
func TestManyAppends(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "x")
	text := "x"
	for range 30 {
		base, err := fl.Newest(ctx)
		w.must(err)
		own, err := w.Append(ctx, fl, me("f"), base)
		w.must(err)
		_, err = own.Body().WriteAt([]byte("y"), int64(len(text)))
		w.must(err)
		text += "y"
		s, err := own.Commit(ctx, int64(len(text)), objfmt.Checksum([]byte(text)), true)
		w.must(err)
		w.wantSlots(fl, s.Gen)
	}
	if have, _ := w.read(w.FS, "f"); have != text {
		t.Errorf("read %q", have)
	}
	w.wantNames(versionName, 0)
}

// An append that goes on as a session makes a version of what it appended to.
func TestAppendTurnsIntoSession(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "one")
	base, err := fl.Newest(ctx)
	w.must(err)
	o, err := w.Append(ctx, fl, me("f"), base)
	w.must(err)
	s, err := o.Begin(ctx)
	w.must(err)
	w.must(publishBody(s, "onetwo", objfmt.Final))
	w.must(s.End(ctx))
	if text, _ := w.read(w.FS, "f"); text != "onetwo" {
		t.Errorf("read %q", text)
	}
	v, err := w.Version(ctx, base.Content)
	w.must(err)
	if text, err := contentOf(fl, *v.Slot); err != nil || text != "one" {
		t.Errorf("version %q, %v", text, err)
	}
}

func TestTruncate(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "0123456789")
	first, err := fl.Newest(ctx)
	w.must(err)
	for _, c := range []struct {
		n    int64
		want string
	}{{4, "0123"}, {6, "0123\x00\x00"}, {2, "01"}, {5, "01\x00\x00\x00"}} {
		w.must(w.Truncate(ctx, fl, me("f"), c.n))
		text, s := w.read(w.FS, "f")
		st, err := fl.inode.Stat()
		w.must(err)
		if text != c.want || st.Size != c.n || s.Content != first.Content || s.State != objfmt.Sealed {
			t.Errorf("truncate(%d): read %q, size %d, slot %+v", c.n, text, st.Size, s)
		}
	}
	top, err := fl.Newest(ctx)
	w.must(err)
	_, err = w.Append(ctx, fl, me("f"), top)
	wantErrno(t, err, syscall.ESTALE)
	w.must(w.Truncate(ctx, fl, me("f"), 0))
	if text, _ := w.read(w.FS, "f"); text != "" {
		t.Errorf("truncate(0): read %q", text)
	}
	w.wantHome(fl.ID(), stagedName)
	w.must(w.Recover(ctx, nil))
	w.wantHome(fl.ID(), filesName)
	v, err := w.Version(ctx, first.Content)
	w.must(err)
	if text, err := contentOf(fl, *v.Slot); err != nil || text != "01\x00\x00\x00" {
		t.Errorf("version %q, %v", text, err)
	}
}

func TestTruncateWhileOpen(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "hello")
	base, err := fl.Newest(ctx)
	w.must(err)
	_, err = w.Append(ctx, fl, me("f"), base)
	w.must(err)
	wantErrno(t, w.Truncate(ctx, fl, me("f"), 2), syscall.EBUSY)
	base, err = fl.Newest(ctx)
	w.must(err)
	_, err = w.Begin(ctx, fl, me("f"), base)
	wantErrno(t, err, syscall.EBUSY)
}

// Cutting does not make good bytes of damaged ones.
func TestTruncateDamaged(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "hello")
	_, err := fl.inode.WriteAt([]byte{0}, 1)
	w.must(err)
	if err := w.Truncate(ctx, fl, me("f"), 4); !errors.Is(err, objfmt.ErrChecksum) {
		t.Errorf("cut of a damaged body: %v", err)
	}
	if s, err := fl.Newest(ctx); err != nil || s.Size != 5 {
		t.Errorf("size %d, error %v", s.Size, err)
	}
}

func TestReleaseKeepsMTime(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "hello")
	w.pack(fl)
	old := time.Unix(1e9, 123456789)
	w.must(fl.SetTimes(mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Time: old}))
	freed, err := fl.Release(ctx)
	w.must(err)
	st, err := fl.inode.Stat()
	w.must(err)
	if held, err := fl.holdsData(); held || err != nil {
		t.Errorf("still holds data: %v, %v", held, err)
	}
	if !freed || st.Size != 5 || !mtimeOf(&st).Equal(old) {
		t.Errorf("freed %v, size %d, mtime %v", freed, st.Size, mtimeOf(&st))
	}
	if freed, err = fl.Release(ctx); freed || err != nil {
		t.Errorf("second release: %v, %v", freed, err)
	}
}

// A touch while a body is being punched wins, wherever it falls.
func TestReleaseAgainstTouch(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "hello")
	w.pack(fl)
	st, err := fl.inode.Stat()
	w.must(err)
	w.must(fl.note(mtimeOf(&st)))
	touched := time.Unix(1.5e9, 0)
	w.must(fl.SetTimes(mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Time: touched}))
	w.must(fl.punchArchived(st.Size, objfmt.ObjectID{}))
	w.must(fl.endPunch(mtimeOf(&st)))
	if st, err = fl.inode.Stat(); err != nil || !mtimeOf(&st).Equal(touched) {
		t.Errorf("mtime %v, %v", mtimeOf(&st), err)
	}
}

// A releaser that died between punch and mtime: the next open puts it back.
func TestOpenEndsPunch(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "hello")
	w.pack(fl)
	old := time.Unix(1e9, 0)
	w.must(fl.SetTimes(mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Time: old}))
	w.must(fl.note(old))
	w.must(fl.punchArchived(5, objfmt.ObjectID{}))
	again, err := w.Open(ctx, w.Tree(), "f")
	w.must(err)
	defer again.Close()
	if st, err := fl.inode.Stat(); err != nil || !mtimeOf(&st).Equal(old) {
		t.Errorf("mtime %v, %v", mtimeOf(&st), err)
	}
	if _, noted, err := fl.gens(); noted.punch || err != nil {
		t.Errorf("note left: %v, %v", noted, err)
	}
}

func TestReleaseOfUnarchived(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "hello")
	freed, err := fl.Release(ctx)
	if text, _ := w.read(w.FS, "f"); freed || err != nil || text != "hello" {
		t.Errorf("freed %v, %v; read %q", freed, err, text)
	}
}

func TestDiskMode(t *testing.T) {
	f := &FS{}
	f.o.Trusted = false
	if isRoot() {
		if have := f.DiskMode(0o1444); have != 0o444 {
			t.Errorf("root: %o", have)
		}
		return
	}
	st := mdfs.Stat{Mode: syscall.S_IFREG | f.DiskMode(0o444), Nlink: 2}
	if StatOf(&st); st.Mode&0o7777 != 0o444 {
		t.Errorf("0444 shows as %o", st.Mode&0o7777)
	}
}

// A file that was made and closed, as by touch, is complete: nobody takes it for
// one that is being written.
func TestTouchedFileIsFinal(t *testing.T) {
	w := newWorld(t)
	fl, err := w.Create(ctx, me("f"), w.Tree(), "f", 0o644)
	w.must(err)
	w.must(fl.Close())
	if _, s := w.read(w.FS, "f"); s.State != objfmt.Final {
		t.Errorf("state %s", s.State)
	}
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	if len(w.trash()) != 1 {
		t.Error("a complete empty file was removed without a record")
	}
}
