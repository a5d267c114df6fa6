package packer

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore/faultstore"
)

// Many old packs become few, and go.
func TestRepack(t *testing.T) {
	w := newWorld(t, policy)
	texts := map[string]string{}
	for i := range 8 {
		texts[fmt.Sprintf("d/%d", i)] = text(1000+i, i)
	}
	ids := w.halfDead(texts)
	if n := len(w.wantPacked(all(texts)...)); n != 8 {
		t.Fatalf("%d packs", n)
	}
	plan, err := w.Plan(ctx)
	w.must(err)
	if len(plan) != 8 || plan[0].Live != 1 || plan[0].Members != 3 || plan[0].Alive >= plan[0].Bytes/2 {
		t.Errorf("plan %+v", plan)
	}
	seen := 0
	r, err := w.Repack(ctx, plan, func(Result) { seen++ })
	w.must(err)
	if r.Files != 8 || r.Packs != 1 || seen != 1 {
		t.Errorf("%+v, %d calls", r, seen)
	}
	if n := len(w.wantPacked(all(texts)...)); n != 1 {
		t.Errorf("%d packs", n)
	}
	w.wantText(texts)
	for _, f := range w.trailer(w.slot("d/0").Source.Object).Files {
		if texts[f.Path] == "" {
			t.Errorf("the trailer has the path %q", f.Path)
		}
	}
	if plan, err = w.Plan(ctx); err != nil || len(plan) != 0 {
		t.Errorf("planned again: %+v, %v", plan, err)
	}
	w.recover()
	w.wantNoOrphans(ids...)
	w.wantText(texts)
	if n := len(w.objectIDs()); n != 1 {
		t.Errorf("%d objects", n)
	}
	if left := w.names("repack"); len(left) != 0 {
		t.Errorf("hints are left: %v", left)
	}
}

// A pack of which all is dead is retired, once; a pack that is mostly alive stays.
func TestPlan(t *testing.T) {
	w := newWorld(t, policy)
	w.file("dead", "text")
	w.pack(PackOptions{})
	w.file("small", "text")
	w.file("large", text(3000, 1))
	w.pack(PackOptions{})
	w.remove("dead")
	w.remove("small")
	w.gc(w.FS)
	plan, err := w.Plan(ctx)
	w.must(err)
	if len(plan) != 1 || plan[0].Live != 0 {
		t.Fatalf("plan %+v", plan)
	}
	for range 2 {
		if _, err := w.Repack(ctx, plan, nil); err != nil {
			t.Fatal(err)
		}
	}
	refs, err := w.TrashOf(ctx, objfmt.ID(plan[0].Object))
	w.must(err)
	if len(refs) != 1 {
		t.Errorf("retired %d times", len(refs))
	}
	if plan, err = w.Plan(ctx); err != nil || len(plan) != 0 {
		t.Errorf("planned again: %+v, %v", plan, err)
	}
}

// Versions pin their pack, and go with it.
func TestRepackVersions(t *testing.T) {
	w := newWorld(t, policy)
	w.file("f", "old text")
	w.file("live", "live")
	w.pack(PackOptions{})
	object := w.slot("f").Source.Object.Object
	version := w.slot("f").Content
	w.must(rewrite(w.FS, "f", "new text"))
	w.must(os.MkdirAll(filepath.Join(w.root, "repack", object.String()), 0o700)) // as of a gc
	plan, err := w.Plan(ctx)
	w.must(err)
	if len(plan) != 1 || plan[0].Live != 1 || plan[0].Pinned != int64(len("old text")) {
		t.Fatalf("plan %+v", plan)
	}
	w.must(w.repackAll(w.Packer))
	if w.slot("live").Source.Object.Object == object {
		t.Error("the live member was not moved")
	}
	v, err := w.Version(ctx, version)
	w.must(err)
	if v.Slot.Source.Object.Object != object || !w.objectIDs()[object] {
		t.Error("the version has lost its pack")
	}
	w.wantText(map[string]string{"live": "live", "f": "new text"})
}

// What was removed can still be restored when its pack was rewritten.
func TestRepackTrash(t *testing.T) {
	w := newWorld(t, policy)
	w.halfDead(map[string]string{"f": "text", "g": "other"})
	w.remove("f")
	w.must(w.repackAll(w.Packer))
	refs := w.removals("f")
	w.must(w.Restore(ctx, who("f"), refs[0], w.Tree(), "f"))
	w.wantText(map[string]string{"f": "text", "g": "other"})
	if n := len(w.wantPacked("f", "g")); n != 1 {
		t.Errorf("%d packs", n)
	}
}

// removals are the records of removals of a path.
func (w *world) removals(p string) (refs []metadata.TrashRef) {
	w.t.Helper()
	days, err := w.TrashDays(ctx)
	w.must(err)
	for _, day := range days {
		for ref, err := range w.Trash(ctx, day) {
			w.must(err)
			if r, err := w.ReadTrash(ctx, ref); err == nil && r.Kind == objfmt.RecordFile && r.Path == p {
				refs = append(refs, ref)
			}
		}
	}
	return refs
}

// A member that cannot be read any more stays, and the others are moved.
func TestRepackDamaged(t *testing.T) {
	w := newWorld(t, policy)
	texts := map[string]string{"a": text(100, 1), "b": text(100, 2)}
	w.halfDead(texts)
	slot := w.slot("a")
	for _, s := range w.stores { // both shards of the first bytes
		s.Inject(faultstore.Fault{Op: faultstore.Get, Key: slot.Source.Object.Key("test"), Do: faultstore.Lose()})
	}
	plan, err := w.Plan(ctx)
	w.must(err)
	r, err := w.Repack(ctx, plan, nil)
	if err == nil || r.Files != 1 || r.Lost != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, s := range w.stores {
		s.Heal()
	}
	w.wantText(texts)
	w.recover()
	w.wantText(texts)
}

// Slots and tables that lie make errors, and nothing else.
func TestHostileSlots(t *testing.T) {
	w := newWorld(t, policy)
	w.file("f", "text")
	w.file("g", "text")
	w.pack(PackOptions{})
	s := w.slot("f")
	object := s.Source.Object.Object
	w.must(os.MkdirAll(filepath.Join(w.root, "repack", object.String()), 0o700))
	w.c.Policy.BelowLive = 0.999
	for name, lie := range map[string]func(s *objfmt.Slot){
		"beyond the end":    func(s *objfmt.Slot) { s.Source.Object.Size = 1 << 40; s.Source.Offset = 1 << 39 },
		"another's place":   func(s *objfmt.Slot) { s.Source.Offset++ },
		"unknown repo":      func(s *objfmt.Slot) { s.Source.Object.Repo = "nowhere" },
		"another geometry":  func(s *objfmt.Slot) { s.Source.Object.Data = 200 },
		"no checksum":       func(s *objfmt.Slot) { s.Source.Object.Size = 1 << 40; s.Source.Offset = 1 << 39; s.Source.Sum = 0 },
		"enormous":          func(s *objfmt.Slot) { s.Source.Object.Size = 1 << 49; s.Source.Stored = 1 << 48 },
		"of another object": func(s *objfmt.Slot) { s.Source.Object.Object[15]++ },
	} {
		t.Run(name, func(t *testing.T) {
			lying := s
			lying.Gen++
			lying.Prev, lying.Nonce = s.Nonce, s.Nonce+1
			lie(&lying)
			b, err := lying.Encode()
			w.must(err)
			attr := objfmt.SlotName(objfmt.UserPrefix, lying.Gen)
			file := filepath.Join(w.root, "tree", "f")
			w.must(syscall.Setxattr(file, attr, b, 0))
			defer syscall.Removexattr(file, attr)
			r, err := w.Repack(ctx, []Candidate{{Object: object}}, nil)
			if r.Files > 1 {
				t.Errorf("%+v, %v: moved what is not there", r, err)
			}
			if text := w.read("g"); text != "text" {
				t.Errorf("the neighbour holds %q", text)
			}
		})
	}
}

func TestHostileTables(t *testing.T) {
	w := newWorld(t, policy)
	w.file("f", "text")
	w.pack(PackOptions{})
	object := w.slot("f").Source.Object.Object
	w.must(os.MkdirAll(filepath.Join(w.root, "repack", object.String()), 0o700))
	table := filepath.Join(w.root, "packs", object.String())
	good, err := os.ReadFile(table)
	w.must(err)
	foreign := &objfmt.MemberTable{Object: objfmt.ObjectRef{Object: object}, Members: []objfmt.Member{
		{File: objfmt.NewID(), Content: objfmt.NewID(), Offset: 1 << 60, Length: 1 << 60},
		{File: objfmt.NewID(), Content: objfmt.NewID(), Offset: 1 << 62, Length: 1 << 61}}}
	lies, err := foreign.Encode()
	w.must(err)
	for _, c := range []struct {
		name string
		b    []byte
	}{{"empty", nil}, {"cut", good[:len(good)-1]}, {"noise", []byte(text(1000, 1))}, {"lies", lies}} { // the last is readable: the pack leaves the queue
		name := c.name
		t.Run(name, func(t *testing.T) {
			w.must(os.WriteFile(table, c.b, 0o600))
			plan, err := w.Plan(ctx)
			if err == nil && (len(plan) != 1 || plan[0].Live != 0) {
				t.Errorf("plan %+v", plan)
			}
			w.Repack(ctx, []Candidate{{Object: object}}, nil)
			if _, err := w.Pack(ctx, PackOptions{Release: true}); name != "lies" && err == nil {
				t.Error("released by a table that cannot be read")
			}
			if w.read("f") != "text" {
				t.Error("content lost")
			}
		})
	}
}
