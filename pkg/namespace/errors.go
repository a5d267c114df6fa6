package namespace

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"marfs/pkg/objstore"
	"marfs/pkg/repo"
)

// errno gives the errno that an error of the data path stands for. What a store
// says is EIO, but for want of room: its own errno (ECONNREFUSED, EROFS, EACCES,
// ENOENT ...) is about the store, and a user would take it to be about the file.
func errno(err error) syscall.Errno {
	var e syscall.Errno
	switch {
	case errors.Is(err, objstore.ErrNoSpace):
		return syscall.ENOSPC
	case errors.Is(err, repo.ErrQuorum), errors.Is(err, objstore.ErrUnavailable), errors.Is(err, objstore.ErrCorrupt):
		return syscall.EIO
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	}
	return syscall.EIO
}

// Reported is an errno whose cause is in the log already.
type Reported struct{ Errno syscall.Errno }

func (r Reported) Error() string { return r.Errno.Error() }

// Unwrap gives the errno.
func (r Reported) Unwrap() error { return r.Errno }

// dataError is a failure of the data path as the caller sees it, and, but for
// interrupts and what is in the log already, as the log tells it: a call that
// MarFS refuses with the reason, what fails with file, object, store and cause.
func (s *space) dataError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	e := errno(err)
	log := []any{"namespace", s.cfg.Name, "op", op, "path", name, "errno", e.Error()}
	switch why := reason(op, e, err); {
	case e == syscall.EINTR, errors.As(err, new(Reported)):
	case why != "":
		s.fs.log.Warn("refused", append(log, "reason", why)...)
	default:
		s.fs.log.Error("data path failed", append(log, "err", err)...)
	}
	return pathError(op, name, Reported{e})
}

// reason is why MarFS refuses what a caller asked for; "" when the error is no
// refusal but a failure, as are those of the metadata filesystem.
func reason(op string, e syscall.Errno, err error) string {
	bare := err == error(e) //nolint:errorlint // nothing around it says more
	switch {
	case e == syscall.ESTALE && bare: // no failure: another writer was faster
		return "another writer has begun or replaced the content meanwhile"
	case e == syscall.ESTALE:
		return err.Error()
	case e != syscall.EOPNOTSUPP && e != syscall.EBUSY, errors.As(err, new(*fs.PathError)), errors.As(err, new(*os.SyscallError)):
		return ""
	case e == syscall.EOPNOTSUPP && bare && op == "truncate":
		return "a file that is being written can be cut to nothing only, or grow, until it is closed"
	case e == syscall.EOPNOTSUPP && bare:
		return "a file is written in order: this is before the end of what is written"
	}
	return err.Error()
}
