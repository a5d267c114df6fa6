package fusefs

import (
	"context"
	"errors"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"marfs/pkg/mdfs"
	"marfs/pkg/namespace"
)

// Getattr describes n, through an open file or directory if there is one: its
// name may be gone.
func (n *node) Getattr(ctx context.Context, fh gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	a, err := n.attr(ctx, fh)
	if err == nil && a.Ino != n.ino() {
		err = syscall.ESTALE
	}
	if err != nil {
		return n.errno("getattr", err)
	}
	n.saw(a.Mode)
	out.Attr.FromStat(&a)
	return 0
}

func (n *node) attr(ctx context.Context, fh gofs.FileHandle) (namespace.Attr, error) {
	switch h := fh.(type) {
	case *handle:
		return h.file.Stat(ctx)
	case *dirHandle:
		return h.dir.Stat(ctx, idOf(ctx))
	}
	d, name, err := n.where(ctx)
	if err != nil {
		return namespace.Attr{}, err
	}
	defer d.Close()
	if name == "" { // the kernel asks after each change in a directory, to check permissions
		return d.Stat(ctx, idOf(ctx))
	}
	a, err := d.Lookup(ctx, n.caller(ctx), name)
	return a, stale(err)
}

// Setattr changes attributes: chmod, chown, truncate, utimens.
func (n *node) Setattr(ctx context.Context, fh gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	ctx = context.WithoutCancel(ctx)
	s := settings(in)
	a, err := n.setattr(ctx, n.caller(ctx), fh, s)
	if err == nil && s.Size != nil {
		n.disown() // the kernel drops the pages when it gets the answer
		err = n.dropSetID(ctx, &a)
	}
	if err != nil {
		return n.errno("setattr", err)
	}
	n.saw(a.Mode)
	out.Attr.FromStat(&a)
	out.SetTimeout(n.fs.attrTTL)
	return 0
}

// setattr goes through the handle given, else through any open file, which is
// the right inode for sure, else by name. A length needs a file open for writing
// or the name.
func (n *node) setattr(ctx context.Context, c namespace.Caller, fh gofs.FileHandle, s namespace.SetAttr) (a namespace.Attr, err error) {
	if h, ok := fh.(*handle); ok {
		return h.file.Setattr(ctx, c, s)
	}
	if s.Size == nil {
		found, err := n.withOpen(func(f *namespace.File) error {
			a, err = f.Setattr(ctx, c, s)
			return err
		})
		if found {
			return a, err
		}
	}
	d, name, err := n.same(ctx, c)
	if err != nil {
		return a, err
	}
	defer d.Close()
	return d.Setattr(ctx, c, name, s)
}

func settings(in *fuse.SetAttrIn) (s namespace.SetAttr) {
	if mode, ok := in.GetMode(); ok {
		s.Mode = &mode
	}
	if uid, ok := in.GetUID(); ok {
		s.UID = &uid
	}
	if gid, ok := in.GetGID(); ok {
		s.GID = &gid
	}
	if size, ok := in.GetSize(); ok {
		n := int64(size) // the kernel keeps it below 1<<63
		s.Size = &n
	}
	s.Atime = timeSet(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec)
	s.Mtime = timeSet(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec)
	return s
}

func timeSet(valid, set, now uint32, sec uint64, nsec uint32) mdfs.TimeSet {
	switch {
	case valid&set == 0:
		return mdfs.TimeSet{Omit: true}
	case valid&now != 0:
		return mdfs.TimeSet{Now: true}
	}
	return mdfs.TimeSet{Time: time.Unix(int64(sec), int64(nsec))}
}

// dropSetID clears set-user-ID and set-group-ID after somebody without
// privilege changed the content, as the kernel asked for with HANDLE_KILLPRIV_V2.
// It is the daemon's own doing: the one who wrote need not own the file.
func (n *node) dropSetID(ctx context.Context, a *namespace.Attr) error {
	drop := uint32(syscall.S_ISUID)
	if a.Mode&syscall.S_IXGRP != 0 {
		drop |= syscall.S_ISGID // without group execution it is something else
	}
	if idOf(ctx).UID == 0 || a.Mode&drop == 0 {
		return nil
	}
	mode := a.Mode & 0o7777 &^ drop
	keep := mdfs.TimeSet{Omit: true}
	b, err := n.setattr(ctx, daemon(), nil, namespace.SetAttr{Mode: &mode, Atime: keep, Mtime: keep})
	if errors.Is(err, syscall.ENOENT) {
		return nil // unlinked meanwhile: nobody can execute it by name
	}
	*a = b
	return err
}
