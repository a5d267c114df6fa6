package fusefs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"marfs/internal/control"
	"marfs/internal/testenv"
	"marfs/pkg/namespace"
)

const listAll = `{"version":1,"do":"list","path":"Lw=="}` + "\n"

// openControl opens the control file without Go's poller, which would take it for a pipe.
func openControl(m *testenv.Mount) (int, error) {
	return unix.Open(m.Join(control.Name), unix.O_RDWR|unix.O_CLOEXEC, 0)
}

func mustOpenControl(t *testing.T, m *testenv.Mount) int {
	t.Helper()
	fd, err := openControl(m)
	ok(t, err)
	return fd
}

// readAnswer reads until the end, as a program that does not know of Go's retries does.
func readAnswer(fd int) (string, error) {
	var all bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR: // Go's own signals
		case err != nil || n == 0:
			return all.String(), err
		default:
			all.Write(bytes.TrimLeft(buf[:n], "\n"))
		}
	}
}

// TestControlFileIsAside: the control file is nobody's to change, and no tool meets it.
func TestControlFileIsAside(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	write(t, m.Join("f"), []byte("x"))
	name := m.Join(control.Name)
	var st unix.Stat_t
	ok(t, unix.Lstat(name, &st))
	if st.Mode != unix.S_IFREG|0o666 || st.Uid != 0 || st.Size != 0 || st.Nlink != 1 {
		t.Errorf("got mode %o, uid %d, size %d, links %d", st.Mode, st.Uid, st.Size, st.Nlink)
	}
	_, create := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	_, read := os.Open(name)
	for _, c := range []struct {
		what string
		err  error
		want syscall.Errno
	}{
		{"create", create, syscall.EEXIST},
		{"read only", read, syscall.EINVAL},
		{"unlink", os.Remove(name), syscall.EPERM},
		{"rename", os.Rename(name, m.Join("g")), syscall.EPERM},
		{"rename over", os.Rename(m.Join("f"), name), syscall.EPERM},
		{"exchange", unix.Renameat2(-1, m.Join("f"), -1, name, unix.RENAME_EXCHANGE), syscall.EPERM},
		{"link", os.Link(name, m.Join("g")), syscall.EPERM},
		{"link over", os.Link(m.Join("f"), name), syscall.EEXIST},
		{"mkdir", os.Mkdir(name, 0o755), syscall.EEXIST},
		{"symlink", os.Symlink("f", name), syscall.EEXIST},
		{"chmod", os.Chmod(name, 0o600), syscall.EPERM},
		{"chown", os.Chown(name, 1, 1), syscall.EPERM},
		{"truncate", os.Truncate(name, 0), syscall.EPERM},
		{"setxattr", unix.Setxattr(name, "user.x", []byte("x"), 0), syscall.EPERM},
		{"removexattr", unix.Removexattr(name, "user.x"), syscall.EPERM},
	} {
		wantErrno(t, c.what, c.err, c.want)
	}
	if n, err := unix.Listxattr(name, nil); n != 0 || err != nil {
		t.Errorf("listxattr: %d bytes, %v", n, err)
	}
	if out := mustSh(t, m.Path, nil, "ls -a; find . -mindepth 1; tar -cf - . | tar -t"); strings.Contains(out, control.Name) {
		t.Errorf("a tool meets it:\n%s", out)
	}
	ok(t, os.Mkdir(m.Join("d"), 0o755)) // elsewhere it is a name as any other
	write(t, m.Join("d", control.Name), []byte("mine"))
	wantContent(t, m.Join("d", control.Name), []byte("mine"))
	ok(t, os.Rename(m.Join("d", control.Name), m.Join("d", "other")))
}

// TestControlFileShadows: a file of its name that the metadata directory has is hidden.
func TestControlFileShadows(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	write(t, m.Join("f"), []byte("x"))
	m.Stop()
	ok(t, os.Rename(filepath.Join(m.Dir, "metadata", "tree", "f"), filepath.Join(m.Dir, "metadata", "tree", control.Name)))
	m.Start()
	if out := mustSh(t, m.Path, nil, "ls -A"); out != "" {
		t.Errorf("listed: %s", out)
	}
	fd := mustOpenControl(t, m)
	ok(t, unix.Close(fd))
}

func TestControlFileAsAStream(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	fd := mustOpenControl(t, m)
	defer unix.Close(fd)
	buf := make([]byte, 100)
	_, err := unix.Read(fd, buf)
	wantErrno(t, "read before a request", err, syscall.EINVAL)
	_, err = unix.Pread(fd, buf, 0)
	wantErrno(t, "pread", err, syscall.ESPIPE)
	_, err = unix.Seek(fd, 0, io.SeekStart)
	wantErrno(t, "lseek", err, syscall.ESPIPE)
	_, err = unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	wantErrno(t, "mmap", err, syscall.ENODEV)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT}}, 0)
	if n != 1 || err != nil {
		t.Errorf("poll: %d, %v", n, err)
	}
	_, err = unix.Write(fd, make([]byte, control.MaxRequest+1))
	wantErrno(t, "long request", err, syscall.EMSGSIZE)
	for _, part := range []string{listAll[:10], listAll[10:]} {
		if _, err := unix.Write(fd, []byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = unix.Write(fd, []byte(listAll))
	wantErrno(t, "second request", err, syscall.EINVAL)
	if a, err := readAnswer(fd); err != nil || !strings.HasPrefix(a, `{"version":1}`+"\n") || !strings.HasSuffix(a, `{"done":true}`+"\n") {
		t.Errorf("answer %q, %v", a, err)
	}
}

func TestControlGarbage(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	for _, request := range []string{"\n", "GET / HTTP/1.1\n", "\x00\xff\n", `{"version":9}` + "\n", `{"version":1,"do":"list","path":"Lw==","more":1}` + "\n", strings.Repeat("[", 100_000) + "\n"} {
		fd := mustOpenControl(t, m)
		_, err := unix.Write(fd, []byte(request))
		ok(t, err)
		if a, err := readAnswer(fd); err != nil || !strings.Contains(a, `"error":{"errno":22`) || !strings.HasSuffix(a, `{"done":true}`+"\n") {
			t.Errorf("%.20q: answer %q, %v", request, a, err)
		}
		ok(t, unix.Close(fd))
	}
}

// TestControlSessions: as many at once as may be, and again when some have ended,
// however they did.
func TestControlSessions(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	var open []int
	var err error
	for range 100 {
		var fd int
		if fd, err = openControl(m); err != nil {
			break
		}
		open = append(open, fd)
	}
	wantErrno(t, "one too many", err, syscall.EAGAIN)
	if len(open) != 4 {
		t.Errorf("%d sessions at once", len(open))
	}
	for _, err := range control.Mounted(m.Path).List(t.Context(), namespace.TrashQuery{Path: "/"}) {
		var hint interface{ Hint() string }
		if !errors.Is(err, syscall.EAGAIN) || !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "try again") {
			t.Errorf("client: %v", err)
		}
	}
	for _, fd := range open {
		_, err := unix.Write(fd, []byte(listAll))
		ok(t, err)
		ok(t, unix.Close(fd)) // nobody reads the answers
	}
	var reader *exec.Cmd
	waitFor(t, "a reader", func() bool { // there may be no free session yet
		reader = exec.Command("sh", "-c", `exec 3<>"$0"; echo ready; read -r line <&3`, m.Join(control.Name))
		out, err := reader.StdoutPipe()
		ok(t, err)
		ok(t, reader.Start())
		if _, err = io.ReadFull(out, make([]byte, 6)); err != nil {
			_ = reader.Wait() // refused
		}
		return err == nil
	})
	ok(t, reader.Process.Kill())
	_ = reader.Wait() // killed
	open = nil
	waitFor(t, "four free sessions", func() bool {
		fd, err := openControl(m)
		if err == nil {
			open = append(open, fd)
		}
		return len(open) == 4
	})
	for _, fd := range open {
		ok(t, unix.Close(fd))
	}
}

// TestControlEndsWithTheMount: the daemon ends although a session is open, and tells it so.
func TestControlEndsWithTheMount(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	fd := mustOpenControl(t, m)
	m.Signal(syscall.SIGTERM)
	waitFor(t, "the session has ended", func() bool { _, err := unix.Read(fd, make([]byte, 9)); return err == syscall.ESHUTDOWN })
	_, err := openControl(m)
	wantErrno(t, "open", err, syscall.ESHUTDOWN)
	ok(t, unix.Close(fd))
	if code := m.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestControlRefusesTwoIdentities: what is root only in part, as a set-user-ID program
// is, cannot ask.
func TestControlRefusesTwoIdentities(t *testing.T) {
	t.Parallel()
	m := shared(t)
	for _, ids := range [][3]uintptr{{5001, 0, 0}, {0, 5001, 0}, {5001, 5001, 0}} { // real, effective, saved
		err := make(chan error)
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with its identity
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ids[0], ids[1], ids[2]); e != 0 {
				err <- e
				return
			}
			_, e := openControl(m)
			err <- e
		}()
		wantErrno(t, fmt.Sprint(ids), <-err, syscall.EPERM)
	}
}
