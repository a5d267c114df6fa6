package namespace

import (
	"context"
	"errors"
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
// interrupts, as the log tells it: with file, object, store and cause.
func (s *space) dataError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	e := errno(err)
	if e == syscall.ESTALE { // no failure: another writer was faster
		s.fs.log.Warn("content was replaced meanwhile", "namespace", s.cfg.Name, "op", op, "path", name, "err", err)
	} else if e != syscall.EINTR {
		s.fs.log.Error("data path failed", "namespace", s.cfg.Name, "op", op, "path", name, "errno", e.Error(), "err", err)
	}
	return pathError(op, name, Reported{e})
}
