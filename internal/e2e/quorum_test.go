package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"marfs/internal/testenv"
)

// wantOld checks on this mount, on another, and after mounting again, that a
// file has the content it had before a write failed.
func wantOld(t *testing.T, m *testenv.Mount, name string, content []byte) {
	t.Helper()
	mustHold(t, m.Join(name), content)
	second := m.Again(t)
	mustHold(t, second.Join(name), content)
	second.Stop()
	m.Remount()
	mustHold(t, m.Join(name), content)
}

// wantFailure overwrites a file, which must fail by close.
func wantFailure(t *testing.T, path string, content []byte, want ...syscall.Errno) {
	t.Helper()
	err := writeFile(path, content)
	for _, e := range want {
		if errors.Is(err, e) {
			return
		}
	}
	t.Errorf("writing %s: %v, want %v", path, err, want)
}

// TestServersLostForWriting kills more servers than a write can do without.
func TestServersLostForWriting(t *testing.T) {
	servers, o := sixServers(t)
	o.Expect = []string{"too few shards"}
	m := testenv.NewMount(t, o)
	for _, size := range []int{10 * kib, 300 * kib} { // one object, several
		old := noisy(1, size)
		mustWrite(t, m.Join("f"), old)
		servers[0].Stop()
		servers[5].Stop()
		wantFailure(t, m.Join("f"), noisy(2, size), syscall.EIO)
		if !logLine(m, "f", "ns/", "marfs-s0", servers[5].Endpoint) {
			t.Errorf("no line of the log names the file, the object and both stores:\n%s", m.Log())
		}
		fsyncFails(t, m.Join("f"), noisy(3, size))
		wantOld(t, m, "f", old)
		wantFailure(t, m.Join("new"), noisy(4, size), syscall.EIO)
		wantNothing(t, m.Join("new"))

		servers[0].Restart()
		servers[5].Restart()
		m.Remount()
		mustHold(t, m.Join("f"), old)
		mustWrite(t, m.Join("f"), noisy(5, size))
		m.Remount()
		mustHold(t, m.Join("f"), noisy(5, size))
	}
}

// fsyncFails overwrites a file and asks for durability before close.
func fsyncFails(t *testing.T, path string, content []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return // soon enough
	}
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("fsync of %s: %v, want EIO", path, err)
	}
}

// wantNothing checks a file of which nothing was acknowledged: absent or empty.
func wantNothing(t *testing.T, path string) {
	t.Helper()
	if b, err := os.ReadFile(path); len(b) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %d bytes, %v, want none", path, len(b), err)
	}
}

// TestStoresFull fills the stores. What did not fit leaves nothing behind, so
// that smaller files still do.
func TestStoresFull(t *testing.T) {
	dirs, stores := tmpfsStores(t, 3, 8*mib)
	o := testenv.Options{Stores: stores, Expect: []string{"no space"}}
	m := testenv.NewMount(t, o)
	old := noisy(1, mib)
	mustWrite(t, m.Join("f"), old)
	for i := range 3 {
		wantFailure(t, m.Join("f"), noisy(2, 32*mib), syscall.ENOSPC)
		mustHold(t, m.Join("f"), old)
		if t.Failed() {
			t.Fatalf("at attempt %d", i)
		}
	}
	if !logLine(m, "f", "ns/", dirs[0]) {
		t.Errorf("no line of the log names the file, the object and the store:\n%s", m.Log())
	}
	wantOld(t, m, "f", old)
	mustWrite(t, m.Join("small"), noisy(3, 2*mib))
	mustHold(t, m.Join("small"), noisy(3, 2*mib))
	wantClean(t, m)
}

// TestStoresReadOnly makes two of six stores unwritable, as a disk with errors is.
func TestStoresReadOnly(t *testing.T) {
	dirs, stores := tmpfsStores(t, 6, 8*mib)
	o := edges()
	o.Stores, o.Expect = stores, []string{"too few shards"}
	m := testenv.NewMount(t, o)
	old := noisy(1, 200*kib)
	mustWrite(t, m.Join("f"), old)
	for _, d := range dirs[2:4] {
		if err := unix.Mount("", d, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	}
	wantFailure(t, m.Join("f"), noisy(2, 200*kib), syscall.EIO, syscall.EROFS)
	if !logLine(m, "f", "ns/", filepath.Base(dirs[2]), filepath.Base(dirs[3])) {
		t.Errorf("no line of the log names the file, the object and both stores:\n%s", m.Log())
	}
	wantOld(t, m, "f", old)
	for _, d := range dirs[2:4] {
		if err := unix.Mount("", d, "", unix.MS_REMOUNT, ""); err != nil {
			t.Fatal(err)
		}
	}
	m.Remount()
	mustWrite(t, m.Join("f"), noisy(3, 200*kib))
	mustHold(t, m.Join("f"), noisy(3, 200*kib))
}
