package main

import (
	"errors"
	"fmt"
	"log/syslog"
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

func TestMain(m *testing.M) { testenv.Main(m) }

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in 30 s", what)
		}
	}
}

// ended reports whether the daemon of m has ended.
func ended(m *testenv.Mount) bool {
	select {
	case <-m.Ended():
		return true
	default:
		return false
	}
}

// TestHangupWhileEnding: somebody who rotates logs does not end the wait for
// programs that still have files open.
func TestHangupWhileEnding(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	f, err := os.Create(m.Join("f"))
	ok(t, err)
	defer f.Close()
	m.Signal(syscall.SIGTERM)
	waitFor(t, "the daemon unmounts", func() bool { return m.LogContains("unmounting") })
	for range 3 {
		m.Signal(syscall.SIGHUP)
		time.Sleep(3 * busyPoll)
	}
	if m.LogContains("taken out of the tree") || ended(m) {
		t.Fatal("SIGHUP ended the wait for an open file")
	}
	ok(t, f.Close())
	if code := m.Wait(); code != exitDone {
		t.Errorf("exit code %d, want %d", code, exitDone)
	}
}

// start runs the daemon in the foreground, in the directory of m's configuration,
// and returns when it has mounted. It ends with the test.
func start(t *testing.T, m *testenv.Mount, env []string, args ...string) (daemon *exec.Cmd, mnt, logFile string) {
	t.Helper()
	mnt, logFile = filepath.Join(t.TempDir(), "mnt"), filepath.Join(t.TempDir(), "log")
	ok(t, os.Mkdir(mnt, 0o755))
	args = append([]string{"--foreground", "--log-file", logFile}, args...)
	daemon = exec.Command(testenv.Binary(t, "marfs-fuse"), append(args, mnt)...)
	daemon.Dir = m.Dir
	daemon.Env = append(os.Environ(), env...)
	daemon.Stderr = os.Stderr
	ok(t, daemon.Start())
	t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		ok(t, daemon.Wait())
	})
	waitFor(t, "mounted", func() bool { return logged(logFile, "mounted") })
	return daemon, mnt, logFile
}

func logged(file, text string) bool {
	data, err := os.ReadFile(file)
	return err == nil && strings.Contains(string(data), text)
}

// TestRelativeConfig reloads a configuration whose name is relative to where the
// daemon was started: permissions that are taken away are gone.
func TestRelativeConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		env, args []string
	}{
		{"environment", []string{"MARFS_CONFIG=marfs.yaml"}, nil},
		{"flag", nil, []string{"--config", "marfs.yaml"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := testenv.NewMount(t, testenv.Options{})
			daemon, mnt, logFile := start(t, m, c.env, c.args...)
			ok(t, os.WriteFile(filepath.Join(mnt, "f"), []byte("data"), 0o644))
			text, err := os.ReadFile(m.Config)
			ok(t, err)
			ok(t, os.WriteFile(m.Config, append(text, "    interactive: [rm, wm]\n"...), 0o644))
			ok(t, daemon.Process.Signal(syscall.SIGHUP))
			waitFor(t, "the daemon has read it", func() bool { return strings.Count(read(t, logFile), "\n") > 1 })
			if _, err := os.ReadFile(filepath.Join(mnt, "f")); !errors.Is(err, unix.EPERM) {
				t.Errorf("read without rd: got %v, want EPERM; log:\n%s", err, read(t, logFile))
			}
		})
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	ok(t, err)
	return string(data)
}

// TestLogRotation does what logrotate does: move the log away, then SIGHUP.
func TestLogRotation(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	daemon, _, logFile := start(t, m, nil, "--config", m.Config)
	ok(t, os.Rename(logFile, logFile+".1"))
	ok(t, daemon.Process.Signal(syscall.SIGHUP))
	waitFor(t, "the daemon has read its configuration", func() bool {
		return logged(logFile, "configuration read again") || logged(logFile+".1", "configuration read again")
	})
	if logged(logFile+".1", "configuration read again") {
		t.Error("the daemon goes on with the log file that was moved away")
	}
	fi, err := os.Stat(logFile)
	ok(t, err)
	if got := fi.Mode(); got != 0o640 {
		t.Errorf("mode of the log file %v, want 0640", got)
	}

	// Where no new file can be made, the old one goes on.
	moved := filepath.Dir(logFile) + "-moved"
	ok(t, os.Rename(filepath.Dir(logFile), moved))
	ok(t, daemon.Process.Signal(syscall.SIGHUP))
	waitFor(t, "the daemon complains", func() bool {
		return logged(filepath.Join(moved, filepath.Base(logFile)), "cannot be opened again")
	})
	ok(t, os.Rename(moved, filepath.Dir(logFile)))
}

// background runs the program as users do, and unmounts when the test ends.
func background(t *testing.T, mnt string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.Command(testenv.Binary(t, "marfs-fuse"), append(args, mnt)...)
	t.Cleanup(func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) })
	all, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(all), cmd.ProcessState.ExitCode()
}

// TestNoSyslog mounts in the background where the log would go nowhere.
func TestNoSyslog(t *testing.T) {
	if w, err := syslog.New(syslog.LOG_DAEMON, ""); err == nil {
		w.Close()
		t.Skip("there is a syslog here")
	}
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	mnt := filepath.Join(t.TempDir(), "mnt")
	ok(t, os.Mkdir(mnt, 0o755))
	out, code := background(t, mnt, "--config", m.Config)
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, out)
	}
	for _, want := range []string{"marfs-fuse: warning: ", "hint: ", "--log-file"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "level=INFO") {
		t.Errorf("more than warnings:\n%s", out)
	}
}

// TestSaysWhatToDo: an error at the start is said once, with its hint.
func TestSaysWhatToDo(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	fresh := filepath.Join(t.TempDir(), "fresh.yaml") // not initialised
	text := strings.ReplaceAll(read(t, m.Config), m.Dir, t.TempDir())
	ok(t, os.WriteFile(fresh, []byte(text), 0o644))
	mnt := filepath.Join(t.TempDir(), "mnt")
	ok(t, os.Mkdir(mnt, 0o755))
	for _, c := range []struct {
		args []string
		code int
		hint string
	}{
		{[]string{"--config", fresh}, exitStart, "hint: marfsctl status shows which; if the configuration is new, marfsctl init makes them"},
		{[]string{"--foreground", "--config", fresh}, exitStart, "hint: marfsctl status shows which; if the configuration is new, marfsctl init makes them"},
		{[]string{"--config", m.Config, "--log-file", "/nonexistent/x"}, exitUsage, "hint: make its directory, or name another file with --log-file"},
		{[]string{"--config", "/nonexistent"}, exitUsage, "hint: name the configuration with --config FILE or $MARFS_CONFIG"},
		{[]string{"-o", "nonsense"}, exitUsage, "hint: marfs-fuse --help shows what it takes"},
	} {
		out, code := background(t, mnt, c.args...)
		if code != c.code || strings.Count(out, c.hint) != 1 || strings.Count(out, "marfs-fuse: error: ") != 1 || strings.Contains(out, "level=ERROR") {
			t.Errorf("%q: exit code %d, want %d, one error, and %q:\n%s", c.args, code, c.code, c.hint, out)
		}
	}
}

// TestFusermount mounts as a user where that user may not.
func TestFusermount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be another user")
	}
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{User: 65534})
	mnt := filepath.Join(t.TempDir(), "mnt")
	ok(t, os.Mkdir(mnt, 0o755)) // root's
	ok(t, os.Chmod(filepath.Dir(filepath.Dir(mnt)), 0o755))
	ok(t, os.Chmod(filepath.Dir(mnt), 0o755))
	cmd := exec.Command(testenv.Binary(t, "marfs-fuse"), "--config", m.Config, mnt)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != exitStart {
		t.Errorf("exit code %d, want %d", code, exitStart)
	}
	if s := string(out); !strings.Contains(s, "marfs-fuse: error: mount "+mnt+": fusermount3 failed") || strings.Contains(s, "256") || strings.Contains(s, "\n\n") {
		t.Errorf("got:\n%s", s)
	}
}

// TestTermWhileStarting ends a daemon that waits for stores which never answer.
func TestTermWhileStarting(t *testing.T) {
	t.Parallel()
	store, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	defer store.Close()
	asked := make(chan struct{}, 100)
	go func() {
		for {
			if _, err := store.Accept(); err != nil { // kept open, never answered
				return
			}
			asked <- struct{}{}
		}
	}()
	m := testenv.NewMount(t, testenv.Options{})
	text := read(t, m.Config)
	for i := range 3 {
		s3 := fmt.Sprintf("s3: {endpoint: \"http://%s\", bucket: bucket%d, credentials: \"env:HUNG\"}", store.Addr(), i)
		text = strings.Replace(text, fmt.Sprintf("dir: %s/store%d", m.Dir, i), s3, 1)
	}
	hung := filepath.Join(m.Dir, "hung.yaml")
	ok(t, os.WriteFile(hung, []byte(text), 0o644))
	mnt := filepath.Join(t.TempDir(), "mnt")
	ok(t, os.Mkdir(mnt, 0o755))
	var out strings.Builder
	daemon := exec.Command(testenv.Binary(t, "marfs-fuse"), "--foreground", "--config", hung, mnt)
	daemon.Env = append(os.Environ(), "HUNG_ACCESS_KEY=a", "HUNG_SECRET_KEY=b")
	daemon.Stderr = &out
	ok(t, daemon.Start())
	gone := make(chan error, 1)
	go func() { gone <- daemon.Wait() }()
	select {
	case <-asked:
	case err := <-gone:
		t.Fatalf("ended before it asked a store: %v\n%s", err, out.String())
	}
	ok(t, daemon.Process.Signal(syscall.SIGTERM))
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		_ = daemon.Process.Kill()
		t.Fatal("still waits for stores 5 s after SIGTERM")
	}
	if code := daemon.ProcessState.ExitCode(); code != exitStart || !strings.Contains(out.String(), "terminated") {
		t.Errorf("exit code %d, want %d and the signal's name:\n%s", code, exitStart, out.String())
	}
}

// TestLeftLate ends the daemon under a program that leaves only when the mount has
// been taken out of the tree: nothing is left open or uncommitted, so that is a
// clean end.
func TestLeftLate(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	f, err := os.Create(m.Join("f"))
	ok(t, err)
	defer f.Close()
	m.Signal(syscall.SIGTERM)
	waitFor(t, "the daemon unmounts", func() bool { return m.LogContains("unmounting") })
	m.Signal(syscall.SIGTERM)
	waitFor(t, "the mount is taken out of the tree", func() bool { return m.LogContains("taken out of the tree") })
	_, err = f.WriteString("late")
	ok(t, err)
	ok(t, f.Close())
	if code := m.Wait(); code != exitDone {
		t.Errorf("exit code %d, want %d", code, exitDone)
	}
	m.Start()
	if got := read(t, m.Join("f")); got != "late" {
		t.Errorf("got %q", got)
	}
}

// TestNamespaceRemoved reloads a configuration without a namespace that is in use:
// its permissions stay as they were, and the log says so.
func TestNamespaceRemoved(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{More: "  - name: second\n    path: /second\n    metadata: %s/metadata2\n    repo: main\n"})
	text := read(t, m.Config)
	first, _, _ := strings.Cut(text, "  - name: second\n")
	ok(t, os.WriteFile(m.Config, []byte(first), 0o644))
	m.Signal(syscall.SIGHUP)
	waitFor(t, "the log says what waits", func() bool { return m.LogContains("take effect when mounted again") })
	if want := `msg="namespace is no longer in the configuration: until mounted again it stays, with the permissions it had" namespace=second`; !m.LogContains(want) {
		t.Errorf("no %q in the log:\n%s", want, m.Log())
	}
	ok(t, os.WriteFile(m.Join("second", "f"), []byte("x"), 0o644))
	ok(t, os.WriteFile(m.Config, []byte(text), 0o644)) // for the checks of the metadata at the end
}

// TestRefusalsDoNotFloodTheLog appends to old content again and again.
func TestRefusalsDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	ok(t, os.WriteFile(m.Join("f"), []byte("old"), 0o644))
	f, err := os.OpenFile(m.Join("f"), os.O_WRONLY|os.O_APPEND, 0)
	ok(t, err)
	defer f.Close()
	for range 500 {
		if _, err := f.WriteString("new"); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Fatalf("append: %v", err)
		}
	}
	if n := strings.Count(m.Log(), "\n"); n > 2*limitLines {
		t.Errorf("%d lines of log for 500 refusals", n)
	}
}
