package metadata

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"marfs/internal/fault"
	"marfs/pkg/objfmt"
)

var batchTime = time.Unix(1.2e9, 345)

// newMembers makes files whose contents are to be in a pack, and closes them.
func (w *world) newMembers(names ...string) (list []PackMember, err error) {
	off := int64(0)
	for _, name := range names {
		fl, err := w.Create(ctx, me(name), w.Tree(), name, 0o644)
		if err != nil {
			return nil, err
		}
		text := "content of " + name
		m, err := fl.NewMember(ctx, int64(len(text)), objfmt.Checksum([]byte(text)), batchTime)
		if err := errors.Join(err, fl.Close()); err != nil {
			return nil, err
		}
		m.Offset = off
		off += int64(len(text))
		list = append(list, m)
	}
	return list, nil
}

// batch makes files and packs their contents in one.
func (w *world) batch(names ...string) error {
	list, err := w.newMembers(names...)
	if err != nil {
		return err
	}
	p, err := w.BeginPack(ctx, list)
	if err != nil {
		return err
	}
	r := ref(p.Object, 0, 1<<20)
	w.store.put(r)
	won, err := p.Publish(ctx, r)
	if err == nil {
		err = p.Finish(ctx)
	}
	if err == nil && won != len(names) {
		err = fmt.Errorf("%d of %d published: %w", won, len(names), errLost)
	}
	return err
}

// New files whose contents are in a pack from the beginning.
func TestBatch(t *testing.T) {
	w := newWorld(t)
	w.must(w.batch("a", "b", "c"))
	fl := w.pinned("b")
	s, err := fl.Newest(ctx)
	w.must(err)
	if src := s.Source; !src.Packed || src.Offset != 12 || src.Stored != 12 || src.Sum != objfmt.Checksum([]byte("content of b")) || s.State != objfmt.Final || s.Size != 12 {
		t.Errorf("slot %+v", s)
	}
	st, err := fl.inode.Stat()
	w.must(err)
	if st.Size != 12 || !mtimeOf(&st).Equal(batchTime) || !s.MTime.Equal(batchTime) {
		t.Errorf("size %d, mtime %v", st.Size, mtimeOf(&st))
	}
	w.wantSlots(fl, 2)
	w.wantHome(fl.ID(), filesName)
	w.wantNames(stagedName, 0)
	w.wantPath(fl, "")
	w.wantResident() // nothing of it was ever here
	for _, problem := range w.audit() {
		t.Error(problem)
	}
}

// Closing a file that is a member to be does not complete it: that is the pack's.
// Nor can anybody but its creator make a member, or a content of nothing be one.
func TestNewMemberOf(t *testing.T) {
	w := newWorld(t)
	fl, err := w.Create(ctx, me("f"), w.Tree(), "f", 0o644)
	w.must(err)
	_, err = fl.NewMember(ctx, 0, 0, batchTime)
	wantErrno(t, err, syscall.EINVAL)
	_, err = w.pinned("f").NewMember(ctx, 1, 0, batchTime)
	wantErrno(t, err, syscall.ESTALE)
	_, err = fl.NewMember(ctx, 1, 0, batchTime)
	w.must(err)
	w.must(fl.Close())
	if _, s := w.read(w.FS, "f"); s.State != objfmt.Open {
		t.Errorf("state %s", s.State)
	}
	committed := w.file("g", "text")
	_, err = committed.NewMember(ctx, 1, 0, batchTime)
	wantErrno(t, err, syscall.ESTALE)
}

// A member that another writer has made something of, one that is gone and one that
// could not be read are lost, and the others packed.
func TestBatchLoses(t *testing.T) {
	w := newWorld(t)
	list, err := w.newMembers("a", "b", "c", "d")
	w.must(err)
	w.must(w.replace(w.FS, w.pinned("b"), "another's"))
	w.must(w.Unlink(ctx, me("c"), w.Tree(), "c"))
	w.must(os.RemoveAll(w.root + "/staged/" + list[2].Slot.File.Fan()))
	list[3].Bad = true
	p, err := w.BeginPack(ctx, list)
	w.must(err)
	r := ref(p.Object, 0, 1<<20)
	w.store.put(r)
	won, err := p.Publish(ctx, r)
	w.must(err)
	w.must(p.Finish(ctx))
	if won != 1 || !list[0].Won() || list[1].Won() || list[2].Won() || list[3].Won() {
		t.Errorf("won %d: %v", won, list)
	}
	if text, _ := w.read(w.FS, "b"); text != "another's" {
		t.Errorf("read %q", text)
	}
	hints, err := w.Hints(ctx)
	w.must(err)
	if hints[p.Object] != 3 {
		t.Errorf("hints %v", hints)
	}
}

// A batch whose maker is gone: recovery leaves its files empty and final, or with
// the content that was published, and the maker publishes nothing more.
func TestRecoverBatch(t *testing.T) {
	for published := range 3 {
		w := newWorld(t)
		list, err := w.newMembers("a", "b")
		w.must(err)
		p, err := w.BeginPack(ctx, list)
		w.must(err)
		r := ref(p.Object, 0, 1<<20)
		w.store.put(r)
		p.members = list[:published]
		_, err = p.Publish(ctx, r)
		w.must(err)
		other := w.node("node2")
		w.must(other.RecoverPack(ctx, p.name))
		p.members = list[published:]
		if won, err := p.Publish(ctx, r); won != 0 || err != nil {
			t.Errorf("%d published: the fenced packer published %d more, %v", published, won, err)
		}
		for i, name := range []string{"a", "b"} {
			text, s := w.read(w.FS, name)
			if s.State != objfmt.Final || i < published != (text != "") {
				t.Errorf("%d published: %s is %s, reads %q", published, name, s.State, text)
			}
			fl := w.pinned(name)
			if st, err := fl.inode.Stat(); err != nil || st.Size != s.Size {
				t.Errorf("%s: size %d, slot says %d, %v", name, st.Size, s.Size, err)
			}
			w.wantHome(fl.ID(), filesName)
		}
		if w.store.holds(r) != (published > 0) {
			t.Errorf("%d published: object there: %v", published, w.store.holds(r))
		}
		w.pass(2 * time.Hour)
		w.must(other.Sweep(ctx, *w.clock, nil))
		for _, problem := range w.audit() {
			t.Errorf("%d published: %s", published, problem)
		}
	}
}

// A pack that is given up does not take an appender's right.
func TestRecoverPackSparesAppender(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "old")
	p, err := w.BeginPack(ctx, w.members(fl))
	w.must(err)
	base, err := fl.Newest(ctx)
	w.must(err)
	o, err := w.Append(ctx, fl, me("f"), base)
	w.must(err)
	w.must(p.Abort(ctx))
	_, err = o.Body().WriteAt([]byte("er"), 3)
	w.must(err)
	_, err = o.Commit(ctx, 5, objfmt.Checksum([]byte("older")))
	w.must(err)
}

// A publish that was fenced a moment later was a publish.
func TestBatchFencedAfterPublish(t *testing.T) {
	w := newWorld(t)
	list, err := w.newMembers("a")
	w.must(err)
	p, err := w.BeginPack(ctx, list)
	w.must(err)
	r := ref(p.Object, 0, 1<<20)
	w.store.put(r)
	disarm, err := fault.Arm("metadata.pack.slot.after=error")
	w.must(err)
	_, err = p.Publish(ctx, r)
	disarm()
	if err == nil {
		t.Fatal("no error")
	}
	other := w.node("node2")
	fl, err := other.OpenID(ctx, list[0].Slot.File)
	w.must(err)
	defer fl.Close()
	w.must(fl.fence(ctx, objfmt.ID{1}))
	w.must(fl.fence(ctx, objfmt.ID{1}))
	if won, err := p.Publish(ctx, r); won != 1 || err != nil {
		t.Errorf("won %d, %v", won, err)
	}
	w.must(p.Finish(ctx))
	hints, err := w.Hints(ctx)
	if w.must(err); len(hints) != 0 {
		t.Errorf("hints %v", hints)
	}
}

// Publish and Finish keep nothing open of their members.
func TestPackKeepsNothingOpen(t *testing.T) {
	w := newWorldIn(t, fastDir(t))
	pack := func(n int, prefix string) {
		w.must(w.batch(numberedNames(prefix, n)...))
	}
	pack(2000, "warm") // opens the fan-out directories, which stay so
	before := descriptors(t)
	pack(3000, "more")
	if after := descriptors(t); after > before+16 {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func numberedNames(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return names
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// A file that is removed while it is empty, and gets its content between the look
// at its slots and the removal of its home, leaves a hint of its dead bytes.
func TestUnlinkOfUnwrittenMember(t *testing.T) {
	w := newWorld(t)
	list, err := w.newMembers("a")
	w.must(err)
	p, err := w.BeginPack(ctx, list)
	w.must(err)
	r := ref(p.Object, 0, 1<<20)
	w.store.put(r)
	fl := w.pinned("a")
	v := &victim{f: w.FS, fl: fl}
	w.must(w.Tree().Remove("a"))
	disarm, err := fault.Arm("metadata.unlink.home.before=error")
	w.must(err)
	if v.removed() == nil { // up to the removal
		t.Fatal("no error")
	}
	disarm()
	_, err = p.Publish(ctx, r)
	w.must(err)
	w.must(p.Finish(ctx))
	w.must(w.removeHome(stepDropHome, fl.ID()))
	hints, err := w.Hints(ctx)
	if w.must(err); len(hints) != 0 {
		t.Fatalf("hints %v", hints)
	}
	w.must(v.dropUnwritten())
	if hints, err = w.Hints(ctx); err != nil || hints[p.Object] != 1 {
		t.Errorf("hints %v, %v", hints, err)
	}
}
