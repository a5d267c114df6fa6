package packer

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"marfs/pkg/objfmt"
)

const (
	// windowFiles bounds the candidates that are sorted together: 20 MB of them.
	windowFiles = 1 << 17
	// windowPaths bounds the bytes of their directories' paths.
	windowPaths = 16 << 20
	// windowTargets bounds their contents, in packs, so that the first pack of a long
	// list is not made long after its files were seen.
	windowTargets = 16
	// packFiles bounds the members of a pack: all that is known of them is in memory.
	packFiles = 1 << 15
)

// candidate is a staged file, as far as its turn depends on it.
type candidate struct {
	id    objfmt.ID
	ino   uint64
	bytes int64
	since int64  // ctime, Unix nanoseconds
	dir   string // where its name was, as far as is known
	uid   uint32
	place int32 // index of Config.Places
}

// order is that of files in packs: what belongs together is read together. The
// inode numbers of a directory rise with time, about; no two files have the same.
func order(a, b candidate) int {
	return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.uid, b.uid),
		strings.Compare(a.dir, b.dir), cmp.Compare(a.ino, b.ino), slices.Compare(a.id[:], b.id[:]))
}

// window is the candidates that are cut into packs together.
type window struct {
	list  []candidate
	bytes int64
	dirs  map[string]string // one string for each directory
	paths int64             // bytes of them
}

func (w *window) add(c candidate) {
	dir, ok := w.dirs[c.dir]
	if !ok {
		if w.dirs == nil {
			w.dirs = map[string]string{}
		}
		dir = strings.Clone(c.dir)
		w.dirs[dir] = dir
		w.paths += int64(len(dir))
	}
	c.dir = dir
	w.list = append(w.list, c)
	w.bytes += c.bytes
}

func (w *window) full(target int64) bool {
	return len(w.list) >= windowFiles || w.paths >= windowPaths || w.bytes >= windowTargets*target
}

// keep is what stays in the window.
func (w *window) keep(rest []candidate) {
	*w = window{}
	for _, c := range rest {
		w.add(c)
	}
}

// cut takes the window apart: full packs, and for each place what does not fill
// one. A listing may name a file twice.
func (w *window) cut(target int64) (packs, rests [][]candidate) {
	slices.SortFunc(w.list, order)
	w.list = slices.CompactFunc(w.list, func(a, b candidate) bool { return a.id == b.id })
	start, bytes := 0, int64(0)
	for i, c := range w.list {
		switch {
		case i > start && c.place != w.list[start].place:
			rests = append(rests, w.list[start:i])
			start, bytes = i, 0
		case i-start >= packFiles || i > start && bytes+c.bytes > target:
			packs = append(packs, w.list[start:i])
			start, bytes = i, 0
		}
		bytes += c.bytes
	}
	if start < len(w.list) {
		rests = append(rests, w.list[start:])
	}
	return packs, rests
}

// oldest is when the first of the files came to rest.
func oldest(list []candidate) time.Time {
	first := list[0].since
	for _, c := range list {
		first = min(first, c.since)
	}
	return time.Unix(0, first)
}
