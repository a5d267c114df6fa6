package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"marfs/internal/testenv"
)

// wantOld checks on this mount, on another, and after mounting again, that
// files have the contents they had before writes failed.
func wantOld(t *testing.T, m *testenv.Mount, files map[string][]byte) {
	t.Helper()
	wantFiles(t, m, files)
	second := m.Again(t)
	wantFiles(t, second, files)
	second.Stop()
	m.Remount()
	wantFiles(t, m, files)
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
	t.Parallel() // it waits most of the time
	servers, o := sixServers(t)
	o.Expect = []string{"input/output error"}
	m := testenv.NewMount(t, o)
	old := map[string][]byte{"uni": noisy(1, 10*kib), "multi": noisy(2, 300*kib)}
	writeFiles(t, m, old)
	servers[0].Stop()
	servers[5].Stop()
	var all sync.WaitGroup
	for name, content := range old {
		all.Go(func() {
			wantFailure(t, m.Join(name), noisy(3, len(content)), syscall.EIO)
			wantFile(t, m.Join(name), content)
			fsyncFails(t, m.Join(name), noisy(4, len(content)))
		})
		all.Go(func() {
			wantFailure(t, m.Join("new-"+name), noisy(5, len(content)), syscall.EIO)
			wantNothing(t, m.Join("new-"+name))
		})
	}
	all.Wait()
	for name := range old {
		wantLogged(t, m, "path="+name+" ", "write ns/", "store "+servers[0].Endpoint+"/marfs-s0", "store "+servers[5].Endpoint+"/marfs-s5")
	}
	wantOld(t, m, old)

	servers[0].Restart()
	servers[5].Restart()
	m.Remount()
	wantFiles(t, m, old)
	for name, content := range old {
		mustWrite(t, m.Join(name), noisy(6, len(content)))
		mustWrite(t, m.Join("new-"+name), noisy(7, len(content)))
	}
	m.Remount()
	for name, content := range old {
		wantFile(t, m.Join(name), noisy(6, len(content)))
		wantFile(t, m.Join("new-"+name), noisy(7, len(content)))
	}
	wantClean(t, m)
}

// fsyncFails overwrites a file and asks for durability before close.
func fsyncFails(t *testing.T, path string, content []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Error(err)
		return
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
	dirs, stores := tmpfsStores(t, 3, "size=8m")
	o := testenv.Options{Stores: stores, Expect: []string{"no space"}}
	m := testenv.NewMount(t, o)
	old := noisy(1, mib)
	mustWrite(t, m.Join("f"), old)
	for range 3 {
		wantFailure(t, m.Join("f"), noisy(2, 32*mib), syscall.ENOSPC)
		wantFile(t, m.Join("f"), old)
	}
	wantLogged(t, m, "path=f ", "write ns/", "store "+filepath.Dir(dirs[0]), "no space")
	wantOld(t, m, map[string][]byte{"f": old})
	mustWrite(t, m.Join("small"), noisy(3, 2*mib))
	wantFile(t, m.Join("small"), noisy(3, 2*mib))
	wantClean(t, m)
}

// TestStoresReadOnly makes two of six stores unwritable, as a disk with errors is.
func TestStoresReadOnly(t *testing.T) {
	dirs, stores := tmpfsStores(t, 6, "size=8m")
	o := edges()
	o.Stores, o.Expect = stores, []string{"input/output error"}
	m := testenv.NewMount(t, o)
	old := noisy(1, 200*kib)
	mustWrite(t, m.Join("f"), old)
	for _, d := range dirs[2:4] {
		if err := unix.Mount("", d, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	}
	wantFailure(t, m.Join("f"), noisy(2, 200*kib), syscall.EIO)
	wantLogged(t, m, "path=f ", "write ns/", "store "+dirs[2], "store "+dirs[3])
	wantOld(t, m, map[string][]byte{"f": old})
	for _, d := range dirs[2:4] {
		if err := unix.Mount("", d, "", unix.MS_REMOUNT, ""); err != nil {
			t.Fatal(err)
		}
	}
	m.Remount()
	mustWrite(t, m.Join("f"), noisy(3, 200*kib))
	wantFile(t, m.Join("f"), noisy(3, 200*kib))
}
