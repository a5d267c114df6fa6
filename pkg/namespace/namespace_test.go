package namespace_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/posix"
	"marfs/pkg/metadata"
	"marfs/pkg/namespace"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore/faultstore"
	"marfs/pkg/objstore/memstore"
	"marfs/pkg/repo"
)

// world is one metadata directory and six stores; nodes are mounts of it.
type world struct {
	t      testing.TB
	meta   string
	stores []*faultstore.Store
	chunk  int64
	ahead  int64 // namespace.Options.ReadAhead
	perms  namespace.Perm
	log    bytes.Buffer // of node()
	last   *metadata.FS // of the node that was made last
}

const allPerms = namespace.RM | namespace.WM | namespace.RD | namespace.WD | namespace.UD | namespace.TD

const (
	block     = 64 << 10
	stripe    = 4 * block
	chunkSize = 2 * stripe
)

func newWorld(t testing.TB) *world {
	w := &world{t: t, meta: t.TempDir(), chunk: chunkSize, perms: allPerms}
	for range 6 {
		w.stores = append(w.stores, faultstore.New(memstore.New()))
	}
	md, err := posix.Open(w.meta)
	if err != nil {
		t.Fatal(err)
	}
	defer md.Close()
	if err := metadata.Init(md, "proj"); err != nil {
		t.Fatal(err)
	}
	return w
}

// objects deletes what a repo holds; the protocol's view of it.
type objects struct{ r *repo.Repo }

func (o objects) Delete(ctx context.Context, ref objfmt.ObjectRef) error {
	return o.r.Remove(ctx, ref.Key("proj"), ref.Layout)
}

func (o objects) DeletePrefix(ctx context.Context, id objfmt.ObjectID, keep func(uint32) bool) error {
	for info, err := range o.r.List(ctx, objfmt.ObjectKey("proj", id, 0), "") {
		if err != nil {
			return err
		}
		_, _, chunk, err := objfmt.ParseObjectKey(info.Key)
		if err != nil || keep != nil && keep(chunk) {
			continue
		}
		if err := o.r.Delete(ctx, info.Key); err != nil {
			return err
		}
	}
	return nil
}

// node mounts the world as one node does.
func (w *world) node(name string) *namespace.FS {
	w.t.Helper()
	ctx := context.Background()
	var stores []repo.Store
	for i, s := range w.stores {
		stores = append(stores, repo.Store{Store: s, Name: fmt.Sprintf("s%d", i)})
	}
	r, err := repo.New(repo.Config{
		Name: "r", Geometry: objfmt.Geometry{Data: 4, Parity: 2, Block: block}, MinWrite: 5,
		Pods: []repo.Pod{{Name: "pod0", Weight: 1, Stores: stores}}, StallTimeout: 5 * time.Second,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	md, err := posix.Open(w.meta)
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := metadata.Open(ctx, md, metadata.Options{Namespace: "proj", Node: name, Grace: time.Hour, Objects: objects{r}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.last = m
	f, err := namespace.New(namespace.Options{
		Log:       slog.New(slog.NewTextHandler(&w.log, nil)),
		ReadAhead: w.ahead,
		Namespaces: []namespace.Config{{
			Name: "proj", Path: "/proj", Meta: m, Repos: map[string]*repo.Repo{"r": r}, Perms: w.perms,
			Placement: []namespace.Placement{{Repo: r, RepoName: "r", ChunkSize: w.chunk}},
		}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := f.Close(); err != nil {
			w.t.Error(err)
		}
		m.Close()
		md.Close()
	})
	return f
}

var (
	ctx = context.Background()
	me  = namespace.Caller{Cred: mdfs.Cred{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}}
)

func dir(t testing.TB, f *namespace.FS, path string) *namespace.Dir {
	t.Helper()
	d, last, err := f.Walk(ctx, me, path+"/x")
	if err != nil || last != "x" {
		t.Fatalf("walk %s: %v", path, err)
	}
	t.Cleanup(d.Close)
	return d
}

func create(t *testing.T, d *namespace.Dir, name string) *namespace.File {
	t.Helper()
	f, _, err := d.Create(ctx, me, name, syscall.O_RDWR|syscall.O_CREAT|syscall.O_TRUNC, 0o644)
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	return f
}

func write(t *testing.T, f *namespace.File, off int64, p []byte) {
	t.Helper()
	for len(p) > 0 {
		n := min(len(p), 100_000)
		if _, err := f.WriteAt(ctx, me, p[:n], off); err != nil {
			t.Fatalf("write at %d: %v", off, err)
		}
		off += int64(n)
		p = p[n:]
	}
}

func put(t *testing.T, d *namespace.Dir, name string, p []byte) {
	t.Helper()
	f := create(t, d, name)
	write(t, f, 0, p)
	if err := errors.Join(f.Flush(ctx), f.Close()); err != nil {
		t.Fatalf("close %s: %v", name, err)
	}
}

func get(t *testing.T, d *namespace.Dir, name string) []byte {
	t.Helper()
	p, err := tryGet(d, name)
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return p
}

func tryGet(d *namespace.Dir, name string) ([]byte, error) {
	f, err := d.Open(ctx, me, name, syscall.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(readerAt{f}, 0, 1<<40))
}

type readerAt struct{ f *namespace.File }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(ctx, me, p, off) }

func random(seed uint64, n int) []byte {
	p := make([]byte, n)
	var key [32]byte
	key[0] = byte(seed)
	rand.NewChaCha8(key).Read(p)
	return p
}

func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: %d bytes differ from the %d expected", what, len(got), len(want))
	}
}

func TestFilesReadBackOnAnotherNode(t *testing.T) {
	w := newWorld(t)
	a, b := dir(t, w.node("a"), "/proj"), dir(t, w.node("b"), "/proj")
	for _, n := range []int{0, 1, 4095, block - 1, block, block + 1, stripe - 1, stripe, stripe + 1,
		chunkSize - 1, chunkSize, chunkSize + 1, 5*chunkSize + 12345} {
		name := fmt.Sprint("f", n)
		want := random(uint64(n), n)
		put(t, a, name, want)
		same(t, name, get(t, b, name), want)
		st, err := b.Lookup(ctx, me, name)
		if err != nil || st.Size != int64(n) || st.Nlink != 1 {
			t.Errorf("%s: size %d nlink %d err %v", name, st.Size, st.Nlink, err)
		}
	}
}

func TestRandomReads(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	want := random(7, 3*chunkSize+777)
	put(t, d, "f", want)
	f, err := d.Open(ctx, me, "f", syscall.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		off, n := rnd.IntN(len(want)), 1+rnd.IntN(300_000)
		p := make([]byte, n)
		got, err := f.ReadAt(ctx, me, p, int64(off))
		if end := min(off+n, len(want)); got != end-off || (err == io.EOF) != (off+n > len(want)) {
			t.Fatalf("read %d at %d: %d, %v", n, off, got, err)
		}
		same(t, "range", p[:got], want[off:off+got])
	}
}

// TestBorrow keeps what read-ahead has lent, while the file is closed and another
// one is read.
func TestBorrow(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	want := random(7, 10<<20)
	put(t, d, "f", want)
	put(t, d, "other", random(8, 10<<20))
	f := open(t, d, "f", syscall.O_RDONLY)
	p := make([]byte, 1<<20)
	var lent [][]byte
	var ends []int
	for off := 0; off < len(want); off += len(p) {
		got, done, err := f.Borrow(ctx, me, p, int64(off))
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if len(got) > 0 && &got[0] != &p[0] {
			lent, ends = append(lent, got), append(ends, off+len(got))
			defer done()
		}
	}
	if len(lent) < 5 {
		t.Errorf("only %d of 10 reads were lent", len(lent))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	get(t, d, "other")
	for i, got := range lent {
		same(t, "lent", got, want[ends[i]-len(got):ends[i]])
	}
}

// TestIdleReader: a reader that has stopped asking gives its read-ahead to others.
func TestIdleReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.ahead = 12 << 20
		d := dir(t, w.node("a"), "/proj")
		put(t, d, "f", random(7, 20<<20))
		p := make([]byte, 1<<20)
		lent := func(f *namespace.File, off int64) bool {
			got, done, err := f.Borrow(ctx, me, p, off)
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			return &got[0] != &p[0]
		}
		idle, busy := open(t, d, "f", syscall.O_RDONLY), open(t, d, "f", syscall.O_RDONLY)
		defer idle.Close()
		defer busy.Close()
		for off := int64(0); off < 4<<20; off += 1 << 20 {
			lent(idle, off)
		}
		if lent(busy, 0) || lent(busy, 1<<20) {
			t.Error("there was memory for both: the test shows nothing")
		}
		time.Sleep(5 * time.Second)
		if !lent(busy, 2<<20) {
			t.Error("an idle reader kept the memory")
		}
	})
}

func TestOthersSeeTheOldContentUntilTheCommit(t *testing.T) {
	w := newWorld(t)
	a, b := dir(t, w.node("a"), "/proj"), dir(t, w.node("b"), "/proj")
	old, next := random(1, 100_000), random(2, chunkSize+5)
	put(t, a, "f", old)
	f, err := a.Open(ctx, me, "f", syscall.O_WRONLY|syscall.O_TRUNC)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, 0, next)
	same(t, "before commit", get(t, b, "f"), old)
	if err := f.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	same(t, "after commit", get(t, b, "f"), next)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, "after close", get(t, b, "f"), next)
}

func TestThisMountReadsWhatItWrites(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	f := create(t, d, "f")
	want := random(3, 2*chunkSize+999)
	for off := 0; off < len(want); off += 200_001 {
		end := min(len(want), off+200_001)
		write(t, f, int64(off), want[off:end])
		same(t, "while writing", get(t, d, "f"), want[:end])
		if st, _ := d.Lookup(ctx, me, "f"); st.Size != int64(end) {
			t.Fatalf("size %d, want %d", st.Size, end)
		}
	}
	if err := errors.Join(f.Flush(ctx), f.Close()); err != nil {
		t.Fatal(err)
	}
	same(t, "after close", get(t, d, "f"), want)
	same(t, "on another node", get(t, dir(t, w.node("b"), "/proj"), "f"), want)
}

func TestManyFlushesMakeFewObjects(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	f := create(t, d, "log")
	var want []byte
	for i := range 50 {
		line := fmt.Appendf(nil, "line %d\n", i)
		write(t, f, int64(len(want)), line)
		want = append(want, line...)
		if err := f.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			same(t, "between flushes, elsewhere", get(t, dir(t, w.node(fmt.Sprint("n", i)), "/proj"), "log"), want)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, "log", get(t, d, "log"), want)
	l, err := d.Layout(ctx, me, "log", true)
	if err != nil || len(l.Objects) > 2 {
		t.Errorf("%d objects, %v; want at most 2", len(l.Objects), err)
	}
}

// What has become objects does not stay in the metadata filesystem until the end.
func TestLongStreamKeepsLittle(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	f := create(t, d, "big")
	var want []byte
	for i := range 20 {
		p := random(uint64(i), chunkSize/2+100)
		write(t, f, int64(len(want)), p)
		want = append(want, p...)
		if err := f.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"bodies/*/*", "chunks/*/*/*"} {
			if m, err := filepath.Glob(filepath.Join(w.meta, kind)); err != nil || len(m) > 2 {
				t.Errorf("after %d bytes %s: %d files, %v", len(want), kind, len(m), err)
			}
		}
	}
	same(t, "before the close", get(t, d, "big"), want)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, "after it", get(t, d, "big"), want)
}

func TestWritesMustBeInOrder(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	f := create(t, d, "f")
	write(t, f, 0, []byte("hello"))
	if _, err := f.WriteAt(ctx, me, []byte("J"), 0); !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("write back: %v", err)
	}
	write(t, f, 10, []byte("world")) // a gap is zeros
	if err := errors.Join(f.Flush(ctx), f.Close()); err != nil {
		t.Fatal(err)
	}
	same(t, "gap", get(t, d, "f"), []byte("hello\x00\x00\x00\x00\x00world"))

	g, err := d.Open(ctx, me, "f", syscall.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := g.WriteAt(ctx, me, []byte("x"), 15); !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("append to existing content: %v", err)
	}
	same(t, "after the refusal", get(t, d, "f"), []byte("hello\x00\x00\x00\x00\x00world"))
}

func TestQuorumLostFailsTheCloseAndKeepsTheOldContent(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	old := random(1, 50_000)
	put(t, d, "f", old)
	for _, s := range w.stores[:2] {
		s.Inject(faultstore.Fault{Op: faultstore.Put, Do: faultstore.NoSpace()})
	}
	f, err := d.Open(ctx, me, "f", syscall.O_WRONLY|syscall.O_TRUNC)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt(ctx, me, random(2, 70_000), 0)
	f.Commit(ctx)
	err = f.Flush(ctx)
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EIO) {
		t.Errorf("flush without quorum: %v", err)
	}
	same(t, "old content, while the writer is still there", get(t, d, "f"), old)
	if st, _ := d.Lookup(ctx, me, "f"); st.Size != int64(len(old)) {
		t.Errorf("size %d after the failure, want %d", st.Size, len(old))
	}
	f.Close()
	if n := strings.Count(w.log.String(), "level=ERROR"); n != 1 {
		t.Errorf("the failure is in the log %d times:\n%s", n, w.log.String())
	}
	same(t, "old content", get(t, d, "f"), old)
	same(t, "old content elsewhere", get(t, dir(t, w.node("b"), "/proj"), "f"), old)
}

func TestTwoWritersLeaveOneWhole(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, "nodes"), func(t *testing.T) {
			w := newWorld(t)
			ds := []*namespace.Dir{dir(t, w.node("a"), "/proj")}
			if nodes == 2 {
				ds = append(ds, dir(t, w.node("b"), "/proj"))
			} else {
				ds = append(ds, ds[0])
			}
			put(t, ds[0], "f", []byte("base"))
			contents := [][]byte{random(1, 3*chunkSize+1), random(2, 2*chunkSize+2)}
			var wg sync.WaitGroup
			for i, d := range ds {
				wg.Go(func() {
					f, err := d.Open(ctx, me, "f", syscall.O_WRONLY|syscall.O_TRUNC)
					if err != nil {
						return
					}
					defer f.Close()
					for off := 0; off < len(contents[i]); off += 50_000 {
						end := min(off+50_000, len(contents[i]))
						if _, err := f.WriteAt(ctx, me, contents[i][off:end], int64(off)); err != nil {
							return
						}
					}
					f.Flush(ctx)
				})
			}
			wg.Wait()
			got := get(t, dir(t, w.node("c"), "/proj"), "f")
			if !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
				t.Errorf("%d bytes that are neither writer's", len(got))
			}
		})
	}
}

func TestTruncate(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	want := random(5, chunkSize+100)
	put(t, d, "f", want)
	size := func(n int64) {
		t.Helper()
		if _, err := d.Setattr(ctx, me, "f", namespace.SetAttr{Size: &n, Atime: mdfs.TimeSet{Omit: true}, Mtime: mdfs.TimeSet{Omit: true}}); err != nil {
			t.Fatal(err)
		}
	}
	size(1000)
	same(t, "cut", get(t, d, "f"), want[:1000])
	l, err := d.Layout(ctx, me, "f", true) // the second object is kept, and still the file's
	if err != nil || len(l.Objects) != 2 || l.Objects[0].Length != 1000 || l.Objects[1].Length != 0 || len(l.Objects[1].Shards) == 0 {
		t.Errorf("layout of a cut file: %+v, %v", l.Objects, err)
	}
	size(2000)
	same(t, "grown", get(t, d, "f"), append(bytes.Clone(want[:1000]), make([]byte, 1000)...))
	size(0)
	same(t, "emptied", get(t, d, "f"), nil)
	put(t, d, "f", want)
	same(t, "written anew", get(t, d, "f"), want)
}

// A file that was closed is one that nobody writes, although the kernel tells of the
// last close later. What is not committed cannot be cut.
func TestTruncateAfterFlush(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	want := random(6, chunkSize+100)
	f, _, err := d.Create(ctx, me, "f", syscall.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(ctx, me, want, 0); err != nil {
		t.Fatal(err)
	}
	cut := func(n int64) error {
		_, err := d.Setattr(ctx, me, "f", namespace.SetAttr{Size: &n, Atime: mdfs.TimeSet{Omit: true}, Mtime: mdfs.TimeSet{Omit: true}})
		return err
	}
	if err := cut(1000); !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("of what is being written: %v", err)
	}
	if err := f.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if err := cut(1000); err != nil {
		t.Error(err)
	}
	same(t, "cut", get(t, d, "f"), want[:1000])
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	same(t, "closed", get(t, d, "f"), want[:1000])
}

func TestPermissions(t *testing.T) {
	w := newWorld(t)
	put(t, dir(t, w.node("a"), "/proj"), "f", []byte("data"))
	for _, tc := range []struct {
		missing namespace.Perm
		op      func(d *namespace.Dir) error
	}{
		{namespace.RM, func(d *namespace.Dir) error { _, err := d.Lookup(ctx, me, "f"); return err }},
		{namespace.WM, func(d *namespace.Dir) error { _, err := d.Mkdir(ctx, me, "d", 0o755); return err }},
		{namespace.RD, func(d *namespace.Dir) error { _, err := tryGet(d, "f"); return err }},
		{namespace.WD, func(d *namespace.Dir) error {
			_, _, err := d.Create(ctx, me, "g", syscall.O_WRONLY, 0o644)
			return err
		}},
		{namespace.UD, func(d *namespace.Dir) error { return d.Unlink(ctx, me, "f") }},
		{namespace.TD, func(d *namespace.Dir) error {
			_, err := d.Open(ctx, me, "f", syscall.O_WRONLY|syscall.O_TRUNC)
			return err
		}},
	} {
		t.Run(tc.missing.String(), func(t *testing.T) {
			n := w.node("n" + tc.missing.String())
			d := dir(t, n, "/proj")
			n.SetPerms("proj", allPerms&^tc.missing)
			if err := tc.op(d); !errors.Is(err, syscall.EPERM) {
				t.Errorf("without %s: %v, want EPERM", tc.missing, err)
			}
		})
	}
	same(t, "f", get(t, dir(t, w.node("b"), "/proj"), "f"), []byte("data"))
}

func TestNamesAndLinks(t *testing.T) {
	w := newWorld(t)
	n := w.node("a")
	d := dir(t, n, "/proj")
	put(t, d, "f", []byte("one"))
	if a, err := d.Link(ctx, me, "f", d, "g"); err != nil || a.Nlink != 2 {
		t.Fatalf("link: nlink %d, %v", a.Nlink, err)
	}
	if err := d.Unlink(ctx, me, "f"); err != nil {
		t.Fatal(err)
	}
	same(t, "the other link", get(t, d, "g"), []byte("one"))
	if _, err := d.Mkdir(ctx, me, "sub", 0o750); err != nil {
		t.Fatal(err)
	}
	sub := dir(t, n, "/proj/sub")
	put(t, sub, "h", []byte("two"))
	if err := d.Rename(ctx, me, "g", sub, "h", 0); err != nil {
		t.Fatal(err)
	}
	same(t, "renamed over", get(t, sub, "h"), []byte("one"))
	if err := d.Rmdir(ctx, me, "sub"); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("rmdir of a full directory: %v", err)
	}
	if err := sub.Unlink(ctx, me, "h"); err != nil {
		t.Fatal(err)
	}
	if err := d.Rmdir(ctx, me, "sub"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lookup(ctx, me, "sub"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("after rmdir: %v", err)
	}
	root, err := n.Root(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Mkdir(ctx, me, "x", 0o755); !errors.Is(err, syscall.EROFS) {
		t.Errorf("mkdir above the namespaces: %v", err)
	}
	// The kernel asks for it before it lets a user pass.
	if _, err := root.Getxattr(ctx, me, "", "system.posix_acl_access"); !errors.Is(err, syscall.ENODATA) {
		t.Errorf("ACL of the root above the namespaces: %v", err)
	}
}

// A creator that is killed before its file has a home leaves a file that recovery
// takes for deleted. One more name must not make it look as if it had a home.
func TestLinkOfAFileWithoutHome(t *testing.T) {
	w := newWorld(t)
	n := w.node("a")
	d := dir(t, n, "/proj")
	if err := os.WriteFile(filepath.Join(w.meta, "tree", "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if a, err := d.Link(ctx, me, "f", d, "g"); err != nil || a.Nlink != 2 {
		t.Fatalf("link: nlink %d, %v", a.Nlink, err)
	}
	want := random(1, chunkSize)
	f := open(t, d, "f", syscall.O_WRONLY|syscall.O_TRUNC)
	write(t, f, 0, want)
	if err := errors.Join(f.Flush(ctx), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := w.last.Recover(ctx, nil); err != nil {
		t.Fatal(err)
	}
	same(t, "after recovery", get(t, d, "g"), want)
}

func TestAReaderOfADeletedFileGoesOnReading(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	want := random(9, chunkSize+1)
	put(t, d, "f", want)
	f, err := d.Open(ctx, me, "f", syscall.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := d.Unlink(ctx, me, "f"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(readerAt{f}, 0, int64(len(want))))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "deleted", got, want)
	if st, err := f.Stat(ctx); err != nil || st.Nlink != 0 {
		t.Errorf("deleted: nlink %d, %v", st.Nlink, err)
	}
}

func TestReservedXattrsAreInvisible(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	put(t, d, "f", []byte("data"))
	names, err := d.Listxattr(ctx, me, "f")
	if err != nil || len(names) != 0 {
		t.Errorf("list: %v, %v", names, err)
	}
	if _, err := d.Getxattr(ctx, me, "f", "user.marfs.v1"); !errors.Is(err, syscall.ENODATA) {
		t.Errorf("get: %v", err)
	}
	if err := d.Setxattr(ctx, me, "f", "user.marfs.v9", nil, 0); !errors.Is(err, syscall.EPERM) {
		t.Errorf("set: %v", err)
	}
	if err := d.Removexattr(ctx, me, "f", "user.marfs.v1"); !errors.Is(err, syscall.EPERM) {
		t.Errorf("remove: %v", err)
	}
	if err := d.Setxattr(ctx, me, "f", "user.note", []byte("hi"), 0); err != nil {
		t.Error(err)
	}
}

// TestXattrsLeaveRoom: no attribute of a user's may keep the file's slots out.
func TestXattrsLeaveRoom(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	put(t, d, "f", []byte("data"))
	if _, err := d.Mkdir(ctx, me, "d", 0o755); err != nil {
		t.Fatal(err)
	}
	f := open(t, d, "f", syscall.O_RDONLY)
	defer f.Close()
	const access, inherited = "system.posix_acl_access", "system.posix_acl_default"
	wantErrno(t, "user xattr", d.Setxattr(ctx, me, "f", "user.big", make([]byte, 3000), 0), syscall.ENOSPC)
	wantErrno(t, "ACL", d.Setxattr(ctx, me, "f", access, acl(300), 0), syscall.ENOSPC)
	wantErrno(t, "ACL of an open file", f.Setxattr(ctx, me, access, acl(300), 0), syscall.ENOSPC)
	wantErrno(t, "default ACL", d.Setxattr(ctx, me, "d", inherited, acl(300), 0), syscall.ENOSPC)
	for _, err := range []error{
		d.Setxattr(ctx, me, "f", "user.half", make([]byte, 1000), 0),
		d.Setxattr(ctx, me, "f", access, acl(50), 0),
		d.Setxattr(ctx, me, "d", inherited, acl(50), 0),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	wantErrno(t, "ACL beside another", d.Setxattr(ctx, me, "f", access, acl(200), 0), syscall.ENOSPC)
	put(t, d, "f", []byte("goes on"))
}

// acl names n users; getfacl(1) shows its form.
func acl(n int) []byte {
	b := []byte{2, 0, 0, 0}
	entry := func(tag, rights uint16, id uint32) {
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, rights)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	const nobody = 1<<32 - 1
	entry(0x01, 6, nobody) // the owner
	for i := range n {
		entry(0x02, 4, uint32(10_000+i))
	}
	entry(0x04, 4, nobody) // the group
	entry(0x10, 4, nobody) // the mask
	entry(0x20, 4, nobody) // others
	return b
}

func TestNothingIsLeftOfACleanWrite(t *testing.T) {
	w := newWorld(t)
	d := dir(t, w.node("a"), "/proj")
	for i := range 20 {
		put(t, d, fmt.Sprint("f", i), random(uint64(i), 1000*i))
	}
	for _, private := range []string{"work", "bodies", "dead"} {
		filepath.WalkDir(filepath.Join(w.meta, private), func(p string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				t.Errorf("left behind: %s", p)
			}
			return nil
		})
	}
}
