package fusefs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"marfs/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// content is size bytes that differ from place to place and from seed to seed.
func content(size int, seed uint64) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, size)
	rand.NewChaCha8(key).Read(b)
	return b
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func wantContent(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: read %d bytes that differ from the %d written at %d", path, len(got), len(want), differAt(got, want))
	}
}

func differAt(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func wantErrno(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sh runs a shell script as uid, with gid and groups, in dir.
func sh(t *testing.T, dir string, c *syscall.Credential, script string) (string, error) {
	t.Helper()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = dir
	if c != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustSh(t *testing.T, dir string, c *syscall.Credential, script string) string {
	t.Helper()
	out, err := sh(t, dir, c, script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// TestSizes writes files around every border of the layout, reads them, and reads
// them again after a new mount has forgotten everything.
func TestSizes(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{Namespace: []string{"stage: {max_file: 8KiB}"}})
	const block, stripe, chunk = 4 << 10, 2 * 4 << 10, 64 << 10
	sizes := []int{0, 1, 511, 4095}
	for _, border := range []int{block, stripe, 2 * stripe, chunk, 2 * chunk, 1 << 20} {
		sizes = append(sizes, border-1, border, border+1)
	}
	for i, size := range sizes {
		write(t, m.Join(fmt.Sprint(i)), content(size, uint64(i)))
	}
	look := func() {
		t.Helper()
		for i, size := range sizes {
			want := content(size, uint64(i))
			path := m.Join(fmt.Sprint(i))
			wantContent(t, path, want)
			fi, err := os.Stat(path)
			ok(t, err)
			if fi.Size() != int64(size) {
				t.Errorf("%s: size %d, want %d", path, fi.Size(), size)
			}
			readRanges(t, path, want)
		}
	}
	look()
	m.Remount()
	look()
}

// readRanges reads pieces that begin and end anywhere.
func readRanges(t *testing.T, path string, want []byte) {
	t.Helper()
	f, err := os.Open(path)
	ok(t, err)
	defer f.Close()
	r := rand.New(rand.NewPCG(1, uint64(len(want))))
	for range 20 {
		off := r.IntN(len(want) + 10)
		buf := make([]byte, r.IntN(20_000)+1)
		n, err := f.ReadAt(buf, int64(off))
		end := min(off+len(buf), len(want))
		if off > len(want) {
			end = off
		}
		if err != nil && err != io.EOF || n != max(end-off, 0) || !bytes.Equal(buf[:n], want[min(off, len(want)):min(off+n, len(want))]) {
			t.Errorf("%s: %d bytes at %d of %d: got %d, %v", path, len(buf), off, len(want), n, err)
		}
	}
}

func TestLife(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	out := mustSh(t, m.Path, nil, `
		mkdir -p a/b && cd a/b
		echo one > f && cat f
		ln f g && stat -c %h f
		echo two > f && cat g
		mv g ../h && cat ../h
		ln -s ../h s && cat s && readlink s
		rm f && stat -c %h s -L
		mkfifo p && test -p p
		cd ../.. && rm -r a && ls | wc -l
	`)
	if want := "one\n2\ntwo\ntwo\ntwo\n../h\n1\n0\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestReadWhileWriting(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	path := m.Join("f")
	w, err := os.Create(path)
	ok(t, err)
	defer w.Close()
	r, err := os.Open(path)
	ok(t, err)
	defer r.Close()
	var all []byte
	for i := range 40 {
		piece := content(1000+i*337, uint64(i))
		_, err := w.Write(piece)
		ok(t, err)
		all = append(all, piece...)
		fi, err := r.Stat()
		ok(t, err)
		if fi.Size() != int64(len(all)) {
			t.Fatalf("after write %d: size %d, want %d", i, fi.Size(), len(all))
		}
		got := make([]byte, len(all))
		if n, err := r.ReadAt(got, 0); err != nil && err != io.EOF || n != len(all) {
			t.Fatalf("after write %d: read %d, %v; want %d", i, n, err, len(all))
		}
		if !bytes.Equal(got, all) {
			t.Fatalf("after write %d: bytes differ at %d", i, differAt(got, all))
		}
		if i%10 == 9 {
			ok(t, w.Sync())
		}
	}
	ok(t, w.Close())
	wantContent(t, path, all)
}

// TestOverwriteUnderReader replaces content while it is open and in the page cache.
func TestOverwriteUnderReader(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	path := m.Join("f")
	old, young := content(50_000, 1), content(70_000, 2)
	write(t, path, old)
	r, err := os.Open(path)
	ok(t, err)
	defer r.Close()
	wantContent(t, path, old) // now in the page cache
	write(t, path, young)
	got, err := io.ReadAll(r)
	ok(t, err)
	if !bytes.Equal(got, young) {
		t.Errorf("open reader: %d bytes, differ at %d from the new content", len(got), differAt(got, young))
	}
	wantContent(t, path, young)
}

func TestTwoWriters(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	path := m.Join("log")
	a, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	ok(t, err)
	defer a.Close()
	b, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	ok(t, err)
	defer b.Close()
	want := ""
	for i := range 50 {
		f := []*os.File{a, b}[i%2]
		line := fmt.Sprintf("line %d\n", i)
		_, err := f.WriteString(line)
		ok(t, err)
		want += line
	}
	ok(t, a.Close())
	ok(t, b.Close())
	wantContent(t, path, []byte(want))
}

func TestOutOfOrder(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{Namespace: []string{"update_in_place: false"}})
	path := m.Join("f")
	data := content(10_000, 1)
	write(t, path, data)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("x"), 5)
		f.Close()
	}
	wantErrno(t, "change in the middle", err, syscall.EOPNOTSUPP)
	waitFor(t, "the log says why", func() bool { return m.LogContains("does not change existing content") })
	wantContent(t, path, data)
}

func TestHoles(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	path := m.Join("f")
	f, err := os.Create(path)
	ok(t, err)
	defer f.Close()
	want := append(append([]byte("head"), make([]byte, 100_000)...), "tail"...)
	_, err = f.WriteString("head")
	ok(t, err)
	_, err = f.WriteAt([]byte("tail"), int64(len(want)-4))
	ok(t, err)
	ok(t, f.Close())
	wantContent(t, path, want)
	ok(t, os.Truncate(path, 2))
	wantContent(t, path, want[:2])
	ok(t, os.Truncate(path, 10_000))
	wantContent(t, path, append([]byte("he"), make([]byte, 9_998)...))
}

// TestUnlinkedOpen uses a file that has no name any more.
func TestUnlinkedOpen(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	path := m.Join("f")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	ok(t, err)
	defer f.Close()
	_, err = f.WriteString("before")
	ok(t, err)
	ok(t, os.Remove(path))
	_, err = f.WriteString(" and after")
	ok(t, err)
	ok(t, f.Chmod(0o640))
	fi, err := f.Stat()
	ok(t, err)
	if st := fi.Sys().(*syscall.Stat_t); st.Nlink != 0 || fi.Mode() != 0o640 || fi.Size() != 16 {
		t.Errorf("got %d links, mode %v, size %d; want 0, 0640, 16", st.Nlink, fi.Mode(), fi.Size())
	}
	got := make([]byte, 16)
	_, err = f.ReadAt(got, 0)
	ok(t, err)
	if string(got) != "before and after" {
		t.Errorf("got %q", got)
	}
	ok(t, f.Sync())
	ok(t, f.Close())
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the name is back: %v", err)
	}
}

// TestDuplicates closes descriptors of one open file one after the other, as a
// shell does for its children.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	mustSh(t, m.Path, nil, `
		exec 3> f
		for i in 1 2 3 4 5 6 7 8 9; do sh -c 'echo line $1 >&3' x $i; done
		exec 3>&-
	`)
	want := ""
	for i := 1; i < 10; i++ {
		want += fmt.Sprintf("line %d\n", i)
	}
	wantContent(t, m.Join("f"), []byte(want))
}

func TestMmap(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	path := m.Join("f")
	want := content(200_000, 1)
	write(t, path, want)
	for _, how := range []int{syscall.MAP_SHARED, syscall.MAP_PRIVATE} {
		f, err := os.Open(path)
		ok(t, err)
		p, err := syscall.Mmap(int(f.Fd()), 0, len(want), syscall.PROT_READ, how)
		ok(t, err)
		if !bytes.Equal(p, want) {
			t.Errorf("mapping %d differs at %d", how, differAt(p, want))
		}
		ok(t, syscall.Munmap(p))
		f.Close()
	}
}

// TestSynchronousWrites: with O_DSYNC what a write has returned survives a crash.
func TestSynchronousWrites(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	f, err := os.OpenFile(m.Join("f"), os.O_CREATE|os.O_WRONLY|syscall.O_DSYNC, 0o644)
	ok(t, err)
	defer f.Close()
	want := content(30_000, 1)
	for p := want; len(p) > 0; p = p[10_000:] {
		_, err := f.Write(p[:10_000])
		ok(t, err)
	}
	m.Kill()
	m.Start()
	wantContent(t, m.Join("f"), want)
}
