// Package mdfs defines the metadata-filesystem seam: a directory tree of an
// ordinary POSIX filesystem, addressed by (directory, name).
//
// Names are those of os.Root. No call ever follows a symbolic link, and no name
// holds a slash: a hostile tree cannot lead out of its root. Package posix
// implements it with *at calls; mdfssim simulates one for the model checker;
// the suite mdfstest covers both, and a mount.
package mdfs

import (
	"io"
	"syscall"
	"time"
)

// FS is one metadata filesystem.
type FS interface {
	// Root is the directory it was opened at. It lives as long as the FS.
	Root() Dir
	// As runs fn with the rights of c alone and returns its error. When the
	// switch fails, fn does not run. fn must not start goroutines that use the
	// FS. In a nested As the inner Cred rules until it returns. A panic or
	// runtime.Goexit of fn goes on in the caller.
	As(c Cred, fn func() error) error
	// Sync flushes everything (syncfs).
	Sync() error
	// Statfs describes the filesystem's room.
	Statfs() (syscall.Statfs_t, error)
	Close() error
}

// Cred is whose rights an operation has.
type Cred struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
}

// Stat is what stat(2) says.
type Stat = syscall.Stat_t

// Dir is an open directory. Errors are *fs.PathError or *os.LinkError around a
// syscall.Errno. A name is one component: with a slash or NUL, "", "." or ".." it is
// EINVAL; but for Lstat, Chmod, Lchown, Lchtimes and the xattr calls, "." is the
// directory itself, for which search permission in it is not needed. After Close
// every call on a Dir, File or Entries is EBADF.
type Dir interface {
	Namer
	Linker
	XattrNamer

	// Stat describes the directory itself.
	Stat() (Stat, error)
	// OpenDir opens the directory name; read permission on it is not needed
	// (Entries needs it). A symlink is ENOTDIR.
	OpenDir(name string) (Dir, error)
	// OpenFile opens name with open(2) flags (O_NOFOLLOW, O_CLOEXEC, O_NONBLOCK
	// and O_NOCTTY are added). perm may hold all mode bits; the process's umask
	// does not matter (it is 0), default ACLs do. A symlink is ELOOP, also with
	// O_PATH, which pins an inode whatever its mode for Stat, Chmod, Chown,
	// Chtimes and xattrs. O_APPEND is EINVAL: WriteAt's offset would not count.
	OpenFile(name string, flag int, perm uint32) (File, error)
	// Entries opens a stream of the directory's entries.
	Entries() (Entries, error)
	// Sync makes the directory's entries durable.
	Sync() error
	// Again returns another handle on the same directory, to be closed on its own.
	Again() (Dir, error)
	Close() error
}

// Namer changes and describes what single names stand for.
type Namer interface {
	Lstat(name string) (Stat, error)
	// Mkdir uses the bits 01777 of perm; the set-group-ID bit is inherited.
	Mkdir(name string, perm uint32) error
	Mknod(name string, mode uint32, dev uint64) error
	Symlink(target, name string) error
	Readlink(name string) (string, error)
	Remove(name string) error    // unlink(2): not a directory
	RemoveDir(name string) error // rmdir(2)
	// Chmod of a symlink is EOPNOTSUPP.
	Chmod(name string, mode uint32) error
	Lchown(name string, uid, gid int) error // -1: unchanged
	Lchtimes(name string, atime, mtime TimeSet) error
}

// TimeSet is one argument of utimensat(2). Omit goes before Now, Now before Time.
type TimeSet struct {
	Omit bool // leave it as it is
	Now  bool // the clock of the filesystem
	Time time.Time
}

// Linker moves and links names between directories of one FS.
type Linker interface {
	// Link makes newname in to another link of name.
	Link(name string, to Dir, newname string) error
	// Rename moves name to newname in to; flags are renameat2(2)'s.
	Rename(name string, to Dir, newname string, flags uint) error
}

// XattrNamer reads and writes extended attributes by name, never following a symlink.
type XattrNamer interface {
	Getxattr(name, attr string) ([]byte, error)
	Setxattr(name, attr string, value []byte, flags int) error // unix.XATTR_CREATE, XATTR_REPLACE or 0
	Listxattr(name string) ([]string, error)
	Removexattr(name, attr string) error
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	Stat() (Stat, error)
	Truncate(size int64) error
	Allocate(mode uint32, off, n int64) error  // fallocate(2)
	Seek(off int64, whence int) (int64, error) // also SEEK_DATA, SEEK_HOLE
	Chmod(mode uint32) error
	Chown(uid, gid int) error
	Chtimes(atime, mtime TimeSet) error
	// Flock is flock(2) without waiting: LOCK_SH, LOCK_EX or LOCK_UN of package
	// unix; LOCK_NB is added. EWOULDBLOCK: another File of the inode has a lock that
	// is in the way; EINVAL: how is none of the three. A lock belongs to this File
	// and goes with its Close, or the process; taking the other kind changes it, and
	// may lose it when that fails. ENOSYS, EOPNOTSUPP or ENOLCK: the filesystem has none.
	Flock(how int) error
	// Lock locks n bytes from off on, of which none need exist, for this File alone,
	// without waiting (F_OFD_SETLK); it is open for writing. EAGAIN: another File has
	// some of them. The lock goes with Close, or the process, and has nothing to do
	// with Flock's. ENOSYS, EOPNOTSUPP or ENOLCK: the filesystem has none.
	Lock(off, n int64) error
	// Sync makes the file's data and its inode (xattrs included) durable.
	Sync() error
	FileXattrs
	Close() error
}

// FileXattrs reads and writes an open file's extended attributes.
type FileXattrs interface {
	Getxattr(attr string) ([]byte, error)
	Setxattr(attr string, value []byte, flags int) error
	Listxattr() ([]string, error)
	Removexattr(attr string) error
}

// Dirent is one entry of a directory. "." and ".." are not reported.
type Dirent struct {
	Name string
	Ino  uint64
	Type uint32 // S_IFMT bits; 0: unknown
	Next int64  // where the entry after this one is, for SeekTo
}

// Entries is a stream of directory entries in the filesystem's order, in
// bounded memory.
type Entries interface {
	// Next returns io.EOF after the last entry.
	Next() (Dirent, error)
	// SeekTo continues at a Dirent's Next, or at the start with 0.
	SeekTo(pos int64) error
	Close() error
}
