package metadata

import (
	"bytes"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

func (w *world) wantResident(want ...objfmt.ObjectID) {
	w.t.Helper()
	packs, err := w.Resident(ctx)
	w.must(err)
	for i, p := range packs {
		if i >= len(want) || p.Object != want[i] {
			w.t.Errorf("resident: %v, want %v", packs, want)
			return
		}
	}
	if len(packs) != len(want) {
		w.t.Errorf("resident: %d packs, want %d", len(packs), len(want))
	}
}

func (w *world) wantReleased(pack objfmt.ObjectID, want int64) {
	w.t.Helper()
	freed, err := w.ReleasePack(ctx, pack)
	if w.must(err); freed != want {
		w.t.Errorf("freed %d bytes, want %d", freed, want)
	}
}

// Packs are released oldest first, and what is freed is what was there: own bodies
// and private ones of members whose newest slot says that they are archived.
func TestReleasePack(t *testing.T) {
	w := newWorld(t)
	a, b, c, lost, gone := w.file("a", "aaa"), w.file("b", "bbbb"), w.file("c", "ccccc"), w.file("l", "lost"), w.file("g", "gone")
	w.must(w.replace(w.FS, b, "private body"))
	s, err := b.Newest(ctx)
	w.must(err)
	first := w.pack(a, b, lost, gone).Object
	second := w.pack(c).Object
	old := time.Unix(1e9, 0)
	w.must(a.SetTimes(mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Time: old}))
	w.must(w.replace(w.FS, lost, "new"))
	w.must(w.Unlink(ctx, me("g"), w.Tree(), "g"))
	w.wantResident(first, second)
	packs, err := w.Resident(ctx)
	w.must(err)
	if d := time.Since(packs[0].Since); d < -time.Minute || d > time.Minute {
		t.Errorf("resident since %v", packs[0].Since)
	}
	_, err = a.Release(ctx) // no bytes of it are left to be freed
	w.must(err)
	w.wantReleased(first, int64(len("private body")+len("gone"))) // a deleted file may come back, but need not have a body
	w.wantResident(second)
	if _, err := b.Body(ctx, s.Content); !os.IsNotExist(err) {
		t.Errorf("the private body: %v", err)
	}
	if held, err := c.holdsData(); !held || err != nil {
		t.Errorf("a member of the other pack was released: %v, %v", held, err)
	}
	if text, _ := w.read(w.FS, "l"); text != "new" {
		t.Errorf("a member that was changed reads %q", text)
	}
	if st, err := a.inode.Stat(); err != nil || !mtimeOf(&st).Equal(old) {
		t.Errorf("mtime %v, %v", mtimeOf(&st), err)
	}
	w.wantReleased(first, 0)
	w.wantReleased(second, 5)
	w.wantResident()
}

// A member in the hands of another releaser keeps the pack on the list; a releaser
// that died at it does not: what he had begun is done again.
func TestReleasePackOfBusyMember(t *testing.T) {
	for _, point := range []string{"metadata.release.note.after", "metadata.release.punch.before", "metadata.release.punch.after", "metadata.pack.released.before"} {
		w := newWorld(t)
		a, b := w.file("a", "aaa"), w.file("b", "bbbb")
		pack := w.pack(a, b).Object
		disarm, err := fault.Arm(point + "=dead")
		w.must(err)
		if _, err := w.ReleasePack(ctx, pack); err == nil {
			t.Errorf("%s: released", point)
		}
		disarm()
		w.wantResident(pack)
		_, err = w.ReleasePack(ctx, pack)
		w.must(err)
		for _, fl := range []*File{a, b} {
			if held, err := fl.holdsData(); held || err != nil {
				t.Errorf("%s: a body is left: %v, %v", point, held, err)
			}
		}
		w.wantResident()
	}
}

// Bodies of a pack that cannot be punched stay on the list, and the others go.
func TestReleasePackGoesOn(t *testing.T) {
	w := newWorld(t)
	pack := w.pack(w.file("a", "aaa"), w.file("b", "bbbb")).Object
	disarm, err := fault.Arm("metadata.release.punch.before=error:1")
	w.must(err)
	freed, err := w.ReleasePack(ctx, pack)
	disarm()
	if freed != 4 || err == nil || !strings.Contains(err.Error(), "release") {
		t.Errorf("freed %d, %v", freed, err)
	}
	w.wantResident(pack)
	w.wantReleased(pack, 3)
	w.wantResident()
}

// gc takes a pack that it destroys off the list, and recovery one that never was.
func TestResidentPackGone(t *testing.T) {
	w := newWorld(t)
	a := w.file("a", "aaa")
	pack := w.pack(a).Object
	w.must(w.Retire(pack, "repack"))
	w.pack2([]PackMember{{Slot: must(a.Newest(ctx)), Sum: objfmt.Checksum([]byte("aaa"))}})
	w.expire()
	if packs, err := w.Resident(ctx); err != nil || len(packs) != 1 || packs[0].Object == pack {
		t.Errorf("resident %v, %v", packs, err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Metadata directories made before there was a queue of resident packs.
func TestNoResidentDir(t *testing.T) {
	w := newWorld(t)
	w.must(os.Remove(w.root + "/packs/resident"))
	other := w.node("node2")
	if packs, err := other.Resident(ctx); err != nil || len(packs) != 0 {
		t.Errorf("resident %v, %v", packs, err)
	}
	w.FS = other
	w.wantResident(w.pack(w.file("a", "aaa")).Object)
	st, err := os.Stat(w.root + "/packs/resident")
	if w.must(err); st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", st.Mode())
	}
	w.must(os.Chmod(w.root+"/packs/resident", 0o755))
	_, err = Open(ctx, w.mount(), w.o)
	wantErrno(t, err, syscall.EPERM)
}

func TestResidentMembers(t *testing.T) {
	w := newWorld(t)
	pack := w.pack(w.file("a", "aaa"), w.file("b", "bbbb")).Object
	m := must(w.ResidentMembers(ctx, pack))
	filed := must(w.Members(ctx, pack))
	if !bytes.Equal(must(m.Encode()), must(filed.Encode())) {
		t.Error("the two tables differ")
	}
}
