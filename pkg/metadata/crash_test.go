package metadata

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"marfs/internal/fault"
	"marfs/pkg/objfmt"
)

// crashCase is one operation on a file "f" that holds "old" (archived if asked
// for); the name "g" holds "other". It is stopped dead at every point it passes.
type crashCase struct {
	name string
	prep func(w *world) // before the fault is armed
	run  func(w *world) error
	old  map[string]string // what a crash may leave: name -> content; "-": no such name
	new  map[string]string
}

const gone = "-"

var crashCases = []crashCase{
	{
		name: "create",
		run:  func(w *world) error { return w.tryFile("n", "text") },
		old:  map[string]string{"n": ""}, new: map[string]string{"n": "text"},
	},
	{
		name: "stream",
		run: func(w *world) error {
			_, err := w.stream(w.FS, w.pinned("f"), 7)
			return err
		},
		old: map[string]string{"f": "old"}, new: map[string]string{"f": "object"},
	},
	{
		name: "change",
		run: func(w *world) error {
			return w.change("f", func(s *Session) error { return publishBody(s, "new", objfmt.Final) })
		},
		old: map[string]string{"f": "old"}, new: map[string]string{"f": "new"},
	},
	{
		name: "change of an archived file",
		prep: func(w *world) { w.pack(w.pinned("f")) },
		run: func(w *world) error {
			return w.change("f", func(s *Session) error { return publishBody(s, "new", objfmt.Final) })
		},
		old: map[string]string{"f": "object"}, new: map[string]string{"f": "new"},
	},
	{
		name: "table with a tail",
		run:  func(w *world) error { return w.change("f", func(s *Session) error { return w.publishTables(s) }) },
		old:  map[string]string{"f": "old|table of 1"}, new: map[string]string{"f": "table of 2"},
	},
	{
		name: "append",
		run: func(w *world) error {
			fl := w.pinned("f")
			base, err := fl.Newest(ctx)
			if err != nil {
				return err
			}
			o, err := w.Append(ctx, fl, me("f"), base)
			if err != nil {
				return err
			}
			if _, err := o.Body().WriteAt([]byte("er"), 3); err != nil {
				return err
			}
			_, err = o.Commit(ctx, 5, objfmt.Checksum([]byte("older")))
			return err
		},
		old: map[string]string{"f": "old"}, new: map[string]string{"f": "older"},
	},
	{
		name: "cut",
		run:  func(w *world) error { return w.Truncate(ctx, w.pinned("f"), me("f"), 2) },
		old:  map[string]string{"f": "old"}, new: map[string]string{"f": "ol"},
	},
	{
		name: "extend",
		run:  func(w *world) error { return w.Truncate(ctx, w.pinned("f"), me("f"), 4) },
		old:  map[string]string{"f": "old"}, new: map[string]string{"f": "old\x00"},
	},
	{
		name: "empty",
		run:  func(w *world) error { return w.Truncate(ctx, w.pinned("f"), me("f"), 0) },
		old:  map[string]string{"f": "old"}, new: map[string]string{"f": ""},
	},
	{
		name: "unlink",
		run:  func(w *world) error { return w.Unlink(ctx, me("f"), w.Tree(), "f") },
		old:  map[string]string{"f": "old"}, new: map[string]string{"f": gone},
	},
	{
		name: "rename over",
		run: func(w *world) error {
			return w.Rename(ctx, me("f"), w.Tree(), "f", w.Tree(), "g", "g", 0)
		},
		old: map[string]string{"f": "old", "g": "other"}, new: map[string]string{"f": gone, "g": "old"},
	},
	{
		name: "pack",
		run: func(w *world) error {
			p, err := w.BeginPack(ctx, w.members(w.pinned("f"), w.pinned("g")))
			if err != nil {
				return err
			}
			r := ref(p.Object, 0, 1<<20)
			w.store.put(r)
			if _, err := p.Publish(ctx, r); err != nil {
				return err
			}
			return p.Finish(ctx)
		},
		old: map[string]string{"f": "old|object", "g": "other|object"}, new: map[string]string{"f": "object", "g": "object"},
	},
	{
		name: "batch",
		run:  func(w *world) error { return w.batch("m", "n") },
		old:  map[string]string{"m": gone + "||object", "n": gone + "||object"}, new: map[string]string{"m": "object", "n": "object"},
	},
	{
		name: "release",
		prep: func(w *world) { w.pack(w.pinned("f")) },
		run: func(w *world) error {
			_, err := w.pinned("f").Release(ctx)
			return err
		},
		old: map[string]string{"f": "object"}, new: map[string]string{"f": "object"},
	},
	{
		name: "release a pack",
		prep: func(w *world) { w.pack(w.pinned("f"), w.pinned("g")) },
		run: func(w *world) error {
			packs, err := w.Resident(ctx)
			if err != nil {
				return err
			}
			_, err = w.ReleasePack(ctx, packs[0].Object)
			return err
		},
		old: map[string]string{"f": "object", "g": "object"}, new: map[string]string{"f": "object", "g": "object"},
	},
	{
		name: "restore a deletion",
		prep: func(w *world) { w.must(w.Unlink(ctx, me("f"), w.Tree(), "f")) },
		run:  func(w *world) error { return w.Restore(ctx, me("f"), w.trash()[0], w.Tree(), "f") },
		old:  map[string]string{"f": gone}, new: map[string]string{"f": "old"},
	},
	{
		name: "restore a version",
		prep: func(w *world) {
			_, err := w.stream(w.FS, w.pinned("f"), 5)
			w.must(err)
		},
		run: func(w *world) error {
			r, err := w.ReadTrash(ctx, w.trash()[0])
			if err != nil {
				return err
			}
			_, err = w.RestoreVersion(ctx, w.pinned("f"), me("f"), r.Content)
			return err
		},
		old: map[string]string{"f": "object"}, new: map[string]string{"f": "old"},
	},
	{
		name: "expire",
		prep: func(w *world) {
			w.pack(w.pinned("f"), w.pinned("g"))
			_, err := w.stream(w.FS, w.pinned("f"), 5)
			w.must(err)
			w.must(w.change("f", func(s *Session) error { return w.publishTables(s) }))
			w.must(w.Unlink(ctx, me("f"), w.Tree(), "f"))
			w.pass(31 * 24 * time.Hour)
		},
		run: func(w *world) error {
			_, err := w.Expire(ctx, w.trash(), *w.clock, nil)
			return err
		},
		old: map[string]string{"f": gone, "g": "object"}, new: map[string]string{"f": gone, "g": "object"},
	},
	{
		name: "abort",
		run: func(w *world) error {
			return w.change("f", func(s *Session) error {
				w.store.put(ref(s.Object, 3, 1))
				_, _, err := s.NewBody(ctx)
				return errors.Join(err, syscall.ECANCELED)
			})
		},
		old: map[string]string{"f": "old"}, new: map[string]string{"f": "old"},
	},
}

func (w *world) tryFile(name, text string) error {
	fl, err := w.Create(ctx, me(name), w.Tree(), name, 0o644)
	if err != nil {
		return err
	}
	defer fl.Close()
	return w.commitOwn(fl, text)
}

func (w *world) pinned(name string) *File {
	w.t.Helper()
	fl, err := w.Open(ctx, w.Tree(), name)
	w.must(err)
	w.t.Cleanup(func() { fl.Close() })
	return fl
}

// change runs fn in a session, which it ends, or aborts when fn fails. That an
// abort was asked for is no error.
func (w *world) change(name string, fn func(s *Session) error) error {
	fl := w.pinned(name)
	base, err := fl.Newest(ctx)
	if err != nil {
		return err
	}
	s, err := w.Begin(ctx, fl, me(name), base)
	if err != nil {
		return err
	}
	if err := fn(s); errors.Is(err, syscall.ECANCELED) {
		return s.Abort(ctx)
	} else if err != nil {
		return errors.Join(err, s.Abort(ctx))
	}
	return s.End(ctx)
}

// publishTables commits a chunk and a tail, open, and then two chunks.
func (w *world) publishTables(s *Session) error {
	chunk := func(n uint32) objfmt.Chunk {
		r := ref(s.Object, n, 10)
		w.store.put(r)
		return objfmt.Chunk{Offset: int64(n-1) * 10, Length: 10, Object: r}
	}
	t := &objfmt.ChunkTable{Chunks: []objfmt.Chunk{chunk(1)}}
	id, src, err := s.PutTable(ctx, t)
	if err != nil {
		return err
	}
	tail, body, err := s.NewBody(ctx)
	if err != nil {
		return err
	}
	if _, err := body.WriteAt([]byte("tail"), 0); err != nil {
		return err
	}
	src.Tail, src.Stored = tail, 14
	if _, err = s.Publish(ctx, id, src, 14, time.Now(), objfmt.Open); err != nil {
		return err
	}
	t.Chunks = append(t.Chunks, chunk(2))
	if id, src, err = s.PutTable(ctx, t); err != nil {
		return err
	}
	_, err = s.Publish(ctx, id, src, 20, time.Now(), objfmt.Final)
	return err
}

// TestCrashAtEveryPoint stops each operation dead at each step it takes, before
// and after it, lets another node recover, and looks: every file wholly old or
// wholly new, an acknowledged change new, and nothing left over after the grace
// time. (dead: every later step of the process fails too, as after kill -9.)
func TestCrashAtEveryPoint(t *testing.T) {
	for _, c := range crashCases {
		t.Run(c.name, func(t *testing.T) {
			w := newCrashWorld(t, c)
			stop := fault.Trace()
			err := c.run(w)
			points := stop()
			w.must(err)
			if len(points) < 4 {
				t.Errorf("only %d points: the operation does not go through them", len(points))
			}
			for _, point := range slices.Sorted(maps.Keys(points)) {
				for n := range points[point] {
					crashAt(t, c, fmt.Sprintf("%s=dead:%d", point, n+1))
				}
			}
		})
	}
}

func newCrashWorld(t *testing.T, c crashCase) *world {
	w := newWorldIn(t, fastDir(t))
	// The same ids each time: whether two share a fan-out directory decides which
	// steps are taken.
	w.FS.o.Rand = rand.NewChaCha8([32]byte{1})
	w.file("f", "old")
	w.file("g", "other")
	if c.prep != nil {
		c.prep(w)
	}
	return w
}

func crashAt(t *testing.T, c crashCase, spec string) {
	w := newCrashWorld(t, c)
	disarm, err := fault.Arm(spec)
	w.must(err)
	err = c.run(w)
	if !disarm() {
		t.Errorf("%s: not reached", spec)
	}
	w.FS = w.node("node2")
	w.must(w.Recover(ctx, nil))
	w.wantOldOrNew(c, spec, err == nil)
	w.must(w.Recover(ctx, nil)) // looking has healed a missing home: now recovery finds the file
	w.pass(2 * time.Hour)
	w.must(w.Sweep(ctx, *w.clock, nil))
	w.wantWhole(c, spec, err == nil)
	w.expire()
	w.expire() // packs after what they held
	w.pass(2 * time.Hour)
	w.must(w.Sweep(ctx, *w.clock, nil))
	w.wantWhole(c, spec+", expired", err == nil)
}

func (w *world) wantWhole(c crashCase, spec string, acked bool) {
	w.t.Helper()
	w.wantOldOrNew(c, spec, acked)
	for _, problem := range w.audit() {
		w.t.Errorf("%s: %s", spec, problem)
	}
}

// wantOldOrNew: an operation that returned success must have happened.
func (w *world) wantOldOrNew(c crashCase, spec string, acked bool) {
	w.t.Helper()
	have := map[string]string{}
	for name := range c.new {
		have[name] = w.shown(name)
	}
	if matches(have, c.new) || !acked && matches(have, c.old) {
		return
	}
	// A name that was not made yet, or a rename between: any single name may be old.
	if !acked && mixed(have, c) {
		return
	}
	w.t.Errorf("%s: acked %v, have %q, old %q, new %q", spec, acked, have, c.old, c.new)
}

func (w *world) shown(name string) string {
	fl, err := w.Open(ctx, w.Tree(), name)
	if errors.Is(err, syscall.ENOENT) {
		return gone
	}
	w.must(err)
	defer fl.Close()
	s, err := fl.Newest(ctx)
	w.must(err)
	text, err := contentOf(fl, s)
	w.must(err)
	st, err := fl.Inode().Stat()
	w.must(err)
	if st.Size != s.Size {
		w.t.Errorf("%s: st_size %d, slot says %d", name, st.Size, s.Size)
	}
	if strings.HasPrefix(text, "object ") {
		text = "object"
	}
	return text
}

func matches(have, want map[string]string) bool {
	for name, text := range have {
		if !among(text, want[name]) {
			return false
		}
	}
	return true
}

func among(text, alternatives string) bool {
	for a := range strings.SplitSeq(alternatives, "|") {
		if a == text {
			return true
		}
	}
	return false
}

// mixed: only a create may be found before its name exists.
func mixed(have map[string]string, c crashCase) bool {
	return c.name == "create" && have["n"] == gone
}

// fastDir is a directory where fsync is cheap, if there is one with user xattrs:
// these tests are about order, not about power.
func fastDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "marfs-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if syscall.Setxattr(dir, "user.test", []byte("x"), 0) != nil {
		return t.TempDir()
	}
	return dir
}
