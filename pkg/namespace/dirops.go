package namespace

import (
	"context"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// make runs fn, which makes name, as the caller, and describes what came.
func (d *Dir) make(c Caller, op, name string, fn func() error) (a Attr, err error) {
	err = d.enter(c, RM|WM, op, name, func() error {
		if err := fn(); err != nil {
			return err
		}
		a, err = d.lstat(name)
		return err
	})
	return a, err
}

// Mkdir makes a directory. mode has had the caller's umask applied.
func (d *Dir) Mkdir(ctx context.Context, c Caller, name string, mode uint32) (Attr, error) {
	return d.make(c, "mkdir", name, func() error { return d.md.Mkdir(name, mode) })
}

// Mknod makes a fifo, socket or device, or an empty regular file.
func (d *Dir) Mknod(ctx context.Context, c Caller, name string, mode uint32, dev uint64) (Attr, error) {
	if t := mode & syscall.S_IFMT; t == syscall.S_IFREG || t == 0 {
		f, a, err := d.Create(ctx, c, name, syscall.O_WRONLY|syscall.O_EXCL, mode&^syscall.S_IFMT)
		if err != nil {
			return Attr{}, err
		}
		return a, f.Close()
	}
	return d.make(c, "mknod", name, func() error { return d.md.Mknod(name, mode, dev) })
}

// Symlink makes a symbolic link; target is kept as it is.
func (d *Dir) Symlink(ctx context.Context, c Caller, target, name string) (Attr, error) {
	return d.make(c, "symlink", name, func() error { return d.md.Symlink(target, name) })
}

// Readlink reads a symbolic link.
func (d *Dir) Readlink(ctx context.Context, c Caller, name string) (target string, err error) {
	err = d.enter(c, RM, "readlink", name, func() error {
		target, err = d.md.Readlink(name)
		return err
	})
	return target, err
}

// Link makes newname in to another name of name. Between namespaces it is EXDEV.
func (d *Dir) Link(ctx context.Context, c Caller, name string, to *Dir, newname string) (Attr, error) {
	if d.space != to.space {
		return Attr{}, &os.LinkError{Op: "link", Old: name, New: newname, Err: syscall.EXDEV}
	}
	if err := d.real("link", name); err != nil {
		return Attr{}, err
	}
	if err := to.real("link", newname); err != nil {
		return Attr{}, err
	}
	if err := d.space.allow(c, RM|WM, "link", to.join(newname)); err != nil {
		return Attr{}, err
	}
	if err := d.space.cfg.Meta.Link(ctx, d.who(c, name), d.md, name, to.md, newname); err != nil {
		return Attr{}, err
	}
	return to.Lookup(ctx, c, newname)
}

// Unlink removes a name that is not a directory's. What it named stays in trash.
func (d *Dir) Unlink(ctx context.Context, c Caller, name string) error {
	if err := d.real("unlink", name); err != nil {
		return err
	}
	if err := d.space.allow(c, WM|UD, "unlink", d.join(name)); err != nil {
		return err
	}
	return d.space.cfg.Meta.Unlink(ctx, d.who(c, name), d.md, name)
}

// Rmdir removes an empty directory.
func (d *Dir) Rmdir(ctx context.Context, c Caller, name string) error {
	if err := d.real("rmdir", name); err != nil {
		return err
	}
	if err := d.space.allow(c, WM, "rmdir", d.join(name)); err != nil {
		return err
	}
	defer d.forget(name)
	return d.space.cfg.Meta.Rmdir(ctx, d.who(c, name), d.md, name)
}

// Rename moves name to newname in to; flags are renameat2(2)'s. Between
// namespaces it is EXDEV, so that mv falls back to copying.
func (d *Dir) Rename(ctx context.Context, c Caller, name string, to *Dir, newname string, flags uint32) error {
	if d.space != to.space {
		return &os.LinkError{Op: "rename", Old: name, New: newname, Err: syscall.EXDEV}
	}
	if err := d.real("rename", name); err != nil {
		return err
	}
	if err := to.real("rename", newname); err != nil {
		return err
	}
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return &os.LinkError{Op: "rename", Old: name, New: newname, Err: syscall.EINVAL}
	}
	if err := d.space.allow(c, d.renameNeeds(to, newname, flags), "rename", d.join(name)); err != nil {
		return err
	}
	defer d.forget(name)
	defer to.forget(newname)
	return d.space.cfg.Meta.Rename(ctx, d.who(c, name), d.md, name, to.md, newname, to.join(newname), uint(flags))
}

// renameNeeds: replacing a file unlinks its data.
func (d *Dir) renameNeeds(to *Dir, newname string, flags uint32) Perm {
	if flags != 0 {
		return WM
	}
	if st, err := to.md.Lstat(newname); err == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG {
		return WM | UD
	}
	return WM
}
