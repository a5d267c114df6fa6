package mdfssim

import (
	"marfs/pkg/mdfs"

	"golang.org/x/sys/unix"
)

// dir is an open directory.
type dir struct {
	m   *FS
	ino uint64
}

var _ mdfs.Dir = (*dir)(nil)

// lookup returns the inode name stands for.
func (d *dir) lookup(name string) (*inode, error) {
	ino, ok := d.m.d.get(d.ino).names[name]
	if !ok {
		return nil, unix.ENOENT
	}
	return d.m.d.get(ino), nil
}

// on makes a call on what name stands for.
func (d *dir) on(c *Call, name string, f func(c *Call, n *inode) error) error {
	if err := checkName(name); err != nil {
		return pathError(c.Op, name, err)
	}
	c.dir, c.name = d.ino, name
	return pathError(c.Op, name, d.m.do(c, func(c *Call) error {
		n, err := d.lookup(name)
		if err != nil {
			return err
		}
		return f(c, n)
	}))
}

// vacant makes a call that gives name to a new inode.
func (d *dir) vacant(c *Call, name string, f func(c *Call) *inode) error {
	if err := checkName(name); err != nil {
		return pathError(c.Op, name, err)
	}
	c.dir, c.name = d.ino, name
	return pathError(c.Op, name, d.m.do(c, func(c *Call) error {
		if _, err := d.lookup(name); err == nil {
			return unix.EEXIST
		}
		if d.m.d.get(d.ino).nlink == 0 {
			return unix.ENOENT
		}
		d.enter(name, f(c))
		return nil
	}))
}

// enter gives name to n.
func (d *dir) enter(name string, n *inode) {
	d.m.d.setName(d.ino, name, n.ino)
	if n.isDir() {
		d.m.d.mut(n.ino).parent = d.ino
		d.m.d.relink(d.ino, 1)
	} else {
		d.m.d.relink(n.ino, 1)
	}
	d.changed()
}

// leave takes name away from n.
func (d *dir) leave(name string, n *inode) {
	d.m.d.dropName(d.ino, name)
	if n.isDir() {
		d.m.d.relink(d.ino, -1)
	} else {
		d.m.d.relink(n.ino, -1)
		d.m.d.mut(n.ino).ctime = d.m.now()
	}
	d.changed()
}

// changed gives the directory new times. They stay out of the state's hash
// while a hook is there: every entry would else conflict with every other.
func (d *dir) changed() {
	if d.m.hook == nil {
		n := d.m.d.mut(d.ino)
		n.mtime = d.m.now()
		n.ctime = n.mtime
	}
}

func (d *dir) Stat() (st mdfs.Stat, err error) {
	err = d.m.do(&Call{Op: "statdir", dir: d.ino}, func(c *Call) error {
		n := d.m.d.get(d.ino)
		st, c.Result = n.stat(), n.statHash()
		return nil
	})
	return st, pathError("stat", ".", err)
}

func (d *dir) OpenDir(name string) (sub mdfs.Dir, err error) {
	err = d.on(&Call{Op: "opendir"}, name, func(c *Call, n *inode) error {
		if !n.isDir() {
			return unix.ENOTDIR
		}
		sub, c.Result = &dir{d.m, n.ino}, n.ino
		return nil
	})
	return sub, err
}

func (d *dir) OpenFile(name string, flag int, perm uint32) (mdfs.File, error) {
	if err := checkName(name); err != nil {
		return nil, pathError("openfile", name, err)
	}
	var f *file
	c := &Call{Op: "openfile", dir: d.ino, name: name, flags: flag}
	err := d.m.do(c, func(c *Call) error {
		n, err := d.lookup(name)
		if err == nil {
			err = d.openExisting(n, flag)
		} else if flag&unix.O_CREAT != 0 && d.m.d.get(d.ino).nlink > 0 {
			n, err = d.m.newInode(unix.S_IFREG|perm&0o7777), nil
			d.enter(name, n)
		}
		if err != nil {
			return err
		}
		f, c.Result = &file{m: d.m, ino: n.ino, name: name, flag: flag}, n.ino
		f.path = d.m.openedAs(d.ino, name)
		return nil
	})
	if err != nil {
		return nil, pathError("openfile", name, err)
	}
	return f, nil
}

// openedAs names an open file in traces; without a hook nobody reads it.
func (m *FS) openedAs(dir uint64, name string) string {
	if m.hook == nil {
		return name
	}
	return m.d.path(dir, name)
}

func (d *dir) openExisting(n *inode, flag int) error {
	switch writes := flag&unix.O_ACCMODE != unix.O_RDONLY; {
	case flag&unix.O_CREAT != 0 && flag&unix.O_EXCL != 0:
		return unix.EEXIST
	case n.kind() == unix.S_IFLNK:
		return unix.ELOOP
	case flag&unix.O_DIRECTORY != 0 && !n.isDir():
		return unix.ENOTDIR
	case n.isDir() && (writes || flag&unix.O_CREAT != 0):
		return unix.EISDIR
	}
	if flag&unix.O_TRUNC != 0 && n.kind() == unix.S_IFREG {
		d.m.truncate(n.ino, 0)
	}
	return nil
}

func (d *dir) Lstat(name string) (st mdfs.Stat, err error) {
	err = d.on(&Call{Op: "lstat"}, name, func(c *Call, n *inode) error {
		st, c.Result = n.stat(), n.statHash()
		c.show = showStat(st)
		return nil
	})
	return st, err
}

func (d *dir) Mkdir(name string, perm uint32) error {
	return d.vacant(&Call{Op: "mkdir"}, name, func(*Call) *inode {
		n := d.m.newInode(unix.S_IFDIR | perm&0o7777)
		n.nlink = 2
		return n
	})
}

func (d *dir) Mknod(name string, mode uint32, dev uint64) error {
	if mode&unix.S_IFMT == unix.S_IFDIR {
		return pathError("mknod", name, unix.EPERM)
	}
	return d.vacant(&Call{Op: "mknod"}, name, func(*Call) *inode {
		if mode&unix.S_IFMT == 0 {
			mode |= unix.S_IFREG
		}
		n := d.m.newInode(mode)
		n.rdev = dev
		return n
	})
}

func (d *dir) Symlink(target, name string) error {
	if target == "" {
		return linkError("symlink", target, name, unix.ENOENT)
	}
	err := d.vacant(&Call{Op: "symlink"}, name, func(*Call) *inode {
		n := d.m.newInode(unix.S_IFLNK | 0o777)
		n.target, n.size = target, int64(len(target))
		if d.m.d.journal != nil {
			d.m.d.journal.born[n.ino] = n.clone()
		}
		return n
	})
	if err != nil {
		return linkError("symlink", target, name, errno(err))
	}
	return nil
}

func (d *dir) Readlink(name string) (target string, err error) {
	err = d.on(&Call{Op: "readlink"}, name, func(c *Call, n *inode) error {
		if n.kind() != unix.S_IFLNK {
			return unix.EINVAL
		}
		target, c.Result = n.target, hashString(n.target)
		return nil
	})
	return target, err
}

func (d *dir) Remove(name string) error {
	return d.on(&Call{Op: "remove"}, name, func(_ *Call, n *inode) error {
		if n.isDir() {
			return unix.EISDIR
		}
		d.leave(name, n)
		return nil
	})
}

func (d *dir) RemoveDir(name string) error {
	return d.on(&Call{Op: "removedir"}, name, func(_ *Call, n *inode) error {
		if !n.isDir() {
			return unix.ENOTDIR
		}
		if len(n.names) > 0 {
			return unix.ENOTEMPTY
		}
		d.leave(name, n)
		d.m.d.relink(n.ino, -n.nlink)
		return nil
	})
}

func (d *dir) Chmod(name string, mode uint32) error {
	return d.on(&Call{Op: "chmod"}, name, func(_ *Call, n *inode) error {
		if n.kind() == unix.S_IFLNK {
			return unix.EOPNOTSUPP
		}
		d.m.chmod(n.ino, mode)
		return nil
	})
}

func (d *dir) Lchown(name string, uid, gid int) error {
	return d.on(&Call{Op: "chown"}, name, func(_ *Call, n *inode) error {
		d.m.chown(n.ino, uid, gid)
		return nil
	})
}

func (d *dir) Lchtimes(name string, atime, mtime mdfs.TimeSet) error {
	return d.on(&Call{Op: "chtimes"}, name, func(_ *Call, n *inode) error {
		d.m.chtimes(n.ino, atime, mtime)
		return nil
	})
}

func (d *dir) Getxattr(name, attr string) (v []byte, err error) {
	err = d.on(&Call{Op: "getxattr", attr: attr}, name, func(c *Call, n *inode) error {
		v, err = n.getxattr(c)
		return err
	})
	return v, err
}

func (d *dir) Setxattr(name, attr string, value []byte, flags int) error {
	return d.on(setxattrCall(attr, value, flags), name, func(c *Call, n *inode) error {
		return d.m.setxattr(c, n)
	})
}

func (d *dir) Listxattr(name string) (names []string, err error) {
	err = d.on(&Call{Op: "listxattr"}, name, func(c *Call, n *inode) error {
		names = n.listxattr(c)
		return nil
	})
	return names, err
}

func (d *dir) Removexattr(name, attr string) error {
	return d.on(&Call{Op: "removexattr", attr: attr}, name, func(c *Call, n *inode) error {
		return d.m.removexattr(c, n)
	})
}

func (d *dir) Sync() error {
	return d.m.do(&Call{Op: "syncdir", dir: d.ino}, func(*Call) error {
		if j := d.m.d.journal; j != nil {
			j.sync(d.ino, partNames)
			j.sync(d.ino, partAttrs)
		}
		return nil
	})
}

func (d *dir) Again() (mdfs.Dir, error) { return &dir{d.m, d.ino}, nil }

func (d *dir) Close() error { return nil }
