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
	const cache, writers = 64 * mib, 4
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
		if most > bound(cache) {
			t.Errorf("the daemon took %d MiB, want at most %d", most/mib, bound(cache)/mib)
		}
		m.Remount()
	}
}

// TestManyOpenFiles writes to more files at once than the configured memory has
// full-sized buffers for.
func TestManyOpenFiles(t *testing.T) {
	const cache, count, rounds = 64 * mib, 500, 3
	m := testenv.NewMount(t, testenv.Options{Data: 4, Parity: 2, BlockSize: "1MiB", ChunkSize: "16MiB",
		More: fmt.Sprintf("cache: {memory: %dMiB}\n", cache/mib)})
	contents := map[string][]byte{}
	open := map[string]*os.File{}
	for i := range count {
		name := fmt.Sprint("f", i)
		contents[name] = noisy(uint64(i+1), rounds*(1+i%97*kib))
		f, err := os.Create(m.Join(name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		open[name] = f
	}
	for r := range rounds {
		for name, f := range open {
			c := contents[name]
			if _, err := f.Write(c[len(c)*r/rounds : len(c)*(r+1)/rounds]); err != nil {
				t.Fatal(err)
			}
		}
	}
	var g errgroup.Group
	g.SetLimit(16)
	for _, f := range open {
		g.Go(f.Close)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if most := highWater(t, m.PID()); !testenv.Race && most > bound(cache) {
		t.Errorf("the daemon took %d MiB, want at most %d", most/mib, bound(cache)/mib)
	}
	m.Remount()
	wantFiles(t, m, contents)
}

// bound is what a daemon with so much cache.memory may take: a garbage collected
// heap grows to twice what is alive, and the rest is for program, runtime, stacks
// and requests of the kernel in flight.
func bound(cache int64) int64 { return 2*cache + 96*mib }

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
