package posix

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

func testFS(t testing.TB) *FS {
	t.Helper()
	f, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// The number is given back when the last call under way has ended, once.
func TestHandleOutlivesCalls(t *testing.T) {
	fd, err := unix.Open(t.TempDir(), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	h := &handle{fd: fd}
	open := func() bool {
		var st unix.Stat_t
		return unix.Fstat(fd, &st) == nil
	}
	err = h.do(func(int) error {
		return h.do(func(int) error {
			if err := h.close(); err != nil {
				t.Error(err)
			}
			if !open() {
				t.Error("closed under a call")
			}
			if err := h.close(); err != unix.EBADF {
				t.Errorf("second close: got %v, want EBADF", err)
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
	if open() {
		t.Error("not closed after the last call")
	}
	if err := h.acquire(); err != unix.EBADF {
		t.Errorf("call after close: got %v, want EBADF", err)
	}
}

// A call that races with Close meets its own file or none, although the number
// of its descriptor goes to another file at once.
func TestCloseRace(t *testing.T) {
	root := testFS(t).Root()
	for range 300 {
		f, err := root.OpenFile("f", unix.O_CREAT|unix.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		want, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					st, err := f.Stat()
					if errors.Is(err, unix.EBADF) {
						return
					}
					if err != nil || st.Ino != want.Ino {
						t.Errorf("met inode %d, %v, want %d", st.Ino, err, want.Ino)
						return
					}
				}
			})
		}
		wg.Go(func() {
			f.Close()
			// Takes the number if it is free.
			if other, err := os.Open("/"); err == nil {
				other.Close()
			}
		})
		wg.Wait()
	}
}

func TestDescriptorsAreGivenBack(t *testing.T) {
	before := descriptors(t)
	t.Run("use", func(t *testing.T) {
		root := testFS(t).Root()
		if err := root.Symlink("x", "link"); err != nil {
			t.Fatal(err)
		}
		if err := root.Mkdir("d", 0o700); err != nil {
			t.Fatal(err)
		}
		root.OpenFile("link", unix.O_PATH, 0)
		root.Chmod("link", 0o700)
		root.Sync()
		mdfs.Walk(root, "d/none/x")
		if d, err := mdfs.Walk(root, "d"); err == nil {
			d.Close()
		}
	})
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(ents)
}

// What chmod by name does on kernels without fchmodat2(2).
func TestChmodPinned(t *testing.T) {
	d := testFS(t).root
	if err := d.Mknod("f", unix.S_IFREG, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Symlink("f", "l"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"f": nil, "l": unix.EOPNOTSUPP, "none": unix.ENOENT} {
		if err := chmodPinned(d.self.fd, name, 0o4751); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
	if st, err := d.Lstat("f"); err != nil || st.Mode != unix.S_IFREG|0o4751 {
		t.Errorf("mode %o, %v", st.Mode, err)
	}
}

func dirent(ino, off uint64, reclen uint16, typ byte, name string) []byte {
	b := binary.NativeEndian.AppendUint64(nil, ino)
	b = binary.NativeEndian.AppendUint64(b, off)
	b = binary.NativeEndian.AppendUint16(b, reclen)
	return append(append(b, typ), name...)
}

func TestParseDirent(t *testing.T) {
	const name = "name\x00"
	for what, c := range map[string]struct {
		b  []byte
		ok bool
	}{
		"good":           {dirent(1, 2, 24, unix.DT_REG, name), true},
		"padded":         {dirent(1, 2, 32, unix.DT_REG, name+"\x00\x00\x00junk!"), true},
		"empty":          {nil, false},
		"cut header":     {make([]byte, 18), false},
		"cut record":     {dirent(1, 2, 25, unix.DT_REG, name), false},
		"length 0":       {dirent(1, 2, 0, unix.DT_REG, name), false},
		"in the header":  {dirent(1, 2, 18, unix.DT_REG, name), false},
		"without a NUL":  {dirent(1, 2, 23, unix.DT_REG, "name"), false},
		"NUL too late":   {dirent(1, 2, 23, unix.DT_REG, name), false},
		"length of 64 K": {dirent(1, 2, 65535, unix.DT_REG, name), false},
	} {
		ent, n, ok := parseDirent(c.b)
		if ok != c.ok {
			t.Errorf("%s: got %v, want %v", what, ok, c.ok)
		}
		if ok && (n != len(c.b) || ent != mdfs.Dirent{Name: "name", Ino: 1, Next: 2, Type: unix.S_IFREG}) {
			t.Errorf("%s: got %+v of %d bytes", what, ent, n)
		}
	}
}

func FuzzParseDirent(f *testing.F) {
	f.Add(dirent(1, 2, 24, unix.DT_DIR, "name\x00"))
	f.Add(dirent(1, 1<<63, 19, 255, "\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ent, n, ok := parseDirent(b)
		if ok && (n <= 0 || n > len(b) || len(ent.Name) >= n || ent.Type&^unix.S_IFMT != 0) {
			t.Errorf("%d bytes: %+v", n, ent)
		}
	})
}

func TestSplitNames(t *testing.T) {
	for list, want := range map[string]int{"": 0, "\x00": 0, "a\x00": 1, "a\x00b\x00": 2, "a\x00b": 2, "\x00\x00a": 1} {
		if got := splitNames([]byte(list)); len(got) != want {
			t.Errorf("%q: got %q", list, got)
		}
	}
}
