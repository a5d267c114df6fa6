package namespace_test

import (
	"bytes"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"marfs/pkg/mdfs"
)

// room is how many of these fail from now on.
type room struct{ names, writes, slots, ends atomic.Int64 }

// fullFS has no room for a while: for new names, files that begin with "big", first slots, and
// the second slots of these.
type fullFS struct {
	mdfs.FS
	full *room
}

type fullDir struct {
	mdfs.Dir
	full *room
}

type fullFile struct {
	mdfs.File
	full *room
}

func (f fullFS) Root() mdfs.Dir { return fullDir{f.FS.Root(), f.full} }

func (d fullDir) OpenDir(name string) (mdfs.Dir, error) {
	dir, err := d.Dir.OpenDir(name)
	return fullDir{dir, d.full}, err
}

func (d fullDir) Again() (mdfs.Dir, error) {
	dir, err := d.Dir.Again()
	return fullDir{dir, d.full}, err
}

func unwrap(d mdfs.Dir) mdfs.Dir {
	if f, ok := d.(fullDir); ok {
		return f.Dir
	}
	return d
}

func (d fullDir) Link(name string, to mdfs.Dir, newname string) error {
	return d.Dir.Link(name, unwrap(to), newname)
}

func (d fullDir) Rename(name string, to mdfs.Dir, newname string, flags uint) error {
	return d.Dir.Rename(name, unwrap(to), newname, flags)
}

func (d fullDir) OpenFile(name string, flag int, perm uint32) (mdfs.File, error) {
	if flag&syscall.O_CREAT != 0 && d.full.names.Load() > 0 && d.full.names.Add(-1) >= 0 {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.ENOSPC}
	}
	fl, err := d.Dir.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return fullFile{fl, d.full}, nil
}

func (f fullFile) WriteAt(p []byte, off int64) (int, error) {
	if len(p) > 3 && string(p[:3]) == "big" && f.full.writes.Add(-1) >= 0 {
		return 0, &os.PathError{Op: "pwrite", Path: "x", Err: syscall.ENOSPC}
	}
	return f.File.WriteAt(p, off)
}

func (f fullFile) Setxattr(attr string, v []byte, flags int) error {
	if strings.HasSuffix(attr, ".v1") && f.full.slots.Add(-1) >= 0 || strings.HasSuffix(attr, ".v2") &&
		bytes.Contains(v, []byte(" own=8,")) && f.full.ends.Add(-1) >= 0 {
		return &os.PathError{Op: "setxattr", Path: "x", Err: syscall.EDQUOT}
	}
	return f.File.Setxattr(attr, v, flags)
}
