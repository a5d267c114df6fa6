package metadata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/posix"
	"marfs/pkg/objfmt"
)

// store is the objects of a test: which exist.
type store struct {
	mu  sync.Mutex
	has map[chunkName]bool
}

func (s *store) put(ref objfmt.ObjectRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.has == nil {
		s.has = map[chunkName]bool{}
	}
	s.has[chunkName{ref.Object, ref.Chunk}] = true
}

func (s *store) holds(ref objfmt.ObjectRef) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.has[chunkName{ref.Object, ref.Chunk}]
}

func (s *store) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.has)
}

func (s *store) Delete(_ context.Context, ref objfmt.ObjectRef) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.has, chunkName{ref.Object, ref.Chunk})
	return nil
}

func (s *store) DeletePrefix(_ context.Context, id objfmt.ObjectID, keep func(uint32) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.has {
		if c.object == id && (keep == nil || !keep(c.chunk)) {
			delete(s.has, c)
		}
	}
	return nil
}

// world is one metadata directory, its objects, and a clock that a test turns.
type world struct {
	*FS
	t     testing.TB
	root  string
	store *store
	clock *time.Time
	o     Options
}

var ctx = context.Background()

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldIn(t, t.TempDir())
}

func newWorldIn(t *testing.T, root string) *world {
	t.Helper()
	now := time.Now()
	w := &world{t: t, root: root, store: &store{}, clock: &now}
	md := w.mount()
	if err := Init(md, "test"); err != nil {
		t.Fatal(err)
	}
	md.Close()
	w.o = Options{Namespace: "test", Node: "node1", Grace: time.Hour, Objects: w.store,
		Clock: func() time.Time { return *w.clock }, SkipTest: true}
	w.FS = w.open(w.o)
	return w
}

func (w *world) mount() mdfs.FS {
	md, err := posix.Open(w.root)
	if err != nil {
		w.t.Fatal(err)
	}
	return md
}

func (w *world) open(o Options) *FS {
	w.t.Helper()
	md := w.mount()
	f, err := Open(ctx, md, o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { f.Close(); md.Close() })
	return f
}

// node opens the directory as another node.
func (w *world) node(name string) *FS {
	o := w.o
	o.Node = name
	return w.open(o)
}

func me(path string) Who {
	return Who{Cred: mdfs.Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, Path: path}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// file makes a small file in its own body.
func (w *world) file(name, text string) *File {
	w.t.Helper()
	fl, err := w.Create(ctx, me(name), w.Tree(), name, 0o644)
	w.must(err)
	w.t.Cleanup(func() { fl.Close() })
	w.must(w.commitOwn(fl, text))
	return fl
}

func (w *world) commitOwn(fl *File, text string) error {
	own, err := fl.Own(ctx, me(""))
	if err != nil {
		return err
	}
	if _, err := own.Body().WriteAt([]byte(text), 0); err != nil {
		return err
	}
	_, err = own.Commit(ctx, int64(len(text)), objfmt.Checksum([]byte(text)), true)
	return err
}

// replace gives a file new content in a body, in one session.
func (w *world) replace(f *FS, fl *File, text string) error {
	base, err := fl.Newest(ctx)
	if err != nil {
		return err
	}
	s, err := f.Begin(ctx, fl, me("replaced"), base)
	if err != nil {
		return err
	}
	if err := publishBody(s, text, objfmt.Final); err != nil {
		return errors.Join(err, s.Abort(ctx))
	}
	return s.End(ctx)
}

func publishBody(s *Session, text string, state objfmt.State) error {
	id, body, err := s.NewBody(ctx)
	if err != nil {
		return err
	}
	if _, err := body.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	_, err = s.Publish(ctx, id, bodySource(text), int64(len(text)), time.Now(), state)
	return err
}

func bodySource(text string) objfmt.Source {
	return objfmt.Source{Kind: objfmt.SourceBody, Stored: int64(len(text)), Sum: objfmt.Checksum([]byte(text))}
}

func ref(id objfmt.ObjectID, chunk uint32, size int64) objfmt.ObjectRef {
	return objfmt.ObjectRef{Object: id, Chunk: chunk, Layout: objfmt.Layout{Repo: "r", Pod: "p",
		Geometry: objfmt.Geometry{Data: 1, Block: objfmt.BlockUnit}, WriteID: objfmt.NewID(), Size: size}}
}

// stream replaces a file by one object.
func (w *world) stream(f *FS, fl *File, size int64) (objfmt.ObjectRef, error) {
	base, err := fl.Newest(ctx)
	if err != nil {
		return objfmt.ObjectRef{}, err
	}
	s, err := f.Begin(ctx, fl, me("streamed"), base)
	if err != nil {
		return objfmt.ObjectRef{}, err
	}
	r := ref(s.Object, 0, size)
	w.store.put(r)
	src := objfmt.Source{Kind: objfmt.SourceObj, Stored: size, Sum: 1, Object: r}
	if _, err := s.Publish(ctx, s.NewContent(), src, size, time.Now(), objfmt.Final); err != nil {
		return r, errors.Join(err, s.Abort(ctx))
	}
	return r, s.End(ctx)
}

// read returns what the newest slot of a file says its content is.
func (w *world) read(f *FS, name string) (string, objfmt.Slot) {
	w.t.Helper()
	fl, err := f.Open(ctx, f.Tree(), name)
	w.must(err)
	defer fl.Close()
	s, err := fl.Newest(ctx)
	w.must(err)
	text, err := contentOf(fl, s)
	w.must(err)
	return text, s
}

// contentOf reads and checks a content; of objects it only names the object.
func contentOf(fl *File, s objfmt.Slot) (string, error) {
	switch s.Source.Kind {
	case objfmt.SourceEmpty:
		return string(make([]byte, s.Size)), nil
	case objfmt.SourceObj:
		return "object " + s.Source.Object.Object.String(), nil
	case objfmt.SourceTable:
		t, err := fl.Table(ctx, s)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("table of %d", len(t.Chunks)), nil
	}
	var b bytes.Buffer
	_, err := fl.CopyContent(ctx, s, &b)
	return b.String() + string(make([]byte, s.Size-s.Source.Stored)), err
}

func (w *world) home(id objfmt.ID) string {
	w.t.Helper()
	places := ""
	for _, p := range []string{stagedName, filesName, deadName} {
		found, err := w.homeIn(p, id)
		w.must(err)
		if found {
			places += p
		}
	}
	return places
}

func (w *world) wantHome(id objfmt.ID, want string) {
	w.t.Helper()
	if have := w.home(id); have != want {
		w.t.Errorf("home is in %q, want %q", have, want)
	}
}

// slots returns the generations on the inode.
func (w *world) wantSlots(fl *File, want ...uint64) {
	w.t.Helper()
	gens, _, err := fl.gens()
	w.must(err)
	if fmt.Sprint(gens) != fmt.Sprint(want) {
		w.t.Errorf("slots %v, want %v", gens, want)
	}
}

func (w *world) wantNames(dir string, n int) {
	w.t.Helper()
	have := 0
	w.eachFan(ctx, dir, func(_ string, err error) bool { w.must(err); have++; return true })
	if have != n {
		w.t.Errorf("%s holds %d entries, want %d", dir, have, n)
	}
}

// trash lists all records.
func (w *world) trash() (refs []TrashRef) {
	w.t.Helper()
	days, err := w.TrashDays(ctx)
	w.must(err)
	for _, d := range days {
		for r, err := range w.Trash(ctx, d) {
			w.must(err)
			refs = append(refs, r)
		}
	}
	return refs
}

// expire lets a month pass and runs gc over everything.
func (w *world) expire() Expired {
	w.t.Helper()
	w.pass(31 * 24 * time.Hour)
	done, err := w.Expire(ctx, w.trash(), *w.clock, nil)
	w.must(err)
	return done
}

func (w *world) pass(d time.Duration) { *w.clock = w.clock.Add(d) }

func wantErrno(t testing.TB, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}
