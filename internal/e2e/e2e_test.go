package e2e

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"marfs/internal/testenv"
)

var long = flag.Bool("long", false, "larger files and many more crashes; takes an hour")

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	kib = 1 << 10
	mib = 1 << 20
)

// often is n in a normal run, and more with -long.
func often(n, more int) int {
	if *long {
		return more
	}
	return n
}

// needRoot skips a test that mounts file systems, but not where CI is set.
func needRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") != "":
		t.Fatal("this test mounts tmpfs: CI must run it as root")
	default:
		t.Skip("this test mounts tmpfs: run it as root")
	}
}

// noise is an endless stream of bytes that differ between seeds everywhere.
func noise(seed uint64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(key)
}

// noisy returns the first n bytes of noise.
func noisy(seed uint64, n int) []byte {
	b := make([]byte, n)
	io.ReadFull(noise(seed), b)
	return b
}

// writeFile makes or overwrites a file in one go and returns the first error,
// that of close included: only nil acknowledges the content.
func writeFile(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

func mustWrite(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := writeFile(path, content); err != nil {
		t.Fatal(err)
	}
}

// wantFile checks a file's content.
func wantFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%s: %s", path, difference(got, want))
	}
}

// difference says in a line how contents differ.
func difference(got, want []byte) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Sprintf("byte %d of %d is %#x, want %#x", i, len(got), got[i], want[i])
		}
	}
	return "the same"
}

// writeNoise streams a large file and calls half when half of it is written.
func writeNoise(path string, seed uint64, size int64, half func()) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	src := noise(seed)
	for _, part := range []int64{size / 2, size - size/2} {
		if _, err := io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(src, part), make([]byte, 128*kib)); err != nil {
			return err
		}
		if half != nil {
			half()
			half = nil
		}
	}
	return f.Close()
}

// readNoise checks what writeNoise wrote, and calls half when half of it is read.
func readNoise(path string, seed uint64, size int64, half func()) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	got, want := make([]byte, 128*kib), make([]byte, 128*kib)
	src := noise(seed)
	for at := int64(0); at < size; at += int64(len(got)) {
		n := min(size-at, int64(len(got)))
		if at >= size/2 && half != nil {
			half()
			half = nil
		}
		io.ReadFull(src, want[:n])
		if _, err := io.ReadFull(f, got[:n]); err != nil {
			return fmt.Errorf("%s at %d: %w", path, at, err)
		}
		if !bytes.Equal(got[:n], want[:n]) {
			return fmt.Errorf("%s from %d: %s", path, at, difference(got[:n], want[:n]))
		}
	}
	if n, err := f.Read(got); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: goes on after %d bytes", path, size)
	}
	return nil
}

// goSource returns directories of the Go source tree: real names, sizes and modes.
func goSource(t *testing.T, names ...string) (dirs []string) {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		dirs = append(dirs, filepath.Join(strings.TrimSpace(string(root)), "src", n))
	}
	return dirs
}

// run runs a program that must succeed without a word on stderr.
func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err == nil && len(out) > 0 {
		err = errors.New("it said something")
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func mustRun(t *testing.T, name string, args ...string) {
	t.Helper()
	if err := run(name, args...); err != nil {
		t.Fatal(err)
	}
}

// copyTree copies a directory as `cp -a` does.
func copyTree(from, to string) error { return run("cp", "-a", from, to) }

// untar copies a directory through a pipe of two tars.
func untar(from, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	return run("sh", "-c", `tar -C "$0" -cf - . | tar -C "$1" -xpf -`, from, to)
}

// sameTree compares two trees: names, kinds, modes, owners, times and every byte.
func sameTree(want, got string) error {
	var files []string
	names := map[string]bool{}
	err := filepath.WalkDir(want, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(want, path)
		names[rel] = true
		if d.Type().IsRegular() {
			files = append(files, rel)
		}
		return sameInode(path, filepath.Join(got, rel))
	})
	if err != nil {
		return err
	}
	err = filepath.WalkDir(got, func(path string, _ fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(got, path); err == nil && !names[rel] {
			return fmt.Errorf("%s: came from nowhere", path)
		}
		return err
	})
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(4)
	for _, rel := range files {
		g.Go(func() error { return sameFile(filepath.Join(want, rel), filepath.Join(got, rel)) })
	}
	return g.Wait()
}

func sameInode(want, got string) error {
	w, err := os.Lstat(want)
	if err != nil {
		return err
	}
	g, err := os.Lstat(got)
	if err != nil {
		return err
	}
	type facts struct {
		mode     fs.FileMode
		size     int64
		mtime    int64
		uid, gid uint32
		target   string
	}
	of := func(path string, fi fs.FileInfo) facts {
		st := fi.Sys().(*syscall.Stat_t)
		f := facts{mode: fi.Mode(), size: fi.Size(), mtime: fi.ModTime().UnixNano(), uid: st.Uid, gid: st.Gid}
		if fi.IsDir() {
			f.size = 0
		}
		if fi.Mode().Type() == fs.ModeSymlink {
			f.target, _ = os.Readlink(path)
		}
		return f
	}
	if a, b := of(want, w), of(got, g); a != b {
		return fmt.Errorf("%s is %+v, want %+v", got, b, a)
	}
	return nil
}

func sameFile(want, got string) error {
	w, err := os.ReadFile(want)
	if err != nil {
		return err
	}
	g, err := os.ReadFile(got)
	if err != nil {
		return err
	}
	if !bytes.Equal(w, g) {
		return fmt.Errorf("%s: %s", got, difference(g, w))
	}
	return nil
}

// filesBelow returns the regular files below dir, relative to it.
func filesBelow(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(dir, path)
			files = append(files, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// wantLogged waits for a line of the daemon's log that holds all of the texts.
// What it logged before it answered may still be in the pipe.
func wantLogged(t *testing.T, m *testenv.Mount, texts ...string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for line := range strings.Lines(m.Log()) {
			if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
				return
			}
		}
	}
	t.Errorf("no line of the log holds all of %q", texts)
}
