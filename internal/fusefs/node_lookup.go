package fusefs

import (
	"context"
	"errors"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"marfs/internal/control"
	"marfs/pkg/namespace"
)

// Lookup finds name in the directory n.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	if n.IsRoot() && name == control.Name {
		return n.controlEntry(ctx, out), 0
	}
	return n.entry(ctx, "lookup", name, out, func(ctx context.Context, d *namespace.Dir, c namespace.Caller) (namespace.Attr, error) {
		return d.Lookup(ctx, c, name)
	})
}

// entry runs fn, which finds or makes an entry of the directory n, and returns its
// node. Signals do not end it: what touches only metadata does not take long, and
// a change that was half made must be finished.
func (n *node) entry(ctx context.Context, op, name string, out *fuse.EntryOut,
	fn func(context.Context, *namespace.Dir, namespace.Caller) (namespace.Attr, error)) (*gofs.Inode, syscall.Errno) {
	ctx = context.WithoutCancel(ctx)
	d, err := n.dir(ctx)
	if err != nil {
		return nil, n.errno(op, err)
	}
	defer d.Close()
	a, err := fn(ctx, d, n.caller(ctx))
	if err != nil {
		return nil, n.errno(op, err)
	}
	if c := n.known(name, &a, out); c != nil {
		return c, 0
	}
	return n.child(ctx, &a, out), 0
}

// Statfs describes the room of the namespace that n is in.
func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	d, _, err := n.where(ctx)
	if err != nil {
		return n.errno("statfs", err)
	}
	defer d.Close()
	s, err := d.Statfs(ctx)
	if err != nil {
		return n.errno("statfs", err)
	}
	out.FromStatfsT(&s)
	return 0
}

// Readlink reads the target of the symbolic link n.
func (n *node) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	d, name, err := n.where(ctx)
	if err != nil {
		return nil, n.errno("readlink", err)
	}
	defer d.Close()
	target, err := d.Readlink(ctx, n.caller(ctx), name)
	if errors.Is(err, syscall.EINVAL) {
		err = syscall.ESTALE // the name is no link any more
	}
	return []byte(target), n.errno("readlink", stale(err))
}
