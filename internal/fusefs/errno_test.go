package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"testing"
)

func TestErrno(t *testing.T) {
	for _, c := range []struct {
		err  error
		want syscall.Errno
		ok   bool // nothing to log
	}{
		{nil, 0, true},
		{syscall.ENOENT, syscall.ENOENT, true},
		{&fs.PathError{Op: "open", Path: "a", Err: syscall.EACCES}, syscall.EACCES, true},
		{&os.LinkError{Op: "rename", Old: "a", New: "b", Err: syscall.EXDEV}, syscall.EXDEV, true},
		{os.NewSyscallError("setfsuid", syscall.EPERM), syscall.EPERM, true},
		{fmt.Errorf("a: %w", &fs.PathError{Op: "open", Path: "a", Err: syscall.EDQUOT}), syscall.EDQUOT, true},
		{errors.Join(errors.New("first"), syscall.ENOSPC), syscall.ENOSPC, true},
		{fs.ErrNotExist, syscall.ENOENT, true},
		{fmt.Errorf("object: %w", fs.ErrExist), syscall.EEXIST, true},
		{fs.ErrPermission, syscall.EACCES, true},
		{fs.ErrInvalid, syscall.EINVAL, true},
		{fs.ErrClosed, syscall.EBADF, true},
		{errors.ErrUnsupported, syscall.EOPNOTSUPP, true},
		{context.Canceled, syscall.EINTR, true},
		{fmt.Errorf("get: %w", context.Canceled), syscall.EINTR, true},
		{context.DeadlineExceeded, syscall.ETIMEDOUT, true},
		{io.ErrUnexpectedEOF, syscall.EIO, false},
		{errors.New("never seen"), syscall.EIO, false},
		{syscall.EIO, syscall.EIO, false},
		{syscall.Errno(0), syscall.EIO, false},   // an error is no success
		{syscall.Errno(512), syscall.EIO, false}, // the kernel's own
		{syscall.ENOSYS, syscall.EOPNOTSUPP, true},
	} {
		if got, ok := errnoOf(c.err); got != c.want || ok != c.ok {
			t.Errorf("errno of %v: got %v, %v; want %v, %v", c.err, got, ok, c.want, c.ok)
		}
	}
}

func TestFit(t *testing.T) {
	v := []byte("12345")
	for _, c := range []struct {
		room int
		want error
	}{{0, syscall.ERANGE}, {4, syscall.ERANGE}, {5, nil}, {99, nil}} {
		if n, e := fit(v, make([]byte, c.room)); n != 5 || e != c.want {
			t.Errorf("room for %d: got %d, %v; want 5, %v", c.room, n, e, c.want)
		}
	}
	if n, e := fit(nil, nil); n != 0 || e != nil {
		t.Errorf("empty value: got %d, %v", n, e)
	}
}

func TestUmaskTravels(t *testing.T) {
	for _, c := range [][2]uint32{{0o100644, 0o022}, {0o7777, 0o777}, {0, 0}} {
		if mode, umask := splitUmask(withUmask(c[0], c[1])); mode != c[0] || umask != c[1] {
			t.Errorf("mode %o with umask %o: got %o, %o", c[0], c[1], mode, umask)
		}
	}
}
