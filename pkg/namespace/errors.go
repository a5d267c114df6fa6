package namespace

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"marfs/pkg/objstore"
)

// errno gives the errno that an error of the data path stands for. An object
// that is not there is EIO: the file is.
func errno(err error) syscall.Errno {
	var e syscall.Errno
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, objstore.ErrNoSpace):
		return syscall.ENOSPC
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.Is(err, fs.ErrPermission):
		return syscall.EACCES
	}
	return syscall.EIO
}

// dataError is a failure of the data path as the caller sees it, and, but for
// interrupts, as the log tells it: with file, object, store and cause.
func (s *space) dataError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	e := errno(err)
	if e != syscall.EINTR {
		s.fs.log.Error("data path failed", "namespace", s.cfg.Name, "op", op, "path", name, "errno", e.Error(), "err", err)
	}
	return pathError(op, name, e)
}
