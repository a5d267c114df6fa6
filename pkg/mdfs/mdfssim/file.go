package mdfssim

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"io"
	"strings"

	"marfs/pkg/mdfs"

	"golang.org/x/sys/unix"
)

// file is an open file. It reaches its inode also when that has no name.
type file struct {
	m    *FS
	ino  uint64
	name string
	path string
	flag int
}

var _ mdfs.File = (*file)(nil)

// do makes a call on the inode.
func (f *file) do(c *Call, fn func(c *Call, n *inode) error) error {
	c.ino, c.path = f.ino, f.path
	return pathError(c.Op, f.name, f.m.do(c, func(c *Call) error { return fn(c, f.m.d.get(f.ino)) }))
}

func (f *file) readable() bool { return f.flag&unix.O_ACCMODE != unix.O_WRONLY }
func (f *file) writable() bool { return f.flag&unix.O_ACCMODE != unix.O_RDONLY }

func (f *file) ReadAt(p []byte, off int64) (got int, err error) {
	if off < 0 {
		return 0, pathError("read", f.name, unix.EINVAL)
	}
	err = f.do(&Call{Op: "read", off: off, n: int64(len(p))}, func(c *Call, n *inode) error {
		if !f.readable() {
			return unix.EBADF
		}
		if n.isDir() {
			return unix.EISDIR
		}
		got = int(max(0, min(int64(len(p)), n.size-off)))
		n.read(p[:got], off)
		c.Result = mix(maphash.Bytes(seed, p[:got]), uint64(got))
		c.show = func() string { return fmt.Sprintf("%d bytes", got) }
		return nil
	})
	if err == nil && got < len(p) {
		return got, io.EOF
	}
	return got, err
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || !f.writable() {
		return 0, pathError("write", f.name, map[bool]error{true: unix.EINVAL, false: unix.EBADF}[off < 0])
	}
	c := &Call{Op: "write", off: off, n: int64(len(p)), data: bytes.Clone(p)}
	err := f.do(c, func(c *Call, n *inode) error {
		if f.flag&unix.O_APPEND != 0 {
			off = n.size
		}
		f.m.d.change(f.ino, partData, func(n *inode) { n.write(c.data, off) })
		grows := off+c.n > n.size
		f.m.resize(f.ino, max(n.size, off+c.n))
		if j := f.m.d.journal; j != nil && grows {
			j.grown(f.ino)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// resize sets the size and the times of a change.
func (m *FS) resize(ino uint64, size int64) {
	now := m.now()
	m.d.change(ino, partAttrs, func(n *inode) { n.size, n.mtime, n.ctime = size, now, now })
}

// truncate cuts or extends; what is cut never comes back.
func (m *FS) truncate(ino uint64, size int64) {
	old := m.d.get(ino).size
	if size < old {
		m.d.change(ino, partData, func(n *inode) { n.zero(size, (old+blockSize)/blockSize*blockSize) })
	}
	m.resize(ino, size)
}

func (f *file) Stat() (st mdfs.Stat, err error) {
	err = f.do(&Call{Op: "stat"}, func(c *Call, n *inode) error {
		st, c.Result = n.stat(), n.statHash()
		c.show = showStat(st)
		return nil
	})
	return st, err
}

func showStat(st mdfs.Stat) func() string {
	return func() string { return fmt.Sprintf("ino %x nlink %d size %d", st.Ino, st.Nlink, st.Size) }
}

func (f *file) Truncate(size int64) error {
	if size < 0 || !f.writable() {
		return pathError("truncate", f.name, unix.EINVAL)
	}
	return f.do(&Call{Op: "truncate", n: size}, func(*Call, *inode) error {
		f.m.truncate(f.ino, size)
		return nil
	})
}

func (f *file) Allocate(mode uint32, off, n int64) error {
	if off < 0 || n <= 0 {
		return pathError("allocate", f.name, unix.EINVAL)
	}
	if !f.writable() {
		return pathError("allocate", f.name, unix.EBADF)
	}
	return f.do(&Call{Op: "allocate", off: off, n: n, flags: int(mode)}, func(*Call, *inode) error {
		return f.allocate(mode, off, off+n)
	})
}

func (f *file) allocate(mode uint32, off, end int64) error {
	size := f.m.d.get(f.ino).size
	var apply func(*inode)
	switch mode {
	case 0, unix.FALLOC_FL_KEEP_SIZE:
		apply = func(n *inode) { n.allocate(off, end) }
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE:
		apply = func(n *inode) { n.zero(off, punchEnd(end, size)) }
	case unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE:
		apply = func(n *inode) { n.zero(off, end); n.allocate(off, end) }
	default:
		return unix.EOPNOTSUPP
	}
	f.m.d.change(f.ino, partData, apply)
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		size = max(size, end)
	}
	f.m.resize(f.ino, size)
	return nil
}

// punchEnd lets a punch that reaches the end of the file free its last block.
func punchEnd(end, size int64) int64 {
	if end >= size {
		return max(end, (size+blockSize-1)/blockSize*blockSize)
	}
	return end
}

func (f *file) Seek(off int64, whence int) (pos int64, err error) {
	err = f.do(&Call{Op: "seek", off: off, flags: whence}, func(c *Call, n *inode) error {
		pos, err = off, nil
		switch whence {
		case unix.SEEK_DATA, unix.SEEK_HOLE:
			var ok bool
			if pos, ok = n.seek(off, whence == unix.SEEK_HOLE); !ok {
				return unix.ENXIO
			}
		case io.SeekEnd:
			pos += n.size
		case io.SeekStart:
		default:
			return unix.EINVAL
		}
		c.Result = uint64(pos)
		if pos < 0 {
			return unix.EINVAL
		}
		return nil
	})
	return pos, err
}

func (f *file) Chmod(mode uint32) error {
	return f.do(&Call{Op: "chmod", flags: int(mode)}, func(*Call, *inode) error { f.m.chmod(f.ino, mode); return nil })
}

func (f *file) Chown(uid, gid int) error {
	return f.do(&Call{Op: "chown", off: int64(uid), n: int64(gid)}, func(*Call, *inode) error { f.m.chown(f.ino, uid, gid); return nil })
}

func (f *file) Chtimes(atime, mtime mdfs.TimeSet) error {
	return f.do(&Call{Op: "chtimes"}, func(*Call, *inode) error { f.m.chtimes(f.ino, atime, mtime); return nil })
}

func (m *FS) chmod(ino uint64, mode uint32) {
	now := m.now()
	m.d.change(ino, partAttrs, func(n *inode) { n.mode, n.ctime = n.kind()|mode&0o7777, now })
}

func (m *FS) chown(ino uint64, uid, gid int) {
	now := m.now()
	m.d.change(ino, partAttrs, func(n *inode) {
		if uid >= 0 {
			n.uid = uint32(uid)
		}
		if gid >= 0 {
			n.gid = uint32(gid)
		}
		n.ctime = now
	})
}

func (m *FS) chtimes(ino uint64, atime, mtime mdfs.TimeSet) {
	now := m.now()
	m.d.change(ino, partAttrs, func(n *inode) { n.setTimes(atime, mtime, now); n.ctime = now })
}

func (f *file) Sync() error {
	return f.do(&Call{Op: "sync"}, func(*Call, *inode) error {
		if j := f.m.d.journal; j != nil {
			j.sync(f.ino, partData)
			j.sync(f.ino, partAttrs)
		}
		return nil
	})
}

func (f *file) Getxattr(attr string) (v []byte, err error) {
	err = f.do(&Call{Op: "getxattr", attr: attr}, func(c *Call, n *inode) error {
		v, err = n.getxattr(c)
		return err
	})
	return v, err
}

func (f *file) Setxattr(attr string, value []byte, flags int) error {
	return f.do(setxattrCall(attr, value, flags), func(c *Call, n *inode) error { return f.m.setxattr(c, n) })
}

func (f *file) Listxattr() (names []string, err error) {
	err = f.do(&Call{Op: "listxattr"}, func(c *Call, n *inode) error {
		names = n.listxattr(c)
		return nil
	})
	return names, err
}

func (f *file) Removexattr(attr string) error {
	return f.do(&Call{Op: "removexattr", attr: attr}, func(c *Call, n *inode) error { return f.m.removexattr(c, n) })
}

func setxattrCall(attr string, value []byte, flags int) *Call {
	return &Call{Op: "setxattr", attr: attr, data: bytes.Clone(value), flags: flags}
}

func (n *inode) getxattr(c *Call) ([]byte, error) {
	i, found := n.findXattr(c.attr)
	if !found {
		return nil, unix.ENODATA
	}
	v := bytes.Clone(n.xattrs[i].value)
	c.Result = maphash.Bytes(seed, v)
	c.show = func() string { return string(v) }
	return v, nil
}

func (n *inode) listxattr(c *Call) []string {
	names := make([]string, len(n.xattrs))
	for i, x := range n.xattrs {
		names[i] = x.name
		c.Result = mix(c.Result, hashString(x.name))
	}
	c.show = func() string { return "[" + strings.Join(names, " ") + "]" }
	return names
}

func (m *FS) setxattr(c *Call, n *inode) error {
	if err := checkXattr(n, c.attr, c.data); err != nil {
		return err
	}
	_, found := n.findXattr(c.attr)
	switch {
	case c.flags&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0:
		return unix.EINVAL
	case found && c.flags&unix.XATTR_CREATE != 0:
		return unix.EEXIST
	case !found && c.flags&unix.XATTR_REPLACE != 0:
		return unix.ENODATA
	case n.xattrBytes(c.attr)+len(c.attr)+len(c.data) > m.d.o.XattrRoom:
		return unix.ENOSPC
	}
	now := m.now()
	m.d.change(n.ino, partAttrs, func(n *inode) { n.setXattr(c.attr, c.data); n.ctime = now })
	return nil
}

// xattrBytes is the room that xattrs other than except take.
func (n *inode) xattrBytes(except string) (sum int) {
	for _, x := range n.xattrs {
		if x.name != except {
			sum += len(x.name) + len(x.value)
		}
	}
	return sum
}

func checkXattr(n *inode, attr string, value []byte) error {
	class, rest, ok := strings.Cut(attr, ".")
	switch {
	case !ok || rest == "" || !strings.Contains(" user trusted security system ", " "+class+" "):
		return unix.EOPNOTSUPP
	case len(attr) > 255:
		return unix.ERANGE
	case len(value) > 64<<10:
		return unix.E2BIG
	case class == "user" && n.kind() != unix.S_IFREG && !n.isDir():
		return unix.EPERM
	}
	return nil
}

func (m *FS) removexattr(c *Call, n *inode) error {
	if _, found := n.findXattr(c.attr); !found {
		return unix.ENODATA
	}
	now := m.now()
	m.d.change(n.ino, partAttrs, func(n *inode) { n.dropXattr(c.attr); n.ctime = now })
	return nil
}
