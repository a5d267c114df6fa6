package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

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
			wg.Go(func() { errs[i] = writePieces(m.Join("f"), contents[i], 1+rnd.IntN(4)) })
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
