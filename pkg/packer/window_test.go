package packer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"marfs/pkg/objfmt"
)

// Whatever comes, a window stays within its bounds, packs within theirs, and every
// file is in one pack.
func TestWindow(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const files, target = 400_000, 1 << 20
	var w window
	seen := make(map[objfmt.ID]bool, files)
	most := 0
	emit := func(packs [][]candidate) {
		for _, p := range packs {
			bytes := int64(0)
			for _, c := range p {
				if seen[c.id] {
					t.Fatalf("file %s is in two packs", c.id)
				}
				seen[c.id] = true
				bytes += c.bytes
			}
			if len(p) > packFiles || len(p) > 1 && bytes > target || !slices.IsSortedFunc(p, order) || p[0].place != p[len(p)-1].place {
				t.Fatalf("a pack of %d files and %d bytes", len(p), bytes)
			}
		}
	}
	for i := range files {
		c := candidate{ino: rnd.Uint64(), bytes: 1 + rnd.Int64N(50), uid: uint32(rnd.IntN(3)), place: int32(rnd.IntN(2)), dir: fmt.Sprintf("d%d/", rnd.IntN(1000))}
		if rnd.IntN(1000) == 0 {
			c.bytes = target + rnd.Int64N(100)
		}
		c.id = objfmt.NewID()
		w.add(c)
		if rnd.IntN(100) == 0 {
			w.add(c) // listed twice
		}
		most = max(most, len(w.list))
		if w.full(target) {
			packs, rests := w.cut(target)
			emit(packs)
			if len(packs) == 0 {
				t.Fatalf("nothing comes of a full window: %d files", i)
			}
			w.keep(slices.Concat(rests...))
		}
	}
	packs, rests := w.cut(target)
	emit(packs)
	emit(rests)
	if len(seen) != files {
		t.Errorf("%d of %d files are in packs", len(seen), files)
	}
	if most > windowFiles+1 {
		t.Errorf("a window of %d files", most)
	}
}

// Long paths fill a window, too.
func TestWindowPaths(t *testing.T) {
	var w window
	n := 0
	for ; !w.full(1 << 40); n++ {
		w.add(candidate{dir: fmt.Sprint(n, strings.Repeat("x", 100_000))})
	}
	if n > windowPaths/100_000+1 {
		t.Errorf("full after %d", n)
	}
}
