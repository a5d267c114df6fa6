package fusefs

import (
	"context"
	"syscall"

	"marfs/pkg/namespace"
)

const (
	aclDefault = "system.posix_acl_default"
	// capability holds file capabilities. Kernels ask for it often; MarFS keeps none.
	capability = "security.capability"
)

// xattrs are the extended attributes of one inode, by its name or an open file.
type xattrs interface {
	get(ctx context.Context, c namespace.Caller, attr string) ([]byte, error)
	set(ctx context.Context, c namespace.Caller, attr string, v []byte, flags int) error
	list(ctx context.Context, c namespace.Caller) ([]string, error)
	remove(ctx context.Context, c namespace.Caller, attr string) error
}

// named are those of an entry of a directory, or of the directory itself.
type named struct {
	dir  *namespace.Dir
	name string
}

func (x named) get(ctx context.Context, c namespace.Caller, attr string) ([]byte, error) {
	return x.dir.Getxattr(ctx, c, x.name, attr)
}

func (x named) set(ctx context.Context, c namespace.Caller, attr string, v []byte, flags int) error {
	return x.dir.Setxattr(ctx, c, x.name, attr, v, flags)
}

func (x named) list(ctx context.Context, c namespace.Caller) ([]string, error) {
	return x.dir.Listxattr(ctx, c, x.name)
}

func (x named) remove(ctx context.Context, c namespace.Caller, attr string) error {
	return x.dir.Removexattr(ctx, c, x.name, attr)
}

// opened are those of an open file, which may have no name any more.
type opened struct{ *namespace.File }

func (x opened) get(ctx context.Context, c namespace.Caller, attr string) ([]byte, error) {
	return x.Getxattr(ctx, c, attr)
}

func (x opened) set(ctx context.Context, c namespace.Caller, attr string, v []byte, flags int) error {
	return x.Setxattr(ctx, c, attr, v, flags)
}

func (x opened) list(ctx context.Context, c namespace.Caller) ([]string, error) {
	return x.Listxattr(ctx, c)
}

func (x opened) remove(ctx context.Context, c namespace.Caller, attr string) error {
	return x.Removexattr(ctx, c, attr)
}

// withXattrs runs fn on the attributes of n.
func (n *node) withXattrs(ctx context.Context, op string, fn func(context.Context, namespace.Caller, xattrs) error) syscall.Errno {
	ctx = context.WithoutCancel(ctx)
	c := n.caller(ctx)
	found, err := n.withOpen(func(f *namespace.File) error { return fn(ctx, c, opened{f}) })
	if !found {
		var d *namespace.Dir
		var name string
		if d, name, err = n.same(ctx, c); err == nil {
			defer d.Close()
			err = fn(ctx, c, named{d, name})
		}
	}
	return n.errno(op, err)
}

// Getxattr reads an extended attribute.
func (n *node) Getxattr(ctx context.Context, attr string, dest []byte) (size uint32, e syscall.Errno) {
	if attr == capability {
		return 0, syscall.ENODATA
	}
	e = n.withXattrs(ctx, "getxattr", func(ctx context.Context, c namespace.Caller, x xattrs) error {
		v, err := x.get(ctx, c, attr)
		if err != nil {
			return err
		}
		size, err = fit(v, dest)
		return err
	})
	return size, e
}

// Listxattr lists extended attributes, each name followed by a zero byte.
func (n *node) Listxattr(ctx context.Context, dest []byte) (size uint32, e syscall.Errno) {
	e = n.withXattrs(ctx, "listxattr", func(ctx context.Context, c namespace.Caller, x xattrs) error {
		names, err := x.list(ctx, c)
		if err != nil {
			return err
		}
		var list []byte
		for _, a := range names {
			if a != capability {
				list = append(append(list, a...), 0)
			}
		}
		size, err = fit(list, dest)
		return err
	})
	return size, e
}

// fit answers with v; where dest is too small, or empty to ask, with its size.
func fit(v, dest []byte) (uint32, error) {
	if len(v) > len(dest) {
		return uint32(len(v)), syscall.ERANGE
	}
	return uint32(copy(dest, v)), nil
}

// Setxattr writes an extended attribute.
func (n *node) Setxattr(ctx context.Context, attr string, v []byte, flags uint32) syscall.Errno {
	if attr == capability {
		return syscall.EOPNOTSUPP
	}
	defer n.forgetACL(attr)
	return n.withXattrs(ctx, "setxattr", func(ctx context.Context, c namespace.Caller, x xattrs) error {
		return x.set(ctx, c, attr, v, int(flags))
	})
}

// Removexattr removes an extended attribute.
func (n *node) Removexattr(ctx context.Context, attr string) syscall.Errno {
	defer n.forgetACL(attr)
	return n.withXattrs(ctx, "removexattr", func(ctx context.Context, c namespace.Caller, x xattrs) error {
		return x.remove(ctx, c, attr)
	})
}

// forgetACL makes the next creation in a directory look for a default ACL again.
func (n *node) forgetACL(attr string) {
	if attr == aclDefault {
		n.acl.Store(0)
	}
}
