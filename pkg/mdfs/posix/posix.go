// Package posix makes a directory of a mounted POSIX filesystem an mdfs.FS.
//
// Every call is an *at system call on a directory descriptor (O_PATH) and one
// validated name, with the flag that keeps the last component from being
// followed; so no link that a user plants leads anywhere. Where the kernel has
// no such call (xattrs by name, chmod of O_PATH descriptors), the way leads
// through the descriptor's entry in /proc/self/fd, which Open checks to be there.
//
// Modes are what the caller says: the program sets umask 0 once, at its start.
// Open does not, for a umask belongs to the whole process.
package posix

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

// FS is a directory tree of a POSIX filesystem. Safe for concurrent use.
type FS struct {
	root *dir
	own  process
}

var _ mdfs.FS = (*FS)(nil)

// Open opens the directory path, following links in path itself. The process's
// identity and capabilities, for As, are those of this moment.
func Open(path string) (*FS, error) {
	fd, err := openPath(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := &FS{root: newDir(fd, path)}
	f.root.keep = true
	if err := checkProc(fd); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if f.own, err = currentProcess(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func openPath(path string) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// checkProc makes sure that procPath works: without /proc its ENOENT would look
// like a file that is not there.
func checkProc(fd int) error {
	var sys unix.Statfs_t
	if err := unix.Statfs(procSelfFD, &sys); err != nil || sys.Type != unix.PROC_SUPER_MAGIC {
		return errors.New("needs /proc mounted")
	}
	if _, err := os.Readlink(procPath(fd)); err != nil {
		return fmt.Errorf("needs %s: %w", procSelfFD, err)
	}
	return nil
}

// Root implements mdfs.FS. Closing it has no effect.
func (f *FS) Root() mdfs.Dir { return f.root }

// As implements mdfs.FS. A process without CAP_SETUID and CAP_SETGID acts for
// its own user only; for any other it is EPERM.
func (f *FS) As(c mdfs.Cred, fn func() error) error { return f.own.as(c, fn) }

// Sync implements mdfs.FS.
func (f *FS) Sync() error {
	return f.root.call("syncfs", "", func(fd int) error {
		return withReadable(fd, unix.Syncfs)
	})
}

// Statfs implements mdfs.FS.
func (f *FS) Statfs() (st syscall.Statfs_t, err error) {
	err = f.root.call("statfs", "", func(fd int) error { return syscall.Fstatfs(fd, &st) })
	return st, err
}

// Close implements mdfs.FS. Directories and files still open stay usable.
func (f *FS) Close() error { return f.root.self.Close() }

// checkName refuses whatever is not the name of an entry of a directory. Length
// is left to the filesystem (ENAMETOOLONG).
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return unix.EINVAL
	}
	return nil
}
