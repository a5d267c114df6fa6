package namespace

import (
	"context"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The extended attributes of an open file follow the rules of those by name, and
// work when the name is gone.

// Getxattr reads an extended attribute; a reserved one does not exist.
func (f *File) Getxattr(ctx context.Context, c Caller, attr string) (v []byte, err error) {
	if hidden(attr) {
		return nil, pathError("getxattr", f.who.Path, unix.ENODATA)
	}
	err = f.enter(c, RM, "getxattr", func() error {
		v, err = f.inode.meta.Inode().Getxattr(attr)
		err = noACL(attr, err)
		if err == nil && attr == accessACL {
			v, err = f.space.shownACL(f.aclFile(), v)
		}
		return err
	})
	return v, err
}

// Setxattr writes an extended attribute; reserved names are EPERM.
func (f *File) Setxattr(ctx context.Context, c Caller, attr string, v []byte, flags int) error {
	if hidden(attr) {
		return pathError("setxattr", f.who.Path, syscall.EPERM)
	}
	return f.enter(c, WM, "setxattr", func() error {
		in := f.inode.meta.Inode()
		if limit := f.space.cfg.Meta.XattrRoom(); limit > 0 && strings.HasPrefix(attr, "user.") {
			if err := room(limit, f.who.Path, attr, v, in.Listxattr, in.Getxattr); err != nil {
				return err
			}
		}
		if attr == accessACL {
			return f.space.setACL(f.aclFile(), v)
		}
		return in.Setxattr(attr, v, flags)
	})
}

func (f *File) aclFile() aclFile {
	in := f.inode.meta.Inode()
	return aclFile{
		stat:  in.Stat,
		set:   func(acl []byte) error { return in.Setxattr(accessACL, acl, 0) },
		chmod: in.Chmod,
	}
}

// Listxattr lists the extended attributes but the reserved ones.
func (f *File) Listxattr(ctx context.Context, c Caller) (out []string, err error) {
	err = f.enter(c, RM, "listxattr", func() error {
		out, err = f.inode.meta.Inode().Listxattr()
		return err
	})
	return slices.DeleteFunc(out, hidden), err
}

// Removexattr removes an extended attribute; reserved names are EPERM.
func (f *File) Removexattr(ctx context.Context, c Caller, attr string) error {
	if hidden(attr) {
		return pathError("removexattr", f.who.Path, syscall.EPERM)
	}
	return f.enter(c, WM, "removexattr", func() error { return f.inode.meta.Inode().Removexattr(attr) })
}

// enter is the preamble of an operation on the open file: permissions, then identity.
func (f *File) enter(c Caller, need Perm, op string, fn func() error) error {
	if err := f.space.allow(c, need, op, f.who.Path); err != nil {
		return err
	}
	return f.space.cfg.Meta.MD().As(c.Cred, fn)
}
