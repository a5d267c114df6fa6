package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"marfs/internal/testenv"
)

// TestMemory writes and reads several large files at once and bounds the most
// memory that the daemon ever had by what the configuration allows it.
func TestMemory(t *testing.T) {
	if testenv.Race {
		t.Skip("the race detector needs memory of its own")
	}
	const (
		cache   = 64 * mib
		rest    = 96 * mib       // program, runtime, stacks, requests of the kernel in flight
		bound   = 2*cache + rest // a garbage collected heap grows to twice what is alive
		writers = 4
	)
	size := int64(often(64, 2048)) * mib
	m := testenv.NewMount(t, testenv.Options{Data: 4, Parity: 2, BlockSize: "1MiB", ChunkSize: "16MiB",
		More: fmt.Sprintf("cache: {memory: %dMiB}\n", cache/mib)})
	for _, what := range []func(string, uint64, int64, func()) error{writeNoise, readNoise} {
		var g errgroup.Group
		for w := range writers {
			g.Go(func() error { return what(m.Join(fmt.Sprint("f", w)), uint64(w+1), size, nil) })
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		most := highWater(t, m.PID())
		t.Logf("%d MiB at most", most/mib)
		if most > bound {
			t.Errorf("the daemon took %d MiB, want at most %d", most/mib, bound/mib)
		}
		m.Remount()
	}
}

// highWater is the most memory that a process ever had resident, in bytes.
func highWater(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); n == 1 {
			return kilobytes * kib
		}
	}
	t.Fatalf("no VmHWM in\n%s", status)
	return 0
}
