package repo

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
)

// fetch reads a run of cells of one shard, in one ranged GET.
type fetch struct {
	win        *window
	shard      int
	first, end int64 // cells
	cancel     context.CancelCauseFunc
	started    time.Time
	late       time.Time    // when it counts as slow
	progress   atomic.Int64 // when the last cell came, Unix nanoseconds
	slow       bool         // others are read in its place
	probe      bool         // of a store that failed lately
}

// kept is a verified cell that stays in memory until its window ends.
type kept struct {
	cell int64
	data []byte
	buf  *[]byte // to give back; nil: none
}

// fetched is how a fetch ended.
type fetched struct {
	*fetch
	kept []kept
	bad  int   // cells that failed
	err  error // of the first of them
}

// run reads the cells, hands over those that are wanted and keeps those that
// whoever reconstructs a row may need again.
func (f *fetch) run(ctx context.Context) fetched {
	out := fetched{fetch: f}
	w, l, s := f.win, f.win.layout, f.win.stores[f.shard]
	lo := l.CellPos(w.key, f.first)
	n := l.Stored(min(l.Payload(f.shard), f.end*int64(l.Cell()))) - l.Stored(f.first*int64(l.Cell()))
	body, err := s.Get(ctx, w.key, lo, n)
	if err != nil {
		return f.failed(ctx, out, f.end-f.first, err)
	}
	defer body.Close()
	sums := l.CellSum(f.shard)
	for c := f.first; c < f.end; c++ {
		err := f.cell(body, c, sums, &out)
		if err != nil {
			return f.failed(ctx, out, f.end-c, err)
		}
		f.progress.Store(time.Now().UnixNano())
	}
	if out.err != nil {
		out.err = fmt.Errorf("store %s: shard %d: %w", s.Name, f.shard, out.err)
	}
	return out
}

func (f *fetch) failed(ctx context.Context, out fetched, cells int64, err error) fetched {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	out.bad += int(cells)
	out.err = fmt.Errorf("store %s: shard %d: %w", f.win.stores[f.shard].Name, f.shard, truncated(err))
	return out
}

// cell reads one cell. A bad checksum is no error: the next cell may be good.
func (f *fetch) cell(body io.Reader, c int64, sums objfmt.CellSum, out *fetched) error {
	w := f.win
	size := w.layout.CellLen(f.shard, c)
	stored, buf, err := w.repo.take(body, size+objfmt.SumSize)
	if err != nil {
		return err
	}
	data := stored[:size]
	switch {
	case !sums.Verify(c, stored):
		out.bad++
		if out.err == nil {
			out.err = fmt.Errorf("%w: cell %d: bad checksum", objstore.ErrCorrupt, c)
		}
	case !w.deliver(f.shard, c, data):
		if buf == nil {
			buf = w.repo.cell(size)
			data = (*buf)[:copy(*buf, data)]
		}
		out.kept = append(out.kept, kept{c, data, buf})
		return nil
	}
	if buf != nil {
		w.repo.giveCell(buf)
	}
	return nil
}

// take returns the next n bytes of body: as they lie in its memory, good until it is
// read again, or else in a buffer to be given back.
func (r *Repo) take(body io.Reader, n int) (stored []byte, buf *[]byte, err error) {
	if p, ok := body.(objstore.Peeker); ok {
		stored, err = p.Peek(n)
		if err == nil && len(stored) == n {
			_, err = p.Discard(n)
		}
		if err != nil || len(stored) == n {
			return stored, nil, err
		}
	}
	buf = r.cell(n - objfmt.SumSize)
	stored = (*buf)[:n]
	if _, err := io.ReadFull(body, stored); err != nil {
		r.giveCell(buf)
		return nil, nil, err
	}
	return stored, buf, nil
}
