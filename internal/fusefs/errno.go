package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"syscall"

	"marfs/pkg/namespace"
)

// sentinels turns errors that carry no number into one.
var sentinels = []struct {
	err   error
	errno syscall.Errno
}{
	{context.DeadlineExceeded, syscall.ETIMEDOUT},
	{fs.ErrNotExist, syscall.ENOENT},
	{fs.ErrExist, syscall.EEXIST},
	{fs.ErrPermission, syscall.EACCES},
	{fs.ErrInvalid, syscall.EINVAL},
	{fs.ErrClosed, syscall.EBADF},
	{errors.ErrUnsupported, syscall.EOPNOTSUPP},
}

// errnoOf is the one table that turns errors into numbers. ok is false for an
// error nobody foresaw, which is EIO.
func errnoOf(err error) (e syscall.Errno, ok bool) {
	switch {
	case err == nil:
		return 0, true
	case errors.Is(err, context.Canceled):
		return syscall.EINTR, true
	case errors.As(err, &e):
		return clean(e)
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.errno, true
		}
	}
	return syscall.EIO, false
}

// clean keeps numbers from the kernel that mean something else to it: 0 is
// success, above 511 are internal ones, and ENOSYS would switch the operation
// off for the life of the mount.
func clean(e syscall.Errno) (syscall.Errno, bool) {
	switch {
	case e == syscall.ENOSYS:
		return syscall.EOPNOTSUPP, true
	case e == 0 || e > 511:
		return syscall.EIO, false
	}
	return e, e != syscall.EIO
}

// errno answers an operation of n; what becomes EIO is logged, since EIO alone
// tells nobody anything.
func (n *node) errno(op string, err error) syscall.Errno {
	e, ok := errnoOf(err)
	if !ok && !errors.As(err, new(namespace.Reported)) {
		n.fs.log.Error("input/output error", "op", op, "path", n.Path(nil), slog.Any("err", err))
	}
	return e
}
