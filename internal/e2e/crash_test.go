package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"marfs/internal/testenv"
)

// history is what one writer did to one file: contents are generations of noise.
type history struct {
	seed  uint64
	acked int // newest generation whose close returned nothing but success; 0: none
	tried int // newest generation that was begun
	sizes []int
}

func (h *history) content(gen int) []byte { return noisy(h.seed<<20|uint64(gen), h.sizes[gen]) }

// next begins a generation.
func (h *history) next(size int) []byte {
	h.tried++
	h.sizes = append(h.sizes, size)
	return h.content(h.tried)
}

// check says what is wrong with what is left of a file: it must be the content
// that was acknowledged last, or the whole of the one after that.
func (h *history) check(path string) error {
	got, err := os.ReadFile(path)
	if h.acked == 0 && (os.IsNotExist(err) || err == nil && len(got) == 0) {
		return nil
	}
	if err != nil {
		return err
	}
	for gen := max(h.acked, 1); gen <= h.tried; gen++ {
		if bytes.Equal(got, h.content(gen)) {
			h.acked, h.tried, h.sizes = gen, gen, h.sizes[:gen+1]
			return nil
		}
	}
	return fmt.Errorf("%s: %d bytes that are neither generation %d (%d bytes) nor a later one, whole", path, len(got), h.acked, h.sizes[h.acked])
}

// TestKilled kills the daemon in the midst of many writes, mounts again, and
// compares with what the writers were told.
func TestKilled(t *testing.T) {
	m := testenv.NewMount(t, edges())
	files := map[string]*history{}
	rnd := rand.New(rand.NewPCG(5, 5))
	for cycle := range often(4, 200) {
		crash(m, files, cycle, 20+rnd.IntN(60))
		m.Remount()
		for name, h := range files {
			if err := h.check(m.Join(name)); err != nil {
				t.Fatalf("cycle %d: %v", cycle, err)
			}
		}
		mustWrite(t, m.Join(fmt.Sprint("alive", cycle)), noisy(uint64(cycle), 100*kib))
	}
	if len(files) < 50 {
		t.Errorf("only %d files were written", len(files))
	}
	m.Remount()
	for name, h := range files {
		if err := h.check(m.Join(name)); err != nil {
			t.Error(err)
		}
	}
	wantClean(t, m)
}

// crash runs writers and kills the daemon once they were told of so many
// successes. Each makes new files, and overwrites its own.
func crash(m *testenv.Mount, files map[string]*history, cycle, successes int) {
	const writers = 4
	var acked atomic.Int64
	enough := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex // guards files, not the histories, each of which has one writer
	for w := range writers {
		rnd := rand.New(rand.NewPCG(uint64(cycle), uint64(w)))
		wg.Go(func() {
			for k := 0; ; k++ {
				name := fmt.Sprintf("c%dw%df%d", cycle, w, k)
				if k%3 == 2 {
					name = fmt.Sprintf("again%d", w)
				}
				mu.Lock()
				h := files[name]
				if h == nil {
					h = &history{seed: uint64(len(files) + 1), sizes: []int{0}}
					files[name] = h
				}
				mu.Unlock()
				if writeFile(m.Join(name), h.next(1+rnd.IntN(1<<rnd.IntN(19)))) != nil {
					return // the daemon is dead
				}
				h.acked = h.tried
				if acked.Add(1) == int64(successes) {
					close(enough)
				}
			}
		})
	}
	<-enough
	m.Kill()
	wg.Wait()
}
