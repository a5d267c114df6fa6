package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/internal/mountinfo"
)

// Mounted is a client of the daemon that serves the mount at dir. It speaks only to
// a mount of root's or the caller's own: whoever serves a mount could answer
// anything, and learns what is asked.
func Mounted(dir string) Client {
	return Client{Dial: func(context.Context) (Conn, error) { return dial(dir) }}
}

// advised is an error with what to do about it.
type advised struct {
	error
	hint string
}

func (a advised) Unwrap() error { return a.error }
func (a advised) Hint() string  { return a.hint }

func dial(dir string) (Conn, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, notMounted(dir, err)
	}
	m, err := mountinfo.At(real)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, notMounted(dir, errors.New("nothing is mounted there"))
	case err != nil:
		return nil, err
	case m.Kind != mountinfo.FUSE:
		return nil, notMounted(dir, fmt.Errorf("what is mounted there is no MarFS but %s", m.Kind))
	case m.User != 0 && m.User != os.Geteuid():
		return nil, advised{fmt.Errorf("%s: mounted by user %d, who could answer anything: %w", dir, m.User, syscall.EACCES),
			"only a mount of root's or of your own is asked"}
	}
	return open(real, m)
}

func notMounted(dir string, why error) error {
	return advised{fmt.Errorf("%s: %w", dir, why), "mount it (marfs-fuse " + dir + "), or run this as root or the daemon's user, which need no mount"}
}

// open opens the control file, and checks that it is in the mount m, and not in
// what has taken its place since.
func open(dir string, m mountinfo.Mount) (Conn, error) {
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(at)
	if err := isIn(at, m); err != nil { // before opening, which a fake could make wait
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	// Not by os.OpenFile: Go's poller takes files of FUSE for pipes.
	fd, err := unix.Openat(at, Name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, refusal(filepath.Join(dir, Name), err)
	}
	return mounted(fd), nil
}

func isIn(fd int, m mountinfo.Mount) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)); dev != m.Dev {
		return fmt.Errorf("another mount has taken its place: %w", syscall.ESTALE)
	}
	return nil
}

func refusal(path string, err error) error {
	hints := map[error]string{
		unix.EAGAIN: "there are as many requests under way as may be, of yours or of all users: try again",
		unix.EROFS:  "the mount is read-only: run this as root or the daemon's user",
		unix.ENOENT: "the daemon there is of an older release: mount again with this one",
		unix.EPERM:  "a set-user-ID program cannot ask for somebody",
	}
	return advised{&os.PathError{Op: "open", Path: path, Err: err}, hints[err]}
}

// mounted is the descriptor of a control file.
type mounted int

func (fd mounted) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := unix.Write(int(fd), p[n:])
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// Read waits no longer than the beat of the server.
func (fd mounted) Read(_ context.Context, p []byte) (int, error) {
	n, err := unix.Read(int(fd), p)
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (fd mounted) Close() { unix.Close(int(fd)) }
