package namespace

import (
	"syscall"

	"marfs/pkg/mdfs"
)

// attributed is what attributes are of: a name in a directory, or an open file,
// which may have no name any more.
type attributed interface {
	mdfs.FileXattrs
	Stat() (mdfs.Stat, error)
	Chmod(mode uint32) error
	Chown(uid, gid int) error
	Chtimes(atime, mtime mdfs.TimeSet) error
}

var _ attributed = mdfs.File(nil)

// named is what a name in a directory stands for, a symlink itself.
type named struct {
	dir  mdfs.Dir
	name string
}

// named takes the empty name for the directory itself.
func (d *Dir) named(name string) named {
	if name == "" {
		name = "." // the metadata filesystem's word for it
	}
	return named{d.md, name}
}

func (n named) Stat() (mdfs.Stat, error)                { return n.dir.Lstat(n.name) }
func (n named) Chmod(mode uint32) error                 { return n.dir.Chmod(n.name, mode) }
func (n named) Chown(uid, gid int) error                { return n.dir.Lchown(n.name, uid, gid) }
func (n named) Chtimes(atime, mtime mdfs.TimeSet) error { return n.dir.Lchtimes(n.name, atime, mtime) }
func (n named) Getxattr(attr string) ([]byte, error)    { return n.dir.Getxattr(n.name, attr) }
func (n named) Listxattr() ([]string, error)            { return n.dir.Listxattr(n.name) }
func (n named) Removexattr(attr string) error           { return n.dir.Removexattr(n.name, attr) }

func (n named) Setxattr(attr string, v []byte, flags int) error {
	return n.dir.Setxattr(n.name, attr, v, flags)
}

// change applies all but the size, as the thread's identity. Owner before mode:
// chown clears the set-id bits that a mode may want.
func (s *space) change(x attributed, set SetAttr) error {
	if uid, gid, any := set.owner(); any {
		if err := x.Chown(uid, gid); err != nil {
			return err
		}
	}
	if set.Mode != nil {
		if err := s.chmod(x, *set.Mode); err != nil {
			return err
		}
	}
	if set.times() {
		return x.Chtimes(set.Atime, set.Mtime)
	}
	return nil
}

// chmod sets the mode, of a regular file as it is kept on disk.
func (s *space) chmod(x attributed, mode uint32) error {
	st, err := x.Stat()
	if err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFREG {
		mode = s.cfg.Meta.DiskMode(mode)
	}
	return x.Chmod(mode)
}
