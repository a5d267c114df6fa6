package repo

import (
	"errors"
	"slices"

	"marfs/pkg/erasure"
)

// What a window does about cells that do not come.

// orphan reports whether the cell is wanted and no fetch will bring it in time.
func (w *window) orphan(shard int, cell int64) bool {
	s := w.state(shard, cell)
	return (s == wanted || s == arriving) && !w.coming(shard, cell)
}

// coming reports whether a fetch that is not slow has yet to bring the cell.
func (w *window) coming(shard int, cell int64) bool {
	for _, f := range w.flying {
		if f.shard == shard && !f.slow && f.first <= cell && cell < f.end {
			return true
		}
	}
	return false
}

// repair reconstructs what it can of the cells nobody will bring, and fetches
// what it takes to reconstruct the others.
func (w *window) repair() error {
	for w.troubled() {
		short, err := w.reconstruct()
		if err != nil || len(short) == 0 {
			return err
		}
		if err := w.reserve(); err != nil {
			return err
		}
		if w.fetchSpare(short) {
			continue
		}
		if len(w.flying) == 0 {
			return w.lost()
		}
		return nil // slow ones may still come
	}
	return nil
}

// troubled reports whether there can be orphans at all.
func (w *window) troubled() bool {
	return len(w.flying) == 0 || w.avoided ||
		slices.ContainsFunc(w.dead, func(err error) bool { return err != nil }) ||
		slices.ContainsFunc(w.flying, func(f *fetch) bool { return f.slow })
}

// reserve acquires the memory of everything a repair may keep, at once: holding
// some and waiting for more could block two reads for ever.
func (w *window) reserve() error {
	if w.repairs > 0 {
		return nil
	}
	n := min(rowMemory(len(w.stores), w.rows, w.layout.Cell()), w.repo.repairs.size)
	if err := w.repo.repairs.acquire(w.ctx, n); err != nil {
		return err
	}
	w.repairs = n
	return nil
}

// reconstruct computes the orphans of each row that has enough cells, and
// returns the rows that lack some that nobody is bringing.
func (w *window) reconstruct() (short []int64, err error) {
	for c := w.first; c < w.first+w.rows; c++ {
		var orphans []int
		have, coming := 0, 0
		for shard := range w.stores {
			switch {
			case w.source(shard, c) != nil:
				have++
			case w.coming(shard, c):
				coming++
			}
			if w.orphan(shard, c) {
				orphans = append(orphans, shard)
			}
		}
		switch {
		case len(orphans) == 0:
		case have >= w.layout.Data:
			if err := w.reconstructRow(c, orphans); err != nil {
				return nil, err
			}
		case have+coming < w.layout.Data:
			short = append(short, c)
		}
	}
	return short, nil
}

func (w *window) reconstructRow(c int64, orphans []int) error {
	codec, err := erasure.New(w.layout.Geometry)
	if err != nil {
		return err
	}
	size := w.layout.CellLen(0, c)
	row, want := make([][]byte, len(w.stores)), make([]bool, len(w.stores))
	var scratch []*[]byte
	defer func() {
		for _, b := range scratch {
			w.repo.giveCell(b)
		}
	}()
	for shard, have := 0, 0; have < w.layout.Data; shard++ {
		src := w.source(shard, c)
		if src == nil {
			continue
		}
		have++
		if row[shard] = src; len(src) < size {
			b := w.repo.cell(size)
			scratch = append(scratch, b)
			row[shard] = (*b)[:size]
			clear(row[shard][copy(row[shard], src):])
		}
	}
	// A slow fetch may have brought an orphan meanwhile.
	orphans = slices.DeleteFunc(orphans, func(shard int) bool { return row[shard] != nil })
	for _, shard := range orphans {
		b := w.repo.cell(size)
		scratch = append(scratch, b)
		row[shard], want[shard] = (*b)[:0:size], true
	}
	if err := codec.Reconstruct(row, want); err != nil {
		return err
	}
	for _, shard := range orphans {
		w.deliver(shard, c, row[shard][:w.layout.CellLen(shard, c)])
	}
	return nil
}

// fetchSpare asks one more shard for cells of the rows that are short. Data
// shards come first; stores that failed lately only when nothing else is left.
func (w *window) fetchSpare(short []int64) bool {
	from, end := short[0], short[len(short)-1]+1
	for shard := range w.stores {
		if w.dead[shard] != nil {
			continue
		}
		f := w.span(shard, func(c int64) bool {
			return from <= c && c < end && w.source(shard, c) == nil && !w.covered(shard, c)
		})
		if f != nil && w.start(f) {
			return true
		}
	}
	if w.avoided {
		return false
	}
	w.avoided = true
	again := false
	for shard, err := range w.dead {
		if errors.Is(err, errAvoided) {
			w.dead[shard], again = nil, true
		}
	}
	return again
}

// covered reports whether a fetch, slow or not, is on its way to the cell.
func (w *window) covered(shard int, cell int64) bool {
	for _, f := range w.flying {
		if f.shard == shard && f.first <= cell && cell < f.end {
			return true
		}
	}
	return false
}
