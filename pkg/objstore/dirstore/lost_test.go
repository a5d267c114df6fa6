package dirstore

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"marfs/pkg/objstore"
)

// replace puts an empty directory where dir is, as mounting another disk does.
func replace(t *testing.T, dir string) (old string) {
	t.Helper()
	old = dir + ".old"
	must(t, os.Rename(dir, old))
	must(t, os.Mkdir(dir, 0o700))
	return old
}

// held returns what this process has open below dir.
func held(t *testing.T, dir string) (names []string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, fd := range fds {
		if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(name, dir) {
			names = append(names, name)
		}
	}
	return names
}

func wantLost(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, ErrLost) || !errors.Is(err, objstore.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v, want ErrLost and nothing else", what, err)
	}
}

// Once another directory is in the store's place nothing goes into the old one
// unnoticed, and nothing keeps it busy.
func TestReplacedDirectory(t *testing.T) {
	for name, first := range map[string]func(s *Store) error{
		"put":               func(s *Store) error { return s.Put(t.Context(), "ns/b", strings.NewReader("x"), 1) },
		"delete":            func(s *Store) error { return s.Delete(t.Context(), "ns/a") },
		"delete of nothing": func(s *Store) error { return s.Delete(t.Context(), "ns/none") },
		"stat later": func(s *Store) error {
			s.looked = time.Time{}
			_, err := s.Stat(t.Context(), "ns/a")
			return err
		},
	} {
		dir := filepath.Join(t.TempDir(), "store")
		must(t, Create(dir))
		s := open(t, dir, Options{})
		put(t, s, "ns/a", strings.Repeat("x", 3*chunkSize))
		r, err := s.Get(t.Context(), "ns/a", 0, -1)
		must(t, err)
		if err := s.Lost(); err != nil {
			t.Errorf("%s: lost before: %v", name, err)
		}
		old := replace(t, dir)
		wantLost(t, name, first(s))
		wantLost(t, name+": lost", s.Lost())
		if _, err := os.Stat(filepath.Join(old, "ns/a")); err != nil {
			t.Errorf("%s: in the old directory: %v", name, err)
		}
		_, err = io.Copy(io.Discard, r)
		wantLost(t, name+": a reader under way", err)
		must(t, r.Close())
		_, err = s.Get(t.Context(), "ns/a", 0, -1)
		wantLost(t, name+": get", err)
		_, err = s.Clean(t.Context(), 0)
		wantLost(t, name+": clean", err)
		for _, err := range s.List(t.Context(), "", "") {
			wantLost(t, name+": list", err)
		}
		if have := held(t, old); len(have) > 0 {
			t.Errorf("%s: still open: %q", name, have)
		}
		put(t, open(t, dir, Options{}), "ns/a", "y")
	}
}

// A Put that began before the directory was replaced fails.
func TestReplacedDirectoryDuringPut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	must(t, Create(dir))
	s := open(t, dir, Options{})
	source, feed := io.Pipe()
	done := make(chan error)
	go func() { done <- s.Put(t.Context(), "ns/a", source, -1) }()
	_, err := feed.Write([]byte("x"))
	must(t, err)
	old := replace(t, dir)
	must(t, feed.Close())
	wantLost(t, "put", <-done)
	if have := held(t, old); len(have) > 0 {
		t.Errorf("still open: %q", have)
	}
}

// An unmounted disk leaves its mount point, or nothing.
func TestDirectoryGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	must(t, Create(dir))
	s := open(t, dir, Options{})
	put(t, s, "ns/a", "x")
	must(t, os.Rename(dir, dir+".old"))
	wantLost(t, "put", s.Put(t.Context(), "ns/b", strings.NewReader("x"), 1))
}

// A store with a mark is not filled again by itself when somebody has emptied it;
// one whose mark is still there has only lost empty directories.
func TestEmptiedStore(t *testing.T) {
	dir := t.TempDir()
	put(t, open(t, dir, Options{Mark: "mark"}), "mark", "mine") // a new store has none
	s := open(t, dir, Options{Mark: "mark"})
	put(t, s, "ns/a", "x")
	must(t, os.RemoveAll(filepath.Join(dir, tempDir)))
	must(t, os.RemoveAll(filepath.Join(dir, "ns")))
	put(t, s, "ns/b", "x")
	must(t, os.RemoveAll(filepath.Join(dir, tempDir)))
	must(t, os.RemoveAll(filepath.Join(dir, "ns")))
	must(t, os.Remove(filepath.Join(dir, "mark")))
	wantLost(t, "put", s.Put(t.Context(), "ns/c", strings.NewReader("x"), 1))
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("in the emptied store: %v, %v", left, err)
	}
}
