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

// Getxattr reads an extended attribute.
func (n *node) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	if attr == capability {
		return 0, syscall.ENODATA
	}
	d, name, err := n.where(ctx)
	if err != nil {
		return 0, n.errno("getxattr", err)
	}
	defer d.Close()
	v, err := d.Getxattr(ctx, n.caller(ctx), name, attr)
	if err != nil {
		return 0, n.errno("getxattr", err)
	}
	return fit(v, dest)
}

// Listxattr lists extended attributes, each name followed by a zero byte.
func (n *node) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	d, name, err := n.where(ctx)
	if err != nil {
		return 0, n.errno("listxattr", err)
	}
	defer d.Close()
	names, err := d.Listxattr(ctx, n.caller(ctx), name)
	if err != nil {
		return 0, n.errno("listxattr", err)
	}
	var list []byte
	for _, a := range names {
		if a != capability {
			list = append(append(list, a...), 0)
		}
	}
	return fit(list, dest)
}

// fit answers with v; where dest is too small, or empty to ask, with its size.
func fit(v, dest []byte) (uint32, syscall.Errno) {
	if len(v) > len(dest) {
		return uint32(len(v)), syscall.ERANGE
	}
	return uint32(copy(dest, v)), 0
}

// Setxattr writes an extended attribute.
func (n *node) Setxattr(ctx context.Context, attr string, v []byte, flags uint32) syscall.Errno {
	if attr == capability {
		return syscall.EOPNOTSUPP
	}
	return n.changeXattr(ctx, "setxattr", attr, func(ctx context.Context, d *namespace.Dir, c namespace.Caller, name string) error {
		return d.Setxattr(ctx, c, name, attr, v, int(flags))
	})
}

// Removexattr removes an extended attribute.
func (n *node) Removexattr(ctx context.Context, attr string) syscall.Errno {
	return n.changeXattr(ctx, "removexattr", attr, func(ctx context.Context, d *namespace.Dir, c namespace.Caller, name string) error {
		return d.Removexattr(ctx, c, name, attr)
	})
}

func (n *node) changeXattr(ctx context.Context, op, attr string, fn func(context.Context, *namespace.Dir, namespace.Caller, string) error) syscall.Errno {
	ctx = context.WithoutCancel(ctx)
	c := n.caller(ctx)
	d, name, err := n.same(ctx, c)
	if err != nil {
		return n.errno(op, err)
	}
	defer d.Close()
	err = fn(ctx, d, c, name)
	if attr == aclDefault {
		n.acl.Store(0) // ask again
	}
	return n.errno(op, err)
}
