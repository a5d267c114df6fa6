package posix

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

// dir is an open directory (O_PATH).
type dir struct {
	self inode
	keep bool // the root: Close leaves it open, FS.Close does not
}

var _ mdfs.Dir = (*dir)(nil)

func newDir(fd int, name string) *dir {
	return &dir{self: inode{handle: handle{fd: fd}, name: name, path: true}}
}

// selfName is the name by which attribute calls mean the directory itself.
const selfName = "."

// call does fn with the descriptor, on the entry name ("": on the directory).
func (d *dir) call(op, name string, fn func(fd int) error) error {
	return d.self.call(op, name, fn)
}

// entry is call for a name that must be that of an entry.
func (d *dir) entry(op, name string, fn func(fd int) error) error {
	if err := checkName(name); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return d.call(op, name, fn)
}

// Stat implements mdfs.Dir.
func (d *dir) Stat() (mdfs.Stat, error) { return d.self.Stat() }

// OpenDir implements mdfs.Dir.
func (d *dir) OpenDir(name string) (mdfs.Dir, error) {
	var sub *dir
	err := d.entry("opendir", name, func(fd int) error {
		n, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			sub = newDir(n, name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return sub, nil
}

// OpenFile implements mdfs.Dir.
func (d *dir) OpenFile(name string, flag int, perm uint32) (mdfs.File, error) {
	var f *file
	err := d.entry("open", name, func(fd int) error {
		n, err := openat(fd, name, flag, perm)
		if err == nil {
			f = &file{inode{handle: handle{fd: n}, name: name, path: flag&unix.O_PATH != 0}}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// openat opens what is not a symlink, without blocking on a FIFO or device.
func openat(dirfd int, name string, flag int, perm uint32) (int, error) {
	const always = unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	if flag&unix.O_APPEND != 0 {
		return -1, unix.EINVAL
	}
	fd, err := unix.Openat(dirfd, name, flag|always, perm)
	if err != nil || flag&unix.O_PATH == 0 {
		return fd, err
	}
	// O_PATH|O_NOFOLLOW opens the symlink itself.
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = unix.ELOOP
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// withReadable calls fn with the directory of an O_PATH descriptor opened for
// reading, which needs read permission.
func withReadable(fd int, fn func(fd int) error) error {
	n, err := openReadable(fd)
	if err != nil {
		return err
	}
	defer unix.Close(n)
	return retry(func() error { return fn(n) })
}

// openReadable goes through /proc because "." in the directory would need search
// permission too.
func openReadable(fd int) (int, error) {
	return unix.Open(procPath(fd), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
}

// Sync implements mdfs.Dir. It needs read permission.
func (d *dir) Sync() error {
	return d.call("fsync", "", func(fd int) error { return withReadable(fd, unix.Fsync) })
}

// Again implements mdfs.Dir.
func (d *dir) Again() (mdfs.Dir, error) {
	var again *dir
	err := d.call("dup", "", func(fd int) error {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			again = newDir(n, d.self.name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return again, nil
}

// Close implements mdfs.Dir.
func (d *dir) Close() error {
	if d.keep {
		return nil
	}
	return d.self.Close()
}

// Link implements mdfs.Linker. A symlink is linked itself.
func (d *dir) Link(name string, to mdfs.Dir, newname string) error {
	return d.toOther("link", name, to, newname, func(fd, tofd int) error {
		return unix.Linkat(fd, name, tofd, newname, 0)
	})
}

// Rename implements mdfs.Linker.
func (d *dir) Rename(name string, to mdfs.Dir, newname string, flags uint) error {
	return d.toOther("rename", name, to, newname, func(fd, tofd int) error {
		return unix.Renameat2(fd, name, tofd, newname, flags)
	})
}

// toOther calls fn with the descriptors of d and to. A Dir of another kind of FS
// is on another filesystem: EXDEV.
func (d *dir) toOther(op, name string, to mdfs.Dir, newname string, fn func(fd, tofd int) error) error {
	err := checkName(name)
	if err == nil {
		err = checkName(newname)
	}
	t, ours := to.(*dir)
	if err == nil && !ours {
		err = unix.EXDEV
	}
	if err == nil {
		err = d.self.do(func(fd int) error {
			return t.self.do(func(tofd int) error { return fn(fd, tofd) })
		})
	}
	if err != nil {
		return &os.LinkError{Op: op, Old: name, New: newname, Err: err}
	}
	return nil
}
