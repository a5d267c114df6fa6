package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/namespace"
)

func TestGone(t *testing.T) {
	mine, err := nodeName(Interactive)
	if err != nil {
		t.Fatal(err)
	}
	where, err := pidSpace()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("true")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		mine: false,
		fmt.Sprintf("a.b.batch.%d.%s.0123", child.Process.Pid, where): true,
		fmt.Sprintf("a.b.batch.%d.other.0123", child.Process.Pid):     false, // another kernel's pid
		"short":                                  false,
		fmt.Sprintf("h.batch.0.%s.0123", where):  false,
		fmt.Sprintf("h.batch.-1.%s.0123", where): false,
	} {
		if have := gone(name); have != want {
			t.Errorf("gone(%q) is %v", name, have)
		}
	}
}

// A process that died in the middle of a write leaves a record and a body; the
// next mount of the same host puts that in order by itself.
func TestAMountRecoversWhatADeadOneLeft(t *testing.T) {
	if site := os.Getenv("MARFS_TEST_DIE_IN"); site != "" {
		dieWriting(t, site)
	}
	s := newSite(t, 2, 1)
	s.init(t)
	child := exec.Command(os.Args[0], "-test.run=^TestAMountRecoversWhatADeadOneLeft$")
	child.Env = append(os.Environ(), "MARFS_TEST_DIE_IN="+s.dir)
	if out, err := child.CombinedOutput(); err == nil || child.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child ended by itself: %v\n%s", err, out)
	}
	work := func() []string {
		m, err := filepath.Glob(filepath.Join(s.dir, "md", "work", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if len(work()) == 0 {
		t.Fatal("the dead process left no work record: the test proves nothing")
	}
	s.open(t)
	for range 100 {
		if len(work()) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("still there: %v", work())
}

// What crashed writers left in the stores is removed, also from one that was not
// there at the start.
func TestAMountCleansItsStores(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	long := time.Now().Add(-abandonedAfter - time.Hour)
	file := func(i int) string { return filepath.Join(s.stores[i], "~tmp", "left") }
	for i := range s.stores {
		if err := errors.Join(os.WriteFile(file(i), nil, 0o600), os.Chtimes(file(i), long, long)); err != nil {
			t.Fatal(err)
		}
	}
	away := s.stores[1] + ".away"
	if err := os.Rename(s.stores[1], away); err != nil {
		t.Fatal(err)
	}
	sys, _ := s.open(t)
	removed := func(i int) bool {
		_, err := os.Lstat(file(i))
		return errors.Is(err, fs.ErrNotExist)
	}
	for range 200 {
		if removed(0) && removed(2) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if !removed(0) || !removed(2) {
		t.Error("the files of crashed writers are still there")
	}
	if err := os.Rename(away, s.stores[1]); err != nil {
		t.Fatal(err)
	}
	l := sys.stores[1].Store.(*late)
	l.mu.Lock()
	l.tried = time.Time{}
	l.mu.Unlock()
	if n, err := l.Clean(t.Context(), abandonedAfter); n != 1 || err != nil || !removed(1) {
		t.Errorf("store that came back: %d files removed, %v; want 1", n, err)
	}
}

func dieWriting(t *testing.T, dir string) {
	s := &site{dir: dir, repo: "r", data: 2}
	for i := range 3 {
		s.stores = append(s.stores, filepath.Join(dir, fmt.Sprintf("s%d", i)))
	}
	sys, _ := s.open(t)
	unclosed(t, sys)
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// A file that is deleted while it is written leaves a record that leads to its
// objects, for others may be reading it: the mount comes back for it in time,
// though nobody has died, and sooner after an error.
func TestAMountRecoversWhatItLeftItself(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	sys, _ := s.open(t)
	sys.stopRecovery()
	meta := sys.Namespaces[0].Meta
	now := time.Now()
	r := &recovery{meta: meta, watch: metadata.NewWatch(deadAfter), due: now.Add(sweepEvery), swept: now}
	s.writeDeleted(t, sys)
	left := func(after time.Duration) int {
		t.Helper()
		if err := r.pass(t.Context(), now.Add(after)); err != nil {
			t.Error(err)
		}
		m, err := filepath.Glob(filepath.Join(s.dir, "md", "work", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(m)
	}
	if n := left(0); n != 1 {
		t.Errorf("%d work records before it is time", n)
	}
	if n := left(sweepEvery); n != 0 {
		t.Errorf("%d work records are left", n)
	}

	bad := filepath.Join(s.dir, "md", "work", "n", "no record")
	if err := errors.Join(os.Mkdir(filepath.Dir(bad), 0o700), os.WriteFile(bad, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := r.pass(t.Context(), now.Add(2*sweepEvery)); err == nil {
		t.Error("recovery of a record that is none succeeded")
	}
	s.writeDeleted(t, sys)
	if n := left(2*sweepEvery + deadAfter); n != 0 {
		t.Errorf("%d work records are left after an error", n)
	}
}

// unclosed writes the file /a/f, and leaves it open.
func unclosed(t *testing.T, sys *System) (*namespace.Dir, *namespace.File) {
	t.Helper()
	d, name, err := sys.FS.Walk(t.Context(), caller(), "/a/f")
	if err != nil {
		t.Fatal(err)
	}
	f, _, err := d.Create(t.Context(), caller(), name, syscall.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(t.Context(), caller(), make([]byte, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	return d, f
}

// writeDeleted writes a file and deletes it before it is closed.
func (s *site) writeDeleted(t *testing.T, sys *System) {
	t.Helper()
	d, f := unclosed(t, sys)
	if err := errors.Join(d.Unlink(t.Context(), caller(), "f"), f.Close()); err != nil {
		t.Fatal(err)
	}
}
