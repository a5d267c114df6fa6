package namespace_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/posix"
	"marfs/pkg/metadata"
	"marfs/pkg/namespace"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore/dirstore"
	"marfs/pkg/objstore/faultstore"
	"marfs/pkg/packer"
	"marfs/pkg/repo"
)

// batchWorld is a namespace on directory stores: files of up to 64 KiB go to one
// repo, others to another, in packs if they have at most 256 KiB.
type batchWorld struct {
	testing.TB
	root   string
	stores []*faultstore.Store // of small files, then of others
	repos  map[string]*repo.Repo
	log    bytes.Buffer
	target int64 // bytes of a pack
	perms  namespace.Perm
	md     func(mdfs.FS) mdfs.FS // put around the metadata filesystem; nil: nothing
}

const (
	smallest   = 64 << 10
	largest    = 256 << 10
	packTarget = 4 << 20
)

func newBatchWorld(t testing.TB) *batchWorld {
	w := &batchWorld{TB: t, root: t.TempDir(), repos: map[string]*repo.Repo{}, target: packTarget, perms: allPerms}
	w.must(os.Chmod(w.root, 0o755))
	for _, name := range []string{"small", "large"} {
		pod := repo.Pod{Name: "pod0", Weight: 1}
		for i := range 3 {
			dir, err := dirstore.Open(t.TempDir(), dirstore.Options{})
			w.must(err)
			t.Cleanup(func() { dir.Close() })
			s := faultstore.New(dir)
			w.stores = append(w.stores, s)
			pod.Stores = append(pod.Stores, repo.Store{Store: s, Name: fmt.Sprint(name, i)})
		}
		r, err := repo.New(repo.Config{Name: name, Geometry: objfmt.Geometry{Data: 2, Parity: 1, Block: 64 << 10}, MinWrite: 3,
			Pods: []repo.Pod{pod}, Memory: 64 << 20, StallTimeout: 5 * time.Second})
		w.must(err)
		w.repos[name] = r
	}
	md, err := posix.Open(w.root)
	w.must(err)
	defer md.Close()
	w.must(metadata.Init(md, "proj"))
	return w
}

func (w *batchWorld) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// Delete and DeletePrefix are metadata.Objects.
func (w *batchWorld) Delete(ctx context.Context, ref objfmt.ObjectRef) error {
	return w.repos[ref.Repo].Remove(ctx, ref.Key("proj"), ref.Layout)
}

func (w *batchWorld) DeletePrefix(ctx context.Context, id objfmt.ObjectID, keep func(uint32) bool) error {
	var errs []error
	for _, r := range w.repos {
		errs = append(errs, objects{r}.DeletePrefix(ctx, id, keep))
	}
	return errors.Join(errs...)
}

// mount opens the world as a process does; leave it without Close, and it has died.
func (w *batchWorld) mount(node string) (*namespace.FS, *metadata.FS) {
	w.Helper()
	disk, err := posix.Open(w.root)
	w.must(err)
	w.Cleanup(func() { disk.Close() })
	md := mdfs.FS(disk)
	if w.md != nil {
		md = w.md(md)
	}
	m, err := metadata.Open(ctx, md, metadata.Options{Namespace: "proj", Node: node, Grace: time.Hour, Objects: w, SkipTest: true})
	w.must(err)
	p := packer.New(packer.Config{Namespace: "proj", Meta: m, Repos: w.repos,
		Places: []packer.Place{{MaxSize: smallest, Repo: w.repos["small"], Pack: true}, {Repo: w.repos["large"], Pack: true}},
		Policy: packer.Policy{MaxFile: largest, MaxBytes: 1 << 30, TargetSize: w.target, MinFiles: 1}})
	f, err := namespace.New(namespace.Options{
		Log: slog.New(slog.NewTextHandler(&w.log, nil)),
		Namespaces: []namespace.Config{{
			Name: "proj", Path: "/proj", Meta: m, Repos: w.repos, Perms: w.perms, Packer: p,
			Placement: []namespace.Placement{{MaxSize: smallest, Repo: w.repos["small"], RepoName: "small", ChunkSize: 64 << 20},
				{Repo: w.repos["large"], RepoName: "large", ChunkSize: 64 << 20}},
		}},
	})
	w.must(err)
	w.Cleanup(func() { m.Close() })
	return f, m
}

// objects are the keys in a repo.
func (w *batchWorld) objects(name string) (keys []string) {
	w.Helper()
	for info, err := range w.repos[name].List(ctx, "proj/", "") {
		w.must(err)
		keys = append(keys, info.Key)
	}
	return keys
}

// wantSound checks that every object is in use, and that nothing is unfinished.
func (w *batchWorld) wantSound(m *metadata.FS, packs int) {
	w.Helper()
	if n := len(w.objects("small")) + len(w.objects("large")); n != packs {
		w.Errorf("%d objects, want %d", n, packs)
	}
	for _, dir := range []string{"packs/open", "work"} {
		if entries, err := os.ReadDir(w.root + "/" + dir); err != nil || dir == "packs/open" && len(entries) > 0 {
			w.Errorf("%s holds %v, %v", dir, entries, err)
		}
	}
	for id, err := range m.Staged(ctx) {
		w.must(err)
		fl, err := m.OpenID(ctx, id)
		w.must(err)
		s, err := fl.Newest(ctx)
		w.must(errors.Join(err, fl.Close()))
		if s.State == objfmt.Open {
			w.Errorf("file %s is open still: %+v", id, s)
		}
	}
}

// ends gathers how the files of a batch ended.
type ends struct {
	mu   sync.Mutex
	errs map[string]error
	sum  int
}

func (e *ends) of(name string) func(error) {
	return func(err error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.errs == nil {
			e.errs = map[string]error{}
		}
		e.errs[name] = err
		e.sum++
	}
}

// want checks that n files have ended, each once, and all with or without an error.
func (e *ends) want(t testing.TB, n int, failed bool) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sum != n || len(e.errs) != n {
		t.Errorf("%d files, %d times told, want %d", len(e.errs), e.sum, n)
	}
	for name, err := range e.errs {
		if (err != nil) != failed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func batchDir(t testing.TB, f *namespace.FS, path string) *namespace.Dir {
	t.Helper()
	up := dir(t, f, "/proj")
	if _, err := up.Mkdir(ctx, me, path, 0o755); err != nil && !errors.Is(err, syscall.EEXIST) {
		t.Fatal(err)
	}
	return dir(t, f, "/proj/"+path)
}

// TestBatch: thousands of files are a few objects, and are on another mount what was
// added, with owners and modes of the caller's.
func TestBatch(t *testing.T) {
	w := newBatchWorld(t)
	f, m := w.mount("a")
	d, shared := batchDir(t, f, "d"), batchDir(t, f, "shared")
	mode, gid := uint32(0o2775), uint32(me.GID)
	if os.Geteuid() == 0 {
		gid = 4321
	}
	_, err := dir(t, f, "/proj").Setattr(ctx, me, "shared", namespace.SetAttr{Mode: &mode, GID: &gid,
		Atime: mdfs.TimeSet{Omit: true}, Mtime: mdfs.TimeSet{Omit: true}})
	w.must(err)
	const files = 3000
	size := func(i int) int {
		switch {
		case i%500 == 7:
			return 0
		case i%500 == 8:
			return smallest + 1
		case i == 1000:
			return largest + 1
		}
		return 1 + i*7%5000
	}
	modeOf := func(i int) uint32 { return 0o600 | uint32(i)&0o55 }
	when := func(i int) time.Time { return time.Unix(1.5e9+int64(i), 123456789) }
	var told ends
	b := f.Batch(me)
	bytes := 0
	for i := range files {
		name := fmt.Sprint("f", i)
		to := d
		if i%2 == 1 {
			to = shared
		}
		w.must(b.Add(ctx, to, namespace.BatchFile{Name: name, Mode: modeOf(i), MTime: when(i)}, random(uint64(i), size(i)), told.of(name)))
		bytes += size(i)
	}
	w.must(b.Flush(ctx))
	told.want(t, files, false)
	w.must(b.Close(ctx))
	w.must(f.Close())
	if n := len(w.objects("small")); n > bytes/packTarget+2 {
		t.Errorf("%d bytes of small files are %d objects", bytes, n)
	}
	if n := len(w.objects("large")); n > 4 {
		t.Errorf("%d objects of large files", n)
	}
	w.wantSound(m, len(w.objects("small"))+len(w.objects("large")))

	f, _ = w.mount("b")
	for i := range files {
		in := dir(t, f, "/proj/d")
		wantGID := me.GID
		if i%2 == 1 {
			in, wantGID = dir(t, f, "/proj/shared"), gid
		}
		name := fmt.Sprint("f", i)
		a, err := in.Lookup(ctx, me, name)
		w.must(err)
		if a.Size != int64(size(i)) || a.Mode != syscall.S_IFREG|modeOf(i) || a.Uid != me.UID || a.Gid != wantGID ||
			!time.Unix(a.Mtim.Unix()).Equal(when(i)) {
			t.Fatalf("%s: %+v", name, a)
		}
		same(t, name, get(t, in, name), random(uint64(i), size(i)))
	}
	w.must(f.Close())
}

// TestBatchRefuses: what cannot be made is an error of Add, and nothing else happens.
func TestBatchRefuses(t *testing.T) {
	w := newBatchWorld(t)
	f, _ := w.mount("a")
	d := batchDir(t, f, "d")
	never := func(error) { t.Error("told of a file that was refused") }
	b := f.Batch(me)
	var told ends
	w.must(b.Add(ctx, d, namespace.BatchFile{Name: "a", Mode: 0o644}, []byte("text"), told.of("a")))
	for _, n := range []int{0, 10, largest + 1} {
		if err := b.Add(ctx, d, namespace.BatchFile{Name: "a", Mode: 0o644}, make([]byte, n), never); !errors.Is(err, syscall.EEXIST) {
			t.Errorf("a again, of %d bytes: %v", n, err)
		}
	}
	root, err := f.Root(ctx)
	w.must(err)
	if err := b.Add(ctx, root, namespace.BatchFile{Name: "x"}, []byte("text"), never); !errors.Is(err, syscall.EROFS) {
		t.Errorf("above the namespaces: %v", err)
	}
	gone, stop := context.WithCancel(ctx)
	stop()
	if err := b.Add(gone, d, namespace.BatchFile{Name: "b"}, []byte("text"), never); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
	if os.Geteuid() == 0 {
		other := namespace.Caller{Cred: mdfs.Cred{UID: 12345, GID: 12345}}
		o := f.Batch(other)
		if err := o.Add(ctx, d, namespace.BatchFile{Name: "b"}, []byte("text"), never); !errors.Is(err, syscall.EACCES) {
			t.Errorf("in the directory of another: %v", err)
		}
		w.must(o.Close(ctx))
	}
	f.SetPerms("proj", allPerms&^namespace.WD)
	if err := b.Add(ctx, d, namespace.BatchFile{Name: "b"}, []byte("text"), never); !errors.Is(err, syscall.EPERM) {
		t.Errorf("without the right to write data: %v", err)
	}
	f.SetPerms("proj", allPerms)
	w.must(b.Close(ctx))
	told.want(t, 1, false)
	for _, n := range []int{0, 10} {
		if err := b.Add(ctx, d, namespace.BatchFile{Name: "c"}, make([]byte, n), never); !errors.Is(err, os.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	w.must(b.Close(ctx))
	w.wantNames(d, "a")
	w.must(f.Close())
}

// wantNames checks what a directory has, in any order.
func (w *batchWorld) wantNames(d *namespace.Dir, want ...string) {
	w.Helper()
	e, err := d.Entries(ctx, me)
	w.must(err)
	defer e.Close()
	left := map[string]bool{}
	for _, name := range want {
		left[name] = true
	}
	for {
		ent, err := e.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		w.must(err)
		if !left[ent.Name] {
			w.Errorf("%s is there", ent.Name)
		}
		delete(left, ent.Name)
	}
	for name := range left {
		w.Errorf("%s is not there", name)
	}
}

// TestBatchFails: when a pack cannot be stored, each of its files is told, and its name
// goes, but for those that are somebody else's by then. The batch goes on.
func TestBatchFails(t *testing.T) {
	w := newBatchWorld(t)
	f, m := w.mount("a")
	d := batchDir(t, f, "d")
	b := f.Batch(me)
	for _, s := range w.stores {
		s.Inject(faultstore.Fault{Op: faultstore.Put, Do: faultstore.Unavailable()})
	}
	var told ends
	for _, name := range []string{"gone", "moved", "replaced", "open"} {
		w.must(b.Add(ctx, d, namespace.BatchFile{Name: name, Mode: 0o644}, []byte("a text"), told.of(name)))
	}
	w.must(d.Rename(ctx, me, "moved", d, "elsewhere", 0))
	w.must(d.Rename(ctx, me, "replaced", d, "away", 0))
	if _, err := d.Symlink(ctx, me, "x", "replaced"); err != nil {
		t.Fatal(err)
	}
	fl, err := d.Open(ctx, me, "open", syscall.O_WRONLY)
	w.must(err)
	if err := b.Flush(ctx); !errors.Is(err, repo.ErrQuorum) {
		t.Errorf("flush: %v", err)
	}
	told.want(t, 4, true)
	if err := told.errs["gone"]; !errors.Is(err, syscall.EIO) {
		t.Errorf("gone: %v", err)
	}
	w.wantNames(d, "elsewhere", "away", "replaced", "open")
	for _, s := range w.stores {
		s.Heal()
	}
	write(t, fl, 0, []byte("mine"))
	w.must(errors.Join(fl.Flush(ctx), fl.Close()))
	same(t, "open", get(t, d, "open"), []byte("mine"))
	var again ends
	w.must(b.Add(ctx, d, namespace.BatchFile{Name: "gone", Mode: 0o644}, []byte("a text"), again.of("gone")))
	w.must(b.Close(ctx))
	again.want(t, 1, false)
	same(t, "gone", get(t, d, "gone"), []byte("a text"))
	w.must(f.Close())
	w.wantSound(m, 1) // that of "gone": what was written to "open" is staged
}

// TestBatchAndOthers: what others do to a file while its pack is uploaded wins.
func TestBatchAndOthers(t *testing.T) {
	w := newBatchWorld(t)
	f, m := w.mount("a")
	d := batchDir(t, f, "d")
	b := f.Batch(me)
	var told ends
	text := func(name string) []byte { return []byte("batch " + name) }
	for _, name := range []string{"kept", "renamed", "removed", "truncated", "written", "open"} {
		w.must(b.Add(ctx, d, namespace.BatchFile{Name: name, Mode: 0o644}, text(name), told.of(name)))
	}
	for _, s := range w.stores {
		s.Inject(faultstore.Fault{Op: faultstore.Put, Count: 1, Do: faultstore.Delay(time.Second)})
	}
	reader, err := d.Open(ctx, me, "open", syscall.O_RDONLY)
	w.must(err)
	defer reader.Close()
	flushed := make(chan error)
	go func() { flushed <- b.Flush(ctx) }()
	time.Sleep(300 * time.Millisecond) // it waits for its stores
	select {
	case err := <-flushed:
		t.Fatalf("flush has not waited: %v", err)
	default:
	}
	w.must(d.Rename(ctx, me, "renamed", d, "new name", 0))
	w.must(d.Unlink(ctx, me, "removed"))
	put(t, d, "truncated", []byte("mine"))
	fl, err := d.Open(ctx, me, "written", syscall.O_WRONLY)
	w.must(err)
	write(t, fl, 0, []byte("mine too"))
	w.must(errors.Join(fl.Flush(ctx), fl.Close()))
	w.must(<-flushed)
	for name, want := range map[string]error{"kept": nil, "renamed": nil, "truncated": syscall.ESTALE, "written": syscall.ESTALE, "open": nil} {
		if err := told.errs[name]; !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if told.sum != 6 {
		t.Errorf("told of %d files", told.sum)
	}
	w.wantNames(d, "kept", "new name", "truncated", "written", "open")
	same(t, "kept", get(t, d, "kept"), text("kept"))
	same(t, "new name", get(t, d, "new name"), text("renamed"))
	same(t, "truncated", get(t, d, "truncated"), []byte("mine"))
	same(t, "written", get(t, d, "written"), []byte("mine too"))
	p := make([]byte, 100)
	n, err := reader.ReadAt(ctx, me, p, 0)
	if same(t, "open", p[:n], text("open")); err != io.EOF {
		t.Errorf("open: %v", err)
	}
	w.must(b.Close(ctx))
	w.must(f.Close())
	w.wantSound(m, 1) // the pack: what the two have written is staged
}

// TestBatchDies: wherever a process dies, each file has its content or is empty, and
// what it was told to be durable is; recovery leaves no object that nobody needs.
func TestBatchDies(t *testing.T) {
	const files = 6
	run := func(w *batchWorld, arm func() func()) (told *ends, disarm func()) {
		f, _ := w.mount("a")
		d := batchDir(w, f, "d")
		told = &ends{}
		b := f.Batch(me)
		disarm = arm()
		for i := range files {
			name := fmt.Sprint("f", i)
			_ = b.Add(ctx, d, namespace.BatchFile{Name: name, Mode: 0o644}, random(uint64(i), i*200), told.of(name))
		}
		_ = b.Close(ctx)
		return told, disarm
	}
	var reached map[string]int
	_, stop := run(newBatchWorld(t), func() func() { trace := fault.Trace(); return func() { reached = trace() } })
	stop()
	for point, hits := range reached {
		for _, n := range []int{1, hits/2 + 1} {
			t.Run(fmt.Sprintf("%s:%d", point, n), func(t *testing.T) {
				w := newBatchWorld(t)
				told, disarm := run(w, func() func() {
					disarm, err := fault.Arm(fmt.Sprintf("%s=dead:%d", point, n))
					w.must(err)
					return func() {
						if !disarm() {
							t.Error("the process has not died")
						}
					}
				})
				disarm()
				f, m := w.mount("b")
				w.must(m.Recover(ctx, nil))
				whole := 0
				for i := range files {
					name := fmt.Sprint("f", i)
					got, err := tryGet(dir(t, f, "/proj/d"), name)
					if len(got) > 0 {
						same(t, name, got, random(uint64(i), i*200))
						whole++
					}
					if err != nil && !errors.Is(err, syscall.ENOENT) {
						t.Errorf("%s: %v", name, err)
					}
					if e, ok := told.errs[name]; ok && e == nil && (err != nil || len(got) != i*200) {
						t.Errorf("%s was written, and has %d bytes, %v", name, len(got), err)
					}
				}
				w.must(m.Recover(ctx, nil)) // those that got a home by being opened
				w.must(f.Close())
				w.wantSound(m, min(whole, 1))
			})
		}
	}
}

// TestBatchAtOnce: any number of goroutines may add, flush and give up; each file that
// was taken is told of once, and Close leaves nothing behind that runs.
func TestBatchAtOnce(t *testing.T) {
	w := newBatchWorld(t)
	w.target = 256 << 10
	f, m := w.mount("a")
	d := batchDir(t, f, "d")
	b := f.Batch(me)
	var told ends
	var taken atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				name := fmt.Sprintf("f%d.%d", g, i)
				c, stop := context.WithCancel(ctx)
				if i%10 == 9 {
					c, stop = context.WithTimeout(ctx, time.Millisecond)
				}
				if err := b.Add(c, d, namespace.BatchFile{Name: name, Mode: 0o644}, random(uint64(i), i*200), told.of(name)); err == nil {
					taken.Add(1)
				} else if c.Err() == nil {
					t.Errorf("%s: %v", name, err)
				}
				stop()
				if i%40 == 39 {
					if err := b.Flush(ctx); err != nil {
						t.Errorf("flush: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	w.must(b.Close(ctx))
	told.want(t, int(taken.Load()), false)
	for name := range told.errs {
		var g, i int
		if _, err := fmt.Sscanf(name, "f%d.%d", &g, &i); err != nil {
			t.Fatal(err)
		}
		same(t, name, get(t, d, name), random(uint64(i), i*200))
	}
	var names []string
	for name := range told.errs {
		names = append(names, name)
	}
	w.wantNames(d, names...)
	w.must(f.Close())
	w.wantSound(m, len(w.objects("small"))+len(w.objects("large")))
}

// TestBatchCloseGivesUp: Close with a context that ends does not wait for stores that
// hang, also not behind others that do, and every file is told of.
func TestBatchCloseGivesUp(t *testing.T) {
	for name, target := range map[string]int64{"alone": packTarget, "behind others": 2000} {
		t.Run(name, func(t *testing.T) {
			w := newBatchWorld(t)
			w.target = target
			f, _ := w.mount("a")
			d := batchDir(t, f, "d")
			b := f.Batch(me)
			for _, s := range w.stores {
				s.Inject(faultstore.Fault{Op: faultstore.Put, Do: faultstore.Hang()})
			}
			var told ends
			var taken atomic.Int64
			var adding sync.WaitGroup
			for i := range 10 {
				adding.Go(func() {
					name := fmt.Sprint("f", i)
					err := b.Add(ctx, d, namespace.BatchFile{Name: name, Mode: 0o644}, random(uint64(i), 1000), told.of(name))
					if err == nil {
						taken.Add(1)
					} else if !errors.Is(err, os.ErrClosed) {
						t.Errorf("%s: %v", name, err)
					}
				})
			}
			time.Sleep(500 * time.Millisecond) // all are added, or some of them wait
			brief, stop := context.WithTimeout(ctx, 100*time.Millisecond)
			defer stop()
			start := time.Now()
			if err := b.Close(brief); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("close: %v", err)
			}
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("close took %v", took)
			}
			adding.Wait()
			told.want(t, int(taken.Load()), true)
			w.wantNames(d)
			w.must(f.Close())
		})
	}
}

// TestBatchMakesRoom: a metadata filesystem that is full gets room by what is staged in
// it; when there is nothing, that is the error.
func TestBatchMakesRoom(t *testing.T) {
	w := newBatchWorld(t)
	var full room
	w.md = func(md mdfs.FS) mdfs.FS { return fullFS{md, &full} }
	f, m := w.mount("a")
	d := batchDir(t, f, "d")
	stage := func(name string) {
		t.Helper()
		who := metadata.Who{Cred: me.Cred, Path: name}
		fl, err := m.Create(ctx, who, m.Tree(), name, 0o644)
		w.must(err)
		own, err := fl.Own(ctx, who)
		w.must(err)
		_, err = own.Body().WriteAt(random(1, 50_000), 0)
		w.must(err)
		_, err = own.Commit(ctx, 50_000, objfmt.Checksum(random(1, 50_000)), true)
		w.must(errors.Join(err, fl.Close()))
	}
	b := f.Batch(me)
	var told ends
	stage("s1")
	full.names.Store(1) // the name
	w.must(b.Add(ctx, d, namespace.BatchFile{Name: "a", Mode: 0o644}, []byte("text"), told.of("a")))
	stage("s2")
	full.names.Store(1) // the table of the pack
	w.must(b.Flush(ctx))
	told.want(t, 1, false)
	same(t, "a", get(t, d, "a"), []byte("text"))
	full.names.Store(1)
	err := b.Add(ctx, d, namespace.BatchFile{Name: "b", Mode: 0o644}, []byte("text"), told.of("b"))
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("without any room: %v", err)
	}
	w.must(b.Close(ctx))
	w.must(f.Close())
}

// BenchmarkBatch writes 20 k files of 4 KiB to packs, in one directory, until they are
// durable.
func BenchmarkBatch(b *testing.B) {
	const files = 20_000
	for _, adders := range []int{1, 4} {
		b.Run(fmt.Sprintf("adders-%d", adders), func(b *testing.B) {
			content := random(1, 4096)
			round := 0
			w := newBatchWorld(b)
			w.target = 256 << 20
			f, _ := w.mount("a")
			for b.Loop() {
				round++
				d := batchDir(b, f, fmt.Sprint("d", round))
				batch := f.Batch(me)
				var next atomic.Int64
				var wg sync.WaitGroup
				for range adders {
					wg.Go(func() {
						for i := next.Add(1); i <= files; i = next.Add(1) {
							err := batch.Add(ctx, d, namespace.BatchFile{Name: fmt.Sprint("f", i), Mode: 0o644}, content, func(err error) {
								if err != nil {
									b.Error(err)
								}
							})
							if err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				w.must(batch.Close(ctx))
			}
			b.ReportMetric(float64(b.N*files)/b.Elapsed().Seconds(), "files/s")
			w.must(f.Close())
		})
	}
}
