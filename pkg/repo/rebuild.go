package repo

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"marfs/pkg/objfmt"
)

// rebuildRows is how many rows a rebuild has in memory: 1 MiB a shard.
const rebuildRows = 16

// Rebuild recreates the shards that Inspect(deep) finds missing, bad or stale,
// and returns how every shard is afterwards. Good shards are never written to.
//
// N good cells of each row are enough, even when fewer than N shards are good as a
// whole; otherwise nothing is changed and the error is ErrQuorum. Shards whose
// store is away stay as they are, without an error.
func (r *Repo) Rebuild(ctx context.Context, key string, l objfmt.Layout) ([]Shard, error) {
	shards, err := r.Inspect(ctx, key, l, true)
	if err != nil {
		return shards, err
	}
	var bad []int
	count := make(map[ShardState]int)
	for i, s := range shards {
		count[s.State]++
		if s.State.damaged() {
			bad = append(bad, i)
		}
	}
	switch {
	case len(bad) == 0:
		return shards, nil
	case count[ShardMissing] == len(shards):
		return shards, fmt.Errorf("rebuild %s in repo %s: %w", key, r.cfg.Name, fs.ErrNotExist)
	case count[ShardOK]+count[ShardCorrupt] < l.Data:
		return shards, r.cannotRebuild(key, l, shards, bad)
	}
	b := rebuild{repo: r, key: key, layout: l, shards: shards, spare: count[ShardOK] >= l.Data}
	failed := b.run(ctx, bad)
	if err := r.inspect(ctx, key, l, shards, bad, true); err != nil {
		return shards, err
	}
	for _, i := range bad {
		if shards[i].State != ShardOK {
			return shards, fmt.Errorf("rebuild %s in repo %s: %w", key, r.cfg.Name, cmp.Or(failed, shards[i].Err))
		}
	}
	return shards, nil
}

func (r *Repo) cannotRebuild(key string, l objfmt.Layout, shards []Shard, bad []int) error {
	var why causes
	for _, s := range shards {
		if s.Err != nil {
			why = append(why, s.Err)
		}
	}
	return fmt.Errorf("rebuild %s in repo %s, pod %s: %w: %d of %d are not good: %w", key, r.cfg.Name, l.Pod, ErrQuorum, len(why), len(shards), why)
}

// rebuild recreates shards of one object from the others, a few rows at a time.
type rebuild struct {
	repo   *Repo
	key    string
	layout objfmt.Layout
	shards []Shard
	spare  bool // enough shards are good as a whole: bad ones are not needed
	puts   []*put
}

// put is the new file of a shard on its way to the store.
type put struct {
	shard   int
	store   *store
	buf     []byte
	w       *io.PipeWriter
	err     error       // of writing
	stalled *time.Timer // ends the Put
	done    chan error
}

func (b *rebuild) run(ctx context.Context, bad []int) error {
	l := b.layout
	stores, err := b.repo.locate(b.key, l)
	if err != nil {
		return err
	}
	rows := min(rebuildRows, b.repo.maxRows(l), max(l.Rows(), 1))
	memory := min(rowMemory(len(bad), rows, l.Cell()), b.repo.writes.size)
	if err := b.repo.writes.acquire(ctx, memory); err != nil {
		return err
	}
	defer b.repo.writes.release(memory)
	for _, i := range bad {
		p, cancel := b.start(ctx, stores[i], i, make([]byte, rows*int64(l.Cell()+objfmt.SumSize)))
		defer cancel()
		b.puts = append(b.puts, p)
	}
	for first := int64(0); first < l.Rows() && b.alive(); first += rows {
		if err := b.copyRows(ctx, stores, first, min(first+rows, l.Rows())); err != nil {
			b.abandon(err)
			return err
		}
	}
	return b.end()
}

// start begins to put a shard over the old one, which is replaced only when the
// new one is whole: until then its good cells may be needed.
func (b *rebuild) start(ctx context.Context, s *store, shard int, buf []byte) (*put, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { r.CloseWithError(context.Cause(ctx)) })
	limit := b.repo.cfg.StallTimeout
	p := &put{shard: shard, store: s, buf: buf, w: w, done: make(chan error, 1)}
	p.stalled = time.AfterFunc(limit, func() { cancel(fmt.Errorf("%w for %v", errStalled, limit)) })
	go func() {
		err := within(ctx, func() error { return s.Put(ctx, b.key, r, b.layout.ShardSize(b.key, shard)) })
		r.CloseWithError(err)
		p.done <- err
	}()
	header, err := b.layout.Header(b.key, shard).Append(nil)
	p.err = err
	p.write(header, limit)
	return p, func() { cancel(nil) }
}

// write sends bytes of the new shard, unless it has failed before. A store that
// does not take them in time fails alone.
func (p *put) write(b []byte, limit time.Duration) {
	if p.err == nil {
		p.stalled.Reset(limit)
		_, p.err = p.w.Write(b)
		p.stalled.Stop()
	}
}

// alive reports whether any of the new shards can still be stored.
func (b *rebuild) alive() bool {
	return slices.ContainsFunc(b.puts, func(p *put) bool { return p.err == nil })
}

// copyRows reconstructs the cells of the new shards in some rows, and sends them.
func (b *rebuild) copyRows(ctx context.Context, stores []*store, first, end int64) error {
	l := b.layout
	w := b.repo.newWindow(b.key, l, stores, first, end)
	w.quiet = true
	for i, s := range b.shards {
		if s.State != ShardOK && (b.spare || s.State != ShardCorrupt) {
			w.dead[i] = s.Err
		}
	}
	at := func(p *put, cell int64) (data, sum []byte) {
		b := p.buf[(cell-first)*int64(l.Cell()+objfmt.SumSize):]
		n := l.CellLen(p.shard, cell)
		return b[:n], b[n : n+objfmt.SumSize]
	}
	byShard := make(map[int]*put)
	for _, p := range b.puts {
		byShard[p.shard] = p
		w.want(p.shard, first, max(first, min(end, l.Cells(p.shard))))
	}
	w.dest = func(shard int, cell int64) ([]byte, int) {
		data, _ := at(byShard[shard], cell)
		return data, 0
	}
	if err := w.run(ctx); err != nil {
		return err
	}
	for _, p := range b.puts {
		sums := l.CellSum(p.shard)
		for c := first; c < min(end, l.Cells(p.shard)); c++ {
			data, sum := at(p, c)
			sums.Put(sum, c, data)
			p.write(p.buf[(c-first)*int64(l.Cell()+objfmt.SumSize):][:len(data)+objfmt.SumSize], b.repo.cfg.StallTimeout)
		}
	}
	return nil
}

// abandon ends the Puts after a failure of the reads: nothing of them is stored.
func (b *rebuild) abandon(err error) {
	for _, p := range b.puts {
		p.w.CloseWithError(err)
		p.stalled.Reset(abortWait)
	}
	for _, p := range b.puts {
		_ = p.wait() // it failed of err
	}
}

// end finishes the new shards.
func (b *rebuild) end() error {
	limit := b.repo.cfg.StallTimeout
	for _, p := range b.puts {
		p.write(b.layout.Footer(p.shard).Append(nil), limit)
		p.w.Close()
		p.stalled.Reset(limit + transferTime(b.layout.ShardSize(b.key, p.shard)))
	}
	errs := make([]error, len(b.puts))
	for i, p := range b.puts {
		if err := p.wait(); err != nil {
			errs[i] = fmt.Errorf("store %s: shard %d: %w", p.store.Name, p.shard, err)
		}
	}
	return join(errs...)
}

// wait returns how the Put ended.
func (p *put) wait() error {
	err := <-p.done
	p.stalled.Stop()
	return err
}
