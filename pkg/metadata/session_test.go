package metadata

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

func TestStreamOverContent(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "old")
	base, err := fl.Newest(ctx)
	w.must(err)
	r, err := w.stream(w.FS, fl, 100)
	w.must(err)
	text, s := w.read(w.FS, "f")
	st, err := fl.inode.Stat()
	w.must(err)
	if text != "object "+r.Object.String() || st.Size != 100 || !mtimeOf(&st).Equal(s.MTime) {
		t.Errorf("read %q, size %d, mtime %v, want %v", text, st.Size, mtimeOf(&st), s.MTime)
	}
	w.wantHome(fl.ID(), filesName)
	w.wantSlots(fl, s.Gen)
	w.wantNames(workName, 0)
	v, err := w.Version(ctx, base.Content)
	w.must(err)
	if text, err := contentOf(fl, *v.Slot); err != nil || text != "old" || v.Slot.Source.Kind != objfmt.SourceBody {
		t.Errorf("version %q in %s, %v", text, v.Slot.Source.Kind, err)
	}
}

// The second of two writers who started from the same content fails, and leaves
// nothing behind but its record for the grace time.
func TestLostUpdateFails(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "base")
	base, err := fl.Newest(ctx)
	w.must(err)
	slow, err := w.node("node2").Begin(ctx, fl, me("f"), base)
	w.must(err)
	lost := ref(slow.Object, 0, 3)
	w.store.put(lost)
	w.must(w.replace(w.FS, fl, "first"))
	src := objfmt.Source{Kind: objfmt.SourceObj, Stored: 3, Sum: 1, Object: lost}
	_, err = slow.Publish(ctx, slow.NewContent(), src, 3, time.Now(), objfmt.Final)
	wantErrno(t, err, syscall.ESTALE)
	w.must(slow.Abort(ctx))
	if text, _ := w.read(w.FS, "f"); text != "first" || w.store.len() != 0 {
		t.Errorf("read %q, %d objects", text, w.store.len())
	}
	w.store.put(lost)
	w.pass(2 * time.Hour)
	w.must(w.Sweep(ctx, *w.clock, nil))
	if w.store.len() != 0 {
		t.Error("a late upload of an aborted session stayed")
	}
	w.wantNames(workName, 0)
}

// A packer that only moves the base does not make a change fail, and the version
// says where the base is now.
func TestRetryOverPack(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "base")
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.Begin(ctx, fl, me("f"), base)
	w.must(err)
	r := w.pack(fl)
	w.must(publishBody(s, "new", objfmt.Final))
	w.must(s.End(ctx))
	if text, _ := w.read(w.FS, "f"); text != "new" {
		t.Errorf("read %q", text)
	}
	v, err := w.Version(ctx, base.Content)
	w.must(err)
	if v.Slot.Source.Object != r {
		t.Errorf("the version is at %+v", v.Slot.Source)
	}
	w.wantHome(fl.ID(), stagedName)
}

// A writer who slept while his base moved and was replaced does not make the
// version's record name the old place.
func TestLateLoserSparesVersion(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "base")
	base, err := fl.Newest(ctx)
	w.must(err)
	slow, err := w.node("slow").Begin(ctx, fl, me("f"), base)
	w.must(err)
	r := w.pack(fl)
	w.must(w.replace(w.FS, fl, "won"))
	wantErrno(t, publishBody(slow, "lost", objfmt.Final), syscall.ESTALE)
	w.must(slow.Abort(ctx))
	v, err := w.Version(ctx, base.Content)
	w.must(err)
	if v.Slot.Source.Object != r {
		t.Errorf("the version is at %+v, want %+v", v.Slot.Source, r)
	}
}

func TestFsyncInMidStream(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "")
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.Begin(ctx, fl, me("f"), base)
	w.must(err)
	chunk := func(n uint32) objfmt.Chunk {
		r := ref(s.Object, n, 10)
		w.store.put(r)
		return objfmt.Chunk{Offset: int64(n-1) * 10, Length: 10, Object: r}
	}
	table := &objfmt.ChunkTable{Chunks: []objfmt.Chunk{chunk(1)}}
	id, src, err := s.PutTable(ctx, table)
	w.must(err)
	tail, body, err := s.NewBody(ctx)
	w.must(err)
	_, err = body.WriteAt([]byte("tail"), 0)
	w.must(err)
	src.Tail, src.Stored = tail, 14
	_, err = s.Publish(ctx, id, src, 14, time.Now(), objfmt.Open)
	w.must(err)
	w.wantHome(fl.ID(), stagedName)
	_, err = w.node("node2").Begin(ctx, fl, me("f"), s.last)
	wantErrno(t, err, syscall.EBUSY)
	table.Chunks = append(table.Chunks, chunk(2))
	id, src, err = s.PutTable(ctx, table)
	w.must(err)
	_, err = s.Publish(ctx, id, src, 20, time.Now(), objfmt.Final)
	w.must(err)
	w.must(s.End(ctx))
	if text, slot := w.read(w.FS, "f"); text != "table of 2" || slot.Size != 20 {
		t.Errorf("read %q, size %d", text, slot.Size)
	}
	w.wantHome(fl.ID(), filesName)
	w.wantNames(bodiesName, 0)
	w.wantNames(versionName, 0)
	w.wantNames(chunksName, 1)
	if w.store.len() != 2 {
		t.Errorf("%d objects", w.store.len())
	}
}

// Many fsyncs of a stream leave neither their tables nor the tails that have
// become objects to the end.
func TestLongStreamKeepsLittle(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "")
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.Begin(ctx, fl, me("f"), base)
	w.must(err)
	table := &objfmt.ChunkTable{}
	for n := range int64(10) {
		r := ref(s.Object, uint32(n), 10)
		w.store.put(r)
		table.Chunks = append(table.Chunks, objfmt.Chunk{Offset: n * 10, Length: 10, Object: r})
		never, _, err := s.NewBody(ctx)
		w.must(err)
		w.must(s.Discard(never))
		tail, body, err := s.NewBody(ctx)
		w.must(err)
		_, err = body.WriteAt([]byte("tail"), 0)
		w.must(err)
		id, src, err := s.PutTable(ctx, table)
		w.must(err)
		src.Tail, src.Stored = tail, n*10+14
		_, err = s.Publish(ctx, id, src, src.Stored, time.Now(), objfmt.Open)
		w.must(err)
		w.must(s.Discard(tail)) // named: it stays until the next publish
		if _, slot := w.read(w.FS, "f"); slot.Source.Tail != tail {
			t.Errorf("tail %s, want %s", slot.Source.Tail, tail)
		}
		w.wantNames(bodiesName, 1)
		if err := w.inTables(fl.ID(), func(d mdfs.Dir) error {
			names := 0
			err := eachEntry(d, "", func(string) (bool, error) { names++; return false, nil })
			if names > 2 {
				t.Errorf("%d tables after %d publishes", names, n+1)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	w.must(s.End(ctx))
	w.wantNames(bodiesName, 1)
	if text, _ := w.read(w.FS, "f"); text != "table of 10" {
		t.Errorf("read %q", text)
	}
}

// Many fsyncs of a change do not fill the inode with slots.
func TestManyPublishes(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "base")
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.Begin(ctx, fl, me("f"), base)
	w.must(err)
	id, body, err := s.NewBody(ctx)
	w.must(err)
	for i := range 20 {
		_, err = body.WriteAt([]byte{byte('a' + i)}, int64(i))
		w.must(err)
		src := objfmt.Source{Kind: objfmt.SourceBody, Stored: int64(i + 1)}
		_, err = s.Publish(ctx, id, src, int64(i+1), time.Now(), objfmt.Open)
		w.must(err)
	}
	gens, _, err := fl.gens()
	w.must(err)
	if len(gens) != 1 {
		t.Errorf("slots %v after 20 publishes", gens)
	}
	w.must(s.End(ctx))
	if text, slot := w.read(w.FS, "f"); text != "abcdefghijklmnopqrst" || slot.State != objfmt.Final {
		t.Errorf("read %q, state %s", text, slot.State)
	}
	w.wantNames(versionName, 1)
}

func TestForeignContentIsRefused(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "")
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.Begin(ctx, fl, me("f"), base)
	w.must(err)
	_, err = s.Publish(ctx, objfmt.NewID(), bodySource(""), 0, time.Now(), objfmt.Final)
	wantErrno(t, err, syscall.EINVAL)
}

// A writer that went to sleep before its setxattr wakes up when the slots it
// would go on top of are long gone: its slot lands in a gap, is no commit, and is
// removed.
func TestSlotInGapIsNoCommit(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "base")
	base, err := fl.Newest(ctx)
	w.must(err)
	for _, text := range []string{"one", "two", "three"} {
		w.must(w.replace(w.FS, fl, text))
	}
	next := base
	next.Content = w.newID()
	_, err = fl.publish(stepPublish, base, next)
	wantErrno(t, err, syscall.ESTALE)
	if text, s := w.read(w.FS, "f"); text != "three" {
		t.Errorf("read %q", text)
	} else {
		w.wantSlots(fl, s.Gen)
	}
}

// Junk that stayed is ignored by everybody and goes with the lower slots.
func TestJunkIsIgnored(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "base")
	for range 3 {
		w.must(w.replace(w.FS, fl, "text"))
	}
	junk := noSlot()
	junk.File, junk.Content, junk.Nonce, junk.Prev = fl.id, w.newID(), 5, 6
	junk.Source = objfmt.Source{Kind: objfmt.SourceBody, Stored: 1}
	b, err := junk.Encode()
	w.must(err)
	w.must(fl.inode.Setxattr(objfmt.SlotName(w.prefix, 2), b, 0))
	text, s := w.read(w.FS, "f")
	clean, err := fl.dropLower(me("f"), "test", 0)
	w.must(err)
	if text != "text" || !clean {
		t.Errorf("read %q, clean %v", text, clean)
	}
	w.wantSlots(fl, s.Gen)
	if found, err := w.hasVersion(junk.Content); found || err != nil {
		t.Errorf("junk became a version: %v", err)
	}
}

func TestFence(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "base")
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.Begin(ctx, fl, me("f"), base)
	w.must(err)
	w.store.put(ref(s.Object, 0, 9))
	other := w.node("node2")
	w.must(other.Recover(ctx, nil)) // knows of no living node
	err = publishBody(s, "late", objfmt.Final)
	wantErrno(t, err, syscall.ESTALE)
	w.must(s.Abort(ctx))
	if text, top := w.read(w.FS, "f"); text != "base" || top.State != objfmt.Final {
		t.Errorf("read %q, state %s", text, top.State)
	}
	if w.store.len() != 0 {
		t.Error("the fenced session's object stayed")
	}
}

// A session that has published once and is stopped before the next publish is
// fenced too: what it uploads meanwhile may be deleted.
func TestFenceAfterPublish(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "")
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.Begin(ctx, fl, me("f"), base)
	w.must(err)
	w.must(publishBody(s, "flushed", objfmt.Final))
	w.must(w.node("node2").Recover(ctx, nil))
	wantErrno(t, publishBody(s, "more", objfmt.Final), syscall.ESTALE)
	if text, _ := w.read(w.FS, "f"); text != "flushed" {
		t.Errorf("read %q", text)
	}
}

// What a fenced session still writes to the body it had published does not show.
func TestFencedBodyIsCopied(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "")
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.Begin(ctx, fl, me("f"), base)
	w.must(err)
	id, body, err := s.NewBody(ctx)
	w.must(err)
	_, err = body.WriteAt([]byte("synced"), 0)
	w.must(err)
	_, err = s.Publish(ctx, id, bodySource("synced"), 6, time.Now(), objfmt.Open)
	w.must(err)
	w.must(w.node("node2").Recover(ctx, nil))
	_, err = body.WriteAt([]byte("STRAY!"), 0)
	w.must(err)
	text, top := w.read(w.FS, "f")
	if text != "synced" || top.State != objfmt.Final {
		t.Errorf("read %q, state %s", text, top.State)
	}
	w.wantNames(bodiesName, 1)
}

// An appender that died leaves a body that nobody appends to again: it may wake up.
func TestFencedAppendIsSealed(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "one")
	base, err := fl.Newest(ctx)
	w.must(err)
	o, err := w.Append(ctx, fl, me("f"), base)
	w.must(err)
	other := w.node("node2")
	w.must(other.Recover(ctx, nil))
	top, err := fl.Newest(ctx)
	w.must(err)
	if top.State != objfmt.Sealed {
		t.Errorf("state %s", top.State)
	}
	_, err = other.Append(ctx, fl, me("f"), top)
	wantErrno(t, err, syscall.ESTALE)
	_, err = o.Body().WriteAt([]byte("two"), 3)
	w.must(err)
	_, err = o.Commit(ctx, 6, objfmt.Checksum([]byte("onetwo")), true)
	wantErrno(t, err, syscall.ESTALE)
	if text, _ := w.read(w.FS, "f"); text != "one" {
		t.Errorf("read %q", text)
	}
}

// Recovering one session of a file does not end another's.
func TestFenceSparesOtherSession(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "base")
	base, err := fl.Newest(ctx)
	w.must(err)
	dead, err := w.Begin(ctx, fl, me("f"), base)
	w.must(err)
	live, err := w.node("node2").Begin(ctx, fl, me("f"), base)
	w.must(err)
	w.must(publishBody(live, "one", objfmt.Open))
	w.must(w.RecoverWork(ctx, "node1", dead.ID.String()))
	w.must(publishBody(live, "two", objfmt.Final))
	w.must(live.End(ctx))
	if text, _ := w.read(w.FS, "f"); text != "two" {
		t.Errorf("read %q", text)
	}
}

func TestRestoreVersion(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "first")
	base, err := fl.Newest(ctx)
	w.must(err)
	_, err = w.stream(w.FS, fl, 50)
	w.must(err)
	middle, err := fl.Newest(ctx)
	w.must(err)
	_, err = w.RestoreVersion(ctx, fl, me("f"), base.Content)
	w.must(err)
	if text, _ := w.read(w.FS, "f"); text != "first" {
		t.Errorf("read %q", text)
	}
	w.wantNames(versionName, 1)
	w.wantNames(takenName, 0)
	w.wantHome(fl.ID(), stagedName)
	_, err = w.RestoreVersion(ctx, fl, me("f"), objfmt.NewID())
	wantErrno(t, err, syscall.ENOENT)
	w.expire()
	if text, _ := w.read(w.FS, "f"); text != "first" || w.store.len() != 0 {
		t.Errorf("after expiry: read %q, %d objects", text, w.store.len())
	}
	_, err = w.RestoreVersion(ctx, fl, me("f"), middle.Content)
	wantErrno(t, err, syscall.ENOENT)
}

// A session whose last publish fails has ended all the same: recovery of its own
// process may have it.
func TestFailedEndLeavesRecordToRecovery(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "old")
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.Begin(ctx, fl, me("f"), base)
	w.must(err)
	w.must(publishBody(s, "new", objfmt.Open))
	dead, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.End(dead); !errors.Is(err, context.Canceled) {
		t.Fatalf("end: %v", err)
	}
	w.wantNames(workName, 1)
	w.must(w.Recover(ctx, nil))
	w.wantNames(workName, 0)
	if text, slot := w.read(w.FS, "f"); text != "new" || slot.State == objfmt.Open {
		t.Errorf("read %q, %s", text, slot.State)
	}
	wantErrno(t, s.End(ctx), syscall.EBADF)
}

// A fence makes room by the slots below; where that is not enough it leaves no
// copy of the body behind.
func TestFenceOfFullInode(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "old")
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.node("node2").Begin(ctx, fl, me("f"), base)
	w.must(err)
	w.must(publishBody(s, "new", objfmt.Open))
	empty := fill(t, fl)
	bodies := func() (n int) {
		w.eachFan(ctx, bodiesName, func(_ string, err error) bool { w.must(err); n++; return true })
		return n
	}
	before := bodies()
	wantErrno(t, w.RecoverWork(ctx, "node2", s.ID.String()), syscall.ENOSPC)
	w.pass(2 * time.Hour)
	wantErrno(t, w.Sweep(ctx, *w.clock, nil), syscall.ENOSPC)
	if n := bodies(); n != before {
		t.Errorf("%d bodies, want %d", n, before)
	}
	empty()
	top, _, err := fl.newest()
	w.must(err)
	_, err = fl.publish(stepFence, top, top)
	w.must(err)
	fill(t, fl)
	w.must(w.Sweep(ctx, *w.clock, nil))
	if text, slot := w.read(w.FS, "f"); text != "new" || slot.State != objfmt.Final {
		t.Errorf("read %q, %s", text, slot.State)
	}
}
