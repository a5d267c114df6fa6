package mdfssim

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"marfs/pkg/mdfs"

	"golang.org/x/sys/unix"
)

// MountOptions of Disk.Mount.
type MountOptions struct {
	Hook  Hook         // nil: none
	Clock func() int64 // ns, for times of changes; nil: the system's
	// ID gives inode numbers that depend on this mount's own calls only; 0: the next free.
	ID uint64
}

// FS is one mount of a Disk. It implements mdfs.FS.
type FS struct {
	d     *Disk
	hook  Hook
	clock func() int64

	cred mdfs.Cred // guarded by d.mu

	id  uint64
	ino uint64 // last inode number given; guarded by d.mu
}

var _ mdfs.FS = (*FS)(nil)

// Mount gives access to the disk.
func (d *Disk) Mount(o MountOptions) *FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	if o.ID == 0 {
		o.ID = d.mounts
	}
	d.mounts = max(d.mounts, o.ID) + 1
	if o.Clock == nil {
		o.Clock = func() int64 { return time.Now().UnixNano() }
	}
	m := &FS{d: d, hook: o.Hook, clock: o.Clock, id: o.ID, ino: o.ID << 32}
	m.cred = daemon()
	return m
}

// do makes one call: f runs with the disk locked.
func (m *FS) do(c *Call, f func(c *Call) error) error {
	if m.hook == nil {
		m.d.mu.Lock()
		defer m.d.mu.Unlock()
		return f(c)
	}
	c.disk = m.d
	if c.Err = m.hook.Before(c); c.Err == nil {
		m.d.mu.Lock()
		c.Err = f(c)
		m.d.mu.Unlock()
	}
	c.Result = mix(c.Result, uint64(errno(c.Err)))
	m.hook.After(c)
	return c.Err
}

// errno is the system's number of an error, 0 without any.
func errno(err error) syscall.Errno {
	var no syscall.Errno
	if err != nil && !errors.As(err, &no) {
		return unix.EIO
	}
	return no
}

func (m *FS) now() int64 { return m.clock() }

// newInode makes an inode without a name.
func (m *FS) newInode(mode uint32) *inode {
	m.ino++
	t := m.now()
	n := &inode{ino: m.ino, mode: mode, uid: m.cred.UID, gid: m.cred.GID, atime: t, mtime: t, ctime: t}
	m.d.add(n)
	return n
}

// Root implements mdfs.FS.
func (m *FS) Root() mdfs.Dir { return &dir{m: m, ino: rootIno} }

// As implements mdfs.FS: new inodes belong to c, nothing is checked. Callers of
// one mount that overlap may get each other's identity.
func (m *FS) As(c mdfs.Cred, fn func() error) error {
	defer m.setCred(m.setCred(c))
	return fn()
}

// daemon is who makes inodes outside As: the process's user.
func daemon() mdfs.Cred {
	return mdfs.Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

// setCred returns who it was before.
func (m *FS) setCred(c mdfs.Cred) (before mdfs.Cred) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	before, m.cred = m.cred, c
	return before
}

// Sync implements mdfs.FS.
func (m *FS) Sync() error {
	return m.do(&Call{Op: "syncfs"}, func(*Call) error {
		if j := m.d.journal; j != nil {
			j.syncAll()
		}
		return nil
	})
}

// Statfs implements mdfs.FS.
func (m *FS) Statfs() (syscall.Statfs_t, error) {
	st := syscall.Statfs_t{Bsize: blockSize, Blocks: 1 << 40, Bfree: 1 << 39, Bavail: 1 << 39, Files: 1 << 32, Ffree: 1 << 31, Namelen: 255, Frsize: blockSize}
	if m.d.o.OneJournal {
		st.Type = unix.EXT4_SUPER_MAGIC
	}
	return st, nil
}

// Close implements mdfs.FS.
func (m *FS) Close() error { return nil }

// checkName refuses what is not one component.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return unix.EINVAL
	case len(name) > 255:
		return unix.ENAMETOOLONG
	}
	return nil
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func linkError(op, name, newname string, err error) error {
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: op, Old: name, New: newname, Err: err}
}

func (n *inode) stat() mdfs.Stat {
	return mdfs.Stat{
		Dev: 1, Ino: n.ino, Nlink: uint64(n.nlink), Mode: n.mode, Uid: n.uid, Gid: n.gid, Rdev: n.rdev,
		Size: n.size, Blksize: blockSize, Blocks: int64(len(n.blocks)) * (blockSize / 512),
		Atim: unix2timespec(n.atime), Mtim: unix2timespec(n.mtime), Ctim: unix2timespec(n.ctime),
	}
}

// statHash is what a caller learns from stat; ctime and atime are left out.
func (n *inode) statHash() uint64 {
	h := mix(n.ino, uint64(n.mode))
	h = mix(h, uint64(n.uid)<<32|uint64(n.gid))
	h = mix(h, uint64(n.nlink))
	h = mix(h, uint64(n.size))
	h = mix(h, uint64(n.mtime))
	return mix(h, uint64(len(n.blocks)))
}

func unix2timespec(ns int64) syscall.Timespec { return syscall.NsecToTimespec(ns) }

// setTimes applies utimensat's two arguments.
func (n *inode) setTimes(atime, mtime mdfs.TimeSet, now int64) {
	for _, t := range []struct {
		set mdfs.TimeSet
		at  *int64
	}{{atime, &n.atime}, {mtime, &n.mtime}} {
		switch {
		case t.set.Omit:
		case t.set.Now:
			*t.at = now
		default:
			*t.at = t.set.Time.UnixNano()
		}
	}
}
