package namespace

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

// self maps the empty name, which means the directory itself in Setattr and the
// xattr calls, to the metadata filesystem's word for it.
func self(name string) string {
	if name == "" {
		return "."
	}
	return name
}

// Getxattr reads an extended attribute; a reserved one does not exist.
func (d *Dir) Getxattr(ctx context.Context, c Caller, name, attr string) (v []byte, err error) {
	if hidden(attr) || d.md == nil {
		return nil, pathError("getxattr", name, unix.ENODATA)
	}
	err = d.enterAttr(c, RM, "getxattr", name, func() error {
		v, err = d.md.Getxattr(self(name), attr)
		err = noACL(attr, err)
		if err == nil && attr == accessACL {
			v, err = d.space.shownACL(d.aclFile(name), v)
		}
		return err
	})
	return v, err
}

// noACL turns the refusal of a metadata filesystem without ACLs into their
// absence: the kernel asks for the ACL of each directory that a user passes, and
// would refuse the way.
func noACL(attr string, err error) error {
	if strings.HasPrefix(attr, "system.posix_acl_") && errors.Is(err, unix.ENOTSUP) {
		return unix.ENODATA
	}
	return err
}

// Setxattr writes an extended attribute; reserved names are EPERM.
func (d *Dir) Setxattr(ctx context.Context, c Caller, name, attr string, v []byte, flags int) error {
	if hidden(attr) {
		return pathError("setxattr", name, syscall.EPERM)
	}
	return d.enterAttr(c, WM, "setxattr", name, func() error {
		if err := d.room(name, attr, v); err != nil {
			return err
		}
		if attr == accessACL {
			return d.space.setACL(d.aclFile(name), v)
		}
		return d.md.Setxattr(self(name), attr, v, flags)
	})
}

func (d *Dir) aclFile(name string) aclFile {
	return aclFile{
		stat:  func() (mdfs.Stat, error) { return d.md.Lstat(self(name)) },
		set:   func(acl []byte) error { return d.md.Setxattr(self(name), accessACL, acl, 0) },
		chmod: func(mode uint32) error { return d.md.Chmod(name, mode) },
	}
}

// Listxattr lists the extended attributes but the reserved ones.
func (d *Dir) Listxattr(ctx context.Context, c Caller, name string) (out []string, err error) {
	if d.md == nil {
		return nil, nil
	}
	err = d.enterAttr(c, RM, "listxattr", name, func() error {
		out, err = d.md.Listxattr(self(name))
		return err
	})
	return slices.DeleteFunc(out, hidden), err
}

// Removexattr removes an extended attribute; reserved names are EPERM.
func (d *Dir) Removexattr(ctx context.Context, c Caller, name, attr string) error {
	if hidden(attr) {
		return pathError("removexattr", name, syscall.EPERM)
	}
	return d.enterAttr(c, WM, "removexattr", name, func() error { return d.md.Removexattr(self(name), attr) })
}

// enterAttr is enter for attributes: they may be the directory's own, and names
// that lead to a namespace are that namespace's business.
func (d *Dir) enterAttr(c Caller, need Perm, op, name string, fn func() error) error {
	if d.md == nil {
		return pathError(op, name, syscall.EROFS)
	}
	return d.enter(c, need, op, name, fn)
}

// room is ENOSPC when the user xattrs of a regular file would leave none for its slots.
func (d *Dir) room(name, attr string, v []byte) error {
	limit := d.space.cfg.Meta.XattrRoom()
	if limit == 0 || name == "" || !strings.HasPrefix(attr, "user.") {
		return nil
	}
	st, err := d.md.Lstat(name)
	if err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return err
	}
	return room(limit, name, attr, v, func() ([]string, error) { return d.md.Listxattr(name) },
		func(n string) ([]byte, error) { return d.md.Getxattr(name, n) })
}

func room(limit int, name, attr string, v []byte, list func() ([]string, error), get func(string) ([]byte, error)) error {
	names, err := list()
	if err != nil {
		return err
	}
	total := len(attr) + len(v)
	for _, n := range names {
		if hidden(n) || n == attr || !strings.HasPrefix(n, "user.") {
			continue
		}
		old, err := get(n)
		if err != nil {
			continue // removed meanwhile, or not the caller's to read
		}
		total += len(n) + len(old)
	}
	if total > limit {
		return pathError("setxattr", name, syscall.ENOSPC)
	}
	return nil
}
