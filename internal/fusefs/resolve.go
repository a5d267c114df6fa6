package fusefs

import (
	"context"
	"errors"
	"syscall"

	"marfs/pkg/namespace"
)

// dir opens the directory that n is. It goes by names from the root, which the
// namespace keeps open for a moment, and checks that what they lead to is still
// the same inode: somebody may have renamed or replaced any of them. On this mount,
// a rename under way is waited for; after one on another node, ESTALE makes the
// kernel look the path up again.
func (n *node) dir(ctx context.Context) (*namespace.Dir, error) {
	d, err := n.dirAsIs(ctx)
	if errors.Is(err, syscall.ESTALE) {
		n.fs.moves.Lock()
		defer n.fs.moves.Unlock()
		d, err = n.tryDir(ctx, true)
	}
	return d, err
}

// dirAsIs is dir within a rename, which is not to wait for itself. The second try
// takes nothing from memory.
func (n *node) dirAsIs(ctx context.Context) (*namespace.Dir, error) {
	d, err := n.tryDir(ctx, false)
	if errors.Is(err, syscall.ESTALE) {
		d, err = n.tryDir(ctx, true)
	}
	return d, err
}

func (n *node) tryDir(ctx context.Context, anew bool) (*namespace.Dir, error) {
	d, err := n.walk(ctx, anew)
	if err != nil {
		return nil, stale(err)
	}
	if d.Ino() != n.ino() {
		d.Close()
		return nil, syscall.ESTALE
	}
	return d, nil
}

func (n *node) walk(ctx context.Context, anew bool) (*namespace.Dir, error) {
	if n.IsRoot() {
		return n.fs.ns.Root(ctx)
	}
	name, parent := n.Parent()
	if parent == nil {
		return nil, syscall.ESTALE // removed
	}
	up, err := parent.Operations().(*node).walk(ctx, anew)
	if err != nil {
		return nil, err
	}
	defer up.Close()
	if anew {
		up.Forget(name)
	}
	return up.OpenDir(ctx, name)
}

// stale: names on the way that are gone or are something else now.
func stale(err error) error {
	for _, e := range []error{syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP} {
		if errors.Is(err, e) {
			return syscall.ESTALE
		}
	}
	return err
}

// where opens the directory that n has a name in. For a directory that is n
// itself, and the name is "".
func (n *node) where(ctx context.Context) (d *namespace.Dir, name string, err error) {
	if n.IsDir() {
		d, err = n.dir(ctx)
		return d, "", err
	}
	name, parent := n.Parent()
	if parent == nil {
		return nil, "", syscall.ENOENT // unlinked, perhaps still open
	}
	d, err = parent.Operations().(*node).dir(ctx)
	return d, name, err
}

// same is where for changes: it checks that the name still leads to n.
func (n *node) same(ctx context.Context, c namespace.Caller) (*namespace.Dir, string, error) {
	d, name, err := n.where(ctx)
	if err != nil || name == "" {
		return d, name, err
	}
	a, err := d.Lookup(ctx, c, name)
	if err == nil && a.Ino != n.ino() {
		err = syscall.ESTALE
	}
	if err != nil {
		d.Close()
		return nil, "", stale(err)
	}
	return d, name, nil
}
