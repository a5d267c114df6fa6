package posix

import (
	"io"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

// file is an open file of any type but symlink.
type file struct{ inode }

var _ mdfs.File = (*file)(nil)

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		var m int
		err := f.call("pread", "", func(fd int) (err error) {
			m, err = unix.Pread(fd, p[n:], off+int64(n))
			return err
		})
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (f *file) WriteAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		var m int
		err := f.call("pwrite", "", func(fd int) (err error) {
			m, err = unix.Pwrite(fd, p[n:], off+int64(n))
			if m == 0 && err == nil {
				err = unix.EIO // or this loop would not end
			}
			return err
		})
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// Truncate implements mdfs.File.
func (f *file) Truncate(size int64) error {
	return f.call("ftruncate", "", func(fd int) error { return unix.Ftruncate(fd, size) })
}

// Allocate implements mdfs.File.
func (f *file) Allocate(mode uint32, off, n int64) error {
	return f.call("fallocate", "", func(fd int) error { return unix.Fallocate(fd, mode, off, n) })
}

// Seek implements mdfs.File.
func (f *file) Seek(off int64, whence int) (pos int64, err error) {
	err = f.call("lseek", "", func(fd int) (err error) {
		pos, err = unix.Seek(fd, off, whence)
		return err
	})
	return pos, err
}

// Flock implements mdfs.File.
func (f *file) Flock(how int) error {
	return f.call("flock", "", func(fd int) error {
		if how != unix.LOCK_SH && how != unix.LOCK_EX && how != unix.LOCK_UN {
			return unix.EINVAL
		}
		for {
			if err := unix.Flock(fd, how|unix.LOCK_NB); err != unix.EINTR {
				return err
			}
		}
	})
}

// Lock implements mdfs.File.
func (f *file) Lock(off, n int64) error {
	return f.call("lock", "", func(fd int) error {
		if n <= 0 { // 0 would be all that follow
			return unix.EINVAL
		}
		err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: off, Len: n})
		switch err {
		case unix.EACCES: // as old as EAGAIN, and the same
			return unix.EAGAIN
		case unix.EINVAL:
			if off >= 0 { // Linux before 3.15
				return unix.ENOSYS
			}
		}
		return err
	})
}

// Sync implements mdfs.File. It is not repeated after an error: the kernel
// tells of lost pages once.
func (f *file) Sync() error { return f.call("fsync", "", unix.Fsync) }
