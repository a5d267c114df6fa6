package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"marfs/internal/testenv"
)

// The geometry of tests with edges: 4+2, small enough that small files have them all.
const (
	edgeBlock  = 4 * kib
	edgeStripe = 4 * edgeBlock
	edgeChunk  = 4 * edgeStripe
)

func edges() testenv.Options {
	return testenv.Options{Data: 4, Parity: 2, BlockSize: "4KiB", ChunkSize: "64KiB"}
}

// edgeSizes are sizes at which something ends.
var edgeSizes = []int{
	0, 1, 4095,
	edgeBlock - 1, edgeBlock, edgeBlock + 1,
	edgeStripe - 1, edgeStripe, edgeStripe + 1,
	edgeChunk - 1, edgeChunk, edgeChunk + 1,
	5*edgeChunk - 1, 5 * edgeChunk, 5*edgeChunk + 1,
}

// edgeFiles are the names and contents of files of edgeSizes.
func edgeFiles() map[string][]byte {
	files := map[string][]byte{}
	for _, n := range edgeSizes {
		files[fmt.Sprint("size", n)] = noisy(uint64(n), n)
	}
	return files
}

func writeFiles(t *testing.T, m *testenv.Mount, files map[string][]byte) {
	t.Helper()
	for name, content := range files {
		mustWrite(t, m.Join(name), content)
	}
}

func wantFiles(t *testing.T, m *testenv.Mount, files map[string][]byte) {
	t.Helper()
	for name, content := range files {
		wantFile(t, m.Join(name), content)
	}
}

func TestTreeOnDirectories(t *testing.T) {
	m := testenv.NewMount(t, testenv.Options{Data: 4, Parity: 2, BlockSize: "64KiB", ChunkSize: "1MiB"})
	src := goSource(t, "net", "encoding", "cmd/vet")
	for i, dir := range src {
		if err := copyTree(dir, m.Join(fmt.Sprint("tree", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := untar(src[0], m.Join("untarred")); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"at once", "with cold caches"} {
		for i, dir := range src {
			if err := sameTree(dir, m.Join(fmt.Sprint("tree", i))); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		if err := sameTree(src[0], m.Join("untarred")); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		m.Remount()
	}
	mustRun(t, "tar", "-C", m.Join("tree2"), "-cf", filepath.Join(m.Dir, "out.tar"), ".")
	mustRun(t, "tar", "-C", src[2], "--compare", "-f", filepath.Join(m.Dir, "out.tar"))
	mustRun(t, "rm", "-r", m.Join("untarred"), m.Join("tree1"))
	wantClean(t, m)
}

func TestSizes(t *testing.T) {
	m := testenv.NewMount(t, edges())
	files := edgeFiles()
	writeFiles(t, m, files)
	wantFiles(t, m, files)
	m.Remount()
	wantFiles(t, m, files)
	for name, content := range files {
		if fi, err := os.Stat(m.Join(name)); err != nil || fi.Size() != int64(len(content)) {
			t.Errorf("stat of %s: %v, %v", name, fi, err)
		}
		want := max(1, (len(content)+edgeChunk-1)/edgeChunk)
		if len(content) == 0 {
			want = 0
		}
		if f := stat(t, m, name); len(f.Objects) != want {
			t.Errorf("%s is in %d objects, want %d", name, len(f.Objects), want)
		}
	}
	wantClean(t, m)
}

// TestRandomReads reads ranges of any length at any offset, through the page cache
// and around it, and compares them with what was written.
func TestRandomReads(t *testing.T) {
	m := testenv.NewMount(t, edges())
	original := noisy(1, 40*edgeChunk+777)
	mustWrite(t, m.Join("f"), original)
	m.Remount()
	for _, flags := range []int{os.O_RDONLY, os.O_RDWR} { // handles that may write go around it
		f, err := os.OpenFile(m.Join("f"), flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		readRanges(t, f, original)
	}
}

func readRanges(t *testing.T, f *os.File, original []byte) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range often(500, 50000) {
		off := rnd.Int64N(int64(len(original)) + 10)
		p := make([]byte, 1+rnd.IntN(1<<rnd.IntN(18)))
		n, err := f.ReadAt(p, off)
		want := original[min(off, int64(len(original))):min(off+int64(len(p)), int64(len(original)))]
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("%d bytes at %d: %v", len(p), off, err)
		}
		if !bytes.Equal(p[:n], want) {
			t.Fatalf("%d bytes at %d: %s", len(p), off, difference(p[:n], want))
		}
	}
}

// TestZeros stores a long stream of zeros and extends a file by truncate.
func TestZeros(t *testing.T) {
	m := testenv.NewMount(t, testenv.Options{Data: 4, Parity: 2, BlockSize: "1MiB", ChunkSize: "64MiB"})
	size := fmt.Sprint(often(256, 5120), "M")
	mustRun(t, "sh", "-c", `head -c "$0" /dev/zero > "$1"`, size, m.Join("stream"))
	mustRun(t, "truncate", "-s", "5G", m.Join("sparse"))
	m.Remount()
	mustRun(t, "sh", "-c", `head -c "$0" /dev/zero | cmp - "$1"`, size, m.Join("stream"))
	mustRun(t, "sh", "-c", `test $(stat -c %s "$0") = 5368709120`, m.Join("sparse"))
	mustRun(t, "sh", "-c", `tail -c 1M "$0" | cmp -n 1048576 - /dev/zero`, m.Join("sparse"))
	if *long {
		mustRun(t, "cmp", "-n", "5368709120", m.Join("sparse"), "/dev/zero")
	}
}

// TestStoresEmptied takes all objects of as many stores as parity can replace.
func TestStoresEmptied(t *testing.T) {
	m := testenv.NewMount(t, edges())
	files := edgeFiles()
	writeFiles(t, m, files)
	for _, i := range []int{0, 3} {
		if err := os.RemoveAll(objectsDir(m, i)); err != nil {
			t.Fatal(err)
		}
	}
	m.Remount()
	wantFiles(t, m, files)
	for name, content := range files {
		mustWrite(t, m.Join(name+".new"), content) // emptied stores take new objects
	}
	m.Remount()
	for name, content := range files {
		wantFile(t, m.Join(name+".new"), content)
	}
	if code := statDeep(t, m, files); code != 5 {
		t.Errorf("marfsctl stat --deep: exit code %d, want 5", code)
	}
}

// TestTooManyStoresLost takes one store more than parity can replace: reading is
// EIO, nothing is destroyed by it, and everything is there when they come back.
func TestTooManyStoresLost(t *testing.T) {
	o := edges()
	o.Expect = []string{"input/output error"}
	m := testenv.NewMount(t, o)
	files := edgeFiles()
	writeFiles(t, m, files)
	m.Remount()
	before := storesContent(t, m)
	lost := []int{1, 2, 5}
	move := func(from, to string) {
		for _, i := range lost {
			if err := os.Rename(storeDir(m, i)+from, storeDir(m, i)+to); err != nil {
				t.Fatal(err)
			}
		}
	}
	move("/ns", "/gone")
	for name, content := range files {
		got, err := os.ReadFile(m.Join(name))
		if err == nil && len(content) < edgeStripe { // small objects may have nothing in the lost shards
			wantFile(t, m.Join(name), content)
		} else if !errors.Is(err, syscall.EIO) {
			t.Errorf("reading %s without three stores: %d bytes, %v, want EIO", name, len(got), err)
		}
	}
	if code := statDeep(t, m, files); code != 5 {
		t.Errorf("marfsctl stat --deep: exit code %d, want 5", code)
	}
	move("/gone", "/ns")
	wantFiles(t, m, files)
	m.Remount()
	wantFiles(t, m, files)
	wantClean(t, m)
	if after := storesContent(t, m); after != before {
		t.Errorf("objects before:\n%s\nafter:\n%s", before, after)
	}
}

// TestStoresSwapped gives directories other places in the configuration: each
// says itself which shards it holds.
func TestStoresSwapped(t *testing.T) {
	m := testenv.NewMount(t, edges())
	files := edgeFiles()
	writeFiles(t, m, files)
	m.Stop()
	for _, names := range [][2]string{{"store0", "aside"}, {"store5", "store0"}, {"store3", "store5"}, {"aside", "store3"}} {
		if err := os.Rename(filepath.Join(m.Dir, names[0]), filepath.Join(m.Dir, names[1])); err != nil {
			t.Fatal(err)
		}
	}
	m.Remount()
	wantFiles(t, m, files)
	wantClean(t, m)
}

// storesContent lists the objects of every store with their sizes.
func storesContent(t *testing.T, m *testenv.Mount) string {
	var b bytes.Buffer
	for i := range 6 {
		for _, f := range filesBelow(t, objectsDir(m, i)) {
			fi, err := os.Stat(filepath.Join(objectsDir(m, i), f))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&b, i, f, fi.Size())
		}
	}
	return b.String()
}
