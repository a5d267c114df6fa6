package posix

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

// Lstat implements mdfs.Namer.
func (d *dir) Lstat(name string) (st mdfs.Stat, err error) {
	if name == selfName {
		return d.self.Stat()
	}
	err = d.entry("lstat", name, func(fd int) error {
		var u unix.Stat_t
		err := unix.Fstatat(fd, name, &u, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
		st = fromUnix(&u)
		return err
	})
	return st, err
}

// Mkdir implements mdfs.Namer.
func (d *dir) Mkdir(name string, perm uint32) error {
	return d.entry("mkdir", name, func(fd int) error { return unix.Mkdirat(fd, name, perm&0o1777) })
}

// Mknod implements mdfs.Namer. Device numbers are at most 32 bits.
func (d *dir) Mknod(name string, mode uint32, dev uint64) error {
	return d.entry("mknod", name, func(fd int) error {
		if dev>>32 != 0 {
			return unix.EINVAL
		}
		return unix.Mknodat(fd, name, mode, int(dev))
	})
}

// Symlink implements mdfs.Namer.
func (d *dir) Symlink(target, name string) error {
	err := checkName(name)
	if err == nil {
		err = d.self.do(func(fd int) error { return unix.Symlinkat(target, fd, name) })
	}
	if err != nil {
		return &os.LinkError{Op: "symlink", Old: target, New: name, Err: err}
	}
	return nil
}

// maxTarget bounds a symlink's target; the kernel's own bound is a page.
const maxTarget = 64 << 10

// Readlink implements mdfs.Namer.
func (d *dir) Readlink(name string) (target string, err error) {
	err = d.entry("readlink", name, func(fd int) error {
		for size := 256; size <= maxTarget; size *= 4 {
			buf := make([]byte, size)
			n, err := unix.Readlinkat(fd, name, buf)
			if err != nil {
				return err
			}
			if n < size {
				target = string(buf[:n])
				return nil
			}
		}
		return unix.ENAMETOOLONG
	})
	return target, err
}

// Remove implements mdfs.Namer.
func (d *dir) Remove(name string) error {
	return d.entry("unlink", name, func(fd int) error { return unix.Unlinkat(fd, name, 0) })
}

// RemoveDir implements mdfs.Namer.
func (d *dir) RemoveDir(name string) error {
	return d.entry("rmdir", name, func(fd int) error { return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR) })
}

// Chmod implements mdfs.Namer.
func (d *dir) Chmod(name string, mode uint32) error {
	if name == selfName {
		return d.self.Chmod(mode)
	}
	return d.entry("chmod", name, func(fd int) error {
		err := unix.Fchmodat(fd, name, mode, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.EOPNOTSUPP) {
			// A symlink, or a kernel before 6.6, which has no fchmodat2(2).
			return chmodPinned(fd, name, mode)
		}
		return err
	})
}

// chmodPinned changes the mode of an inode that it has pinned and seen not to
// be a symlink, so that nothing can be put in between.
func chmodPinned(dirfd int, name string, mode uint32) error {
	fd, err := openat(dirfd, name, unix.O_PATH, 0)
	if err == unix.ELOOP {
		return unix.EOPNOTSUPP
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Chmod(procPath(fd), mode)
}

// Lchown implements mdfs.Namer.
func (d *dir) Lchown(name string, uid, gid int) error {
	if name == selfName {
		return d.self.Chown(uid, gid)
	}
	return d.entry("lchown", name, func(fd int) error {
		return unix.Fchownat(fd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// Lchtimes implements mdfs.Namer.
func (d *dir) Lchtimes(name string, atime, mtime mdfs.TimeSet) error {
	if name == selfName {
		return d.self.Chtimes(atime, mtime)
	}
	return d.entry("lchtimes", name, func(fd int) error {
		return utimes(fd, name, unix.AT_SYMLINK_NOFOLLOW, atime, mtime)
	})
}
