package repo

import (
	"context"
	"fmt"
	"io"
	"io/fs"

	"marfs/pkg/objfmt"
)

// windowRows bounds the rows of one window: 4 MiB a shard with the largest cells.
const windowRows = 64

// ReadAt fills p from off of an object, reading only the cells that hold the
// range and verifying each of them. Like io.ReaderAt it returns io.EOF at the end.
// When every shard is missing, the error is fs.ErrNotExist; when too few can be
// read, ErrQuorum.
func (r *Repo) ReadAt(ctx context.Context, key string, l objfmt.Layout, p []byte, off int64) (int, error) {
	stores, err := r.locate(key, l)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("read %s from repo %s: %w: offset %d", key, r.cfg.Name, fs.ErrInvalid, off)
	}
	n := int(min(int64(len(p)), max(l.Size-off, 0)))
	for done := 0; done < n; {
		if err := ctx.Err(); err != nil {
			return done, fmt.Errorf("read %s from repo %s: %w", key, r.cfg.Name, err)
		}
		at := off + int64(done)
		step := int(min(r.windowEnd(l, at)-at, int64(n-done)))
		if err := r.readWindow(ctx, key, l, stores, p[done:done+step], at); err != nil {
			return done, err
		}
		done += step
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// maxRows returns how many rows of an object may be in memory for a repair.
func (r *Repo) maxRows(l objfmt.Layout) int64 {
	return min(max(r.repairs.size/rowMemory(l.Shards(), 1, l.Cell()), 1), windowRows)
}

// windowEnd returns where a window that begins at off of the object must end:
// after some whole stripes or, when blocks are long, within a block.
func (r *Repo) windowEnd(l objfmt.Layout, off int64) int64 {
	rows := r.maxRows(l)
	if perBlock := int64(l.Block / l.Cell()); perBlock <= rows {
		step := rows / perBlock * l.Stripe()
		return (off/step + 1) * step
	}
	block, start := int64(l.Block), off/l.Stripe()*l.Stripe()
	if start+l.Stripe() > l.Size {
		block = int64(l.LastBlock(l.Size - start))
	}
	x := (off - start) % block
	step := rows * int64(l.Cell())
	return off - x + min((x/step+1)*step, block)
}

// readWindow fills p, which is part of one window.
func (r *Repo) readWindow(ctx context.Context, key string, l objfmt.Layout, stores []*store, p []byte, off int64) error {
	first, end := rowsOf(l, off, int64(len(p)))
	w := r.newWindow(key, l, stores, first, end)
	for d := range l.Data {
		lo, hi := l.CellsOf(d, off, int64(len(p)))
		w.want(d, lo, hi)
	}
	w.dest = func(shard int, cell int64) ([]byte, int) {
		at := l.CellOffset(shard, cell)
		lo, hi := max(at, off), min(at+int64(l.CellLen(shard, cell)), off+int64(len(p)))
		return p[lo-off : hi-off], int(lo - at)
	}
	return w.run(ctx)
}

// rowsOf returns the rows that hold bytes of the object's range.
func rowsOf(l objfmt.Layout, off, n int64) (first, end int64) {
	first = l.Rows()
	for d := range l.Data {
		if lo, hi := l.CellsOf(d, off, n); lo < hi {
			first, end = min(first, lo), max(end, hi)
		}
	}
	return first, end
}
