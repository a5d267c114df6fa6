package namespace

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/pkg/metadata"
)

// hidden reports whether users may not see or touch an xattr.
func hidden(attr string) bool {
	return metadata.Reserved(attr) || strings.ContainsRune(attr, 0)
}

func isACL(attr string) bool { return strings.HasPrefix(attr, "system.posix_acl_") }

// Getxattr reads an extended attribute; a reserved one does not exist. The empty
// name is the directory itself, here and below.
func (d *Dir) Getxattr(ctx context.Context, c Caller, name, attr string) (v []byte, err error) {
	if hidden(attr) || d.md == nil {
		return nil, pathError("getxattr", name, unix.ENODATA)
	}
	err = d.enterAttr(c, RM, "getxattr", name, func() error {
		v, err = d.space.getxattr(d.named(name), attr)
		return err
	})
	return v, err
}

// Getxattr is that of an open file, here and below.
func (f *File) Getxattr(ctx context.Context, c Caller, attr string) (v []byte, err error) {
	if hidden(attr) {
		return nil, pathError("getxattr", f.who.Path, unix.ENODATA)
	}
	err = f.enter(c, RM, "getxattr", func() error {
		v, err = f.space.getxattr(f.inode.meta.Inode(), attr)
		return err
	})
	return v, err
}

func (s *space) getxattr(x attributed, attr string) ([]byte, error) {
	v, err := x.Getxattr(attr)
	switch {
	case isACL(attr) && errors.Is(err, unix.ENOTSUP):
		// A metadata filesystem without ACLs has none: the kernel asks for the ACL
		// of each directory that a user passes, and would refuse the way.
		return nil, unix.ENODATA
	case err == nil && attr == accessACL:
		return s.shownACL(x, v)
	}
	return v, err
}

// Setxattr writes an extended attribute; reserved names are EPERM.
func (d *Dir) Setxattr(ctx context.Context, c Caller, name, attr string, v []byte, flags int) error {
	if hidden(attr) {
		return pathError("setxattr", name, syscall.EPERM)
	}
	return d.enterAttr(c, WM, "setxattr", name, func() error { return d.space.setxattr(d.named(name), attr, v, flags) })
}

// Setxattr writes an extended attribute; reserved names are EPERM.
func (f *File) Setxattr(ctx context.Context, c Caller, attr string, v []byte, flags int) error {
	if hidden(attr) {
		return pathError("setxattr", f.who.Path, syscall.EPERM)
	}
	return f.enter(c, WM, "setxattr", func() error { return f.space.setxattr(f.inode.meta.Inode(), attr, v, flags) })
}

func (s *space) setxattr(x attributed, attr string, v []byte, flags int) error {
	if err := s.room(x, attr, len(v)); err != nil {
		return err
	}
	if attr == accessACL {
		return s.setACL(x, v)
	}
	return x.Setxattr(attr, v, flags)
}

// room is ENOSPC when attr would leave no room on a regular file for its slots: on
// the file itself, or as a directory's default ACL, which each new file gets.
func (s *space) room(x attributed, attr string, size int) error {
	limit := s.cfg.Meta.XattrRoom()
	if limit == 0 || !strings.HasPrefix(attr, "user.") && !isACL(attr) {
		return nil
	}
	st, err := x.Stat()
	if err != nil {
		return err
	}
	total := len(attr) + size
	if st.Mode&syscall.S_IFMT == syscall.S_IFREG {
		others, err := xattrSize(x, attr)
		if err != nil {
			return err
		}
		total += others
	} else if !isACL(attr) {
		return nil
	}
	if total > limit {
		return unix.ENOSPC
	}
	return nil
}

// xattrSize is what the user's xattrs and ACLs of x but one take.
func xattrSize(x attributed, but string) (total int, err error) {
	names, err := x.Listxattr()
	if err != nil {
		return 0, err
	}
	for _, n := range names {
		if hidden(n) || n == but || !strings.HasPrefix(n, "user.") && !isACL(n) {
			continue
		}
		if v, err := x.Getxattr(n); err == nil { // else removed meanwhile, or not the caller's to read
			total += len(n) + len(v)
		}
	}
	return total, nil
}

// Listxattr lists the extended attributes but the reserved ones.
func (d *Dir) Listxattr(ctx context.Context, c Caller, name string) (out []string, err error) {
	if d.md == nil {
		return nil, nil
	}
	err = d.enterAttr(c, RM, "listxattr", name, func() error {
		out, err = d.named(name).Listxattr()
		return err
	})
	return slices.DeleteFunc(out, hidden), err
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
func (d *Dir) Removexattr(ctx context.Context, c Caller, name, attr string) error {
	if hidden(attr) {
		return pathError("removexattr", name, syscall.EPERM)
	}
	return d.enterAttr(c, WM, "removexattr", name, func() error { return d.named(name).Removexattr(attr) })
}

// Removexattr removes an extended attribute; reserved names are EPERM.
func (f *File) Removexattr(ctx context.Context, c Caller, attr string) error {
	if hidden(attr) {
		return pathError("removexattr", f.who.Path, syscall.EPERM)
	}
	return f.enter(c, WM, "removexattr", func() error { return f.inode.meta.Inode().Removexattr(attr) })
}

// enterAttr is enter for attributes: they may be the directory's own, and names
// that lead to a namespace are that namespace's business.
func (d *Dir) enterAttr(c Caller, need Perm, op, name string, fn func() error) error {
	if d.md == nil {
		return pathError(op, name, syscall.EROFS)
	}
	return d.enter(c, need, op, name, fn)
}

// enter is the preamble of an operation on the open file: permissions, then identity.
func (f *File) enter(c Caller, need Perm, op string, fn func() error) error {
	if err := f.space.allow(c, need, op, f.who.Path); err != nil {
		return err
	}
	return f.space.cfg.Meta.MD().As(c.Cred, fn)
}
