package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"marfs/internal/testenv"
)

// TestTwoWriters lets two programs overwrite one file at the same time, many
// times, and wants one of them to have won entirely.
func TestTwoWriters(t *testing.T) {
	t.Run("OneMount", func(t *testing.T) {
		m := testenv.NewMount(t, edges())
		race(t, [2]*testenv.Mount{m, m})
		wantClean(t, m)
	})
	t.Run("TwoMounts", func(t *testing.T) {
		m := testenv.NewMount(t, edges())
		race(t, [2]*testenv.Mount{m, m.Again(t)})
		wantClean(t, m)
	})
}

func race(t *testing.T, mounts [2]*testenv.Mount) {
	rnd := rand.New(rand.NewPCG(1, 1))
	mustWrite(t, mounts[0].Join("f"), []byte("before"))
	last := [][]byte{[]byte("before")}
	for round := range often(60, 5000) {
		var contents [2][]byte
		var errs [2]error
		var wg sync.WaitGroup
		for i, m := range mounts {
			contents[i] = noisy(uint64(2*round+i+1), rnd.IntN(1<<rnd.IntN(19))+1)
			pieces := 1 + rnd.IntN(4)
			wg.Go(func() { errs[i] = writePieces(m.Join("f"), contents[i], pieces) })
		}
		wg.Wait()
		last = winners(last, contents, errs)
		for i, m := range mounts {
			got, err := os.ReadFile(m.Join("f"))
			if err != nil {
				t.Fatalf("round %d, mount %d: %v", round, i, err)
			}
			k := indexOf(last, got)
			if k < 0 {
				t.Fatalf("round %d, mount %d: %d bytes that nobody wrote alone; writers of %d (%v) and %d (%v)",
					round, i, len(got), len(contents[0]), errs[0], len(contents[1]), errs[1])
			}
			last = [][]byte{last[k]} // and so the other mount must see it
		}
	}
}

// winners are the contents that the file may have: of those who were told that
// they had succeeded, or, if nobody was, what it had or any of both.
func winners(before [][]byte, contents [2][]byte, errs [2]error) (may [][]byte) {
	for i, err := range errs {
		if err == nil {
			may = append(may, contents[i])
		}
	}
	if may == nil {
		may = append(before, contents[:]...)
	}
	return may
}

// resembles says which content bytes begin like, to tell a cut or padded content
// from a mixture.
func resembles(b []byte, contents [][]byte) string {
	for i, c := range contents {
		if n := min(len(b), len(c)); n > 0 && bytes.Equal(b[:n], c[:n]) {
			return fmt.Sprintf("they begin with %d of the %d bytes of number %d", n, len(c), i)
		}
	}
	return "they begin like none"
}

func indexOf(contents [][]byte, b []byte) int {
	for i, c := range contents {
		if bytes.Equal(c, b) {
			return i
		}
	}
	return -1
}

// writePieces overwrites a file by several writes.
func writePieces(path string, content []byte, pieces int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for k := range pieces {
		piece := content[len(content)*k/pieces : len(content)*(k+1)/pieces]
		if _, err := f.Write(piece); err != nil {
			f.Close()
			return fmt.Errorf("piece %d of %d: %w", k, pieces, err)
		}
	}
	return f.Close()
}

// TestReadersElsewhere reads a file over and over on one mount while it is
// overwritten on another: every open sees one whole content, never an older one
// than the open before did.
func TestReadersElsewhere(t *testing.T) {
	m := testenv.NewMount(t, edges())
	elsewhere := m.Again(t)
	rnd := rand.New(rand.NewPCG(3, 3))
	var contents [][]byte
	for i := range often(40, 2000) {
		contents = append(contents, noisy(uint64(i+1), 1+rnd.IntN(1<<rnd.IntN(19))))
	}
	mustWrite(t, m.Join("f"), contents[0])
	var closed atomic.Int64 // how many contents are whole for sure
	closed.Store(1)
	var writer errgroup.Group
	writer.Go(func() error {
		for _, c := range contents[1:] {
			if err := writeFile(m.Join("f"), c); err != nil {
				return err
			}
			closed.Add(1)
		}
		return nil
	})
	for newest, reads := 0, 0; newest < len(contents)-1; reads++ {
		least := max(newest, int(closed.Load())-1)
		got, err := os.ReadFile(elsewhere.Join("f"))
		if err != nil {
			t.Fatal(err)
		}
		k := indexOf(contents[least:], got)
		if k < 0 {
			t.Fatalf("read %d: %d bytes that are no content from number %d on: %s", reads, len(got), least, resembles(got, contents))
		}
		newest = least + k
	}
	if err := writer.Wait(); err != nil {
		t.Fatal(err)
	}
}
