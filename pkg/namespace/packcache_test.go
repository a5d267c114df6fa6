package namespace_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/namespace"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/objstore/faultstore"
	"marfs/pkg/repo"
)

// packed is one pack of files f0, f1 ... in the root of a world's namespace, or of
// others that have more of a name.
type packed struct {
	prefix string
	object objfmt.ObjectRef
	size   []int
	off    []int64
}

func (p *packed) name(i int) string { return fmt.Sprint(p.prefix, "f", i) }

func (p *packed) content(i int) []byte { return random(uint64(i), p.size[i]) }

// sizes is n times size.
func sizes(n, size int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = size
	}
	return list
}

// pack makes a pack of new files, as it lies when their bodies are released.
func (w *world) pack(t testing.TB, m *metadata.FS, size []int) *packed {
	t.Helper()
	return w.packAs(t, m, "", size)
}

func (w *world) packAs(t testing.TB, m *metadata.FS, prefix string, size []int) *packed {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	who := metadata.Who{Cred: me.Cred}
	p := &packed{prefix: prefix, size: size}
	members := make([]metadata.PackMember, len(size))
	trailer := objfmt.Trailer{Namespace: "proj", Chunks: 1}
	var end int64
	for i, n := range size {
		who.Path = p.name(i)
		fl, err := m.Create(ctx, who, m.Tree(), who.Path, 0o644)
		must(err)
		_, err = fl.Own(ctx, who) // so that Close leaves the first slot as it is
		must(err)
		s, err := fl.Newest(ctx)
		must(errors.Join(err, fl.Close()))
		s.Size, s.Source.Stored = int64(n), int64(n)
		sum := objfmt.Checksum(p.content(i))
		members[i] = metadata.PackMember{Slot: s, Offset: end, Sum: sum}
		trailer.Files = append(trailer.Files, objfmt.TrailerFile{File: s.File, Content: s.Content, Path: who.Path,
			Mode: syscall.S_IFREG | 0o644, MTime: s.MTime, Size: s.Size, At: end, Length: s.Size, Sum: sum})
		p.off = append(p.off, end)
		end += int64(n)
	}
	pack, err := m.BeginPack(ctx, members)
	must(err)
	trailer.Object, trailer.Stored = pack.Object, end
	b, err := trailer.Encode()
	must(err)
	p.object = objfmt.ObjectRef{Object: pack.Object}
	wr, err := w.repo(t).Create(ctx, p.object.Key("proj"))
	must(err)
	for i := range size {
		_, err := wr.Write(p.content(i))
		must(err)
	}
	_, err = wr.Write(b)
	must(err)
	p.object.Layout, err = wr.Close()
	must(err)
	won, err := pack.Publish(ctx, p.object)
	must(err)
	if won != len(size) {
		t.Fatalf("%d of %d members published", won, len(size))
	}
	must(pack.Finish(ctx))
	return p
}

// repo is a repo over the world's stores, beside those of its nodes.
func (w *world) repo(t testing.TB) *repo.Repo {
	t.Helper()
	var stores []repo.Store
	for i, s := range w.stores {
		stores = append(stores, repo.Store{Store: s, Name: fmt.Sprintf("s%d", i)})
	}
	r, err := repo.New(repo.Config{
		Name: "r", Geometry: objfmt.Geometry{Data: 4, Parity: 2, Block: block}, MinWrite: 6,
		Pods: []repo.Pod{{Name: "pod0", Weight: 1, Stores: stores}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// counted counts what is asked of a store.
type counted struct {
	objstore.Store
	gets, bytes atomic.Int64
}

func (c *counted) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	c.gets.Add(1)
	c.bytes.Add(n)
	return c.Store.Get(ctx, key, off, n)
}

// packWorld is a world whose stores count.
type packWorld struct {
	*world
	counts []*counted
}

func newPackWorld(t testing.TB) *packWorld {
	w := &packWorld{world: newWorld(t)}
	for i, s := range w.stores {
		c := &counted{Store: s}
		w.counts = append(w.counts, c)
		w.stores[i] = faultstore.New(c)
	}
	return w
}

// asked returns what was asked of the stores since it was called last.
func (w *packWorld) asked() (gets, bytes int64) {
	for _, c := range w.counts {
		gets += c.gets.Swap(0)
		bytes += c.bytes.Swap(0)
	}
	return gets, bytes
}

// read reads a member by an open of its own.
func (p *packed) read(t testing.TB, d *namespace.Dir, i int) {
	t.Helper()
	got, err := readOnce(d, p.name(i), p.size[i])
	if err != nil {
		t.Errorf("read f%d: %v", i, err)
	} else if string(got) != string(p.content(i)) {
		t.Errorf("f%d: wrong bytes", i)
	}
}

// readOnce reads a file of n bytes by one read, as the kernel does for cat.
func readOnce(d *namespace.Dir, name string, n int) ([]byte, error) {
	f, err := d.Open(ctx, me, name, syscall.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n+1)
	n, err = f.ReadAt(ctx, me, b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

const mib = 1 << 20

// TestPackReadsAtRandom: a file read by itself costs its range, one GET where that
// lies in one block, also at the end of a segment.
func TestPackReadsAtRandom(t *testing.T) {
	w := newPackWorld(t)
	f := w.node("a")
	d := dir(t, f, "/proj")
	p := w.pack(t, w.last, sizes(1024, 16<<10)) // 16 MiB
	w.asked()
	for _, i := range []int{500, 19, 1023, 750, 255} {
		p.read(t, d, i)
		if gets, bytes := w.asked(); gets != 1 || bytes > block+64 {
			t.Errorf("f%d: %d GETs of %d bytes", i, gets, bytes)
		}
	}
}

// TestPackReadsInOrder: the bytes of a pack are fetched once, in whole segments, and
// its trailer is not.
func TestPackReadsInOrder(t *testing.T) {
	for name, order := range map[string]func(i int) int{
		"forward":  func(i int) int { return i },
		"backward": func(i int) int { return 1023 - i },
		"shuffled": func(i int) int { return i&^127 | i*89&127 }, // as readdir does within a directory
		"every 8":  func(i int) int { return i*8&1023 | i>>7 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newPackWorld(t)
			f := w.node("a")
			d := dir(t, f, "/proj")
			p := w.pack(t, w.last, sizes(1024, 16<<10))
			w.asked()
			for i := range 1024 {
				p.read(t, d, order(i))
			}
			gets, bytes := w.asked()
			if gets > 60 || bytes > 20*mib {
				t.Errorf("%d GETs of %d bytes", gets, bytes)
			}
			if name == "forward" && bytes > 16*mib+512<<10 {
				t.Errorf("%d bytes fetched of 16 MiB", bytes)
			}
		})
	}
}

// TestPackReadsAtOnce: any number of readers share the fetch of a segment.
func TestPackReadsAtOnce(t *testing.T) {
	w := newPackWorld(t)
	f := w.node("a")
	d := dir(t, f, "/proj")
	p := w.pack(t, w.last, sizes(750, 16<<10))
	w.asked()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < 750; i = next.Add(1) - 1 {
				p.read(t, d, int(i))
			}
		})
	}
	wg.Wait()
	if gets, bytes := w.asked(); gets > 60 || bytes > 16*mib {
		t.Errorf("%d GETs of %d bytes for 12 MiB", gets, bytes)
	}
}

// TestPackReadsInVain: readers that only seem to go on, everywhere in large packs,
// make no more be fetched than a few times what their reads would.
func TestPackReadsInVain(t *testing.T) {
	w := newPackWorld(t)
	w.ahead = 16 << 20 // two segments of packs
	f := w.node("a")
	d := dir(t, f, "/proj")
	p := w.pack(t, w.last, sizes(800, 64<<10)) // 50 MiB
	w.asked()
	rnd := rand.New(rand.NewPCG(1, 2))
	const pairs = 400
	for range pairs {
		i := rnd.IntN(799)
		p.read(t, d, i)
		p.read(t, d, i+1)
	}
	_, bytes := w.asked()
	plain := int64(pairs * 2 * 2 * block) // members of 64 KiB lie in two cells or one
	if most := 3*plain + 64*mib; bytes > most {
		t.Errorf("%d bytes fetched, want at most %d", bytes, most)
	}
}

// TestPacksReadInVain: nor do those that read a little of each of many packs.
func TestPacksReadInVain(t *testing.T) {
	w := newPackWorld(t)
	f := w.node("a")
	d := dir(t, f, "/proj")
	var packs []*packed
	for i := range 40 {
		packs = append(packs, w.packAs(t, w.last, fmt.Sprint(i, "."), sizes(65, 64<<10)))
	}
	w.asked()
	for _, p := range packs {
		p.read(t, d, 10)
		p.read(t, d, 11)
	}
	_, bytes := w.asked()
	if most := int64(3*len(packs)*2*2*block + 64*mib); bytes > most {
		t.Errorf("%d bytes fetched, want at most %d", bytes, most)
	}
}

// TestPackCacheGivesWay: a reader of a large file gets memory that packs hold.
func TestPackCacheGivesWay(t *testing.T) {
	w := newPackWorld(t)
	w.ahead = 8 << 20 // one segment of packs, and one more
	w.chunk = 64 << 20
	f := w.node("a")
	d := dir(t, f, "/proj")
	p := w.pack(t, w.last, sizes(128, 16<<10))
	want := random(9, 24*mib)
	put(t, d, "large", want)
	for i := range 128 {
		p.read(t, d, i)
	}
	w.asked()
	p.read(t, d, 64)
	if gets, _ := w.asked(); gets != 0 {
		t.Errorf("%d GETs of what was read just now", gets)
	}
	same(t, "large", get(t, d, "large"), want)
	w.asked()
	p.read(t, d, 64)
	if gets, _ := w.asked(); gets == 0 {
		t.Error("a reader of a large file did not get the memory of packs")
	}
}

// TestPackSegmentsGoWhenIdle: what was read stays for the next, and not for long.
func TestPackSegmentsGoWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPackWorld(t)
		f := w.node("a")
		d := dir(t, f, "/proj")
		p := w.pack(t, w.last, sizes(100, 4096))
		for i := range 100 {
			p.read(t, d, i)
		}
		w.asked()
		p.read(t, d, 50)
		if gets, _ := w.asked(); gets != 0 {
			t.Errorf("%d GETs of what was read just now", gets)
		}
		time.Sleep(11 * time.Second)
		p.read(t, d, 10)
		if gets, _ := w.asked(); gets == 0 {
			t.Error("no GET of what was read long ago")
		}
	})
}

// TestPackReaderGivesUp: who gives up gets his answer at once, and the segment he
// asked for comes for the others.
func TestPackReaderGivesUp(t *testing.T) {
	w := newPackWorld(t)
	f := w.node("a")
	d := dir(t, f, "/proj")
	p := w.pack(t, w.last, sizes(100, 4096))
	p.read(t, d, 0)
	for _, s := range w.stores {
		s.Inject(faultstore.Fault{Op: faultstore.Get, Count: 1, Do: faultstore.Delay(500 * time.Millisecond)})
	}
	w.asked()
	fl, err := d.Open(ctx, me, "f1", syscall.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer fl.Close()
	brief, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	start := time.Now()
	if _, err := fl.ReadAt(brief, me, make([]byte, 4096), 0); err == nil || time.Since(start) > 300*time.Millisecond {
		t.Errorf("a reader who gave up got %v after %v", err, time.Since(start))
	}
	for i := 1; i < 100; i++ {
		p.read(t, d, i)
	}
	if gets, _ := w.asked(); gets > 6 { // those of one segment, perhaps two hedged
		t.Errorf("%d GETs", gets)
	}
}

// TestPackErrorsAreNotKept: a segment that cannot be read costs its reader nothing,
// if his own range can be, and the next one finds it as it is then.
func TestPackErrorsAreNotKept(t *testing.T) {
	w := newPackWorld(t)
	f := w.node("a")
	d := dir(t, f, "/proj")
	p := w.pack(t, w.last, sizes(1000, 4096))
	p.read(t, d, 0)
	for _, s := range w.stores {
		s.Inject(faultstore.Fault{Op: faultstore.Get, Do: faultstore.Unavailable()})
	}
	if _, err := tryGet(d, "f1"); !errors.Is(err, syscall.EIO) {
		t.Errorf("read without stores: %v", err)
	}
	for _, s := range w.stores {
		s.Heal()
	}
	for i := 1; i < 1000; i++ {
		p.read(t, d, i)
	}
}

// TestPackMoves: readers follow their files when a pack was rewritten and deleted
// under them, and what is in memory stays true.
func TestPackMoves(t *testing.T) {
	w := newPackWorld(t)
	f := w.node("a")
	d := dir(t, f, "/proj")
	p := w.pack(t, w.last, sizes(512, 16<<10)) // two segments
	var open []*namespace.File
	for i := range 512 {
		if i == 2 || i == 275 || i == 400 {
			fl, err := d.Open(ctx, me, fmt.Sprint("f", i), syscall.O_RDONLY)
			if err != nil {
				t.Fatal(err)
			}
			defer fl.Close()
			open = append(open, fl)
		}
	}
	p.read(t, d, 0)
	p.read(t, d, 1)
	w.repack(t, w.last, p, []int{2, 275, 400})
	if err := w.repo(t).Remove(ctx, p.object.Key("proj"), p.object.Layout); err != nil {
		t.Fatal(err)
	}
	for k, i := range []int{2, 275, 400} {
		b := make([]byte, 16<<10)
		if _, err := open[k].ReadAt(ctx, me, b, 0); err != nil {
			t.Fatalf("f%d, whose pack is gone: %v", i, err)
		}
		same(t, "moved file", b, p.content(i))
	}
	if _, err := tryGet(d, "f500"); !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.EIO) {
		t.Errorf("a file whose bytes are gone: %v", err)
	}
}

// repack moves members to another pack.
func (w *packWorld) repack(t *testing.T, m *metadata.FS, p *packed, list []int) {
	t.Helper()
	var members []metadata.PackMember
	var data []byte
	for _, i := range list {
		fl, err := m.Open(ctx, m.Tree(), fmt.Sprint("f", i))
		if err != nil {
			t.Fatal(err)
		}
		s, err := fl.Newest(ctx)
		if err := errors.Join(err, fl.Close()); err != nil {
			t.Fatal(err)
		}
		members = append(members, metadata.PackMember{Slot: s, Offset: int64(len(data)), Sum: s.Source.Sum})
		data = append(data, p.content(i)...)
	}
	pack, err := m.BeginPack(ctx, members)
	if err != nil {
		t.Fatal(err)
	}
	ref := objfmt.ObjectRef{Object: pack.Object}
	wr, err := w.repo(t).Create(ctx, ref.Key("proj"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = wr.Write(data)
	if err != nil {
		t.Fatal(err)
	}
	if ref.Layout, err = wr.Close(); err != nil {
		t.Fatal(err)
	}
	if won, err := pack.Publish(ctx, ref); err != nil || won != len(list) {
		t.Fatalf("%d moved, %v", won, err)
	}
	if err := pack.Finish(ctx); err != nil {
		t.Fatal(err)
	}
}
