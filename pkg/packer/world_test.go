package packer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/posix"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/objstore/dirstore"
	"marfs/pkg/objstore/faultstore"
	"marfs/pkg/repo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

// world is one namespace: a metadata directory, two repos of directory stores, and
// nodes that work on it.
type world struct {
	*metadata.FS
	*Packer
	t      testing.TB
	root   string
	repo   *repo.Repo // of small files
	large  *repo.Repo // of files above largeAbove
	stores []*faultstore.Store
	md     func(mdfs.FS) mdfs.FS // put around the metadata filesystem of new nodes
}

const largeAbove = 64 << 10

// policy lets everything be packed at once.
var policy = Policy{MaxFile: 1 << 20, MaxBytes: 1 << 30, TargetSize: 1 << 20, MinFiles: 1, BelowLive: 0.5}

func newWorld(t testing.TB, o Policy) *world {
	t.Helper()
	w := &world{t: t, root: t.TempDir()}
	w.must(os.Chmod(w.root, 0o700))
	w.repo, w.large = w.newRepo("small"), w.newRepo("large")
	md, err := posix.Open(w.root)
	w.must(err)
	w.must(metadata.Init(md, "test"))
	md.Close()
	w.FS = w.open("node1")
	w.Packer = w.packer(w.FS, o)
	return w
}

func (w *world) newRepo(name string) *repo.Repo {
	w.t.Helper()
	pod := repo.Pod{Name: "pod0", Weight: 1}
	for i := range 3 {
		s, err := dirstore.Open(w.t.TempDir(), dirstore.Options{})
		w.must(err)
		w.t.Cleanup(func() { s.Close() })
		f := faultstore.New(s)
		w.stores = append(w.stores, f)
		pod.Stores = append(pod.Stores, repo.Store{Store: f, Name: fmt.Sprint(name, i)})
	}
	r, err := repo.New(repo.Config{Name: name, Geometry: objfmt.Geometry{Data: 2, Parity: 1, Block: 64 << 10},
		Pods: []repo.Pod{pod}, Memory: 32 << 20, StallTimeout: 5 * time.Second})
	w.must(err)
	return r
}

// open opens the directory as another process.
func (w *world) open(node string) *metadata.FS {
	w.t.Helper()
	disk, err := posix.Open(w.root)
	w.must(err)
	w.t.Cleanup(func() { disk.Close() })
	md := mdfs.FS(disk)
	if w.md != nil {
		md = w.md(md)
	}
	m, err := metadata.Open(ctx, md, metadata.Options{Namespace: "test", Node: node, Objects: objects{w.repo, w.large}, SkipTest: true})
	w.must(err)
	w.t.Cleanup(func() { m.Close() })
	return m
}

func (w *world) packer(m *metadata.FS, o Policy) *Packer {
	return New(Config{Namespace: "test", Meta: m, Repos: map[string]*repo.Repo{"small": w.repo, "large": w.large},
		Places: []Place{{MaxSize: largeAbove, Repo: w.repo, Pack: true}, {Repo: w.large, Pack: true}}, Policy: o})
}

// objects deletes in both repos.
type objects []*repo.Repo

func (o objects) Delete(ctx context.Context, ref objfmt.ObjectRef) error {
	for _, r := range o {
		if err := r.Delete(ctx, ref.Key("test")); err != nil {
			return err
		}
	}
	return nil
}

func (o objects) DeletePrefix(ctx context.Context, id objfmt.ObjectID, keep func(uint32) bool) error {
	for _, r := range o {
		for info, err := range r.List(ctx, objfmt.ObjectKey("test", id, 0), "") {
			if err != nil {
				return err
			}
			_, _, chunk, err := objfmt.ParseObjectKey(info.Key)
			if err != nil {
				return err
			}
			if keep == nil || !keep(chunk) {
				if err := r.Delete(ctx, info.Key); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

var _ interface {
	List(context.Context, string, string) iter.Seq2[objstore.Info, error]
} = (*repo.Repo)(nil)

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func who(p string) metadata.Who {
	return metadata.Who{Cred: mdfs.Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, Path: p}
}

// in runs fn in the directory of a path, which is made when it is not there.
func in(m *metadata.FS, p string, fn func(d mdfs.Dir, name string) error) error {
	dir, name := path.Split(p)
	at, err := m.Tree().Again()
	if err != nil {
		return err
	}
	defer func() { at.Close() }()
	for part := range strings.SplitSeq(strings.TrimSuffix(dir, "/"), "/") {
		if part == "" {
			continue
		}
		if err := at.Mkdir(part, 0o755); err != nil && !errors.Is(err, syscall.EEXIST) {
			return err
		}
		next, err := at.OpenDir(part)
		if err != nil {
			return err
		}
		at.Close()
		at = next
	}
	return fn(at, name)
}

// file stages a new file through m.
func (w *world) fileAs(m *metadata.FS, p, text string) objfmt.ID {
	w.t.Helper()
	var id objfmt.ID
	w.must(in(m, p, func(d mdfs.Dir, name string) error {
		fl, err := m.Create(ctx, who(p), d, name, 0o640)
		if err != nil {
			return err
		}
		defer fl.Close()
		id = fl.ID()
		own, err := fl.Own(ctx, who(p))
		if err != nil {
			return err
		}
		if _, err := own.Body().WriteAt([]byte(text), 0); err != nil {
			return err
		}
		_, err = own.Commit(ctx, int64(len(text)), objfmt.Checksum([]byte(text)))
		return err
	}))
	return id
}

func (w *world) file(p, text string) objfmt.ID {
	w.t.Helper()
	id := w.fileAs(w.FS, p, text)
	w.Staged(int64(len(text)))
	return id
}

func (w *world) Staged(n int64) { w.Packer.Staged(n) }

// opened runs fn with the file at a path.
func opened(m *metadata.FS, p string, fn func(fl *metadata.File) error) error {
	return in(m, p, func(d mdfs.Dir, name string) error {
		fl, err := m.Open(ctx, d, name)
		if err != nil {
			return err
		}
		defer fl.Close()
		return fn(fl)
	})
}

// rewrite stages another content of a file: a private body.
func rewrite(m *metadata.FS, p, text string) error {
	return opened(m, p, func(fl *metadata.File) error {
		base, err := fl.Newest(ctx)
		if err != nil {
			return err
		}
		s, err := m.Begin(ctx, fl, who(p), base)
		if err != nil {
			return err
		}
		id, body, err := s.NewBody(ctx)
		if err != nil {
			return err
		}
		if _, err := body.WriteAt([]byte(text), 0); err != nil {
			return err
		}
		src := objfmt.Source{Kind: objfmt.SourceBody, Stored: int64(len(text)), Sum: objfmt.Checksum([]byte(text))}
		if _, err := s.Publish(ctx, id, src, int64(len(text)), time.Now(), objfmt.Final); err != nil {
			return errors.Join(err, s.Abort(ctx))
		}
		return s.End(ctx)
	})
}

// extend appends in the own body, or, where that cannot be, rewrites.
func (w *world) extend(m *metadata.FS, p, more string) error {
	old := w.read(p)
	err := opened(m, p, func(fl *metadata.File) error {
		base, err := fl.Newest(ctx)
		if err != nil {
			return err
		}
		o, err := m.Append(ctx, fl, who(p), base)
		if err != nil {
			return err
		}
		if _, err := o.Body().WriteAt([]byte(more), base.Size); err != nil {
			return err
		}
		_, err = o.Commit(ctx, base.Size+int64(len(more)), objfmt.Checksum([]byte(old+more)))
		return err
	})
	if errors.Is(err, syscall.ESTALE) {
		return rewrite(m, p, old+more)
	}
	return err
}

// read returns what a file holds, wherever it is.
func (w *world) read(p string) string {
	w.t.Helper()
	var text string
	w.must(opened(w.FS, p, func(fl *metadata.File) (err error) {
		text, err = w.content(fl)
		return err
	}))
	return text
}

func (w *world) readID(id objfmt.ID) (string, error) {
	fl, err := w.OpenID(ctx, id)
	if err != nil {
		return "", err
	}
	defer fl.Close()
	return w.content(fl)
}

func (w *world) content(fl *metadata.File) (string, error) {
	s, err := fl.Newest(ctx)
	if err != nil {
		return "", err
	}
	b := make([]byte, s.Size)
	_, err = w.readSlot(fl, s, b[:min(s.Size, s.Source.Stored)])
	return string(b), err
}

func (w *world) readSlot(fl *metadata.File, s objfmt.Slot, b []byte) (int, error) {
	switch src := s.Source; src.Kind {
	case objfmt.SourceOwn:
		return fl.Inode().ReadAt(b, 0)
	case objfmt.SourceBody:
		in, err := fl.Body(ctx, s.Content)
		if err != nil {
			return 0, err
		}
		defer in.Close()
		return in.ReadAt(b, 0)
	case objfmt.SourceObj:
		r := map[string]*repo.Repo{"small": w.repo, "large": w.large}[src.Object.Repo]
		n, err := r.ReadAt(ctx, src.Object.Key("test"), src.Object.Layout, b, src.Offset)
		if n == len(b) {
			err = nil
		}
		return n, err
	}
	return 0, nil
}

func (w *world) slot(p string) (s objfmt.Slot) {
	w.t.Helper()
	w.must(opened(w.FS, p, func(fl *metadata.File) (err error) {
		s, err = fl.Newest(ctx)
		return err
	}))
	return s
}

// wantText checks what files hold.
func (w *world) wantText(texts map[string]string) {
	w.t.Helper()
	for p, want := range texts {
		if got := w.read(p); got != want {
			w.t.Errorf("%s holds %.40q, want %.40q", p, got, want)
		}
	}
}

// wantPacked checks that files are in packs, and returns these.
func (w *world) wantPacked(paths ...string) map[objfmt.ObjectID]int {
	w.t.Helper()
	packs := map[objfmt.ObjectID]int{}
	for _, p := range paths {
		s := w.slot(p)
		if !s.Source.Packed {
			w.t.Errorf("%s is not packed: %+v", p, s.Source)
		}
		packs[s.Source.Object.Object]++
	}
	return packs
}

func (w *world) pack(o PackOptions) Result {
	w.t.Helper()
	r, err := w.Pack(ctx, o)
	w.must(err)
	return r
}

// objects lists the ids of all objects in the stores.
func (w *world) objectIDs() map[objfmt.ObjectID]bool {
	w.t.Helper()
	ids := map[objfmt.ObjectID]bool{}
	for _, r := range []*repo.Repo{w.repo, w.large} {
		for info, err := range r.List(ctx, "test/", "") {
			w.must(err)
			_, id, _, err := objfmt.ParseObjectKey(info.Key)
			w.must(err)
			ids[id] = true
		}
	}
	return ids
}

// recover does what another process does when all others have died, and what sweeps
// and gc do when their time has come.
func (w *world) recover() {
	w.t.Helper()
	m := w.open("recoverer")
	w.must(m.Recover(ctx, nil))
	w.must(m.Sweep(ctx, time.Now().Add(time.Hour), nil))
	for range 2 { // deletions first, then the packs that only they named
		w.gc(m)
	}
}

func (w *world) gc(m *metadata.FS) {
	w.t.Helper()
	days, err := m.TrashDays(ctx)
	w.must(err)
	for _, day := range days {
		var refs []metadata.TrashRef
		for ref, err := range m.Trash(ctx, day) {
			w.must(err)
			refs = append(refs, ref)
		}
		_, err := m.Expire(ctx, refs, time.Now().Add(time.Hour), nil)
		w.must(err)
	}
}

// wantNoOrphans checks that every object is one that a file or a version names.
func (w *world) wantNoOrphans(ids ...objfmt.ID) {
	w.t.Helper()
	named := map[objfmt.ObjectID]bool{}
	for _, id := range ids {
		fl, err := w.OpenID(ctx, id)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		w.must(err)
		s, err := fl.Newest(ctx)
		w.must(err)
		fl.Close()
		if s.Source.Kind == objfmt.SourceObj {
			named[s.Source.Object.Object] = true
		}
	}
	for id := range w.objectIDs() {
		if !named[id] {
			w.t.Errorf("object %s is nobody's", id)
		}
	}
}

// trailer reads the recovery trailer of a pack.
func (w *world) trailer(ref objfmt.ObjectRef) *objfmt.Trailer {
	w.t.Helper()
	r := map[string]*repo.Repo{"small": w.repo, "large": w.large}[ref.Repo]
	b := make([]byte, ref.Size)
	n, err := r.ReadAt(ctx, ref.Key("test"), ref.Layout, b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		w.t.Fatal(err)
	}
	size, err := objfmt.ParseTrailerFooter(b[n-objfmt.TrailerFooterSize : n])
	w.must(err)
	tr, err := objfmt.ParseTrailer(b[int64(n)-size : n])
	w.must(err)
	for _, f := range tr.Files {
		if objfmt.Checksum(b[f.At:f.At+f.Length]) != f.Sum {
			w.t.Errorf("trailer: the checksum of %s is not that of its bytes", f.Path)
		}
	}
	return tr
}

func text(n int, seed int) string {
	return string(bytes.Repeat([]byte(fmt.Sprintf("%07d.", seed)), n/8+1)[:n])
}

func mustDir(t testing.TB, w *world, p string) mdfs.Dir {
	t.Helper()
	d, err := mdfs.Walk(w.Tree(), p)
	w.must(err)
	t.Cleanup(func() { d.Close() })
	return d
}
