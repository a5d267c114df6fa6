package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	startTimeout = 2 * time.Minute  // stores may be slow to answer
	probeTimeout = 15 * time.Second // the mount may not
	childEnv     = "MARFS_FUSE_READY_FD"
	ready        = "ready\n"
)

// errReported is a failure that the child has printed.
var errReported = errors.New("the daemon did not start")

// isChild reports whether this process is the daemon that another one started.
func isChild() bool { return os.Getenv(childEnv) != "" }

// daemonise starts this program again in a session of its own, and returns when
// its mount answers.
func (c *command) daemonise() error {
	r, w, err := os.Pipe()
	if err != nil {
		return startError{err}
	}
	defer r.Close()
	child := exec.Command("/proc/self/exe", os.Args[1:]...)
	child.Args[0] = os.Args[0]
	child.Stderr = os.Stderr
	child.ExtraFiles = []*os.File{w} // descriptor 3
	child.Env = append(os.Environ(), childEnv+"=3")
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return startError{err}
	}
	w.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.await(ctx, r); err != nil {
		_ = child.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		return childError(ctx, child, err)
	}
	return child.Process.Release()
}

// await returns when the child says that it serves, and the mount answers too.
func (c *command) await(ctx context.Context, r *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Now()) })
	defer stop()
	said, err := io.ReadAll(io.LimitReader(r, int64(len(ready))))
	switch {
	case err != nil:
		return err
	case string(said) != ready:
		return errReported
	}
	return answers(c.mountPoint)
}

// childError tells why the child ended; it has printed the rest.
func childError(ctx context.Context, child *exec.Cmd, err error) error {
	if !errors.Is(err, errReported) {
		if ctx.Err() != nil {
			err = fmt.Errorf("the mount is not up: %w", ctx.Err())
		}
		return startError{err}
	}
	var exit *exec.ExitError
	if errors.As(child.Wait(), &exit) && (exit.ExitCode() == exitUsage || exit.ExitCode() == exitMountUsage) {
		return usageError{err}
	}
	return startError{err}
}

// answers checks that dir is a FUSE mount that answers in time. The call cannot
// be cancelled; this process ends soon, and that ends it.
func answers(dir string) error {
	answer := make(chan error, 1)
	go func() {
		var s unix.Statfs_t
		err := unix.Statfs(dir, &s)
		if err == nil && s.Type != unix.FUSE_SUPER_MAGIC {
			err = errors.New("something else is mounted over it")
		}
		answer <- err
	}()
	select {
	case err := <-answer:
		if err != nil {
			return fmt.Errorf("%s does not answer: %w", dir, err)
		}
		return nil
	case <-time.After(probeTimeout):
		return fmt.Errorf("%s does not answer: %w", dir, os.ErrDeadlineExceeded)
	}
}

// tellParent says that the mount is served, and lets go of the parent's terminal
// and pipes.
func tellParent() error {
	if !isChild() {
		return nil
	}
	os.Unsetenv(childEnv)
	w := os.NewFile(3, "ready")
	_, err := io.Copy(w, strings.NewReader(ready))
	return errors.Join(err, w.Close(), silence())
}

// silence points the standard descriptors at /dev/null.
func silence() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return nil
}
