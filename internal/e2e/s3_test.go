package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"marfs/internal/testenv"
)

// TestOneServerSixBuckets copies a source tree and a large file to six buckets
// of one server and finds them again with cold caches.
func TestOneServerSixBuckets(t *testing.T) {
	o := oneServer(t)
	o.BlockSize, o.ChunkSize = "256KiB", "16MiB"
	m := testenv.NewMount(t, o)
	src := goSource(t, "fmt", "text", "cmd/vet")
	for i, dir := range src {
		if err := copyTree(dir, m.Join(fmt.Sprint("tree", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := untar(src[0], m.Join("untarred")); err != nil {
		t.Fatal(err)
	}
	const size = 64*mib + 12345
	if err := writeNoise(m.Join("big"), 1, size, nil); err != nil {
		t.Fatal(err)
	}
	m.Remount()
	for i, dir := range src {
		if err := sameTree(dir, m.Join(fmt.Sprint("tree", i))); err != nil {
			t.Error(err)
		}
	}
	if err := sameTree(src[0], m.Join("untarred")); err != nil {
		t.Error(err)
	}
	if err := readNoise(m.Join("big"), 1, size, nil); err != nil {
		t.Error(err)
	}
	if f := stat(t, m, "big"); f.Type != "multi" || len(f.Objects) != 5 {
		t.Errorf("big is %s in %d objects, want multi in 5", f.Type, len(f.Objects))
	}
	wantClean(t, m)
}

// TestServersLost kills one of six servers while files are written and another
// while they are read: programs notice nothing, and what lacks a shard is known.
func TestServersLost(t *testing.T) {
	servers, o := sixServers(t)
	o.BlockSize, o.ChunkSize = "256KiB", "16MiB"
	m := testenv.NewMount(t, o)
	const size = 96*mib + 1
	const lostWriting, lostReading = 1, 4

	src := goSource(t, "encoding")[0]
	var writers errgroup.Group
	writers.Go(func() error { return copyTree(src, m.Join("tree")) })
	writers.Go(func() error { return writeNoise(m.Join("big"), 2, size, servers[lostWriting].Stop) })
	if err := writers.Wait(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, m.Join("after"), noisy(3, 100*kib))
	m.Remount() // cold caches; one server is away

	if err := readNoise(m.Join("big"), 2, size, servers[lostReading].Stop); err != nil {
		t.Error(err)
	}
	if err := sameTree(src, m.Join("tree")); err != nil {
		t.Error(err)
	}
	wantFile(t, m.Join("after"), noisy(3, 100*kib))

	servers[lostWriting].Restart()
	servers[lostReading].Restart()
	m.Remount() // what was noted is on disk
	t.Run("WhatIsMissing", func(t *testing.T) { missingIsKnown(t, m, fmt.Sprint("marfs-s", lostWriting)) })
}

// missingIsKnown checks what is known of the shards that one store did not take:
// it alone lacks some, and each object that lacks one is listed for rebuild.
func missingIsKnown(t *testing.T, m *testenv.Mount, store string) {
	noted := degraded(t, m)
	lacking := 0
	for _, name := range []string{"after", "big"} {
		for _, o := range stat(t, m, name).Objects {
			missing := o.not("ok")
			for _, s := range missing {
				if s.State != "missing" || !s.in(store) {
					t.Errorf("%s: shard %+v: want only %s to lack its own", o.Key, s, store)
				}
			}
			if want := len(missing) > 0; want != slices.Contains(noted, o.Key) {
				t.Errorf("%s lacks %v, but the list of degraded objects has it: %v", o.Key, missing, !want)
			}
			lacking += len(missing)
		}
	}
	if lacking < 2 {
		t.Errorf("%d shards are missing, want one of each object written after the loss", lacking)
	}
	if len(noted) <= lacking {
		t.Errorf("%d objects are listed as degraded, want some of the tree as well", len(noted))
	}
}

// TestServerHangs freezes a server, which is worse than killing it: connections
// stay, and nothing comes. Readers must not wait for it, and writers only until
// it is found out.
func TestServerHangs(t *testing.T) {
	t.Parallel() // it waits most of the time
	servers, o := sixServers(t)
	o.BlockSize, o.ChunkSize = "256KiB", "16MiB"
	m := testenv.NewMount(t, o)
	const size = 32 * mib
	if err := writeNoise(m.Join("f"), 1, size, nil); err != nil {
		t.Fatal(err)
	}
	m.Remount()
	start := time.Now()
	if err := readNoise(m.Join("f"), 1, size, servers[2].Freeze); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("reading around a server that hangs took %v", took)
	}
	start = time.Now()
	if err := writeNoise(m.Join("g"), 2, size, nil); err != nil {
		t.Error(err)
	}
	t.Logf("writing around a server that hangs took %v", time.Since(start))
	servers[2].Thaw()
	m.Remount()
	for i, name := range []string{"f", "g"} {
		if err := readNoise(m.Join(name), uint64(i+1), size, nil); err != nil {
			t.Error(err)
		}
	}
}

// TestRollingRestart restarts one server after the other, as for an upgrade, while
// programs write and read.
func TestRollingRestart(t *testing.T) {
	t.Parallel() // it waits most of the time
	servers, o := sixServers(t)
	o.BlockSize, o.ChunkSize = "64KiB", "4MiB"
	m := testenv.NewMount(t, o)
	ctx, stop := context.WithCancel(t.Context())
	var programs errgroup.Group
	for w := range 3 {
		programs.Go(func() error {
			for i := 0; ctx.Err() == nil; i++ {
				if err := rewrite(m.Join(fmt.Sprintf("w%d.%d", w, i%5)), i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, s := range servers[:often(3, 6)] {
		s.Stop()
		for i := range 5 {
			if err := rewrite(m.Join("without"), i); err != nil {
				t.Error(err)
			}
		}
		s.Restart()
		wantWholeSoon(t, m)
	}
	stop()
	if err := programs.Wait(); err != nil {
		t.Error(err)
	}
}

// rewrite overwrites a file and reads it.
func rewrite(path string, i int) error {
	size := int64(64*kib) << (i % 7)
	if err := writeNoise(path, uint64(i), size, nil); err != nil {
		return err
	}
	return readNoise(path, uint64(i), size, nil)
}

// wantWholeSoon waits until a new file has all its shards: every server is used again.
func wantWholeSoon(t *testing.T, m *testenv.Mount) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		mustWrite(t, m.Join("probe"), noisy(1, mib))
		o := stat(t, m, "probe").Objects[0]
		if len(o.not("ok")) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a server that is back is not written to: %+v", o.not("ok"))
		}
	}
}
