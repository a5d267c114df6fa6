package packer

import (
	"syscall"

	"marfs/pkg/mdfs"
)

// hook is called before each call of a hooked filesystem that others could notice,
// or be noticed by.
type hook func(op string)

// hooked is a metadata filesystem that something can be done between two calls of.
type hooked struct {
	mdfs.FS
	hook   hook
	statfs func() (syscall.Statfs_t, error) // nil: as it is
}

func (h *hooked) Root() mdfs.Dir { return &hookedDir{h.FS.Root(), h.hook} }

func (h *hooked) Sync() error { h.hook("sync"); return h.FS.Sync() }

func (h *hooked) Statfs() (syscall.Statfs_t, error) {
	if h.statfs != nil {
		return h.statfs()
	}
	return h.FS.Statfs()
}

type hookedDir struct {
	mdfs.Dir
	hook hook
}

func (d *hookedDir) OpenDir(name string) (mdfs.Dir, error) {
	in, err := d.Dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &hookedDir{in, d.hook}, nil
}

func (d *hookedDir) Again() (mdfs.Dir, error) {
	in, err := d.Dir.Again()
	if err != nil {
		return nil, err
	}
	return &hookedDir{in, d.hook}, nil
}

func (d *hookedDir) OpenFile(name string, flag int, perm uint32) (mdfs.File, error) {
	d.hook("look")
	in, err := d.Dir.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	d.hook("open")
	return &hookedFile{in, d.hook}, nil
}

func (d *hookedDir) Link(name string, to mdfs.Dir, newname string) error {
	d.hook("link")
	return d.Dir.Link(name, to.(*hookedDir).Dir, newname)
}

func (d *hookedDir) Rename(name string, to mdfs.Dir, newname string, flags uint) error {
	d.hook("rename")
	return d.Dir.Rename(name, to.(*hookedDir).Dir, newname, flags)
}

func (d *hookedDir) Remove(name string) error { d.hook("remove"); return d.Dir.Remove(name) }

func (d *hookedDir) Sync() error { d.hook("sync"); return d.Dir.Sync() }

type hookedFile struct {
	mdfs.File
	hook hook
}

func (f *hookedFile) ReadAt(b []byte, off int64) (int, error) {
	f.hook("read")
	return f.File.ReadAt(b, off)
}

func (f *hookedFile) Setxattr(attr string, v []byte, flags int) error {
	f.hook("setxattr")
	if _, err := f.File.Getxattr(brokenAttr); err == nil {
		return syscall.EIO
	}
	return f.File.Setxattr(attr, v, flags)
}

func (f *hookedFile) Removexattr(attr string) error {
	f.hook("removexattr")
	return f.File.Removexattr(attr)
}

func (f *hookedFile) Listxattr() ([]string, error) {
	f.hook("listxattr")
	return f.File.Listxattr()
}

func (f *hookedFile) Sync() error { f.hook("fsync"); return f.File.Sync() }

func (f *hookedFile) Allocate(mode uint32, off, n int64) error {
	f.hook("allocate")
	return f.File.Allocate(mode, off, n)
}

func (f *hookedFile) Close() error { f.hook("close"); return f.File.Close() }

// brokenAttr is what makes an inode one whose xattrs cannot be written.
const brokenAttr = "user.broken"
