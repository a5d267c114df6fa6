package mdfssim

import (
	"marfs/pkg/mdfs"

	"golang.org/x/sys/unix"
)

// move makes a call on two names of this mount.
func (d *dir) move(c *Call, name string, to mdfs.Dir, newname string, f func(t *dir) error) error {
	t, ok := to.(*dir)
	if !ok || t.m.d != d.m.d {
		return linkError(c.Op, name, newname, unix.EXDEV)
	}
	for _, s := range []string{name, newname} {
		if err := checkName(s); err != nil {
			return linkError(c.Op, name, newname, err)
		}
	}
	c.dir, c.name, c.to, c.toName = d.ino, name, t.ino, newname
	return linkError(c.Op, name, newname, d.m.do(c, func(*Call) error { return f(t) }))
}

func (d *dir) Link(name string, to mdfs.Dir, newname string) error {
	return d.move(&Call{Op: "link"}, name, to, newname, func(t *dir) error {
		n, err := d.lookup(name)
		if err != nil {
			return err
		}
		if _, err := t.lookup(newname); err == nil {
			return unix.EEXIST
		}
		if n.isDir() {
			return unix.EPERM
		}
		if t.m.d.get(t.ino).nlink == 0 {
			return unix.ENOENT
		}
		t.enter(newname, n)
		d.m.d.mut(n.ino).ctime = d.m.now()
		return nil
	})
}

func (d *dir) Rename(name string, to mdfs.Dir, newname string, flags uint) error {
	if flags&^uint(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 || flags == unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE {
		return linkError("rename", name, newname, unix.EINVAL)
	}
	return d.move(&Call{Op: "rename", flags: int(flags)}, name, to, newname, func(t *dir) error {
		n, err := d.lookup(name)
		if err != nil {
			return err
		}
		victim, err := t.lookup(newname)
		if err != nil {
			victim = nil
		}
		if err := d.renamable(n, victim, t, flags); err != nil {
			return err
		}
		switch {
		case n == victim: // two links of one inode, or one name: nothing happens
		case flags == unix.RENAME_EXCHANGE:
			d.exchange(name, n, t, newname, victim)
		default:
			d.replace(name, n, t, newname, victim)
		}
		return nil
	})
}

// renamable says why n must not take victim's place in t.
func (d *dir) renamable(n, victim *inode, t *dir, flags uint) error {
	switch {
	case flags == unix.RENAME_NOREPLACE && victim != nil:
		return unix.EEXIST
	case flags == unix.RENAME_EXCHANGE && victim == nil:
		return unix.ENOENT
	case n.isDir() && d.m.d.within(t.ino, n.ino), victim != nil && victim.isDir() && flags == unix.RENAME_EXCHANGE && d.m.d.within(d.ino, victim.ino):
		return unix.EINVAL
	case d.m.d.get(t.ino).nlink == 0:
		return unix.ENOENT
	case victim == nil || flags == unix.RENAME_EXCHANGE || n == victim:
		return nil
	case n.isDir() && !victim.isDir():
		return unix.ENOTDIR
	case !n.isDir() && victim.isDir():
		return unix.EISDIR
	case len(victim.names) > 0:
		return unix.ENOTEMPTY
	}
	return nil
}

// within reports whether directory ino is top or below it.
func (d *Disk) within(ino, top uint64) bool {
	for ino != top {
		if ino == rootIno {
			return false
		}
		ino = d.get(ino).parent
	}
	return true
}

// replace moves name over victim, if any. Giving newname its new meaning and
// taking name away are one change of the disk.
func (d *dir) replace(name string, n *inode, t *dir, newname string, victim *inode) {
	switch {
	case victim == nil:
	case victim.isDir():
		d.m.d.relink(t.ino, -1)
		d.m.d.relink(victim.ino, -victim.nlink)
	default:
		d.m.d.relink(victim.ino, -1)
	}
	d.leave(name, n)
	t.enter(newname, n)
	if j := d.m.d.journal; j != nil {
		j.join(d.ino, t.ino)
	}
}

func (d *dir) exchange(name string, n *inode, t *dir, newname string, victim *inode) {
	d.leave(name, n)
	t.leave(newname, victim)
	d.enter(name, victim)
	t.enter(newname, n)
	if j := d.m.d.journal; j != nil {
		j.join(d.ino, t.ino)
	}
}
