package testenv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	startWait = 60 * time.Second
	stopWait  = 60 * time.Second
	poll      = 5 * time.Millisecond
)

// Mount is MarFS mounted, served by a process of its own: a Go process that
// touches a mount it serves itself can deadlock.
type Mount struct {
	Path   string // where it is mounted
	Config string // the configuration file
	Dir    string // the directory that holds configuration, metadata and stores

	t       testing.TB
	options Options
	env     []string // besides that of the options
	log     log
	cmd     *exec.Cmd
	ended   chan struct{} // closed when cmd has
}

// NewMount initialises and mounts a file system that lives as long as the test.
// Without FUSE the test is skipped, but not where CI is set.
func NewMount(t testing.TB, o Options) *Mount {
	t.Helper()
	needFUSE(t)
	dir := t.TempDir()
	o.setDefaults(dir)
	m := &Mount{Dir: dir, Config: o.writeConfig(t, dir), t: t, options: o}
	if o.User != 0 {
		m.give(dir, filepath.Dir(dir))
	}
	m.Ctl("init")
	t.Cleanup(func() { check(t, m) }) // after the unmount, which is registered later
	m.mountAt(filepath.Join(dir, "mnt"))
	return m
}

// Again mounts the same configuration a second time, elsewhere.
func (m *Mount) Again(t testing.TB) *Mount {
	t.Helper()
	second := &Mount{Dir: m.Dir, Config: m.Config, t: t, options: m.options}
	second.mountAt(filepath.Join(t.TempDir(), "mnt"))
	return second
}

func needFUSE(t testing.TB) {
	t.Helper()
	_, err := os.Stat("/dev/fuse")
	if err == nil && os.Geteuid() != 0 {
		_, err = exec.LookPath("fusermount3")
	}
	if err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("no FUSE here: %v", err)
	}
	t.Skipf("no FUSE here: %v", err)
}

// give makes dir the mounting user's, and the way to it passable.
func (m *Mount) give(dir, above string) {
	m.t.Helper()
	err := errors.Join(os.Chmod(above, 0o755), os.Chown(dir, int(m.options.User), int(m.options.User)))
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *Mount) mountAt(path string) {
	m.t.Helper()
	m.Path = path
	if err := os.MkdirAll(path, 0o755); err != nil {
		m.t.Fatal(err)
	}
	if m.options.User != 0 {
		m.give(path, filepath.Dir(path))
	}
	m.t.Cleanup(m.clean)
	m.Start()
}

// Command prepares a program of the project as the mounting user.
func (m *Mount) Command(name string, args ...string) *exec.Cmd {
	m.t.Helper()
	c := exec.Command(Binary(m.t, name), args...)
	c.Env = slices.Concat(os.Environ(), []string{"MARFS_CONFIG=" + m.Config}, m.options.Env, m.env)
	c.Dir = "/"
	if u := m.options.User; u != 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u, Gid: u}}
	}
	return c
}

// Setenv gives the programs that are started from now on these variables, in
// place of what it gave before.
func (m *Mount) Setenv(env ...string) { m.env = env }

// Ended is closed when the daemon has ended.
func (m *Mount) Ended() <-chan struct{} { return m.ended }

// Start starts the daemon and returns when the mount answers.
func (m *Mount) Start() {
	m.t.Helper()
	args := []string{"--foreground"}
	if m.options.MountOptions != "" {
		args = append(args, "-o", m.options.MountOptions)
	}
	m.checkLog()
	m.log.reset()
	m.cmd = m.Command("marfs-fuse", append(args, m.Path)...)
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.ended = make(chan struct{})
	go func() { _ = m.cmd.Wait(); close(m.ended) }()
	m.awaitMount()
}

// awaitMount looks at the table of mounts, not at the mount, until it is there:
// then its daemon has answered the kernel.
func (m *Mount) awaitMount() {
	m.t.Helper()
	deadline := time.After(startWait)
	for {
		if mounted(m.Path) && m.log.contains("mounted") {
			return
		}
		select {
		case <-m.ended:
			m.t.Fatalf("marfs-fuse ended at the start: %v\n%s", m.cmd.ProcessState, m.log.text())
		case <-deadline:
			m.t.Fatalf("no mount after %v\n%s", startWait, m.log.text())
		case <-time.After(poll):
		}
	}
}

// Stop ends the daemon with SIGTERM, waits for it and returns its exit code.
func (m *Mount) Stop() int {
	m.t.Helper()
	m.Signal(syscall.SIGTERM)
	return m.Wait()
}

// Signal sends a signal to the daemon.
func (m *Mount) Signal(s syscall.Signal) {
	m.t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		m.t.Fatal(err)
	}
}

// Wait waits until the daemon has ended and returns its exit code.
func (m *Mount) Wait() int {
	m.t.Helper()
	select {
	case <-m.ended:
		return m.cmd.ProcessState.ExitCode()
	case <-time.After(stopWait):
		m.t.Fatalf("marfs-fuse did not end in %v\n%s", stopWait, m.log.text())
		return -1
	}
}

// Kill ends the daemon with SIGKILL, which leaves the mount point dead.
func (m *Mount) Kill() {
	m.t.Helper()
	m.Signal(syscall.SIGKILL)
	m.Wait()
}

// Remount stops the daemon cleanly, if it is running, and mounts again.
func (m *Mount) Remount() {
	m.t.Helper()
	select {
	case <-m.ended:
	default:
		if code := m.Stop(); code != 0 {
			m.t.Fatalf("marfs-fuse ended with code %d\n%s", code, m.log.text())
		}
	}
	m.Start()
}

// PID is the daemon's process.
func (m *Mount) PID() int { return m.cmd.Process.Pid }

// LogContains reports whether the daemon has logged the text since it started.
func (m *Mount) LogContains(text string) bool { return m.log.contains(text) }

// Log is what the daemon has logged since it started.
func (m *Mount) Log() string { return m.log.text() }

// Join is a path in the mount.
func (m *Mount) Join(names ...string) string {
	return filepath.Join(append([]string{m.Path}, names...)...)
}

// Ctl runs marfsctl and returns what it printed. It must succeed.
func (m *Mount) Ctl(args ...string) string {
	m.t.Helper()
	out, code := m.TryCtl(args...)
	if code != 0 {
		m.t.Fatalf("marfsctl %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// TryCtl runs marfsctl and returns what it printed and its exit code.
func (m *Mount) TryCtl(args ...string) (string, int) {
	m.t.Helper()
	c := m.Command("marfsctl", args...)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	return string(out), c.ProcessState.ExitCode()
}

// CtlJSON runs marfsctl --json, reads what it prints into v and returns its exit code.
func (m *Mount) CtlJSON(v any, args ...string) int {
	m.t.Helper()
	c := m.Command("marfsctl", append([]string{"--json"}, args...)...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if c.ProcessState == nil {
		m.t.Fatal(err)
	}
	if err := json.Unmarshal(out, v); err != nil {
		m.t.Fatalf("marfsctl --json %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return c.ProcessState.ExitCode()
}

// clean ends the daemon however it can and leaves no mount behind.
func (m *Mount) clean() {
	if m.cmd != nil && m.cmd.Process != nil {
		_ = m.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-m.ended:
		case <-time.After(stopWait):
			m.t.Errorf("marfs-fuse did not end in %v", stopWait)
			_ = m.cmd.Process.Kill()
			<-m.ended
		}
	}
	if mounted(m.Path) {
		if err := unix.Unmount(m.Path, unix.MNT_DETACH); err != nil {
			_ = exec.Command("fusermount3", "-u", "-z", m.Path).Run()
		}
	}
	m.checkLog()
	if m.t.Failed() {
		m.t.Logf("log of %s:\n%s", m.Path, m.log.text())
	}
}

func (m *Mount) checkLog() {
	m.t.Helper()
	for line := range strings.Lines(m.log.text()) {
		if m.unexpected(line) {
			m.t.Errorf("log: %s", line)
		}
	}
}

// unexpected is an error, a panic or a data race in the log.
func (m *Mount) unexpected(line string) bool {
	if !strings.Contains(line, "level=ERROR") && !strings.Contains(line, "panic") && !strings.Contains(line, "DATA RACE") {
		return false
	}
	for _, e := range m.options.Expect {
		if strings.Contains(line, e) {
			return false
		}
	}
	return true
}

// mounted reports whether something is mounted at path.
func mounted(path string) bool {
	data, err := os.ReadFile("/proc/self/mountinfo")
	return err == nil && bytes.Contains(data, fmt.Appendf(nil, " %s ", path))
}

// log collects what the daemon prints.
type log struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *log) contains(s string) bool { return strings.Contains(l.text(), s) }

func (l *log) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}
