package dirstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"marfs/pkg/objstore"
	"marfs/pkg/objstore/objstoretest"
)

func open(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	defer goleak.VerifyNone(t)
	objstoretest.Run(t, func(t *testing.T) objstore.Store {
		dir := t.TempDir()
		t.Cleanup(func() {
			if left, _ := os.ReadDir(filepath.Join(dir, tempDir)); len(left) > 0 {
				t.Errorf("%d temporary files are left", len(left))
			}
		})
		return open(t, dir, Options{})
	}, objstoretest.Options{PartSize: chunkSize})
}

func put(t *testing.T, s objstore.Store, key, data string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

func TestCreateMakesParents(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a/b/c")
	for range 2 {
		if err := Create(dir); err != nil {
			t.Fatal(err)
		}
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Fatalf("created store: %v, %v", fi, err)
	}
	if _, err := Open(filepath.Join(dir, "missing"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("opening a missing directory: %v, want ErrNotExist", err)
	}
}

// Objects hold users' data: nobody else may read them.
func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	put(t, open(t, dir, Options{}), "ns/7f/a", "x")
	for name, want := range map[string]fs.FileMode{"ns": 0o700, "ns/7f": 0o700, "ns/7f/a": 0o600, tempDir: 0o700} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", name, fi.Mode(), err, want)
		}
	}
}

// Whatever somebody plants in the directory, nothing outside is read, changed
// or removed, and nothing blocks.
func TestPlantedFiles(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "ns"), 0o700))
	must(t, os.Symlink(secret, filepath.Join(dir, "ns/abs")))
	must(t, os.Symlink("../../"+filepath.Base(outside)+"/secret", filepath.Join(dir, "ns/rel")))
	must(t, os.Symlink(outside, filepath.Join(dir, "out")))
	must(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	must(t, syscall.Mkfifo(filepath.Join(dir, "ns/fifo"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "ns/Not A Key"), nil, 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
	s := open(t, dir, Options{Timeout: 5 * time.Second})
	put(t, s, "ns/good", "x")

	for _, key := range []string{"ns/abs", "ns/rel", "out/secret", "ns/fifo", "loop", "loop/x"} {
		if r, err := s.Get(t.Context(), key, 0, -1); err == nil {
			r.Close()
			t.Errorf("get %s gave a reader", key)
		} else if !errors.Is(err, objstore.ErrCorrupt) {
			t.Errorf("get %s: %v, want ErrCorrupt", key, err)
		}
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, objstore.ErrCorrupt) {
			t.Errorf("stat %s: %v, want ErrCorrupt", key, err)
		}
	}
	if err := s.Put(t.Context(), "out/secret", strings.NewReader("gotcha"), -1); !errors.Is(err, objstore.ErrCorrupt) {
		t.Errorf("put through a symlink: %v, want ErrCorrupt", err)
	}
	if err := s.Delete(t.Context(), "out/secret"); !errors.Is(err, objstore.ErrCorrupt) {
		t.Errorf("delete through a symlink: %v, want ErrCorrupt", err)
	}
	put(t, s, "ns/abs", "replaces the link itself")
	must(t, s.Delete(t.Context(), "ns/rel"))
	if data, err := os.ReadFile(secret); string(data) != "secret" {
		t.Errorf("outside file is now %q, %v", data, err)
	}
	if keys := keysOf(t, s); !slices.Equal(keys, []string{"ns/abs", "ns/good"}) {
		t.Errorf("list: %q", keys)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func keysOf(t *testing.T, s *Store) (keys []string) {
	t.Helper()
	for info, err := range s.List(t.Context(), "", "") {
		must(t, err)
		keys = append(keys, info.Key)
	}
	return keys
}

// A key that is a directory of others, or below another, is a caller's mistake.
func TestContent(t *testing.T) {
	for name, want := range map[string]string{"": "", tempDir: "", "lost+found": "", "ns": "ns", "Photos 1": "Photos 1", ".hidden": ".hidden"} {
		dir := t.TempDir()
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o700))
		if have, err := open(t, dir, Options{}).Content(t.Context()); have != want || err != nil {
			t.Errorf("%q: have %q, %v", name, have, err)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{tempDir, "lost+found", "Thesis.TEX"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	if have, err := open(t, dir, Options{}).Content(t.Context()); have != "Thesis.TEX" || err != nil {
		t.Errorf("have %q, %v", have, err)
	}
}

func TestKeyBelowKey(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	put(t, s, "a/b", "x")
	for _, key := range []string{"a", "a/b/c", "a/b/c/d"} {
		if err := s.Put(t.Context(), key, strings.NewReader("y"), 1); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("put %s beside a/b: %v, want ErrInvalid", key, err)
		}
	}
	must(t, s.Delete(t.Context(), "a"))
	must(t, s.Delete(t.Context(), "a/b/c"))
	if keys := keysOf(t, s); !slices.Equal(keys, []string{"a/b"}) {
		t.Errorf("list: %q", keys)
	}
}

func TestClean(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	if n, err := s.Clean(t.Context(), 0); n != 0 || err != nil {
		t.Errorf("clean of a new store: %d, %v", n, err)
	}
	tmp := filepath.Join(dir, tempDir)
	must(t, os.Mkdir(tmp, 0o700))
	must(t, os.Mkdir(filepath.Join(tmp, "directory"), 0o700))
	for _, name := range []string{"old", "older", "young"} {
		must(t, os.WriteFile(filepath.Join(tmp, name), []byte("x"), 0o600))
	}
	long := time.Now().Add(-time.Hour - time.Minute)
	for _, name := range []string{"old", "older", "directory"} {
		must(t, os.Chtimes(filepath.Join(tmp, name), long, long))
	}
	_ = open(t, dir, Options{}) // removes nothing
	if n, err := s.Clean(t.Context(), time.Hour); n != 2 || err != nil {
		t.Errorf("clean: %d, %v; want 2", n, err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 2 {
		t.Errorf("left are %v, %v; want the directory and the young file", left, err)
	}
}

// A writer that lives keeps its file, however long ago it wrote something.
func TestCleanSparesLiveWriters(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir, Options{}), open(t, dir, Options{})
	source, feed := io.Pipe()
	done := make(chan error)
	go func() { done <- s.Put(t.Context(), "ns/a", source, -1) }()
	_, err := feed.Write([]byte("x")) // returns when there is a file
	must(t, err)
	for _, c := range []*Store{s, other} {
		if n, err := c.Clean(t.Context(), -time.Hour); n != 0 || err != nil {
			t.Errorf("clean: %d, %v; want 0", n, err)
		}
	}
	must(t, feed.Close())
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// An administrator may remove empty directories; the store makes them again.
func TestDirectoryRemoved(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	put(t, s, "ns/7f/a", "x")
	must(t, os.RemoveAll(filepath.Join(dir, "ns")))
	put(t, s, "ns/7f/b", "y")
	must(t, os.RemoveAll(filepath.Join(dir, tempDir)))
	put(t, s, "ns/7f/c", "z")
	if keys := keysOf(t, s); !slices.Equal(keys, []string{"ns/7f/b", "ns/7f/c"}) {
		t.Errorf("list: %q", keys)
	}
	must(t, os.RemoveAll(filepath.Join(dir, "ns/7f")))
	put(t, s, "ns/7f/d", "only its own directory was gone")
	put(t, s, "ns/80/a", "x")
	must(t, os.RemoveAll(filepath.Join(dir, "ns")))
	put(t, s, "ns/81/a", "a new directory in one that is gone")
	must(t, os.RemoveAll(dir))
	err := s.Put(t.Context(), "ns/7f/d", strings.NewReader("x"), 1)
	if !errors.Is(err, objstore.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("put into a removed store: %v, want ErrUnavailable", err)
	}
}

func TestShrunkFileIsCorrupt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	put(t, s, "a", strings.Repeat("x", 3*chunkSize))
	r, err := s.Get(t.Context(), "a", 0, -1)
	must(t, err)
	defer r.Close()
	must(t, os.Truncate(filepath.Join(dir, "a"), chunkSize+10))
	if n, err := io.Copy(io.Discard, r); n != chunkSize || !errors.Is(err, objstore.ErrCorrupt) {
		t.Errorf("reading a file cut short: %d bytes, %v; want %d, ErrCorrupt", n, err, chunkSize)
	}
}

// Calls on a filesystem that hangs return in time, and hold a bounded number of
// goroutines; when it comes back, so does the store.
func TestStuckFilesystem(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := open(t, t.TempDir(), Options{Timeout: time.Minute, MaxCalls: 2})
	hang := make(chan struct{})
	dropped := make(chan int, 10)
	var ran atomic.Int32
	stuck := func(ctx context.Context) error {
		_, err := call(ctx, s, 0, func(context.Context) (int, error) {
			ran.Add(1)
			<-hang
			return 7, nil
		}, func(v int) { dropped <- v })
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancelled := make(chan error)
	go func() { cancelled <- stuck(ctx) }()
	cancel()
	if err := <-cancelled; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled call: %v, want Canceled", err)
	}
	s.timeout = 20 * time.Millisecond // only where it has to pass: a loaded machine takes longer for anything
	for range 5 {
		if err := stuck(t.Context()); !errors.Is(err, objstore.ErrUnavailable) {
			t.Errorf("stuck call: %v, want ErrUnavailable", err)
		}
	}
	if n := ran.Load(); n != 2 {
		t.Errorf("%d calls reached the filesystem, want 2", n)
	}
	if err := s.Put(t.Context(), "a", strings.NewReader("x"), 1); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("put: %v, want ErrUnavailable", err)
	}
	s.timeout = time.Minute
	close(hang)
	for range ran.Load() {
		if v := <-dropped; v != 7 {
			t.Errorf("dropped %d", v)
		}
	}
	put(t, s, "a", "x")
}

// A directory with more names than are kept in memory is listed completely.
func TestListBeyondBatch(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "ns/250"), 0o700))
	for i := range 500 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("ns/%03d.", (i*77)%500)), nil, 0o600))
	}
	must(t, os.WriteFile(filepath.Join(dir, "ns/250/x"), nil, 0o600))
	for _, batch := range []int{1, 7, 100, 250, 251, 499, 500, 501, 502} {
		s := open(t, dir, Options{})
		s.batch = batch
		keys := keysOf(t, s)
		if len(keys) != 501 || !slices.IsSorted(keys) || len(slices.Compact(keys)) != 501 {
			t.Errorf("in batches of %d: %d keys, want 501 in order", batch, len(keys))
		}
	}
}

func TestDiskFull(t *testing.T) {
	for errno, want := range map[error]error{
		syscall.ENOSPC: objstore.ErrNoSpace, syscall.EDQUOT: objstore.ErrNoSpace,
		syscall.EROFS: fs.ErrPermission, syscall.EACCES: fs.ErrPermission,
		syscall.EIO: objstore.ErrUnavailable, syscall.ESTALE: objstore.ErrUnavailable,
		syscall.EUCLEAN: objstore.ErrCorrupt,
	} {
		err := classify(&fs.PathError{Op: "write", Path: "x", Err: errno})
		if !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%v is %v, want %v", errno, err, want)
		}
	}
	// A file size limit is the one way to run out of space without root.
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	s := open(t, t.TempDir(), Options{})
	full := &temp{ctx: t.Context(), s: s, f: f, name: "none"}
	if err := full.fill(bytes.NewReader(make([]byte, 1<<20)), -1); !errors.Is(err, objstore.ErrNoSpace) {
		t.Errorf("writing to a full disk: %v, want ErrNoSpace", err)
	}
	full.discard()
}
