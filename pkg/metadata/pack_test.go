package metadata

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/objfmt"
)

// members reads files as a packer does.
func (w *world) members(files ...*File) (list []PackMember) {
	w.t.Helper()
	off := int64(0)
	for _, fl := range files {
		s, err := fl.Newest(ctx)
		w.must(err)
		var b bytes.Buffer
		sum, err := fl.CopyContent(ctx, s, &b)
		w.must(err)
		list = append(list, PackMember{Slot: s, Offset: off, Sum: sum})
		off += s.Source.Stored
	}
	return list
}

// pack archives files into one object.
func (w *world) pack(files ...*File) objfmt.ObjectRef {
	w.t.Helper()
	p, err := w.BeginPack(ctx, w.members(files...))
	w.must(err)
	r := ref(p.Object, 0, 1<<20)
	w.store.put(r)
	_, err = p.Publish(ctx, r)
	w.must(err)
	w.must(p.Finish(ctx))
	return r
}

func TestPack(t *testing.T) {
	w := newWorld(t)
	a, b := w.file("a", "aaa"), w.file("b", "bbbb")
	first, err := b.Newest(ctx)
	w.must(err)
	r := w.pack(a, b)
	s, err := b.Newest(ctx)
	w.must(err)
	if src := s.Source; !src.Packed || src.Offset != 3 || src.Stored != 4 || src.Object != r || s.Content != first.Content {
		t.Errorf("slot %+v", s)
	}
	w.wantHome(a.ID(), filesName)
	w.wantSlots(b, 3)
	w.wantNames(openPacks, 0)
	m, err := w.Members(ctx, r.Object)
	w.must(err)
	if len(m.Members) != 2 {
		t.Errorf("%d members", len(m.Members))
	}
}

// A member that is appended to while its pack is written is left as it is; its
// bytes in the pack are dead. A pack of nothing but such bytes goes at once.
func TestPackLosesToWriter(t *testing.T) {
	w := newWorld(t)
	a, b := w.file("a", "aaa"), w.file("b", "bbb")
	p, err := w.BeginPack(ctx, w.members(a, b))
	w.must(err)
	r := ref(p.Object, 0, 1<<20)
	w.store.put(r)
	w.must(w.replace(w.FS, b, "new"))
	won, err := p.Publish(ctx, r)
	w.must(err)
	w.must(p.Finish(ctx))
	if text, _ := w.read(w.FS, "b"); won != 1 || text != "new" {
		t.Errorf("won %d, read %q", won, text)
	}
	hints, err := w.Hints(ctx)
	w.must(err)
	if hints[p.Object] != 1 {
		t.Errorf("hints %v", hints)
	}
	w.expire()
	if !w.store.holds(r) {
		t.Error("a pack with a live member was deleted")
	}
	w.must(w.Unlink(ctx, me("a"), w.Tree(), "a"))
	a.Close()
	w.must(w.Retire(p.Object, "repack"))
	w.expire()
	w.expire() // the deletion first, then the pack that only it named
	if w.store.holds(r) {
		t.Error("a pack that nothing names is still there")
	}
	w.wantNames(packsName, 0)
}

func TestPackOfDeadBytesOnly(t *testing.T) {
	w := newWorld(t)
	a := w.file("a", "aaa")
	p, err := w.BeginPack(ctx, w.members(a))
	w.must(err)
	r := ref(p.Object, 0, 1<<20)
	w.store.put(r)
	w.must(w.replace(w.FS, a, "new"))
	_, err = p.Publish(ctx, r)
	w.must(err)
	w.must(p.Finish(ctx))
	w.expire()
	if w.store.holds(r) {
		t.Error("the pack is still there")
	}
}

func TestRepack(t *testing.T) {
	w := newWorld(t)
	a, b := w.file("a", "aaa"), w.file("b", "bbb")
	old := w.pack(a, b)
	w.must(w.Retire(old.Object, "repack"))
	var list []PackMember
	for i, fl := range []*File{a, b} {
		s, err := fl.Newest(ctx)
		w.must(err)
		list = append(list, PackMember{Slot: s, Offset: int64(i) * 3, Sum: s.Source.Sum})
	}
	p, err := w.BeginPack(ctx, list[:1])
	w.must(err)
	fresh := ref(p.Object, 0, 1<<20)
	w.store.put(fresh)
	_, err = p.Publish(ctx, fresh)
	w.must(err)
	w.must(p.Finish(ctx))
	w.expire()
	if !w.store.holds(old) {
		t.Fatal("the old pack went while a member names it")
	}
	w.pack2(list[1:])
	w.expire()
	if w.store.holds(old) || !w.store.holds(fresh) {
		t.Error("the old pack stayed or the new one went")
	}
}

func (w *world) pack2(list []PackMember) {
	w.t.Helper()
	p, err := w.BeginPack(ctx, list)
	w.must(err)
	r := ref(p.Object, 0, 1<<20)
	w.store.put(r)
	_, err = p.Publish(ctx, r)
	w.must(err)
	w.must(p.Finish(ctx))
}

func TestPackRefusesTornBody(t *testing.T) {
	w := newWorld(t)
	a := w.file("a", "aaa")
	_, err := a.inode.WriteAt([]byte("x"), 1)
	w.must(err)
	s, err := a.Newest(ctx)
	w.must(err)
	if _, err := a.CopyContent(ctx, s, &bytes.Buffer{}); err == nil {
		t.Error("a body that is not what its slot says was read for packing")
	}
}

// A packer that stopped at any point: recovery finishes or deletes the pack, and
// the packer, should it wake up, publishes nothing.
func TestRecoverPack(t *testing.T) {
	for _, published := range []int{0, 1, 2} {
		w := newWorld(t)
		files := []*File{w.file("a", "aaa"), w.file("b", "bbb")}
		p, err := w.BeginPack(ctx, w.members(files...))
		w.must(err)
		r := ref(p.Object, 0, 1<<20)
		w.store.put(r)
		all := p.members
		p.members = all[:published]
		_, err = p.Publish(ctx, r)
		w.must(err)
		other := w.node("node2")
		w.must(other.Recover(ctx, nil))
		if w.store.holds(r) != (published > 0) {
			t.Errorf("%d published: object there: %v", published, w.store.holds(r))
		}
		p.members = all[published:]
		if won, err := p.Publish(ctx, r); won != 0 || err != nil {
			t.Errorf("%d published: the fenced packer published %d more, %v", published, won, err)
		}
		for i, fl := range files {
			if want := []string{stagedName, filesName}; i < published {
				w.wantHome(fl.ID(), want[1])
			} else {
				w.wantHome(fl.ID(), want[0])
			}
		}
		w.store.put(r) // an upload that arrives late
		w.pass(2 * time.Hour)
		w.must(other.Sweep(ctx, *w.clock, nil))
		if w.store.holds(r) != (published > 0) {
			t.Errorf("%d published: after grace the object is there: %v", published, w.store.holds(r))
		}
	}
}

// fill takes the room for xattrs of an inode, and returns how to give it back.
func fill(t *testing.T, fl *File) (empty func()) {
	t.Helper()
	var names []string
	for size := 4000; size > 0; size /= 2 {
		for {
			name := fmt.Sprintf("user.fill%d", len(names))
			if err := fl.inode.Setxattr(name, make([]byte, size), 0); err != nil {
				break
			}
			if names = append(names, name); len(names) > 1000 {
				t.Skip("inodes have room without end here")
			}
		}
	}
	return func() {
		for _, name := range names {
			if err := fl.inode.Removexattr(name); err != nil {
				t.Error(err)
			}
		}
	}
}

// A member whose inode has no room for a slot is lost, and the others are packed.
func TestPackWithFullInode(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.file("a", "aaa"), w.file("b", "bbb"), w.file("c", "ccc")
	empty := fill(t, b)
	r := w.pack(a, b, c)
	for name, want := range map[string]objfmt.SourceKind{"a": objfmt.SourceObj, "b": objfmt.SourceOwn, "c": objfmt.SourceObj} {
		if _, s := w.read(w.FS, name); s.Source.Kind != want {
			t.Errorf("%s is in %s", name, s.Source.Kind)
		}
	}
	hints, err := w.Hints(ctx)
	w.must(err)
	if hints[r.Object] != 1 {
		t.Errorf("hints %v, want one for %s", hints, r.Object)
	}
	empty()
	w.pack(b)
}

// A packer died. A member that cannot be fenced does not keep the others' pack
// unfinished; a pack that has no others waits until there is room.
func TestRecoverPackWithFullInode(t *testing.T) {
	w := newWorld(t)
	a, b := w.file("a", "aaa"), w.file("b", "bbb")
	begin := func(list []PackMember) *Pack {
		p, err := w.BeginPack(ctx, list)
		w.must(err)
		w.store.put(ref(p.Object, 0, 9))
		return p
	}
	p := begin(w.members(a, b))
	all := p.members
	p.members = all[:1]
	_, err := p.Publish(ctx, ref(p.Object, 0, 9))
	w.must(err)
	alone := begin(w.members(b))
	_, err = b.dropLower(me("b"), "test", 0) // a fence would make room with it
	w.must(err)
	empty := fill(t, b)
	w.must(w.RecoverPack(ctx, p.name))
	wantErrno(t, w.RecoverPack(ctx, alone.name), syscall.ENOSPC)
	w.wantHome(a.ID(), filesName)
	if w.store.len() != 2 {
		t.Errorf("%d objects, want 2", w.store.len())
	}
	empty()
	p.members = all[1:] // its packer wakes up
	won, err := p.Publish(ctx, ref(p.Object, 0, 9))
	if w.must(err); won != 1 {
		t.Errorf("%d members published", won)
	}
	w.pass(2 * time.Hour)
	w.must(w.Sweep(ctx, *w.clock, nil))
	w.wantNothingDead()
	if w.store.len() != 1 {
		t.Errorf("%d objects, want that of the pack", w.store.len())
	}
}
