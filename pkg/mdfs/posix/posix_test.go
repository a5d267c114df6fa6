package posix_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/mdfstest"
	"marfs/pkg/mdfs/posix"
)

func TestConformance(t *testing.T) {
	mdfstest.Run(t, open, mdfstest.Options{})
}

func open(t *testing.T) mdfs.FS {
	f, err := posix.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// The suite as a user without privileges, in a process of its own.
func TestConformanceUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("TestConformance is unprivileged already")
	}
	dir := publicDir(t)
	exe := copyExecutable(t, dir)
	cmd := exec.Command(exe, "-test.run=^TestConformance$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CI=", "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 70003, Gid: 80003}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"--- PASS: TestConformance/As/Unprivileged", "--- SKIP: TestConformance/Identity/Owner"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// publicDir is a directory that every user reaches and may write to.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "posix")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o1777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// copyExecutable copies this test where every user can run it.
func copyExecutable(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "test")
	if err := os.WriteFile(exe, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return exe
}

// The suite on other filesystems than the one of the temporary directory.
func TestConformanceFilesystems(t *testing.T) {
	if testing.Short() {
		t.Skip("makes filesystems")
	}
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	for kind, mkfs := range map[string][]string{
		"tmpfs": nil,
		"xfs":   {"mkfs.xfs", "-q"},
		"ext4":  {"mkfs.ext4", "-q", "-F"},
	} {
		t.Run(kind, func(t *testing.T) {
			mnt := mount(t, kind, mkfs)
			t.Setenv("TMPDIR", mnt)
			mdfstest.Run(t, open, mdfstest.Options{Names: 3000})
		})
	}
}

// mount mounts a new filesystem, on a loop device unless it has no mkfs.
func mount(t *testing.T, kind string, mkfs []string) string {
	t.Helper()
	mnt := t.TempDir()
	args := []string{"-t", kind, kind, mnt}
	if mkfs != nil {
		img := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(img, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(img, 512<<20); err != nil {
			t.Fatal(err)
		}
		run(t, append(mkfs, img)...)
		args = []string{"-t", kind, "-o", "loop", img, mnt}
	}
	run(t, append([]string{"mount"}, args...)...)
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Error(err)
		}
	})
	return mnt
}

// run skips the test if this machine does not offer what it needs.
func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Skipf("%v: %v: %s", args, err, out)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		"": unix.ENOENT, dir + "/none": unix.ENOENT, file: unix.ENOTDIR, dir + "\x00": unix.EINVAL,
	} {
		var pathErr *fs.PathError
		if _, err := posix.Open(path); !errors.Is(err, want) || !errors.As(err, &pathErr) {
			t.Errorf("Open(%q): got %v, want %v", path, err, want)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(".", link); err != nil {
		t.Fatal(err)
	}
	f, err := posix.Open(link)
	if err != nil {
		t.Fatalf("through a link that the administrator made: %v", err)
	}
	if _, err := f.Root().Lstat("file"); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Root().Lstat("file"); !errors.Is(err, unix.EBADF) {
		t.Errorf("after Close: got %v, want EBADF", err)
	}
}

// A directory of another FS is another filesystem.
func TestForeignDir(t *testing.T) {
	root := open(t).Root()
	if err := root.Mkdir("d", 0o755); err != nil {
		t.Fatal(err)
	}
	foreign := struct{ mdfs.Dir }{root}
	for _, err := range []error{root.Rename("d", foreign, "e", 0), root.Link("d", foreign, "e")} {
		var link *os.LinkError
		if !errors.Is(err, unix.EXDEV) || !errors.As(err, &link) {
			t.Errorf("got %v, want EXDEV", err)
		}
	}
}

// Without /proc Open fails, rather than every xattr call later.
func TestWithoutProc(t *testing.T) {
	const hidden = "POSIX_TEST_HIDE_PROC"
	if os.Getenv(hidden) == "" {
		if os.Geteuid() != 0 {
			t.Skip("mounting needs root")
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestWithoutProc$")
		cmd.Env = append(os.Environ(), hidden+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Mount("tmpfs", "/proc", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := posix.Open("/"); err == nil || !strings.Contains(err.Error(), "/proc") {
		t.Errorf("got %v, want a word about /proc", err)
	}
}
