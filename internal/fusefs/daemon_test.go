package fusefs_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"marfs/internal/testenv"
)

// TestTerm ends the daemon under a writer: it waits for it, and what the writer
// closed is there.
func TestTerm(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	data := content(300_000, 1)
	f, err := os.Create(m.Join("f"))
	ok(t, err)
	_, err = f.Write(data[:200_000])
	ok(t, err)
	m.Signal(syscall.SIGTERM)
	_, err = f.Write(data[200_000:])
	ok(t, err)
	ok(t, f.Close())
	if code := m.Wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	m.Start()
	wantContent(t, m.Join("f"), data)
}

// TestTermBusy ends the daemon, twice told, under a file that stays open.
func TestTermBusy(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{Expect: []string{"programs still had files open"}})
	f, err := os.Create(m.Join("f"))
	ok(t, err)
	defer f.Close()
	_, err = f.WriteString("written")
	ok(t, err)
	m.Signal(syscall.SIGTERM)
	waitFor(t, "the daemon unmounts", func() bool { return m.LogContains("unmounting") })
	m.Signal(syscall.SIGTERM) // take it out of the tree
	waitFor(t, "the mount is gone", func() bool { _, err := os.Stat(m.Join("f")); return os.IsNotExist(err) })
	m.Signal(syscall.SIGTERM) // do not wait for the file
	if code := m.Wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	m.Start()
	wantContent(t, m.Join("f"), []byte("written")) // committed by the daemon
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in 30 s", what)
		}
	}
}

// TestKill ends the daemon at once: what was closed is there, what was not is not,
// and a new daemon takes the dead mount's place.
func TestKill(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	closed, synced := content(200_000, 1), content(100_000, 2)
	write(t, m.Join("closed"), closed)
	write(t, m.Join("replaced"), closed)
	killUnderWriters(t, m, synced)
	m.Start()
	wantContent(t, m.Join("closed"), closed)
	wantContent(t, m.Join("synced"), synced)
	wantContent(t, m.Join("replaced"), closed)
}

// killUnderWriters kills the daemon while one file has been synced and written on,
// and another is being replaced. Nobody may fork meanwhile: the child would close
// its copies of the descriptors on exec, and a close commits.
func killUnderWriters(t *testing.T, m *testenv.Mount, synced []byte) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	s, err := os.Create(m.Join("synced"))
	ok(t, err)
	defer s.Close()
	_, err = s.Write(synced)
	ok(t, err)
	ok(t, s.Sync())
	_, err = s.WriteString("lost")
	ok(t, err)
	r, err := os.Create(m.Join("replaced"))
	ok(t, err)
	_, err = r.WriteString("lost too")
	ok(t, err)
	m.Kill()
	if err := r.Close(); err == nil {
		t.Error("close on a dead mount succeeded")
	}
}

// TestSecondMount: what one mount closes, another one's next open sees.
func TestSecondMount(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	n := m.Again(t)
	for i := range 10 {
		data := content(30_000*(i+1), uint64(i))
		write(t, m.Join("f"), data)
		wantContent(t, n.Join("f"), data)
		m, n = n, m
	}
}

// TestCutElsewhere cuts a file on one mount and lets it grow again, with the times
// it had: another mount, whose kernel has its pages and sees no change of size or
// time, reads zeros where bytes were.
func TestCutElsewhere(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{MountOptions: "attr_timeout=0,entry_timeout=0"})
	n := m.Again(t)
	data := content(100_000, 1)
	write(t, m.Join("f"), data)
	wantContent(t, n.Join("f"), data) // now in the page cache
	fi, err := os.Stat(m.Join("f"))
	ok(t, err)
	ok(t, os.Truncate(m.Join("f"), 50_000))
	ok(t, os.Truncate(m.Join("f"), 100_000))
	ok(t, os.Chtimes(m.Join("f"), time.Time{}, fi.ModTime()))
	clear(data[50_000:])
	wantContent(t, n.Join("f"), data)
	wantContent(t, m.Join("f"), data)
}

func TestDirectIO(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{MountOptions: "direct_io"})
	data := content(300_000, 1)
	write(t, m.Join("f"), data)
	wantContent(t, m.Join("f"), data)
	f, err := os.Open(m.Join("f"))
	ok(t, err)
	defer f.Close()
	_, err = syscall.Mmap(int(f.Fd()), 0, len(data), syscall.PROT_READ, syscall.MAP_SHARED)
	wantErrno(t, "MAP_SHARED", err, syscall.ENODEV)
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{MountOptions: "ro"})
	wantErrno(t, "create", os.WriteFile(m.Join("f"), nil, 0o644), syscall.EROFS)
}

// daemon mounts m's configuration again with the command line given, and unmounts
// when the test ends.
func daemon(t *testing.T, m *testenv.Mount, mnt string, name string, args ...string) (string, error) {
	t.Helper()
	ok(t, os.MkdirAll(mnt, 0o755))
	t.Cleanup(func() {
		if unix.Unmount(mnt, 0) != nil {
			unix.Unmount(mnt, unix.MNT_DETACH)
		}
	})
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "MARFS_CONFIG="+m.Config)
	out, err := cmd.CombinedOutput() // ends only when nobody holds the pipe any more
	return string(out), err
}

func TestDaemonises(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	mnt, logFile := filepath.Join(t.TempDir(), "mnt"), filepath.Join(t.TempDir(), "log")
	out, err := daemon(t, m, mnt, testenv.Binary(t, "marfs-fuse"), "--log-file", logFile, mnt)
	if err != nil || out != "" {
		t.Fatalf("%v: %s", err, out)
	}
	write(t, m.Join("f"), []byte("both"))
	wantContent(t, filepath.Join(mnt, "f"), []byte("both"))
	ok(t, unix.Unmount(mnt, 0))
	waitFor(t, "the log ends", func() bool {
		l, _ := os.ReadFile(logFile)
		return strings.Contains(string(l), "unmounted")
	})
}

func TestDaemonSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	bin := testenv.Binary(t, "marfs-fuse")
	mnt := filepath.Join(t.TempDir(), "mnt")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{mnt + "/missing"}, 3, "no such file"},
		{[]string{"--config", "/nonexistent", mnt}, 2, "/nonexistent"},
		{[]string{"-o", "nonsense", mnt}, 2, "nonsense"},
		{[]string{m.Path}, 3, "already"},
		{[]string{"--helper", m.Config, mnt + "/missing"}, 32, "no such file"},
	} {
		out, err := daemon(t, m, mnt, bin, c.args...)
		exit, _ := err.(*exec.ExitError)
		if exit == nil || exit.ExitCode() != c.code || !strings.Contains(out, c.says) || !strings.Contains(out, "marfs-fuse: error: ") {
			t.Errorf("%q: got %v, want exit code %d and %q:\n%s", c.args, err, c.code, c.says, out)
		}
	}
}

// TestFstab mounts through mount(8), which runs the helper installed in /sbin.
func TestFstab(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mount(8) needs root")
	}
	const helper = "/sbin/mount.fuse.marfs"
	if _, err := os.Lstat(helper); err == nil {
		t.Skip(helper + " is there already")
	}
	m := testenv.NewMount(t, testenv.Options{})
	ok(t, os.Symlink(testenv.Binary(t, "marfs-fuse"), helper))
	defer os.Remove(helper)
	mnt := filepath.Join(t.TempDir(), "mnt")
	out, err := daemon(t, m, mnt, "mount", "-t", "fuse.marfs", m.Config, mnt, "-o", "ro,_netdev,nofail,x-systemd.requires=a,noexec")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	write(t, m.Join("f"), []byte("x"))
	wantContent(t, filepath.Join(mnt, "f"), []byte("x"))
	wantErrno(t, "create", os.WriteFile(filepath.Join(mnt, "g"), nil, 0o644), syscall.EROFS)
	df := mustSh(t, "/", nil, "findmnt -n -o SOURCE,FSTYPE,OPTIONS "+mnt)
	for _, want := range []string{m.Config, "fuse.marfs", "ro,", "noexec", "nosuid", "nodev"} {
		if !strings.Contains(df, want) {
			t.Errorf("findmnt: no %q in %q", want, df)
		}
	}
	mustSh(t, "/", nil, "umount "+mnt)
}

// TestNotify plays systemd for a service with Type=notify.
func TestNotify(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	ok(t, err)
	defer conn.Close()
	m := testenv.NewMount(t, testenv.Options{Env: []string{"NOTIFY_SOCKET=" + socket}})
	said := func() string {
		buf := make([]byte, 100)
		conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := conn.Read(buf)
		ok(t, err)
		return string(buf[:n])
	}
	if s := said(); s != "READY=1" {
		t.Errorf("said %q, want READY=1", s)
	}
	m.Signal(syscall.SIGHUP) // changes nothing, ends nothing
	write(t, m.Join("f"), []byte("x"))
	if code := m.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if s := said(); s != "STOPPING=1" {
		t.Errorf("said %q, want STOPPING=1", s)
	}
}

// TestManyClients has programs work in one directory at once.
func TestManyClients(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	script := `for i in 1 2 3 4 5 6 7 8; do
		mkdir -p d/$1; echo $1-$i > d/$1/$i; mv d/$1/$i d/$1-$i; cat d/$1-$i > /dev/null; ls d > /dev/null; rm d/$1-$i
	done; rmdir d/$1; echo $1 > d/done-$1`
	var all []*exec.Cmd
	for i := range 8 {
		c := exec.Command("sh", "-euc", script, "sh", fmt.Sprint(i))
		c.Dir = m.Path
		c.Stderr = os.Stderr
		ok(t, c.Start())
		all = append(all, c)
	}
	for _, c := range all {
		ok(t, c.Wait())
	}
	if out := mustSh(t, m.Path, nil, "ls d | wc -l"); out != "8\n" {
		t.Errorf("%s entries are left, want 8", strings.TrimSpace(out))
	}
}

// TestReload takes permissions away from files that are open, and gives them
// back; a configuration with a mistake changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{Expect: []string{"refused by the namespace's permissions", "configuration is refused"}})
	ok(t, os.WriteFile(m.Join("f"), []byte("data"), 0o644))
	f, err := os.Open(m.Join("f"))
	ok(t, err)
	defer f.Close()
	old, err := os.ReadFile(m.Config)
	ok(t, err)
	reload := func(text string, logged string) {
		t.Helper()
		ok(t, os.WriteFile(m.Config, []byte(text), 0o644))
		m.Signal(syscall.SIGHUP)
		waitFor(t, logged, func() bool { return m.LogContains(logged) })
	}
	reload(string(old)+"    interactive: [rm, wm]\n", "configuration read again")
	if _, err := f.ReadAt(make([]byte, 4), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("read of an open file without rd: %v", err)
	}
	if err := os.WriteFile(m.Join("g"), []byte("x"), 0o644); !errors.Is(err, unix.EPERM) {
		t.Errorf("write without wd: %v", err)
	}
	reload(strings.Replace(string(old), "version: 1", "version: 9", 1), "configuration is refused")
	if err := os.WriteFile(m.Join("g"), []byte("x"), 0o644); !errors.Is(err, unix.EPERM) {
		t.Errorf("write after a refused reload: %v", err)
	}
	ok(t, os.WriteFile(m.Config, old, 0o644))
	m.Signal(syscall.SIGHUP)
	waitFor(t, "permission to write", func() bool { return os.WriteFile(m.Join("g"), []byte("x"), 0o644) == nil })
}
