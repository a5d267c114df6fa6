package posix

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

// inode is an open inode, and the name it was opened by for messages.
type inode struct {
	handle
	name string
	path bool // opened with O_PATH: no read, write, fchmod, fgetxattr
}

// call does fn with the descriptor and says in the error what was meant: the
// entry name, or with "" the inode itself.
func (in *inode) call(op, name string, fn func(fd int) error) error {
	err := in.do(fn)
	if err == nil {
		return nil
	}
	if name == "" {
		name = in.name
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Stat implements mdfs.File.
func (in *inode) Stat() (st mdfs.Stat, err error) {
	err = in.call("fstat", "", func(fd int) error { return syscall.Fstat(fd, &st) })
	return st, err
}

// Chmod implements mdfs.File.
func (in *inode) Chmod(mode uint32) error {
	return in.call("fchmod", "", func(fd int) error {
		if in.path {
			return unix.Chmod(procPath(fd), mode)
		}
		return unix.Fchmod(fd, mode)
	})
}

// Chown implements mdfs.File.
func (in *inode) Chown(uid, gid int) error {
	return in.call("fchown", "", func(fd int) error {
		return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH)
	})
}

// Chtimes implements mdfs.File.
func (in *inode) Chtimes(atime, mtime mdfs.TimeSet) error {
	return in.call("futimens", "", func(fd int) error {
		err := utimes(fd, "", unix.AT_EMPTY_PATH, atime, mtime)
		if err == unix.EINVAL { // Linux before 5.8 does not know the flag here
			return utimes(unix.AT_FDCWD, procPath(fd), 0, atime, mtime)
		}
		return err
	})
}

// Close implements mdfs.File.
func (in *inode) Close() error {
	if err := in.close(); err != nil {
		return &fs.PathError{Op: "close", Path: in.name, Err: err}
	}
	return nil
}

// fromUnix copies field by field: the two types differ in names only.
func fromUnix(u *unix.Stat_t) mdfs.Stat {
	return mdfs.Stat{
		Dev:     u.Dev,
		Ino:     u.Ino,
		Nlink:   u.Nlink,
		Mode:    u.Mode,
		Uid:     u.Uid,
		Gid:     u.Gid,
		Rdev:    u.Rdev,
		Size:    u.Size,
		Blksize: u.Blksize,
		Blocks:  u.Blocks,
		Atim:    syscall.Timespec(u.Atim),
		Mtim:    syscall.Timespec(u.Mtim),
		Ctim:    syscall.Timespec(u.Ctim),
	}
}

// utimes is utimensat(2).
func utimes(dirfd int, name string, flags int, atime, mtime mdfs.TimeSet) error {
	var ts [2]unix.Timespec
	for i, t := range []mdfs.TimeSet{atime, mtime} {
		switch {
		case t.Omit:
			ts[i].Nsec = unix.UTIME_OMIT
		case t.Now:
			ts[i].Nsec = unix.UTIME_NOW
		default:
			ts[i] = unix.Timespec{Sec: t.Time.Unix(), Nsec: int64(t.Time.Nanosecond())}
		}
	}
	return unix.UtimesNanoAt(dirfd, name, ts[:], flags)
}
