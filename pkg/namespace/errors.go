package namespace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"marfs/pkg/metadata"
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

// What MarFS refuses on the data path, and why. Nothing has failed then.
var (
	// errInPlace is a change of what was written before.
	errInPlace = fmt.Errorf("this release does not change existing content, a file is written once and in order: %w", syscall.EOPNOTSUPP)
	// errEmptied is a write by a handle whose file another open has emptied since.
	errEmptied = fmt.Errorf("another open has emptied the file meanwhile: %w", syscall.ESTALE)
	// errElsewhere is a file of which another node has synced a part, and goes on.
	errElsewhere = fmt.Errorf("another node is writing the file: %w", syscall.EBUSY)
)

// dataError is a failure of the data path as the caller sees it, and, but for
// interrupts and what is in the log already, as the log tells it: a call that
// MarFS refuses with the reason, what fails with file, object, store and cause.
func (s *space) dataError(op string, who metadata.Who, err error) error {
	if err == nil {
		return nil
	}
	e := errno(err)
	log := []any{"namespace", s.cfg.Name, "op", op, "path", who.Path, "uid", who.UID, "errno", e.Error()}
	switch {
	case e == syscall.EINTR, errors.As(err, new(Reported)):
	case refused(e, err):
		s.fs.log.Warn("refused", append(log, "reason", err.Error())...)
	default:
		s.fs.log.Error("data path failed", append(log, "err", err)...)
	}
	return pathError(op, who.Path, Reported{e})
}

// refused tells what MarFS does not do, or another writer was faster with, from
// failures, as those of the metadata filesystem are whatever their number.
func refused(e syscall.Errno, err error) bool {
	switch e {
	case syscall.ESTALE:
		return true
	case syscall.EOPNOTSUPP, syscall.EBUSY:
		return !errors.As(err, new(*fs.PathError)) && !errors.As(err, new(*os.SyscallError))
	}
	return false
}
