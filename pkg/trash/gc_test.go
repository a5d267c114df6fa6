package trash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/posix"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// gcObjects are the objects of a test: which exist.
type gcObjects struct {
	mu   sync.Mutex
	has  map[objfmt.ObjectID]bool
	gone int // how many deletions found something
	fail func(objfmt.ObjectID) error
}

func (o *gcObjects) Delete(_ context.Context, ref objfmt.ObjectRef) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		if err := o.fail(ref.Object); err != nil {
			return err
		}
	}
	if o.has[ref.Object] {
		o.gone++
	}
	delete(o.has, ref.Object)
	return nil
}

func (o *gcObjects) DeletePrefix(_ context.Context, id objfmt.ObjectID, _ func(uint32) bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.has, id)
	return nil
}

// gcWorld is a metadata directory whose clock a test turns, on from the real time,
// which inodes have.
type gcWorld struct {
	*Trash
	t     testing.TB
	root  string
	store *gcObjects
	start time.Time
	past  time.Duration // since start
	opens *openCounter
	nodes int

	objects map[string]objfmt.ObjectID // of files, by the name they were made with
}

const gcDay = 24 * time.Hour

func newGCWorld(t testing.TB, p Policy) *gcWorld {
	t.Helper()
	w := &gcWorld{t: t, root: t.TempDir(), store: &gcObjects{has: map[objfmt.ObjectID]bool{}}, start: time.Now(), objects: map[string]objfmt.ObjectID{}}
	if err := os.Chmod(w.root, 0o700); err != nil {
		t.Fatal(err)
	}
	md, err := posix.Open(w.root)
	w.must(err)
	w.must(metadata.Init(md, "test"))
	w.must(md.Close())
	w.Trash = &Trash{Namespace: "test", Policy: p}
	w.Meta = w.open()
	return w
}

func (w *gcWorld) now() time.Time { return w.start.Add(w.past) }

// open opens the directory as another node.
func (w *gcWorld) open() *metadata.FS {
	w.t.Helper()
	md, err := posix.Open(w.root)
	w.must(err)
	w.nodes++
	w.opens = &openCounter{FS: md, opened: map[string]int{}}
	m, err := metadata.Open(context.Background(), w.opens, metadata.Options{Namespace: "test", Node: fmt.Sprint("node", w.nodes),
		Grace: w.Policy.Grace, Objects: w.store, Clock: w.now, SkipTest: true})
	w.must(err)
	w.t.Cleanup(func() { m.Close(); md.Close() })
	return m
}

func (w *gcWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

var gcMe = metadata.Who{Cred: mdfs.Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}}

func gcWho(path string) metadata.Who {
	who := gcMe
	who.Path = path
	return who
}

// write gives a file, which it makes if need be, the content of one new object.
func (w *gcWorld) write(name string, size int64) {
	w.t.Helper()
	ctx := context.Background()
	fl, err := w.Meta.Open(ctx, w.Meta.Tree(), name)
	if errors.Is(err, fs.ErrNotExist) {
		fl, err = w.Meta.Create(ctx, gcWho(name), w.Meta.Tree(), name, 0o644)
	}
	w.must(err)
	defer fl.Close()
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.Meta.Begin(ctx, fl, gcWho(name), base)
	w.must(err)
	src := objfmt.Source{Kind: objfmt.SourceObj, Stored: size, Sum: 1, Object: objfmt.ObjectRef{Object: s.Object, Layout: objfmt.Layout{
		Repo: "r", Pod: "p", Geometry: objfmt.Geometry{Data: 1, Block: objfmt.BlockUnit}, WriteID: objfmt.NewID(), Size: size + 200}}}
	w.store.has[s.Object] = true
	w.objects[name] = s.Object
	_, err = s.Publish(ctx, s.NewContent(), src, size, w.now(), objfmt.Final)
	w.must(err)
	w.must(s.End(ctx))
}

func (w *gcWorld) remove(name string) {
	w.t.Helper()
	w.must(w.Meta.Unlink(context.Background(), gcWho(name), w.Meta.Tree(), name))
}

// deleted makes and removes a file.
func (w *gcWorld) deleted(name string, size int64) {
	w.t.Helper()
	w.write(name, size)
	w.remove(name)
}

func (w *gcWorld) pass(d time.Duration) { w.past += d }

// refs lists all records.
func (w *gcWorld) refs() (list []metadata.TrashRef) {
	w.t.Helper()
	days, err := w.Meta.TrashDays(context.Background())
	w.must(err)
	for _, day := range days {
		for ref, err := range w.Meta.Trash(context.Background(), day) {
			w.must(err)
			list = append(list, ref)
		}
	}
	return list
}

// left are the names, as written, of the files whose objects exist.
func (w *gcWorld) left() (names []string) {
	for name, o := range w.objects {
		if w.store.has[o] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (w *gcWorld) wantLeft(names ...string) {
	w.t.Helper()
	if have := w.left(); !slices.Equal(have, names) {
		w.t.Errorf("objects are left of %v, want %v", have, names)
	}
}

// gcSink is a log in memory.
type gcSink struct {
	bytes.Buffer
	synced int // bytes
	fail   error
}

func (s *gcSink) Write(p []byte) (int, error) {
	if s.fail != nil {
		return 0, s.fail
	}
	return s.Buffer.Write(p)
}

func (s *gcSink) Sync() error { s.synced = s.Len(); return nil }

func (s *gcSink) audit() *Audit {
	return &Audit{Run: "run", Host: "host", User: "user", Open: func() (Sink, error) { return s, nil }}
}

// lines are those of an event.
func (s *gcSink) lines(t testing.TB, event string) (list []line) {
	t.Helper()
	for _, text := range strings.SplitAfter(s.String(), "\n") {
		if text == "" {
			continue
		}
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if l.Event == event {
			list = append(list, l)
		}
	}
	return list
}

func (w *gcWorld) collector(o Options) *Collector {
	o.Clock = w.now
	if o.Workers == 0 {
		o.Workers = 3
	}
	return NewCollector(o)
}

// collect runs a collection, and Recover, that has nothing in its way.
func (w *gcWorld) collect(o Options) (Report, *gcSink) {
	w.t.Helper()
	log := &gcSink{}
	c := w.collector(o)
	r, err := c.Collect(context.Background(), w.Trash, log.audit())
	w.must(err)
	if r.Failures.Count > 0 {
		w.t.Fatalf("failures: %+v", r.Failures)
	}
	return r, log
}

func (w *gcWorld) plan(o Options) (Report, []string) {
	w.t.Helper()
	var names []string
	r, err := w.collector(o).Plan(context.Background(), w.Trash, func(c Candidate) error {
		names = append(names, fmt.Sprintf("%s %s %s", c.What, c.Why, c.Record.Path))
		return nil
	})
	w.must(err)
	slices.Sort(names)
	return r, names
}

// sums shows rows as "what why entries bytes".
func sums(rows []Row) (list []string) {
	for _, r := range rows {
		list = append(list, fmt.Sprint(r.What, " ", r.Why, " ", r.Entries, " ", r.Bytes))
	}
	return list
}

func wantSums(t testing.TB, rows []Row, want ...string) {
	t.Helper()
	if have := sums(rows); !slices.Equal(have, want) {
		t.Errorf("have %q, want %q", have, want)
	}
}

// What is older than keep goes, of every kind; what is younger stays; and the plan
// says the same.
func TestGCByAge(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: 10 * gcDay, Grace: time.Hour})
	ctx := context.Background()
	w.deleted("old", 100)
	w.write("twice", 10)
	first := w.objects["twice"]
	w.write("twice", 20)
	w.must(w.Meta.Tree().Mkdir("d", 0o755))
	w.must(w.Meta.Rmdir(ctx, gcWho("d"), w.Meta.Tree(), "d"))
	w.must(w.Meta.Tree().Symlink("x", "l"))
	w.remove("l")
	w.write("live", 1)
	w.pass(11 * gcDay)
	w.deleted("young", 1000)
	report, names := w.plan(Options{})
	want := []string{"file age 1 100", "version age 1 10", "dir age 1 0", "link age 1 0"}
	wantSums(t, report.Rows, want...)
	if wantNames := []string{"dir age d", "file age old", "link age l", "version age twice"}; !slices.Equal(names, wantNames) {
		t.Errorf("listed %q, want %q", names, wantNames)
	}
	w.wantLeft("live", "old", "twice", "young")
	report, log := w.collect(Options{})
	wantSums(t, report.Rows, want...)
	w.wantLeft("live", "twice", "young")
	if w.store.has[first] {
		t.Error("the replaced content is there")
	}
	lines := log.lines(t, "destroy")
	if len(lines) != 4 {
		t.Errorf("%d lines for 4 things: %s", len(lines), log.String())
	}
	if report, names := w.plan(Options{}); len(report.Rows) != 0 {
		t.Errorf("a second plan lists %v", names)
	}
	if days, err := w.Meta.TrashDays(ctx); err != nil || len(days) != 2 {
		t.Errorf("days %v, %v: the empty one was not removed", days, err)
	}
}

// A line of the log says everything about what it stands for.
func TestGCLogLine(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: gcDay, Grace: time.Hour})
	w.deleted("odd %\xff\n é", 100)
	object := objfmt.ObjectKey("test", w.objects["odd %\xff\n é"], 0)
	removed := w.now()
	w.pass(2 * gcDay)
	_, log := w.collect(Options{})
	lines := log.lines(t, "destroy")
	if len(lines) != 1 {
		t.Fatalf("%d lines", len(lines))
	}
	l := lines[0]
	if string(l.PathBytes) != "odd %\xff\n é" || l.Path == "" || l.Why != WhyAge || l.Kind != "file" || l.Size != 100 || l.Run != "run" || l.Host != "host" || l.User != "user" ||
		l.Namespace != "test" || len(l.Objects) != 1 || l.Objects[0] != (lineObject{Repo: "r", Key: object}) || len(l.Contents) != 1 || len(l.File) != 32 ||
		l.Owner == nil || *l.Owner != uint32(os.Geteuid()) || l.By == nil || l.How != "unlink" || l.Node != "node1" || !l.When.Equal(removed) || !l.Time.Equal(l.Time.UTC()) {
		t.Errorf("%s", log.String())
	}
}

// The log does not claim what did not happen.
func TestGCLogSpared(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: gcDay, Grace: time.Hour})
	w.deleted("f", 100)
	w.pass(2 * gcDay)
	disarm, err := fault.Arm("metadata.syncfs.before=error")
	w.must(err)
	defer disarm()
	log := &gcSink{}
	_, err = w.collector(Options{}).Collect(context.Background(), w.Trash, log.audit())
	w.must(err)
	told, spared := log.lines(t, "destroy"), log.lines(t, "spared")
	if len(told) != 1 || len(spared) != 1 || spared[0].File != told[0].File || spared[0].Path != "f" || spared[0].Why != "" || spared[0].Objects != nil {
		t.Errorf("%s", log.String())
	}
	w.wantLeft("f")
}

// Purged entries go after grace; a purge does not hurry what is younger.
func TestGCPurged(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: 10 * gcDay, Grace: 2 * time.Hour})
	w.deleted("a", 1)
	w.deleted("b", 2)
	ctx := context.Background()
	for _, ref := range w.refs() {
		r, err := w.Meta.ReadTrash(ctx, ref)
		w.must(err)
		if r.Path == "a" {
			_, err = w.Meta.Purge(ctx, ref)
			w.must(err)
		}
	}
	w.pass(time.Hour)
	report, _ := w.collect(Options{})
	wantSums(t, report.Rows)
	w.wantLeft("a", "b")
	w.pass(2 * time.Hour)
	report, log := w.collect(Options{})
	wantSums(t, report.Rows, "file purged 1 1")
	w.wantLeft("b")
	if l := log.lines(t, "destroy"); len(l) != 1 || l[0].Why != WhyPurged {
		t.Error(log.String())
	}
}

// While there is more than MaxBytes the oldest go, exactly those, and never what is
// younger than grace.
func TestGCPressure(t *testing.T) {
	for _, test := range []struct {
		max  int64
		left []string
		rows []string
	}{
		{600, []string{"f0", "f1", "f2", "f3", "f4", "f5"}, nil},
		{599, []string{"f1", "f2", "f3", "f4", "f5"}, []string{"file pressure 1 100"}},
		{300, []string{"f3", "f4", "f5"}, []string{"file pressure 3 300"}},
		{1, []string{"f4", "f5"}, []string{"file pressure 4 400"}}, // the last two are younger than grace
	} {
		t.Run(fmt.Sprint(test.max), func(t *testing.T) {
			w := newGCWorld(t, Policy{Keep: 100 * gcDay, Grace: 4 * gcDay, MaxBytes: test.max})
			for i, d := range []time.Duration{48, 48, 36, 60, 48, 1} { // removed 10, 8, 6, 4.5, 2 and 0 days ago
				w.deleted(fmt.Sprint("f", i), 100)
				w.pass(d * time.Hour)
			}
			report, _ := w.plan(Options{})
			wantSums(t, report.Rows, test.rows...)
			report, _ = w.collect(Options{})
			wantSums(t, report.Rows, test.rows...)
			w.wantLeft(test.left...)
		})
	}
}

// Old entries go by age and do not count for pressure, nor does what was purged.
func TestGCPressureCountsWhatStays(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: 10 * gcDay, Grace: time.Hour, MaxBytes: 100})
	w.deleted("old", 1000)
	w.pass(11 * gcDay)
	w.deleted("a", 100)
	w.pass(gcDay)
	report, _ := w.collect(Options{})
	wantSums(t, report.Rows, "file age 1 1000")
	w.wantLeft("a")
}

func TestHistogram(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 30, 0, time.UTC)
	h := histogram{now: now, bytes: map[int64]int64{}}
	h.add(now.Add(-time.Minute), 10)
	h.add(now.Add(-3*gcDay), 20)
	h.add(now.Add(-3*gcDay-time.Minute), 30)
	h.add(now.Add(-100*365*gcDay), 1)
	for limit, want := range map[int64]time.Time{
		61: {},
		60: now.Add(-oldestBucket).Truncate(time.Hour).Add(time.Hour),
		59: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), // the hour before noon
		29: time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC),
		9:  time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC),
	} {
		if have := h.cut(limit); !have.Equal(want) {
			t.Errorf("limit %d: cut at %v, want %v", limit, have, want)
		}
	}
}

// Caps end a run cleanly and say what is left; runs that follow do the rest.
func TestGCCaps(t *testing.T) {
	for name, o := range map[string]Options{"entries": {MaxEntries: 4}, "bytes": {MaxBytes: 49}} {
		t.Run(name, func(t *testing.T) {
			w := newGCWorld(t, Policy{Keep: gcDay, Grace: time.Hour})
			for i := range 10 {
				w.deleted(fmt.Sprint("f", i), 10)
			}
			w.pass(3 * gcDay)
			plan, _ := w.plan(o)
			wantSums(t, plan.Rows, "file age 4 40")
			if plan.Left != 6 {
				t.Errorf("the plan leaves %d", plan.Left)
			}
			for _, want := range []int{6, 2, 0} {
				c := w.collector(o)
				report, err := c.Collect(context.Background(), w.Trash, (&gcSink{}).audit())
				w.must(err)
				if len(w.left()) != want || report.Left != int64(want) || c.Capped() != (want > 0) {
					t.Errorf("%d are left, the report says %d, capped %v; want %d", len(w.left()), report.Left, c.Capped(), want)
				}
			}
		})
	}
}

// When the time is up nothing more is begun.
func TestGCMaxTime(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: gcDay, Grace: time.Hour})
	w.deleted("f", 10)
	w.pass(3 * gcDay)
	c := w.collector(Options{Until: w.now()})
	report, err := c.Collect(context.Background(), w.Trash, (&gcSink{}).audit())
	w.must(err)
	if !c.Capped() || report.Left != 1 {
		t.Errorf("capped %v, left %d", c.Capped(), report.Left)
	}
	w.wantLeft("f")
}

// gcLimiter counts what it lets pass.
type gcLimiter struct {
	asked []int
	most  int
}

func (l *gcLimiter) WaitN(_ context.Context, n int) error { l.asked = append(l.asked, n); return nil }
func (l *gcLimiter) Burst() int                           { return l.most }

// Every entry asks the limiter, never more at once than it can give.
func TestGCRate(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: gcDay, Grace: time.Hour})
	for i := range 20 {
		w.deleted(fmt.Sprint("f", i), 10)
	}
	w.pass(3 * gcDay)
	l := &gcLimiter{most: 3}
	w.collect(Options{Limit: l})
	sum := 0
	for _, n := range l.asked {
		if sum += n; n > l.most {
			t.Errorf("%d at once", n)
		}
	}
	if sum != 20 {
		t.Errorf("%d asked", sum)
	}
	w.wantLeft()
}

// Two collectors over one trash: everything goes, once.
func TestGCTwoAtOnce(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: gcDay, Grace: time.Hour})
	const n = 300
	for i := range n {
		w.deleted(fmt.Sprint("f", i), 10)
	}
	w.write("twice", 1)
	w.write("twice", 2)
	w.pass(3 * gcDay)
	other := *w.Trash
	other.Meta = w.open()
	var g sync.WaitGroup
	var done [2]int64
	for i, tr := range []*Trash{w.Trash, &other} {
		g.Go(func() {
			r, err := w.collector(Options{From: []string{"00", "80"}[i]}).Collect(context.Background(), tr, (&gcSink{}).audit())
			if err != nil || r.Failures.Count > 0 {
				t.Errorf("%v, %+v", err, r.Failures)
			}
			for _, row := range r.Rows {
				done[i] += row.Entries
			}
		})
	}
	g.Wait()
	if done[0]+done[1] != n+1 || w.store.gone != n+1 {
		t.Errorf("destroyed %v, %d objects, want %d", done, w.store.gone, n+1)
	}
	w.wantLeft("twice")
	if refs := w.refs(); len(refs) != 0 {
		t.Errorf("%d records are left", len(refs))
	}
	w.must(w.Meta.Close()) // it holds a file for the records of more removals
	if names := w.names("dead"); len(names) != 0 {
		t.Errorf("in dead/: %v", names)
	}
}

// names lists the files below a private directory.
func (w *gcWorld) names(dir string) (names []string) {
	w.t.Helper()
	w.must(filepath.WalkDir(filepath.Join(w.root, dir), func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, p)
		}
		return err
	}))
	return names
}

// scene is a trash with something of everything: what must go, and what must stay.
func (w *gcWorld) scene() {
	ctx := context.Background()
	w.deleted("old", 100)
	w.write("twice", 10)
	w.write("twice", 20)
	w.write("both", 10)
	w.write("both", 20)
	w.remove("both")
	w.write("linked", 5)
	w.must(w.Meta.Link(ctx, gcWho("linked2"), w.Meta.Tree(), "linked", w.Meta.Tree(), "linked2"))
	w.remove("linked")
	w.must(w.Meta.Tree().Mkdir("d", 0o755))
	w.must(w.Meta.Rmdir(ctx, gcWho("d"), w.Meta.Tree(), "d"))
	w.pass(5 * gcDay)
	w.deleted("young", 1000)
}

// Killed at any step and run again it ends clean: what had to go is gone, with a
// line before, and nothing else is touched.
func TestGCKilledAnywhere(t *testing.T) {
	p := Policy{Keep: 2 * gcDay, Grace: time.Hour}
	stop := fault.Trace()
	w := newGCWorld(t, p)
	w.scene()
	seen := stop()
	stop = fault.Trace()
	w.collect(Options{Workers: 1})
	steps := stop()
	if len(steps) < 6 {
		t.Fatalf("only %d points: %v; making took %v", len(steps), steps, seen)
	}
	for _, point := range slices.Sorted(maps.Keys(steps)) {
		for _, nth := range slices.Compact([]int{1, steps[point]}) {
			t.Run(fmt.Sprint(point, nth), func(t *testing.T) {
				w := newGCWorld(t, p)
				w.scene()
				log := &gcSink{}
				disarm, err := fault.Arm(fmt.Sprintf("%s=dead:%d", point, nth))
				w.must(err)
				_, _ = w.collector(Options{Workers: 1}).Collect(context.Background(), w.Trash, log.audit())
				if !disarm() && nth == 1 {
					t.Fatal("the point was not reached")
				} // how often it is depends on the order of directories
				w.again(log)
			})
		}
	}
}

// again is what runs that follow a killed one do, and the state they end in.
func (w *gcWorld) again(log *gcSink) {
	w.t.Helper()
	ctx := context.Background()
	w.Meta = w.open()
	nobody := func(metadata.Node) bool { return false }
	for range 3 {
		w.pass(2 * time.Hour) // what is in dead/ has been there for grace
		c := w.collector(Options{})
		r, err := c.Collect(ctx, w.Trash, log.audit())
		w.must(err)
		r2, err := c.Recover(ctx, w.Trash, log.audit(), nobody)
		w.must(err)
		if n := r.Failures.Count + r2.Failures.Count; n > 0 {
			w.t.Errorf("failures: %+v %+v", r.Failures, r2.Failures)
		}
	}
	w.wantLeft("linked", "twice", "young")
	if refs := w.refs(); len(refs) != 1 {
		w.t.Errorf("records left: %v, want that of the young one", refs)
	}
	for _, name := range w.names("dead") {
		b, _ := os.ReadFile(name)
		w.t.Errorf("in dead/: %s: %s", filepath.Base(name), b)
	}
	told := map[string]bool{}
	for _, l := range log.lines(w.t, "destroy") {
		told[l.Kind+" "+l.Path] = true
	}
	want := []string{"dir d", "file both", "file old", "version both", "version twice"}
	if have := slices.Sorted(maps.Keys(told)); !slices.Equal(have, want) {
		w.t.Errorf("the log tells of %q, want %q", have, want)
	}
}

// Without a log nothing goes.
func TestGCWithoutLog(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: gcDay, Grace: time.Hour})
	w.deleted("f", 10)
	w.pass(3 * gcDay)
	before := w.tree()
	log := &gcSink{fail: syscall.ENOSPC}
	_, err := w.collector(Options{}).Collect(context.Background(), w.Trash, log.audit())
	var e *LogError
	if !errors.As(err, &e) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(e.Hint(), "--log") {
		t.Errorf("error %v", err)
	}
	w.wantLeft("f")
	if !maps.Equal(before, w.tree()) {
		t.Error("the directory has changed")
	}
	w.collect(Options{}) // it was not even taken: that would have begun its keep time anew
	w.wantLeft()
}

// The log is durable before anything goes.
func TestGCSyncsTheLogFirst(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: gcDay, Grace: time.Hour})
	w.deleted("f", 10)
	w.pass(3 * gcDay)
	log := &gcSink{}
	w.store.fail = func(objfmt.ObjectID) error {
		if log.Len() == 0 || log.synced < log.Len() {
			t.Errorf("%d of %d bytes of the log are durable", log.synced, log.Len())
		}
		return nil
	}
	_, err := w.collector(Options{}).Collect(context.Background(), w.Trash, log.audit())
	w.must(err)
	w.wantLeft()
}

// An error of one entry does not keep the others; it is listed with its cause, and
// in the log.
func TestGCFailures(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: gcDay, Grace: time.Hour})
	for i := range 10 {
		w.deleted(fmt.Sprint("f", i), 10)
	}
	w.pass(3 * gcDay)
	bad := map[objfmt.ObjectID]bool{}
	for i := range 5 {
		bad[w.objects[fmt.Sprint("f", i)]] = true
	}
	w.store.fail = func(id objfmt.ObjectID) error {
		if bad[id] {
			return fmt.Errorf("object %s: %w", id, syscall.EIO)
		}
		return nil
	}
	log := &gcSink{}
	r, err := w.collector(Options{}).Collect(context.Background(), w.Trash, log.audit())
	w.must(err)
	if r.Failures.Count != 5 || len(r.Failures.Groups) != 1 || r.Failures.Groups[0].Cause != syscall.EIO.Error() || len(r.Failures.Groups[0].Samples) != maxSamples {
		t.Errorf("%+v", r.Failures)
	}
	w.wantLeft("f0", "f1", "f2", "f3", "f4")
	if n := len(log.lines(t, "failed")); n != 5 {
		t.Errorf("%d lines of failures", n)
	}
}

// An interrupted run leaves what it has not begun.
func TestGCInterrupted(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: gcDay, Grace: time.Hour})
	for i := range 20 {
		w.deleted(fmt.Sprint("f", i), 10)
	}
	w.pass(3 * gcDay)
	ctx, stop := context.WithCancel(context.Background())
	w.store.fail = func(objfmt.ObjectID) error { stop(); return nil }
	r, err := w.collector(Options{Workers: 1, Limit: &gcLimiter{most: 5}}).Collect(ctx, w.Trash, (&gcSink{}).audit())
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if n := len(w.left()); n != 15 || r.Failures.Count != 0 {
		t.Errorf("%d are left; failures %+v", n, r.Failures)
	}
	w.store.fail = nil
	w.collect(Options{})
	w.wantLeft()
}

func TestGCOfACopy(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: gcDay, Grace: time.Hour})
	w.deleted("f", 10)
	to := t.TempDir()
	w.must(os.CopyFS(to, os.DirFS(w.root)))
	w.must(os.Chmod(to, 0o700))
	w.must(filepath.WalkDir(to, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(p, 0o700)
		}
		return err
	}))
	w.root = to
	w.Meta = w.open()
	w.pass(3 * gcDay)
	for name, err := range map[string]error{
		"plan":    second(w.collector(Options{}).Plan(context.Background(), w.Trash, nil)),
		"collect": second(w.collector(Options{}).Collect(context.Background(), w.Trash, (&gcSink{}).audit())),
		"recover": second(w.collector(Options{}).Recover(context.Background(), w.Trash, (&gcSink{}).audit(), nil)),
	} {
		if !errors.Is(err, metadata.ErrCopied) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	w.wantLeft("f")
}

func second(_ Report, err error) error { return err }

// A plan changes nothing, not even a time.
func TestGCPlanChangesNothing(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: 2 * gcDay, Grace: time.Hour, MaxBytes: 1})
	w.scene()
	md, err := posix.Open(w.root)
	w.must(err)
	defer md.Close()
	before := w.tree()
	ctx := context.Background()
	meta, err := metadata.Open(ctx, md, metadata.Options{Namespace: "test", Node: "looker", Grace: time.Hour, Clock: w.now, LookOnly: true})
	w.must(err)
	tr := Trash{Namespace: "test", Meta: meta, Policy: w.Policy}
	c := w.collector(Options{})
	if _, err := c.Plan(ctx, &tr, nil); err != nil {
		t.Error(err)
	}
	if _, err := c.Abandoned(ctx, &tr, nil, nil); err != nil {
		t.Error(err)
	}
	w.must(meta.Close())
	if after := w.tree(); !maps.Equal(before, after) {
		for p, s := range after {
			if before[p] != s {
				t.Errorf("%s: %s, was %s", p, s, before[p])
			}
		}
		t.Error("the directory has changed")
	}
}

// tree describes every inode of the metadata directory, but for when it was read.
func (w *gcWorld) tree() map[string]string {
	w.t.Helper()
	m := map[string]string{}
	w.must(filepath.WalkDir(w.root, func(p string, _ fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil {
			err = syscall.Lstat(p, &st)
		}
		m[p] = fmt.Sprint(st.Ino, st.Mode, st.Nlink, st.Size, st.Mtim, st.Ctim)
		return err
	}))
	return m
}

// openCounter counts which directories are opened and files read.
type openCounter struct {
	mdfs.FS
	mu     sync.Mutex
	opened map[string]int
}

func (c *openCounter) Root() mdfs.Dir { return &countedDir{c.FS.Root(), c, ""} }

type countedDir struct {
	mdfs.Dir
	c    *openCounter
	path string
}

func (d *countedDir) count(name string) string {
	p := d.path + "/" + name
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	d.c.opened[p]++
	return p
}

func (d *countedDir) OpenDir(name string) (mdfs.Dir, error) {
	in, err := d.Dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &countedDir{in, d.c, d.count(name)}, nil
}

func (d *countedDir) OpenFile(name string, flag int, perm uint32) (mdfs.File, error) {
	d.count(name)
	return d.Dir.OpenFile(name, flag, perm)
}

func (d *countedDir) Again() (mdfs.Dir, error) {
	in, err := d.Dir.Again()
	return &countedDir{in, d.c, d.path}, err
}

func (d *countedDir) Link(name string, to mdfs.Dir, newname string) error {
	return d.Dir.Link(name, uncounted(to), newname)
}

func (d *countedDir) Rename(name string, to mdfs.Dir, newname string, flags uint) error {
	return d.Dir.Rename(name, uncounted(to), newname, flags)
}

func uncounted(d mdfs.Dir) mdfs.Dir {
	if c, ok := d.(*countedDir); ok {
		return c.Dir
	}
	return d
}

// The cost of a run grows with what has expired: days that are younger are not
// opened, and the tree is not looked at.
func TestGCReadsOnlyWhatExpired(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: 2 * gcDay, Grace: time.Hour})
	w.deleted("old", 1)
	oldDay := w.now().UTC().Format(time.DateOnly)
	w.pass(10 * gcDay)
	for i := range 50 {
		w.deleted(fmt.Sprint("f", i), 1)
		w.write(fmt.Sprint("live", i), 1)
	}
	w.pass(gcDay)
	w.Meta = w.open()
	w.collect(Options{})
	maps.DeleteFunc(w.opens.opened, func(p string, _ int) bool { return strings.HasPrefix(p, "/trash/purged") }) // with all its fan-out, whatever is there
	for p := range w.opens.opened {
		if day, ok := strings.CutPrefix(p, "/trash/"); ok && !strings.HasPrefix(day, oldDay) {
			t.Errorf("%s was opened", p)
		}
		if strings.HasPrefix(p, "/tree/") {
			t.Errorf("%s was opened", p)
		}
	}
	if n := len(w.opens.opened); n > 40 {
		t.Errorf("%d things were opened for one entry: %v", n, w.opens.opened)
	}
	if len(w.left()) != 100 {
		t.Errorf("%d objects are left", len(w.left()))
	}
}

// Old logs go, others and strangers stay.
func TestPruneLogs(t *testing.T) {
	w := newGCWorld(t, Policy{})
	ctx := context.Background()
	now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	for _, name := range []string{"gc-20250101T000000Z-h-1.jsonl", "gc-20261101T000000Z-h-1.jsonl", "notes"} {
		l, err := w.Meta.CreateLog(ctx, name)
		w.must(err)
		w.must(l.Close())
	}
	w.must(PruneLogs(ctx, w.Meta, 0, now))
	if names, err := w.Meta.Logs(ctx); err != nil || len(names) != 3 {
		t.Errorf("%v, %v", names, err)
	}
	w.must(PruneLogs(ctx, w.Meta, 365*gcDay, now))
	names, err := w.Meta.Logs(ctx)
	slices.Sort(names)
	if want := []string{"gc-20261101T000000Z-h-1.jsonl", "notes"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("have %v, want %v; %v", names, want, err)
	}
}

// What a dead process has left is listed, written down, and ended in two steps; what
// the living do is left alone.
func TestGCAbandoned(t *testing.T) {
	w := newGCWorld(t, Policy{Keep: gcDay, Grace: time.Hour})
	ctx := context.Background()
	w.write("f", 10)
	fl, err := w.Meta.Open(ctx, w.Meta.Tree(), "f")
	w.must(err)
	defer fl.Close()
	base, err := fl.Newest(ctx)
	w.must(err)
	s, err := w.Meta.Begin(ctx, fl, gcWho("f"), base)
	w.must(err)
	w.store.has[s.Object] = true
	w.Meta = w.open()
	for _, lives := range []bool{true, false} {
		alive := func(metadata.Node) bool { return lives }
		var places []string
		r, err := w.collector(Options{}).Abandoned(ctx, w.Trash, alive, func(l metadata.Leftover) error {
			places = append(places, l.Place[:len("work/node1/")]+l.Record.Path)
			return nil
		})
		w.must(err)
		if lives {
			wantSums(t, r.Rows)
			continue
		}
		wantSums(t, r.Rows, "abandoned abandoned 1 0")
		if !slices.Equal(places, []string{"work/node1/f"}) {
			t.Errorf("at %v", places)
		}
	}
	nobody := func(metadata.Node) bool { return false }
	for _, place := range []string{"work/node1/", "dead/w."} { // at once, and what was put aside after grace
		log := &gcSink{}
		r, err := w.collector(Options{}).Recover(ctx, w.Trash, log.audit(), nobody)
		w.must(err)
		lines := log.lines(t, "recover")
		if r.Failures.Count > 0 || len(lines) != 1 || !strings.HasPrefix(lines[0].Place, place) || lines[0].Path != "f" || len(lines[0].Objects) != 1 {
			t.Errorf("%+v, %s", r, log.String())
		}
		if w.store.has[s.Object] {
			t.Error("the object of the unfinished write is there")
		}
		w.pass(2 * time.Hour)
	}
	if names := append(w.names("dead"), w.names("work")...); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	w.wantLeft("f")
}
