package trash

import (
	"context"
	"errors"
	"hash/fnv"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// Options of a [Collector].
type Options struct {
	Workers    int           // batches that are destroyed at once; 0: 16
	Limit      Limiter       // entries per second; nil: no limit
	MaxEntries int64         // hand no more to destruction; 0: no limit
	MaxBytes   int64         // of content, likewise; 0: no limit
	Until      time.Time     // hand nothing to destruction after that; zero: no limit
	From       string        // fan-out directory to begin with (two hexadecimal digits), best another on each host
	Patience   time.Duration // how long what is in hand may take after an interrupt; 0: 10 s
	Progress   func(Progress)
	Clock      func() time.Time // nil: time.Now
}

// Limiter is what Options want of a rate.Limiter.
type Limiter interface {
	WaitN(ctx context.Context, n int) error
	Burst() int
}

// Progress is how far a collection is. Total is of one namespace, and an upper bound.
type Progress struct {
	Namespace string
	Total     int64 // records that may be candidates
	Entries   int64 // looked at
	Bytes     int64 // destroyed
	Failures  int64
}

// Collector is one run of garbage collection. The caps hold for all of its
// namespaces together. Its methods must not be called at once.
type Collector struct {
	o       Options
	now     time.Time // of the run: every age is judged by it
	entries int64     // handed to destruction
	bytes   int64     // likewise; known only with MaxBytes
	capped  bool
}

// NewCollector begins a run.
func NewCollector(o Options) *Collector {
	if o.Workers <= 0 {
		o.Workers = 16
	}
	if o.Patience <= 0 {
		o.Patience = 10 * time.Second
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Collector{o: o, now: o.Clock()}
}

// Capped reports whether a cap has ended the run before its work.
func (c *Collector) Capped() bool { return c.capped }

// full tells whether a cap keeps an entry of that size from going.
func (c *Collector) full(size int64) bool {
	c.capped = c.capped || c.o.MaxEntries > 0 && c.entries >= c.o.MaxEntries ||
		c.o.MaxBytes > 0 && c.bytes+size > c.o.MaxBytes ||
		!c.o.Until.IsZero() && !c.o.Clock().Before(c.o.Until)
	return c.capped
}

// Report is what was done, or would be.
type Report struct {
	Rows     []Row // of what was destroyed, failures included
	Dropped  int64 // records of what lives or is gone, which went alone
	Kept     int64 // records that were looked at and stay: too young after all, needed, held open, or another's
	Left     int64 // records that a cap left; at most that many would go
	Failures Failures
}

// collection is a run's work in one namespace.
type collection struct {
	*Collector
	trash *Trash
	audit *Audit

	mu       sync.Mutex // guards what is below
	rows     rows
	report   Report
	progress Progress
	fatal    error // why nothing more is destroyed
}

func (c *Collector) begin(t *Trash, a *Audit) *collection {
	return &collection{Collector: c, trash: t, audit: a, rows: rows{}, progress: Progress{Namespace: t.Namespace}}
}

// Plan tells what Collect would destroy now, changes nothing, and calls each, if
// it is not nil, for every entry.
func (c *Collector) Plan(ctx context.Context, t *Trash, each func(Candidate) error) (Report, error) {
	k := c.begin(t, nil)
	l, places, err := k.scope(ctx)
	if err != nil {
		return k.end(err)
	}
	for x, err := range k.candidates(ctx, l, places) {
		if ctx.Err() != nil {
			return k.end(ctx.Err())
		}
		if err != nil {
			k.report.Failures.Add(err)
		} else if err := k.plan(x, each); err != nil {
			return k.end(err)
		}
	}
	return k.end(nil)
}

// scope is what decides which entries go, and where those are.
func (k *collection) scope(ctx context.Context) (l limits, places []string, err error) {
	if k.trash.Meta.Copied() {
		return l, nil, metadata.ErrCopied
	}
	if l, err = k.limits(ctx); err != nil {
		return l, nil, err
	}
	places, err = k.places(ctx, l)
	return l, places, err
}

func (k *collection) plan(c Candidate, each func(Candidate) error) error {
	switch {
	case c.Why == "":
		k.report.Kept++
	case k.full(c.Size):
		k.report.Left++
	default:
		k.take(c.Size)
		k.rows.add(c.What, c.Why, c.Size, c.Record.When)
		if each != nil {
			return each(c)
		}
	}
	return nil
}

func (c *Collector) take(size int64) {
	c.entries++
	c.bytes += size
}

func (k *collection) end(err error) (Report, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.report.Rows = k.rows.sorted()
	return k.report, errors.Join(err, k.fatal)
}

// Collect destroys what Plan lists. What is in the way of single entries is in the
// report; an error is what keeps everything from being done: the directory is a
// copy, the log cannot be written, ctx has ended. It may be killed and run again,
// and several may run at once.
func (c *Collector) Collect(ctx context.Context, t *Trash, a *Audit) (Report, error) {
	k := c.begin(t, a)
	l, places, err := k.scope(ctx)
	if err != nil {
		return k.end(err)
	}
	if err := k.count(ctx, places); err != nil {
		return k.end(err)
	}
	k.destroy(ctx, l, places)
	k.prune(ctx, places)
	k.retire(ctx)
	return k.end(ctx.Err())
}

// count tells the progress how many records there are.
func (k *collection) count(ctx context.Context, places []string) error {
	if k.o.Progress == nil {
		return nil
	}
	for _, err := range k.refs(ctx, places) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			k.progress.Total++
		}
	}
	k.o.Progress(k.progress)
	return nil
}

// batch is how many entries one worker takes at once: enough to share a sync of
// the filesystem, few enough that a run that dies leaves little behind.
const batch = 256

// destroy hands out what the places hold to workers, in batches. All records of
// one file go to one worker, in order, so that two do not hinder each other at
// one file.
func (k *collection) destroy(ctx context.Context, l limits, places []string) {
	work, stop := k.inHand(ctx)
	defer stop()
	var g errgroup.Group
	lanes := make([]lane, k.o.Workers)
	for i := range lanes {
		lanes[i].ch = make(chan []metadata.TrashRef)
		g.Go(func() error {
			for refs := range lanes[i].ch {
				k.expire(ctx, work, l, refs)
			}
			return nil
		})
	}
	k.handOut(ctx, l, places, lanes)
	for i := range lanes {
		close(lanes[i].ch)
	}
	_ = g.Wait()
}

// lane is what one worker is to do next.
type lane struct {
	refs []metadata.TrashRef
	ch   chan []metadata.TrashRef
}

// inHand is a context for what workers have begun: it outlives ctx for a while.
func (k *collection) inHand(ctx context.Context) (context.Context, func()) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(k.o.Patience):
			cancel()
		case <-work.Done():
		}
	})
	return work, func() { unhook(); cancel() }
}

// handOut fills the lanes until everything is in or the run must end.
func (k *collection) handOut(ctx context.Context, l limits, places []string, lanes []lane) {
	size := batch
	if k.o.Limit != nil {
		size = max(1, min(size, k.o.Limit.Burst()))
	}
	purged := false
	for ref, err := range k.refs(ctx, places) {
		if ctx.Err() != nil || k.broken() {
			return
		}
		if k.capped {
			k.leave(1)
			continue
		}
		if err != nil {
			k.failed(err)
			continue
		}
		if !k.chosen(ctx, l, ref) {
			continue
		}
		if now := ref.Day == metadata.PurgedDay; now != purged { // they have another limit
			k.flush(ctx, lanes)
			purged = now
		}
		lane := &lanes[laneOf(ref)%uint32(len(lanes))]
		if lane.refs = append(lane.refs, ref); len(lane.refs) >= size {
			k.send(ctx, lane)
		}
	}
	k.flush(ctx, lanes)
}

// broken tells whether nothing more may be destroyed.
func (k *collection) broken() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fatal != nil
}

// chosen decides whether a record is handed out. Only caps make it read what
// Expire reads anyway: they count what goes, and sizes.
func (k *collection) chosen(ctx context.Context, l limits, ref metadata.TrashRef) bool {
	if k.o.MaxEntries <= 0 && k.o.MaxBytes <= 0 {
		if k.full(0) {
			k.leave(1)
			return false
		}
		return true
	}
	c, err := k.candidate(ctx, l, ref)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false
	case err != nil:
		k.failed(err)
		return false
	case c.Why == "":
		k.keep(1)
		return false
	}
	if k.full(c.Size) {
		k.leave(1)
		return false
	}
	k.take(c.Size)
	return true
}

// laneOf is the same for all records of a file, whose id their names begin with.
func laneOf(ref metadata.TrashRef) uint32 {
	h := fnv.New32a()
	h.Write([]byte(ref.Name[:min(len(ref.Name), 32)]))
	return h.Sum32()
}

func (k *collection) flush(ctx context.Context, lanes []lane) {
	for i := range lanes {
		k.send(ctx, &lanes[i])
	}
}

func (k *collection) send(ctx context.Context, l *lane) {
	n := len(l.refs)
	if n == 0 {
		return
	}
	refs := l.refs
	l.refs = nil
	if k.o.Limit != nil && k.o.Limit.WaitN(ctx, n) != nil {
		return
	}
	select {
	case l.ch <- refs:
	case <-ctx.Done():
	}
}

// expire destroys one batch.
func (k *collection) expire(ctx, work context.Context, l limits, refs []metadata.TrashRef) {
	if ctx.Err() != nil || k.broken() {
		return
	}
	if err := k.audit.begin(k.trash.Namespace); err != nil {
		k.failed(err)
		return
	}
	day := refs[0].Day
	var bytes int64
	done, err := k.trash.Meta.Expire(work, refs, l.before(day), func(list []metadata.Doom) error {
		n, err := k.doomed(work, list, func(when time.Time) Why { return l.why(day, when) })
		bytes += n
		return err
	})
	k.mu.Lock()
	k.report.Dropped += int64(done.Dropped)
	k.report.Kept += int64(done.Kept)
	k.mu.Unlock()
	for _, e := range flat(err) {
		k.failed(e)
	}
	k.advance(int64(len(refs)), bytes)
}

// doomed writes down what is about to be destroyed, and sums it up.
func (k *collection) doomed(ctx context.Context, list []metadata.Doom, why func(when time.Time) Why) (bytes int64, err error) {
	if err := k.audit.Doomed(ctx, k.trash, list, why); err != nil {
		return 0, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range list {
		d := &list[i]
		if d.Spared {
			continue
		}
		k.rows.add(whatOf(d.Record.Kind), why(d.Record.When), d.Size, d.Record.When)
		bytes += d.Size
	}
	return bytes, nil
}

func (k *collection) leave(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.report.Left += int64(n)
}

func (k *collection) keep(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.report.Kept += int64(n)
}

func (k *collection) advance(entries, bytes int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.progress.Entries += entries
	k.progress.Bytes += bytes
	if k.o.Progress != nil {
		k.o.Progress(k.progress)
	}
}

// failed notes an error of one entry, also in the log. An error of the log ends
// the run.
func (k *collection) failed(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := (*LogError)(nil); errors.As(err, &e) {
		k.fatal = e
		return
	}
	k.report.Failures.Add(err)
	k.progress.Failures++
	if e := k.audit.write(k.trash.Namespace, false, line{Event: "failed", Error: err.Error()}); e != nil && k.fatal == nil {
		k.fatal = e
	}
}

// prune removes the directories of days that have become empty. Nothing is filed
// under a day that has been over for a day, however clocks differ.
func (k *collection) prune(ctx context.Context, places []string) {
	today := k.now.UTC().Format(time.DateOnly)
	for _, day := range places {
		if day >= today || ctx.Err() != nil { // PurgedDay is later than any
			continue
		}
		if err := k.trash.Meta.PruneDay(ctx, day); err != nil {
			k.failed(err)
		}
	}
}

// retire puts packs with nothing but dead bytes on their way: a later gc destroys them.
func (k *collection) retire(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	if _, err := k.trash.Meta.RetireDead(ctx); err != nil && ctx.Err() == nil {
		k.failed(err)
	}
}

// Abandoned lists what dead processes have left, in a row; alive tells who lives.
func (c *Collector) Abandoned(ctx context.Context, t *Trash, alive metadata.Alive, each func(metadata.Leftover) error) (Report, error) {
	k := c.begin(t, nil)
	for left, err := range t.Meta.Leftovers(ctx, alive, k.now.Add(-t.Policy.Grace)) {
		if ctx.Err() != nil {
			return k.end(ctx.Err())
		}
		if err != nil {
			k.report.Failures.Add(err)
			continue
		}
		k.rows.add(WhatAbandoned, WhyAbandoned, 0, left.Since)
		if each != nil {
			if err := each(left); err != nil {
				return k.end(err)
			}
		}
	}
	return k.end(nil)
}

// Recover finishes or abandons what dead processes have left, after it has written
// it down.
func (c *Collector) Recover(ctx context.Context, t *Trash, a *Audit, alive metadata.Alive) (Report, error) {
	if t.Meta.Copied() {
		return Report{}, metadata.ErrCopied
	}
	r, err := c.Abandoned(ctx, t, alive, func(l metadata.Leftover) error {
		line := lineOf(&l.Record)
		line.Event, line.Why, line.Place = "recover", WhyAbandoned, l.Place
		if !l.Record.Object.IsZero() {
			line.Objects = []lineObject{{Key: objfmt.ObjectKey(t.Namespace, l.Record.Object, 0)}}
		}
		return a.write(t.Namespace, false, line)
	})
	if err == nil {
		err = a.sync()
	}
	if err != nil {
		return r, err
	}
	k := c.begin(t, a)
	err = errors.Join(t.Meta.Recover(ctx, alive), t.Meta.Sweep(ctx, k.now.Add(-t.Policy.Grace), func(list []metadata.Doom) error {
		_, err := k.doomed(ctx, list, func(time.Time) Why { return WhyAbandoned })
		return err
	}))
	for _, e := range flat(err) {
		k.failed(e)
	}
	r.Failures.Merge(k.report.Failures)
	return r, errors.Join(ctx.Err(), k.fatal)
}
