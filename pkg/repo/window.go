package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"marfs/pkg/objfmt"
)

// window is one read of cells of some rows of an object. It fetches the cells that
// are wanted from their own shards, and when one is missing, bad or late, enough
// others of its row. One goroutine, in fill, decides; fetches only deliver.
type window struct {
	repo   *Repo
	key    string
	layout objfmt.Layout
	stores []*store
	first  int64 // row
	rows   int64
	// dest returns where the wanted part of a cell goes, and how many bytes of
	// the cell come before that part.
	dest func(shard int, cell int64) (dst []byte, skip int)

	cells    []atomic.Uint32 // cellState, by shard and row
	left     atomic.Int64    // wanted cells that are not there yet
	complete chan struct{}   // closed when left is 0

	// Of the goroutine in fill:
	ctx     context.Context
	cancel  context.CancelFunc
	results chan fetched
	flying  []*fetch
	kept    [][]byte // verified cells, by shard and row
	buffers []*[]byte
	dead    []error // by shard: why it is not asked (again)
	quiet   bool    // damage is known
	avoided bool    // stores that failed lately have been let in
	repairs int64   // bytes acquired

	users atomic.Int32 // fill and fetches; the last gives the memory back
	base  int64        // bytes acquired from the budget of reads
}

type cellState = uint32

const (
	unwanted cellState = iota
	wanted
	arriving
	arrived
)

// newWindow returns a window of rows, in which nothing is wanted yet.
func (r *Repo) newWindow(key string, l objfmt.Layout, stores []*store, first, end int64) *window {
	n := int64(len(stores)) * (end - first)
	return &window{
		repo: r, key: key, layout: l, stores: stores, first: first, rows: end - first,
		cells:    make([]atomic.Uint32, n),
		complete: make(chan struct{}),
		results:  make(chan fetched),
		kept:     make([][]byte, n),
		dead:     make([]error, len(stores)),
	}
}

func (w *window) index(shard int, cell int64) int64 { return int64(shard)*w.rows + cell - w.first }

func (w *window) state(shard int, cell int64) cellState { return w.cells[w.index(shard, cell)].Load() }

// want asks for cells of a shard.
func (w *window) want(shard int, first, end int64) {
	for c := first; c < end; c++ {
		w.cells[w.index(shard, c)].Store(wanted)
		w.left.Add(1)
	}
}

// deliver puts a verified or reconstructed cell where it is wanted, once. It
// reports whether all of it is, or soon will be, there, so that nobody need keep it.
func (w *window) deliver(shard int, cell int64, data []byte) bool {
	s := &w.cells[w.index(shard, cell)]
	if s.Load() == unwanted {
		return false
	}
	dst, skip := w.dest(shard, cell)
	if s.CompareAndSwap(wanted, arriving) {
		copy(dst, data[skip:])
		s.Store(arrived)
		if w.left.Add(-1) == 0 {
			close(w.complete)
		}
	}
	return len(dst) == len(data)
}

// source returns a cell that can be used to reconstruct others; nil: not there.
func (w *window) source(shard int, cell int64) []byte {
	size := w.layout.CellLen(shard, cell)
	if size == 0 {
		return []byte{} // of zeros, in every shard that ends before
	}
	if data := w.kept[w.index(shard, cell)]; data != nil {
		return data
	}
	if w.state(shard, cell) == arrived {
		if dst, _ := w.dest(shard, cell); len(dst) == size {
			return dst
		}
	}
	return nil
}

// run returns when every wanted cell is there, or cannot be had.
func (w *window) run(ctx context.Context) error {
	if err := w.fill(ctx); err != nil {
		return fmt.Errorf("read %s from repo %s, pod %s: %w", w.key, w.repo.cfg.Name, w.layout.Pod, err)
	}
	return nil
}

func (w *window) fill(ctx context.Context) error {
	if err := w.begin(ctx); err != nil {
		return err
	}
	defer w.finish()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if w.left.Load() == 0 {
			return nil
		}
		if err := w.repair(); err != nil {
			return err
		}
		timer.Reset(w.nextLook())
		select {
		case <-w.complete:
		case f := <-w.results:
			w.take(f)
		case now := <-timer.C:
			w.look(now)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// begin acquires memory and starts a fetch for each shard of which cells are wanted.
func (w *window) begin(ctx context.Context) error {
	var direct []*fetch
	for shard := range w.stores {
		if f := w.span(shard, func(c int64) bool { return w.state(shard, c) == wanted && w.dead[shard] == nil }); f != nil {
			direct = append(direct, f)
		}
	}
	w.base = min(rowMemory(1, int64(len(direct))+2, w.layout.Cell()), w.repo.reads.size)
	if err := w.repo.reads.acquire(ctx, w.base); err != nil {
		return err
	}
	w.ctx, w.cancel = context.WithCancel(ctx)
	w.users.Store(1)
	for _, f := range direct {
		w.start(f)
	}
	return nil
}

// span returns a fetch of the shortest run of the shard's cells that covers all
// for which need is true; nil: none.
func (w *window) span(shard int, need func(cell int64) bool) *fetch {
	var f *fetch
	for c := w.first; c < min(w.first+w.rows, w.layout.Cells(shard)); c++ {
		if need(c) {
			if f == nil {
				f = &fetch{win: w, shard: shard, first: c}
			}
			f.end = c + 1
		}
	}
	return f
}

// start begins a fetch, unless its store is avoided.
func (w *window) start(f *fetch) bool {
	now := time.Now()
	late := w.repo.latency.late(f.end - f.first)
	switch w.stores[f.shard].reads.ask(now) {
	case avoid:
		if !w.avoided {
			w.dead[f.shard] = fmt.Errorf("store %s: shard %d: %w", w.stores[f.shard].Name, f.shard, errAvoided)
			return false
		}
	case probe: // nobody waits long for it
		late, f.probe = min(late, hedgeFloor), true
	}
	f.started, f.late = now, now.Add(late)
	f.progress.Store(now.UnixNano())
	w.flying = append(w.flying, f)
	w.users.Add(1)
	ctx, cancel := context.WithCancelCause(w.ctx)
	f.cancel = cancel
	go func() {
		defer w.leave()
		defer cancel(nil)
		out := f.run(ctx)
		select {
		case w.results <- out:
		case <-w.ctx.Done():
		}
	}()
	return true
}

// take accounts for a fetch that ended.
func (w *window) take(f fetched) {
	was := len(w.flying)
	w.flying = slices.DeleteFunc(w.flying, func(other *fetch) bool { return other == f.fetch })
	for _, k := range f.kept {
		w.kept[w.index(f.shard, k.cell)] = k.data
		w.buffers = append(w.buffers, k.buf)
	}
	if len(w.flying) == was {
		return // it stalled, and was accounted for then
	}
	w.stores[f.shard].reads.report(f.err)
	if f.err != nil {
		w.dead[f.shard] = f.err
		return
	}
	w.repo.latency.observe(time.Since(f.started), f.end-f.first)
}

// nextLook returns when a fetch will be late, or stalled.
func (w *window) nextLook() time.Duration {
	next := w.repo.cfg.StallTimeout
	for _, f := range w.flying {
		if !f.slow {
			next = min(next, time.Until(f.late))
		} else {
			next = min(next, time.Until(f.stalls()))
		}
	}
	return max(next, time.Millisecond)
}

// stalls returns when the fetch is given up unless something comes.
func (f *fetch) stalls() time.Time {
	return time.Unix(0, f.progress.Load()).Add(f.win.repo.cfg.StallTimeout)
}

// look marks late fetches as slow, and gives up stalled ones.
func (w *window) look(now time.Time) {
	flying := w.flying[:0]
	for _, f := range w.flying {
		if now.After(f.stalls()) {
			f.cancel(errStalled)
			w.stores[f.shard].reads.report(errStalled)
			w.dead[f.shard] = fmt.Errorf("store %s: shard %d: %w for %v", w.stores[f.shard].Name, f.shard, errStalled, w.repo.cfg.StallTimeout)
			continue
		}
		flying = append(flying, f)
		if f.slow || now.Before(f.late) {
			continue
		}
		if f.slow = f.probe || w.repo.latency.spend(); !f.slow {
			f.late = now.Add(w.repo.latency.late(f.end - f.first))
		}
	}
	w.flying = flying
}

// finish ends the window: after it nothing is written to any destination.
func (w *window) finish() {
	w.cancel()
	for i := range w.cells {
		for s := &w.cells[i]; s.Load() != unwanted && s.Load() != arrived; {
			if !s.CompareAndSwap(wanted, arrived) {
				runtime.Gosched() // a copy is under way
			}
		}
	}
	for _, b := range w.buffers {
		w.repo.giveCell(b)
	}
	for _, f := range w.flying {
		if f.slow && w.left.Load() == 0 {
			w.stores[f.shard].reads.report(errStalled) // others were faster together
		}
	}
	if !w.quiet {
		w.reportDamage()
	}
	w.leave()
}

func (w *window) leave() {
	if w.users.Add(-1) == 0 {
		w.repo.reads.release(w.base)
		w.repo.repairs.release(w.repairs)
	}
}

// lost returns why the object cannot be read. That it does not exist is said
// only when no shard asked for does.
func (w *window) lost() error {
	missing, asked := 0, 0
	var errs causes
	for _, err := range w.dead {
		if err == nil {
			continue
		}
		asked++
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			err = errors.New(err.Error())
		}
		errs = append(errs, err)
	}
	if missing == asked && missing > w.layout.Parity {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, errs)
	}
	return fmt.Errorf("%w: %w", ErrQuorum, errs)
}

// reportDamage tells of shards found missing or bad, unless more are than can be
// done without: then the object may have been removed.
func (w *window) reportDamage() {
	var shards []int
	var why causes
	for i, err := range w.dead {
		if shardState(err).damaged() {
			shards, why = append(shards, i), append(why, err)
		}
	}
	if len(shards) > 0 && (w.left.Load() == 0 || len(shards) <= w.layout.Parity) {
		w.repo.damaged(w.key, w.layout, shards, why)
	}
}
