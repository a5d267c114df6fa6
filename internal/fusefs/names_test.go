package fusefs_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"marfs/internal/testenv"
)

// TestLargeDirectory lists many entries, with and without their attributes, and
// goes on from positions in the middle.
func TestLargeDirectory(t *testing.T) {
	t.Parallel()
	const entries = 5000
	m := testenv.NewMount(t, testenv.Options{})
	dir := m.Join("d")
	ok(t, os.Mkdir(dir, 0o755))
	var want []string
	for i := range entries {
		name := fmt.Sprintf("%d-%s", i, strings.Repeat("x", i%100))
		ok(t, syscall.Mknod(dir+"/"+name, syscall.S_IFIFO|0o600, 0))
		want = append(want, name)
	}
	slices.Sort(want)
	d, err := os.Open(dir)
	ok(t, err)
	defer d.Close()
	for _, how := range []string{"first", "after rewinding"} {
		names, err := d.Readdirnames(-1)
		ok(t, err)
		slices.Sort(names)
		if !slices.Equal(names, want) {
			t.Errorf("%s: %d names, want %d", how, len(names), len(want))
		}
		_, err = d.Seek(0, io.SeekStart)
		ok(t, err)
	}
	infos, err := os.ReadDir(dir)
	ok(t, err)
	for _, e := range infos {
		if e.Type() != os.ModeNamedPipe {
			t.Fatalf("%s: type %v", e.Name(), e.Type())
		}
	}
	seekEverywhere(t, dir)
}

// seekEverywhere checks that a position leads to the entries after it.
func seekEverywhere(t *testing.T, dir string) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	ok(t, err)
	defer unix.Close(fd)
	all := readEntries(t, fd, -1)
	for i := 0; i < len(all); i += 1 + len(all)/40 {
		_, err := unix.Seek(fd, all[i].off, io.SeekStart)
		ok(t, err)
		rest := readEntries(t, fd, 5)
		want := all[i+1 : min(i+6, len(all))]
		if !slices.Equal(rest[:min(5, len(rest))], want) {
			t.Fatalf("after entry %d at %#x: got %v, want %v", i, all[i].off, rest[:min(5, len(rest))], want)
		}
	}
}

type entry struct {
	name string
	off  int64
}

// readEntries reads at least n entries, or all when n < 0.
func readEntries(t *testing.T, fd, n int) (all []entry) {
	t.Helper()
	buf := make([]byte, 32<<10)
	for n < 0 || len(all) < n {
		got, err := unix.Getdents(fd, buf)
		ok(t, err)
		if got == 0 {
			break
		}
		for b := buf[:got]; len(b) > 0; {
			// d_ino 8, d_off 8, d_reclen 2, d_type 1, d_name
			off := int64(uint64(b[8]) | uint64(b[9])<<8 | uint64(b[10])<<16 | uint64(b[11])<<24 |
				uint64(b[12])<<32 | uint64(b[13])<<40 | uint64(b[14])<<48 | uint64(b[15])<<56)
			size := int(b[16]) | int(b[17])<<8
			name, _, _ := strings.Cut(string(b[19:size]), "\x00")
			all = append(all, entry{name, off})
			b = b[size:]
		}
	}
	return all
}

// TestRemovedDirectory: a directory that gets the inode number of one that was
// removed, and is still somebody's current directory, is a new directory.
func TestRemovedDirectory(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{MountOptions: "entry_timeout=0,attr_timeout=0"})
	for range 20 {
		dir := m.Join("d")
		ok(t, os.Mkdir(dir, 0o755))
		held, err := os.Open(dir)
		ok(t, err)
		ok(t, os.Remove(dir))
		// Behind the mount's back, as another node does it.
		ok(t, os.Mkdir(m.Dir+"/metadata/tree/d", 0o755))
		ok(t, os.WriteFile(dir+"/f", []byte("x"), 0o644))
		if _, err := held.Readdirnames(-1); err == nil {
			if fi, err := held.Stat(); err == nil && fi.Sys().(*syscall.Stat_t).Nlink > 1 {
				t.Error("the removed directory has links")
			}
		}
		held.Close()
		ok(t, os.RemoveAll(dir))
	}
}

// TestChangedElsewhere changes names behind the mount's back, as another node does.
func TestChangedElsewhere(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{MountOptions: "entry_timeout=0,attr_timeout=0"})
	tree := m.Dir + "/metadata/tree/"
	ok(t, os.MkdirAll(m.Join("a", "b"), 0o755))
	write(t, m.Join("a", "b", "f"), []byte("one"))
	ok(t, os.Rename(tree+"a", tree+"moved"))
	if _, err := os.Stat(m.Join("a", "b", "f")); !os.IsNotExist(err) {
		t.Errorf("old path: %v", err)
	}
	wantContent(t, m.Join("moved", "b", "f"), []byte("one"))
	write(t, m.Join("moved", "b", "g"), []byte("two"))
	ok(t, os.Rename(tree+"moved/b/g", tree+"moved/b/f"))
	wantContent(t, m.Join("moved", "b", "f"), []byte("two"))
	ok(t, os.Mkdir(tree+"a", 0o755)) // the old path again, another directory
	ok(t, os.WriteFile(m.Join("a", "new"), nil, 0o644))
	if _, err := os.Stat(tree + "a/new"); err != nil {
		t.Error(err)
	}
}

func TestRenameFlags(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	a, b := m.Join("a"), m.Join("b")
	write(t, a, []byte("a"))
	write(t, b, []byte("b"))
	at := func(flags uint) error { return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, flags) }
	wantErrno(t, "RENAME_NOREPLACE", at(unix.RENAME_NOREPLACE), syscall.EEXIST)
	ok(t, at(unix.RENAME_EXCHANGE))
	wantContent(t, a, []byte("b"))
	wantContent(t, b, []byte("a"))
	wantErrno(t, "RENAME_WHITEOUT", at(unix.RENAME_WHITEOUT), syscall.EINVAL)
	ok(t, at(0))
	wantContent(t, b, []byte("b"))
}

// netRaw is a file capability as the kernel takes it: version 2, CAP_NET_RAW permitted.
var netRaw = []byte{0, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func TestXattrs(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	path := m.Join("f")
	write(t, path, []byte("x"))
	ok(t, unix.Setxattr(path, "user.a", []byte("12345"), unix.XATTR_CREATE))
	wantErrno(t, "create again", unix.Setxattr(path, "user.a", nil, unix.XATTR_CREATE), syscall.EEXIST)
	for _, c := range []struct {
		room int
		want error
	}{{0, nil}, {4, syscall.ERANGE}, {5, nil}} {
		n, err := unix.Getxattr(path, "user.a", make([]byte, c.room))
		if err != c.want || err == nil && n != 5 {
			t.Errorf("room for %d: got %d, %v; want 5, %v", c.room, n, err, c.want)
		}
	}
	list := make([]byte, 1000)
	n, err := unix.Listxattr(path, list)
	ok(t, err)
	if got := string(list[:n]); got != "user.a\x00" {
		t.Errorf("list: got %q, want only user.a", got)
	}
	_, err = unix.Getxattr(path, "user.marfs.v1", list)
	wantErrno(t, "get a reserved one", err, syscall.ENODATA)
	wantErrno(t, "set a reserved one", unix.Setxattr(path, "user.marfs.v9", []byte("x"), 0), syscall.EPERM)
	wantErrno(t, "remove a reserved one", unix.Removexattr(path, "user.marfs.v1"), syscall.EPERM)
	wantErrno(t, "set capabilities", unix.Setxattr(path, "security.capability", netRaw, 0), syscall.EOPNOTSUPP)
	ok(t, unix.Removexattr(path, "user.a"))
	_, err = unix.Getxattr(path, "user.a", list)
	wantErrno(t, "get a removed one", err, syscall.ENODATA)
}

// TestMovingDirectories: what is done by a descriptor works while the directory
// is renamed all the time.
func TestMovingDirectories(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	ok(t, os.Mkdir(m.Join("a"), 0o755))
	d, err := os.Open(m.Join("a"))
	ok(t, err)
	defer d.Close()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		from, to := m.Join("a"), m.Join("b")
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := os.Rename(from, to); err != nil {
				done <- err
				return
			}
			from, to = to, from
		}
	}()
	for i := range 300 {
		name := fmt.Sprint(i)
		ok(t, unix.Mkdirat(int(d.Fd()), name, 0o755))
		fd, err := unix.Openat(int(d.Fd()), name+"/f", unix.O_CREAT|unix.O_WRONLY, 0o644)
		ok(t, err)
		ok(t, unix.Close(fd))
		ok(t, unix.Unlinkat(int(d.Fd()), name+"/f", 0))
		ok(t, unix.Unlinkat(int(d.Fd()), name, unix.AT_REMOVEDIR))
	}
	close(stop)
	ok(t, <-done)
}

// TestOpenRace opens a name that is a file and a link to another filesystem by
// turns. The daemon must never follow the link: what is opened is either in the
// mount, and empty, or was resolved by the kernel, and is elsewhere.
func TestOpenRace(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	var mnt unix.Stat_t
	ok(t, unix.Stat(m.Path, &mnt))
	path, tmp := m.Join("f"), m.Join("tmp")
	write(t, path, nil)
	done := make(chan error, 1)
	go func() {
		for range 300 {
			err := errors.Join(os.Symlink("/etc/passwd", tmp), os.Rename(tmp, path),
				os.WriteFile(tmp, nil, 0o644), os.Rename(tmp, path))
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			ok(t, err)
			return
		default:
		}
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOENT) {
			continue // replaced more than once meanwhile
		}
		ok(t, err)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && st.Dev == mnt.Dev && st.Size > 0 {
			t.Error("the daemon opened what a link points at")
		}
		unix.Close(fd)
	}
}
