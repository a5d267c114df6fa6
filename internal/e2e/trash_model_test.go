package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"marfs/internal/fault"
	"marfs/internal/testenv"
	"marfs/pkg/config"
	"marfs/pkg/namespace"
	"marfs/pkg/trash"
)

// The model of TestTrashModel. Every content that is ever written is different: a
// seed and a size, both of which its first bytes tell, so that whatever is found
// anywhere can be named and judged whole.

// content is what a regular file holds: the first size bytes of what was written;
// the zero value is an empty file.
type content struct {
	seed  uint64
	whole int // bytes written
	size  int // bytes left by truncate: 0, or at least contentHead
}

const contentHead = 16

func (c content) bytes() []byte {
	if c.size == 0 {
		return nil
	}
	b := noisy(c.seed, c.whole)
	binary.LittleEndian.PutUint64(b, c.seed)
	binary.LittleEndian.PutUint64(b[8:], uint64(c.whole))
	return b[:c.size]
}

func (c content) cut(n int) content {
	if n == 0 {
		return content{}
	}
	return content{c.seed, c.whole, n}
}

// contentOf names the content b; an error if it is none.
func contentOf(b []byte) (content, error) {
	if len(b) == 0 {
		return content{}, nil
	}
	if len(b) < contentHead {
		return content{}, fmt.Errorf("%d bytes, fewer than any content has", len(b))
	}
	c := content{binary.LittleEndian.Uint64(b), int(binary.LittleEndian.Uint64(b[8:])), len(b)}
	if c.whole < len(b) || c.whole > 1<<20 {
		return content{}, fmt.Errorf("%d bytes that say they are of %d", len(b), c.whole)
	}
	if want := c.bytes(); !bytes.Equal(b, want) {
		return content{}, fmt.Errorf("content %x is damaged: %s", c.seed, difference(b, want))
	}
	return c, nil
}

// tree is what one worker's directory holds: names, and which of them are one file.
type tree struct {
	names map[string]int       // name -> file; -1: a directory, -2: a symlink
	files map[int]content      // file -> content, while it has a name
	last  int                  // highest file given out
	trash map[content][]string // contents that must be in trash, and the paths they may have there
}

const (
	aDir  = -1
	aLink = -2
)

func newTree() *tree {
	return &tree{names: map[string]int{}, files: map[int]content{}, trash: map[content][]string{}}
}

func (t *tree) clone() *tree {
	return &tree{names: maps.Clone(t.names), files: maps.Clone(t.files), last: t.last, trash: maps.Clone(t.trash)}
}

// drop removes a name. The content of a file without names is in trash from then on.
func (t *tree) drop(name string) {
	f, ok := t.names[name]
	delete(t.names, name)
	if !ok || f < 0 || len(t.namesOf(f)) > 0 {
		return
	}
	t.toTrash(t.files[f], name)
	delete(t.files, f)
}

func (t *tree) namesOf(f int) (names []string) {
	for name, g := range t.names {
		if g == f {
			names = append(names, name)
		}
	}
	return names
}

// replaced notes that the content of a file was replaced: it is in trash under any
// of the file's names, for the kernel does not tell by which it was opened.
func (t *tree) replaced(f int) { t.toTrash(t.files[f], t.namesOf(f)...) }

// toTrash notes a content; empty ones cannot be told from each other.
func (t *tree) toTrash(c content, names ...string) {
	if c.size > 0 {
		t.trash[c] = names
	}
}

// shape is what can be seen of a tree: each name with its content, and the first
// name of the same file.
func (t *tree) shape() map[string]string {
	out := map[string]string{}
	for name, f := range t.names {
		switch f {
		case aDir:
			out[name] = "directory"
		case aLink:
			out[name] = "symlink"
		default:
			first := name
			for other, g := range t.names {
				if g == f && other < first {
					first = other
				}
			}
			out[name] = fmt.Sprintf("%v as %s", t.files[f], first)
		}
	}
	return out
}

// worker does operations in a directory of its own and knows what must come of
// them. When the daemon dies under one, it may have happened or not.
type worker struct {
	m    *testenv.Mount
	id   int
	rnd  *rand.Rand
	seed *atomic.Uint64
	is   *tree
	may  []*tree // what else there may be after a crash
	ops  int
	held *os.File // a deleted file that is still read
	hold content
}

func (w *worker) dir() string            { return fmt.Sprint("w", w.id) }
func (w *worker) rel(name string) string { return filepath.Join(w.dir(), name) }
func (w *worker) path(name string) string {
	return w.m.Join(w.dir(), name)
}

// step does one call that changes the tree as next says. The error is the daemon's
// death.
func (w *worker) step(do func() error, next func(t *tree)) error {
	after := w.is.clone()
	next(after)
	w.may = []*tree{after}
	if err := do(); err != nil {
		return err
	}
	w.is, w.may = after, nil
	w.ops++
	return nil
}

func (w *worker) fresh() content {
	size := contentHead + w.rnd.IntN(1<<(4+w.rnd.IntN(14)))
	return content{w.seed.Add(1), size, size}
}

// pick returns the name of a file, "" if there is none.
func (w *worker) pick() string {
	var files []string
	for name, f := range w.is.names {
		if f >= 0 {
			files = append(files, name)
		}
	}
	if len(files) == 0 {
		return ""
	}
	sort.Strings(files)
	return files[w.rnd.IntN(len(files))]
}

func (w *worker) newName() string { return fmt.Sprint("f", w.rnd.IntN(40)) }

// op does one random operation.
func (w *worker) op() error {
	name := w.newName()
	f, there := w.is.names[name]
	switch k := w.rnd.IntN(20); {
	case there && f < 0 || k == 0:
		return w.odd(name, there, f)
	case !there && k < 12:
		return w.create(name)
	case !there:
		return w.rename(name)
	case k < 6:
		return w.overwrite(name)
	case k < 9:
		return w.rename(name)
	case k < 11:
		return w.truncate(name)
	case k < 13:
		return w.unlinkOpen(name)
	case k < 15:
		return w.link(name)
	}
	return w.step(func() error { return os.Remove(w.path(name)) }, func(t *tree) { t.drop(name) })
}

// odd makes and removes directories and symlinks.
func (w *worker) odd(name string, there bool, f int) error {
	switch {
	case there && f < 0:
		return w.step(func() error { return os.Remove(w.path(name)) }, func(t *tree) { delete(t.names, name) })
	case there:
		return nil
	case w.rnd.IntN(2) == 0:
		return w.step(func() error { return os.Mkdir(w.path(name), 0o750) }, func(t *tree) { t.names[name] = aDir })
	}
	return w.step(func() error { return os.Symlink("nowhere", w.path(name)) }, func(t *tree) { t.names[name] = aLink })
}

// create makes a file and writes it: a crash may leave it away, empty, or whole.
func (w *worker) create(name string) error {
	c := w.fresh()
	var file *os.File
	err := w.step(func() (err error) {
		file, err = os.OpenFile(w.path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
		return err
	}, func(t *tree) {
		t.last++
		t.names[name], t.files[t.last] = t.last, content{}
	})
	if err != nil {
		return err
	}
	return w.step(func() error { return put(file, c) }, func(t *tree) { t.files[t.names[name]] = c })
}

func put(f *os.File, c content) error {
	_, err := f.Write(c.bytes())
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

func (w *worker) overwrite(name string) error {
	c := w.fresh()
	return w.step(func() error {
		f, err := os.OpenFile(w.path(name), os.O_TRUNC|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return put(f, c)
	}, func(t *tree) {
		f := t.names[name]
		t.replaced(f)
		t.files[f] = c
	})
}

// rename moves some file to name, perhaps over what is there.
func (w *worker) rename(name string) error {
	from := w.pick()
	if from == "" || from == name {
		return nil
	}
	if w.is.names[from] == w.is.names[name] && w.is.names[name] > 0 {
		return w.step(func() error { return os.Rename(w.path(from), w.path(name)) }, func(*tree) {}) // does nothing
	}
	return w.step(func() error { return os.Rename(w.path(from), w.path(name)) }, func(t *tree) {
		f := t.names[from]
		delete(t.names, from)
		t.drop(name)
		t.names[name] = f
	})
}

// truncate cuts a content; to nothing, it is replaced by an empty one.
func (w *worker) truncate(name string) error {
	c := w.is.files[w.is.names[name]]
	n := 0
	if c.size > contentHead && w.rnd.IntN(2) == 0 {
		n = contentHead + w.rnd.IntN(c.size-contentHead)
	}
	return w.step(func() error { return os.Truncate(w.path(name), int64(n)) }, func(t *tree) {
		if n == 0 {
			t.replaced(t.names[name])
		}
		t.files[t.names[name]] = c.cut(n)
	})
}

func (w *worker) link(name string) error {
	to := w.newName()
	if _, there := w.is.names[to]; there {
		return nil
	}
	return w.step(func() error { return os.Link(w.path(name), w.path(to)) }, func(t *tree) { t.names[to] = t.names[name] })
}

// unlinkOpen removes a file that it goes on reading for a while. One with other
// names could be changed by those.
func (w *worker) unlinkOpen(name string) error {
	if len(w.is.namesOf(w.is.names[name])) > 1 {
		return nil
	}
	if err := w.readHeld(); err != nil {
		return err
	}
	f, err := os.Open(w.path(name))
	if err != nil {
		return err
	}
	w.held, w.hold = f, w.is.files[w.is.names[name]]
	return w.step(func() error { return os.Remove(w.path(name)) }, func(t *tree) { t.drop(name) })
}

// errWrong is a finding; other errors of a worker are the daemon's death.
var errWrong = errors.New("wrong")

// readHeld reads the deleted file that is still open to its end, and closes it.
func (w *worker) readHeld() error {
	if w.held == nil {
		return nil
	}
	f := w.held
	w.held = nil
	defer f.Close()
	got, err := io.ReadAll(f)
	if errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED) {
		return nil // the daemon that it was opened with is dead
	}
	if err != nil || !bytes.Equal(got, w.hold.bytes()) {
		return fmt.Errorf("%w: a deleted file that is open reads %d bytes (%v), want %v", errWrong, len(got), err, w.hold)
	}
	return nil
}

func ended(m *testenv.Mount) bool {
	select {
	case <-m.Ended():
		return true
	case <-time.After(time.Second): // the kernel may be faster to tell than the parent
		return false
	}
}

// run does operations until enough is closed or the daemon dies, and counts them.
func (w *worker) run(enough <-chan struct{}, count func()) error {
	for {
		select {
		case <-enough:
			return w.readHeld()
		default:
		}
		if err := w.op(); err != nil {
			if errors.Is(err, errWrong) || !ended(w.m) {
				return fmt.Errorf("worker %d: %w", w.id, err)
			}
			return nil
		}
		count()
	}
}

// look reads the worker's directory and takes what it finds as the truth from now
// on: it must be what the model says or, after a crash, what it says after the
// operation under way.
func (w *worker) look() error {
	got := newTree()
	inos := map[uint64]int{}
	entries, err := os.ReadDir(w.path(""))
	if err != nil {
		return err
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			return err
		}
		switch fi.Mode().Type() {
		case fs.ModeDir:
			got.names[e.Name()] = aDir
		case fs.ModeSymlink:
			got.names[e.Name()] = aLink
		default:
			ino := fi.Sys().(*syscall.Stat_t).Ino
			if inos[ino] == 0 {
				got.last++
				inos[ino] = got.last
				b, err := os.ReadFile(w.path(e.Name()))
				if err == nil {
					got.files[got.last], err = contentOf(b)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", w.rel(e.Name()), err)
				}
			}
			got.names[e.Name()] = inos[ino]
		}
	}
	shape := got.shape()
	for _, t := range append(slices.Clone(w.may), w.is) {
		if maps.Equal(shape, t.shape()) {
			w.is, w.may = w.settle(t), nil
			return nil
		}
	}
	return fmt.Errorf("worker %d has\n%s\nwant\n%s", w.id, lines(shape), lines(w.is.shape()))
}

// settle makes t the model. What every possible outcome has put in trash must be
// there; what only some have may be.
func (w *worker) settle(t *tree) *tree {
	t = t.clone()
	for _, other := range append(w.may, w.is) {
		maps.DeleteFunc(t.trash, func(c content, _ []string) bool { _, ok := other.trash[c]; return !ok })
	}
	return t
}

func lines(shape map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(shape)) {
		fmt.Fprintf(&b, "\t%s: %s\n", name, shape[name])
	}
	return b.String()
}

// live is every content of the workers' files.
func live(workers []*worker) map[content]bool {
	out := map[content]bool{}
	for _, w := range workers {
		for _, c := range w.is.files {
			out[c] = true
		}
	}
	return out
}

// TestTrashModel does random operations from several workers, with kills of the
// daemon and of gc, and compares what is there with a model: every file is live or
// in trash, every byte of both can be read, and gc, which keeps nothing here, leaves
// nothing that no live file needs.
func TestTrashModel(t *testing.T) {
	o := edges()
	o.Namespace = []string{"trash: {keep: 0s, grace: 0s}"}
	m := testenv.NewMount(t, o)
	rnd := rand.New(rand.NewPCG(*modelSeed, 1))
	var seed atomic.Uint64
	workers := make([]*worker, 4)
	for i := range workers {
		workers[i] = &worker{m: m, id: i, rnd: rand.New(rand.NewPCG(*modelSeed, uint64(2+i))), seed: &seed, is: newTree()}
		if err := os.Mkdir(workers[i].path(""), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	total := often(10_000, 300_000)
	for round, done := 0, 0; done < total; round++ {
		n := total/15 + 1
		kill, gc := round%3 != 0, round%3 == 2
		busy(t, m, workers, rnd, n, kill, gc)
		done += n
		if kill {
			m.Remount()
		}
		for _, w := range workers {
			if err := w.look(); err != nil {
				t.Fatalf("round %d, -seed %d: %v", round, *modelSeed, err)
			}
		}
		if !gc {
			wantInTrash(t, m, workers)
		}
		for _, w := range workers {
			clear(w.is.trash)
		}
		collect(t, m)
		wantNothingElse(t, m)
		if t.Failed() {
			t.Fatalf("round %d, -seed %d", round, *modelSeed)
		}
	}
}

var modelSeed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the random operations of TestTrashModel")

// busy lets the workers do n operations, with collectors that are killed again and
// again beside them, and kills the daemon in the midst.
func busy(t *testing.T, m *testenv.Mount, workers []*worker, rnd *rand.Rand, n int, kill, gc bool) {
	t.Helper()
	enough := make(chan struct{})
	stop := sync.OnceFunc(func() { close(enough) })
	var left atomic.Int64
	left.Store(int64(n))
	var all, beside sync.WaitGroup
	errs := make([]error, len(workers))
	for _, w := range workers {
		all.Go(func() {
			errs[w.id] = w.run(enough, func() {
				if left.Add(-1) <= 0 {
					stop()
				}
			})
			if errs[w.id] != nil {
				stop()
			}
		})
	}
	if gc {
		beside.Go(func() { killedCollectors(m, rnd, enough) })
	}
	<-enough
	if kill {
		m.Kill()
	}
	all.Wait()
	beside.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// killedCollectors runs gc after gc, most of which are killed somewhere.
func killedCollectors(m *testenv.Mount, rnd *rand.Rand, enough <-chan struct{}) {
	var points []string
	for _, p := range fault.Names() {
		for _, part := range []string{"metadata.gc.", "metadata.take", "metadata.putback", "metadata.syncfs", "metadata.fence.", "metadata.end."} {
			if strings.HasPrefix(p, part) {
				points = append(points, p)
			}
		}
	}
	for {
		select {
		case <-enough:
			return
		default:
		}
		c := m.Command("marfsctl", "gc", "--apply")
		if rnd.IntN(4) > 0 {
			c.Env = append(c.Env, fmt.Sprintf("MARFS_FAULT=%s=kill:%d", points[rnd.IntN(len(points))], 1+rnd.IntN(5)))
		}
		_ = c.Run() // however it ends
	}
}

// collect runs gc until there is nothing left for it.
func collect(t *testing.T, m *testenv.Mount) {
	t.Helper()
	// What a killed one has taken goes back in the second or third run, when the file
	// that its record shares with those that went in the first has rested, and then goes.
	for range 5 {
		m.Ctl("gc", "--apply")
	}
}

// wantNothingElse compares the stores and the private directories with what the
// live files need: not one object, body, table or record more.
func wantNothingElse(t *testing.T, m *testenv.Mount) {
	t.Helper()
	need := map[string]bool{}
	for names := range slices.Chunk(filesBelow(t, m.Path), 500) {
		files, _ := statFiles(t, m, names)
		for _, f := range files {
			for _, o := range f.Objects {
				need[o.Key] = true
			}
		}
	}
	for i := range 6 {
		have := map[string]bool{}
		for _, f := range filesBelow(t, filepath.Join(m.Dir, fmt.Sprint("store", i))) {
			if f != "marfs-store.json" && !strings.HasPrefix(f, "~tmp/") {
				have[f] = true
			}
		}
		for key := range have {
			if !need[key] {
				t.Errorf("store %d: %s is of no file; the log of gc says:\n%s", i, key, logged(t, m, key))
			}
		}
	}
	for _, place := range []string{"files", "staged"} {
		for _, f := range filesBelow(t, filepath.Join(m.Dir, "metadata", place)) {
			fi, err := os.Lstat(filepath.Join(m.Dir, "metadata", place, f))
			if err != nil {
				t.Error(err)
			} else if fi.Sys().(*syscall.Stat_t).Nlink == 1 {
				t.Errorf("%s/%s is the home of a file without names and records", place, f)
			}
		}
	}
	for _, private := range []string{"bodies", "chunks", "versions", "trash", "dead", "work", "repack", "packs"} {
		left := filesBelow(t, filepath.Join(m.Dir, "metadata", private))
		switch private {
		case "packs":
			left = slices.DeleteFunc(left, func(name string) bool { return name == "claims" || needed(need, name) })
		case "repack": // hints of packs that live for the most part
			left = slices.DeleteFunc(left, func(name string) bool { return needed(need, filepath.Dir(name)) })
		}
		if private == "chunks" {
			continue // live files have some: judged by the objects they lead to
		}
		if len(left) > 0 {
			t.Errorf("%s still has %d files: %.300q", private, len(left), left)
		}
	}
}

// needed tells whether need has the object of this name.
func needed(need map[string]bool, object string) bool {
	for key := range need {
		if path.Base(key) == object || strings.HasPrefix(path.Base(key), object+".") {
			return true
		}
	}
	return false
}

// logged are the lines of the logs of gc that tell of an object.
func logged(t *testing.T, m *testenv.Mount, key string) string {
	t.Helper()
	object, _, _ := strings.Cut(path.Base(key), ".")
	var out strings.Builder
	dir := filepath.Join(m.Dir, "metadata", "log")
	for _, name := range filesBelow(t, dir) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, object) {
				fmt.Fprintf(&out, "\t%s: %s", name, line)
			}
		}
	}
	return out.String()
}

// wantInTrash reads everything in trash and looks for each content that must be
// there, whole. A live one must not.
func wantInTrash(t *testing.T, m *testenv.Mount, workers []*worker) {
	t.Helper()
	lives := live(workers)
	found := map[content][]string{} // once for each name that a file had
	for e, b := range trashContents(t, m) {
		c, err := contentOf(b)
		if err != nil {
			t.Errorf("trash entry %s of %s: %v", e.TrashID(), e.Path, err)
			continue
		}
		if c.size > 0 {
			found[c] = append(found[c], e.Path)
			if lives[c] {
				t.Errorf("%s: content %x is in trash and live", e.Path, c.seed)
			}
		}
	}
	for _, w := range workers {
		for c, names := range w.is.trash {
			if !slices.ContainsFunc(names, func(n string) bool { return slices.Contains(found[c], "/"+w.rel(n)) }) {
				t.Errorf("content %x of %d bytes, once %s/%v, is in trash as %q", c.seed, c.size, w.dir(), names, found[c])
			}
		}
	}
}

// trashContents reads all that is in trash, through the library: one process for a
// thousand entries.
func trashContents(t *testing.T, m *testenv.Mount) iter.Seq2[namespace.TrashEntry, []byte] {
	t.Helper()
	return func(yield func(namespace.TrashEntry, []byte) bool) {
		cfg, err := config.Load(m.Config)
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		sys, err := config.Open(ctx, cfg, config.Batch, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer sys.Close()
		root := namespace.Caller{PID: uint32(os.Getpid())}
		for e, err := range sys.FS.Trash(ctx, root, namespace.TrashQuery{Path: "/", Filter: trash.Filter{Versions: true}}) {
			if err != nil {
				t.Error(err)
				continue
			}
			if e.Mode&syscall.S_IFMT != syscall.S_IFREG {
				continue
			}
			old, err := sys.FS.OpenTrash(ctx, root, e.TrashID())
			if err != nil {
				t.Errorf("%s of %s: %v", e.TrashID(), e.Path, err)
				continue
			}
			b := make([]byte, old.Size())
			n, err := old.ReadAt(ctx, b, 0)
			if err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("%s of %s: %v", e.TrashID(), e.Path, err)
			}
			old.Close()
			if !yield(e, b[:n]) {
				return
			}
		}
	}
}
