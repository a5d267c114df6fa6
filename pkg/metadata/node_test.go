package metadata

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/objfmt"
)

func TestWatch(t *testing.T) {
	w := NewWatch(time.Minute)
	start := time.Unix(1000, 0)
	a, b := Node{Name: "a", Instance: [4]byte{1}}, Node{Name: "b", Instance: [4]byte{2}}
	w.Look([]Node{a, b}, start)
	a.Count++
	w.Look([]Node{a, b}, start.Add(50*time.Second))
	alive := w.Alive(start.Add(70 * time.Second))
	if !alive(a) || alive(b) || !alive(Node{Instance: [4]byte{3}}) {
		t.Errorf("alive: a %v, b %v, a new one %v", alive(a), alive(b), alive(Node{Instance: [4]byte{3}}))
	}
	b.Count++
	if !alive(b) {
		t.Error("a node whose counter moves again is still taken for dead")
	}
}

func TestHeartbeat(t *testing.T) {
	w := newWorld(t)
	if err := w.beat.beat(); err != nil {
		t.Fatal(err)
	}
	w.wantNode("node1", 1)
	w.must(os.Remove(w.root + "/nodes/node1")) // taken for dead
	w.must(w.beat.beat())
	w.wantNode("node1", 2)
	w.node("node1") // another instance takes the name
	w.must(w.beat.beat())
	w.wantNode("node1", 0)
	w.must(w.beat.stop())
	w.wantNode("node1", 0)
}

func (w *world) wantNode(name string, count uint64) {
	w.t.Helper()
	nodes, err := w.Nodes(ctx)
	w.must(err)
	for _, n := range nodes {
		if n.Name == name && n.Count == count {
			return
		}
	}
	w.t.Errorf("nodes %v, want %s at %d", nodes, name, count)
}

// Recovery leaves the living alone.
func TestRecoverSparesTheLiving(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "old")
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.Begin(ctx, fl, me("f"), base)
	w.must(err)
	created, err := w.Create(ctx, me("g"), w.Tree(), "g", 0o644)
	w.must(err)
	defer created.Close()
	other := w.node("node2")
	w.must(other.Recover(ctx, func(n Node) bool { return n.Name == "node1" }))
	w.must(w.commitOwn(created, "text"))
	_, _, err = s.NewBody(ctx)
	w.must(err)
	w.must(publishBody(s, "new", objfmt.Final))
	w.must(s.End(ctx))
	w.wantNode("node1", 0)
	w.must(other.Recover(ctx, nil))
	nodes, err := w.Nodes(ctx)
	w.must(err)
	if len(nodes) != 1 || nodes[0].Name != "node2" {
		t.Errorf("nodes %v after recovery", nodes)
	}
}

func TestSelfTest(t *testing.T) {
	w := newWorld(t)
	o := w.o
	o.Node, o.SkipTest = "node2", false
	f := w.open(o)
	if room := f.XattrRoom(); room != 0 && room != maxUserXattrs {
		t.Errorf("room %d", room)
	}
	names, err := os.ReadDir(w.root + "/tree")
	if err != nil || len(names) != 0 {
		t.Errorf("the self-test left %v, %v", names, err)
	}
	w.wantNames(stagedName, 0)
}

func TestInitAndOpenRefuse(t *testing.T) {
	w := newWorld(t)
	md := w.mount()
	defer md.Close()
	w.must(Init(md, "test")) // again: nothing happens
	wantErrno(t, Init(md, "other"), syscall.EPERM)
	o := w.o
	o.Namespace = "other"
	_, err := Open(ctx, md, o)
	wantErrno(t, err, syscall.EPERM)
	o = w.o
	o.Node = ""
	_, err = Open(ctx, md, o)
	wantErrno(t, err, syscall.EINVAL)
	w.must(os.Chmod(w.root+"/files", 0o755))
	_, err = Open(ctx, md, w.o)
	wantErrno(t, err, syscall.EPERM)
	w.must(os.Chmod(w.root+"/files", 0o700))
	w.must(os.WriteFile(w.root+"/marfs.json", []byte("{}"), 0o600))
	if _, err = Open(ctx, md, w.o); err == nil {
		t.Error("a broken marker was accepted")
	}
}

// In tree/ users own files: who could get there beside MarFS could give them any slot.
func TestOthersMayNotEnter(t *testing.T) {
	root := t.TempDir()
	w := newWorldIn(t, root) // empty, and open to all: Init closes it
	st, err := os.Stat(root)
	w.must(err)
	if st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v after Init", st.Mode())
	}
	md := w.mount()
	defer md.Close()
	for _, mode := range []os.FileMode{0o701, 0o710, 0o750, 0o755} {
		w.must(os.Chmod(root, mode))
		_, err := Open(ctx, md, w.o)
		wantErrno(t, err, syscall.EPERM)
		wantErrno(t, Init(md, "test"), syscall.EPERM)
		if !strings.Contains(err.Error(), "chmod 700") {
			t.Errorf("no hint in %q", err)
		}
	}
}

func TestAdopt(t *testing.T) {
	w := newWorld(t)
	w.must(os.Rename(w.root+"/files", w.root+"/old"))
	w.must(os.Mkdir(w.root+"/files", 0o700))
	f := w.node("node2")
	if !f.Copied() {
		t.Fatal("not noticed")
	}
	w.must(Adopt(f.MD(), "test"))
	if w.node("node3").Copied() {
		t.Error("still a copy")
	}
}

// Directories of days and nodes that were removed while they were kept open are
// made again.
func TestRemovedDirectoryIsMadeAgain(t *testing.T) {
	w := newWorld(t)
	a := w.file("a", "aaa")
	w.must(w.Unlink(ctx, me("a"), w.Tree(), "a"))
	ref := w.trash()[0]
	w.must(w.dropTrash(stepDrop, ref))
	w.must(os.Remove(w.root + "/" + ref.dir())) // by another node's PruneDay
	w.must(os.Remove(w.root + "/trash/" + ref.Day))
	r := objfmt.Record{Kind: objfmt.RecordFile, File: a.ID(), When: *w.clock}
	_, err := w.putTrash(r, false)
	w.must(err)
	if refs := w.trash(); len(refs) != 1 {
		t.Errorf("records %v", refs)
	}
}

// A home that was being moved when its mover died is put in order by a sweep.
func TestSweepPlacesHome(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "text")
	w.must(w.moveHome(stepPlace, fl.ID(), stagedName, filesName))
	w.must(os.WriteFile(w.root+"/dead/m."+fl.ID().String()+".0123", nil, 0o600))
	w.pass(2 * time.Hour)
	w.must(w.Sweep(ctx, *w.clock, nil))
	w.wantHome(fl.ID(), stagedName)
	w.wantNothingDead()
}

func (w *world) wantNothingDead() {
	w.t.Helper()
	names, err := w.names(deadName, "")
	w.must(err)
	if len(names) != 1 { // versions
		w.t.Errorf("dead/ holds %v", names)
	}
}

// What a gc left that died at some point of its work: a sweep goes on with it.
func TestSweepOfGC(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "first")
	base, err := fl.Newest(ctx)
	w.must(err)
	_, err = w.stream(w.FS, fl, 9)
	w.must(err)
	_, err = w.takeVersion(stepTake, base.Content, tokenGC+"1") // taken, not decided
	w.must(err)
	w.pass(2 * time.Hour)
	w.must(w.Sweep(ctx, *w.clock, nil))
	if v, err := w.Version(ctx, base.Content); err != nil || v.Content != base.Content {
		t.Errorf("version %+v, %v", v, err)
	}
	_, err = w.takeVersion(stepTake, base.Content, tokenDoomed+"1") // decided, not destroyed
	w.must(err)
	w.pass(2 * time.Hour)
	w.must(w.Sweep(ctx, *w.clock, nil))
	w.wantNames(versionName, 0)
	w.wantNames(bodiesName, 0)
	w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
	w.must(w.moveHome(stepDeadHome, fl.ID(), filesName, deadName)) // its record lost
	w.pass(2 * time.Hour)
	w.must(w.Sweep(ctx, *w.clock, nil))
	w.wantHome(fl.ID(), filesName)
	w.expire()
	w.wantHome(fl.ID(), "")
	w.wantNothingDead()
	if w.store.len() != 0 {
		t.Error("the object stayed")
	}
}

// A restorer of a deletion that died gives its record back, also one whose bytes a
// power failure has taken, and also when the file has a name, which may be another:
// gc drops it then.
func TestRecoverGivesDeletionBack(t *testing.T) {
	for _, c := range []struct {
		name        string
		torn, named bool
	}{{"whole", false, false}, {"torn", true, false}, {"restored", false, true}, {"restored, torn", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			fl := w.file("f", "x")
			if c.named {
				w.must(w.Link(ctx, me("g"), w.Tree(), "f", w.Tree(), "g"))
			}
			w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
			ref := w.trash()[0]
			taken := filepath.Join(w.root, workName, "dead", ref.Name+".01020304")
			w.must(os.Mkdir(filepath.Dir(taken), 0o700))
			w.must(os.Rename(filepath.Join(w.root, ref.dir(), ref.Name), taken))
			if c.torn {
				w.must(os.Truncate(taken, 0))
			}
			w.must(w.Recover(ctx, nil))
			w.wantNothingDead()
			refs := w.trash()
			if len(refs) != 1 || refs[0] != ref {
				t.Fatalf("trash %v, want %v", refs, ref)
			}
			w.expire()
			if refs := w.trash(); len(refs) > 0 {
				t.Errorf("trash %v after gc", refs)
			}
			w.wantHome(fl.ID(), map[bool]string{true: stagedName}[c.named])
		})
	}
}

// A version taken by a restorer whose record is still there is left to him.
func TestSweepSparesRestorer(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "first")
	old, err := fl.Newest(ctx)
	w.must(err)
	w.must(w.replace(w.FS, fl, "second"))
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.newSessionOf(ctx, fl, me("f"), objfmt.ID{}, base, "restore")
	w.must(err)
	s.restore = old.Content
	v, err := s.takeVersion(old.Content)
	w.must(err)
	w.pass(2 * time.Hour)
	w.must(w.Sweep(ctx, *w.clock, nil))
	w.expire()
	_, err = s.Publish(ctx, old.Content, v.Source, v.Size, *w.clock, objfmt.Final)
	w.must(err)
	w.must(s.End(ctx))
	if text, _ := w.read(w.FS, "f"); text != "first" {
		t.Errorf("read %q", text)
	}
}

// A session of this very process that has ended but could not remove its record
// is recovered by it; one that goes on is not.
func TestRecoverOwnLeftovers(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "old")
	base, err := fl.Newest(ctx)
	w.must(err)
	live, err := w.Begin(ctx, fl, me("f"), base)
	w.must(err)
	gone := w.file("g", "other")
	base, err = gone.Newest(ctx)
	w.must(err)
	s, err := w.Begin(ctx, gone, me("g"), base)
	w.must(err)
	r := ref(s.Object, 0, 5)
	w.store.put(r)
	w.must(w.Unlink(ctx, me("g"), w.Tree(), "g"))
	w.expire() // the home goes too
	src := objfmt.Source{Kind: objfmt.SourceObj, Stored: 5, Sum: 1, Object: r}
	_, err = s.Publish(ctx, s.NewContent(), src, 5, *w.clock, objfmt.Final)
	w.must(err)
	w.must(s.End(ctx))
	w.wantNames(workName, 2)
	w.must(w.Recover(ctx, nil))
	w.wantNames(workName, 1)
	if w.store.len() != 0 {
		t.Error("the object of a file that is gone stayed")
	}
	w.must(publishBody(live, "new", objfmt.Final))
	w.must(live.End(ctx))
}
