package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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
	t.Run("Directories", func(t *testing.T) { killAgainAndAgain(t, edges(), often(4, 100)) })
	t.Run("S3", func(t *testing.T) {
		o := oneServer(t)
		o.BlockSize, o.ChunkSize = "4KiB", "64KiB"
		killAgainAndAgain(t, o, often(2, 50))
	})
}

func killAgainAndAgain(t *testing.T, o testenv.Options, cycles int) {
	m := testenv.NewMount(t, o)
	files := map[string]*history{}
	rnd := rand.New(rand.NewPCG(5, 5))
	for cycle := range cycles {
		crash(m, files, cycle, 20+rnd.IntN(60))
		m.Remount()
		for name, h := range files {
			if err := h.check(m.Join(name)); err != nil {
				t.Fatalf("cycle %d: %v", cycle, err)
			}
		}
		mustWrite(t, m.Join(fmt.Sprint("alive", cycle)), noisy(uint64(cycle), 100*kib))
	}
	if len(files) < 30 {
		t.Errorf("only %d files were written", len(files))
	}
	m.Remount()
	for name, h := range files {
		if err := h.check(m.Join(name)); err != nil {
			t.Error(err)
		}
	}
	wantNoWork(t, m)
	wantClean(t, m)
}

// TestStopped asks the daemon to end while a program writes: it waits for the
// program, and what that was told is true.
func TestStopped(t *testing.T) {
	m := testenv.NewMount(t, edges())
	content := noisy(1, 3*mib)
	f, err := os.Create(m.Join("f"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content[:mib]); err != nil {
		t.Fatal(err)
	}
	m.Signal(syscall.SIGTERM)
	wantLogged(t, m, "msg=unmounting")
	if _, err := f.Write(content[mib:]); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if code := m.Wait(); code != 0 {
		t.Errorf("the daemon ended with code %d", code)
	}
	m.Remount()
	wantFile(t, m.Join("f"), content)
}

// wantNoWork waits until what killed daemons left unfinished is finished or abandoned.
func wantNoWork(t *testing.T, m *testenv.Mount) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if left = filesBelow(t, filepath.Join(m.Dir, "metadata", "work")); len(left) == 0 {
			return
		}
	}
	t.Errorf("unfinished writes are still recorded: %v", left)
}

// crash runs writers and kills the daemon once they were told of so many
// successes. Each makes new files, overwrites its own, and replaces them by rename.
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
				put := writeFile
				switch k % 4 {
				case 2:
					name = fmt.Sprintf("again%d", w)
				case 3:
					name, put = fmt.Sprintf("replaced%d", w), replaceFile
				}
				mu.Lock()
				h := files[name]
				if h == nil {
					h = &history{seed: uint64(len(files) + 1), sizes: []int{0}}
					files[name] = h
				}
				mu.Unlock()
				if put(m.Join(name), h.next(1+rnd.IntN(1<<rnd.IntN(19)))) != nil {
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

// replaceFile writes a file beside path and renames it over path, as editors and
// rsync do.
func replaceFile(path string, content []byte) error {
	if err := writeFile(path+"~", content); err != nil {
		return err
	}
	return os.Rename(path+"~", path)
}
