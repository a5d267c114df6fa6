package fusefs

import (
	"context"
	"errors"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"marfs/pkg/namespace"
)

// Mkdir makes a directory.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return n.entry(ctx, "mkdir", name, out, func(ctx context.Context, d *namespace.Dir, c namespace.Caller) (namespace.Attr, error) {
		return d.Mkdir(ctx, c, name, n.unmask(ctx, d, c, mode)&0o7777)
	})
}

// Mknod makes a fifo, socket, device or empty file.
func (n *node) Mknod(ctx context.Context, name string, mode, dev uint32, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return n.entry(ctx, "mknod", name, out, func(ctx context.Context, d *namespace.Dir, c namespace.Caller) (namespace.Attr, error) {
		return d.Mknod(ctx, c, name, n.unmask(ctx, d, c, mode), uint64(dev))
	})
}

// Symlink makes a symbolic link to target.
func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return n.entry(ctx, "symlink", name, out, func(ctx context.Context, d *namespace.Dir, c namespace.Caller) (namespace.Attr, error) {
		return d.Symlink(ctx, c, target, name)
	})
}

// Link makes name another name of target.
func (n *node) Link(ctx context.Context, target gofs.InodeEmbedder, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	of, ok := target.(*node)
	if !ok { // the control file
		return nil, syscall.EPERM
	}
	return n.entry(ctx, "link", name, out, func(ctx context.Context, to *namespace.Dir, c namespace.Caller) (namespace.Attr, error) {
		from, old, err := of.same(ctx, c)
		if err != nil {
			return namespace.Attr{}, err
		}
		defer from.Close()
		return from.Link(ctx, c, old, to, name)
	})
}

// unmask applies the umask that came with mode, unless the directory has a
// default ACL, which replaces it.
func (n *node) unmask(ctx context.Context, d *namespace.Dir, c namespace.Caller, m uint32) uint32 {
	mode, umask := splitUmask(m)
	if mode&umask == 0 || n.hasDefaultACL(ctx, d, c) {
		return mode
	}
	return mode &^ umask
}

// hasDefaultACL asks once an attribute timeout. If it cannot be known there is
// none: the umask can only take rights away.
func (n *node) hasDefaultACL(ctx context.Context, d *namespace.Dir, c namespace.Caller) bool {
	now := time.Now().UnixNano()
	if seen := n.acl.Load(); seen > now {
		return seen&1 != 0
	}
	v, err := d.Getxattr(ctx, c, "", aclDefault)
	has := err == nil && len(v) > 0
	until := (now + int64(n.fs.attrTTL)) &^ 1
	if has {
		until |= 1
	}
	n.acl.Store(until)
	return has
}

// Unlink removes a name of a file.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	return n.remove(ctx, "unlink", func(ctx context.Context, d *namespace.Dir, c namespace.Caller) error { return d.Unlink(ctx, c, name) })
}

// Rmdir removes an empty directory.
func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	victim := n.GetChild(name)
	e := n.remove(ctx, "rmdir", func(ctx context.Context, d *namespace.Dir, c namespace.Caller) error { return d.Rmdir(ctx, c, name) })
	if e == 0 {
		n.fs.buried(victim)
	}
	return e
}

func (n *node) remove(ctx context.Context, op string, fn func(context.Context, *namespace.Dir, namespace.Caller) error) syscall.Errno {
	ctx = context.WithoutCancel(ctx)
	d, err := n.dir(ctx)
	if err != nil {
		return n.errno(op, err)
	}
	defer d.Close()
	return n.errno(op, fn(ctx, d, n.caller(ctx)))
}

// buried notes that a directory was removed or replaced.
func (f *filesystem) buried(victim *gofs.Inode) {
	if victim != nil && victim.IsDir() {
		id := victim.StableAttr()
		f.gens.died(id.Ino, id.Gen)
	}
}

// Rename moves name to newName in the directory newParent.
func (n *node) Rename(ctx context.Context, name string, newParent gofs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to := newParent.(*node)
	victim := to.GetChild(newName)
	err := n.rename(context.WithoutCancel(ctx), name, to, newName, flags)
	if err == nil && flags&gofs.RENAME_EXCHANGE == 0 {
		n.fs.buried(victim)
	}
	return n.errno("rename", err)
}

func (n *node) rename(ctx context.Context, name string, to *node, newName string, flags uint32) error {
	d, err := n.dirAsIs(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	td, err := to.dirAsIs(ctx)
	if err != nil {
		return err
	}
	defer td.Close()
	return d.Rename(ctx, n.caller(ctx), name, td, newName, flags)
}

// Tmpfile is not supported; the kernel remembers this answer and gives EOPNOTSUPP.
func (n *node) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.ENOSYS
}

// Create makes and opens a file.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	ctx = context.WithoutCancel(ctx)
	d, err := n.dir(ctx)
	if err != nil {
		return nil, nil, 0, n.errno("create", err)
	}
	defer d.Close()
	c := n.caller(ctx)
	f, a, err := d.Create(ctx, c, name, flags|syscall.O_EXCL, n.unmask(ctx, d, c, mode)&0o7777)
	if errors.Is(err, syscall.EEXIST) && flags&syscall.O_EXCL == 0 {
		// Another node made it since the kernel looked. ESTALE makes the kernel
		// look again, and open it with the checks that an open needs.
		err = syscall.ESTALE
	}
	if err != nil {
		return nil, nil, 0, n.errno("create", err)
	}
	child := n.child(ctx, &a, out)
	h, ff := child.Operations().(*node).newHandle(f, flags)
	return child, h, ff, 0
}
