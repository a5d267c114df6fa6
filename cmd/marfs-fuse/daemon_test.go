package main

import (
	"errors"
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
