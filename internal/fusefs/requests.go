package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// requests sits between the kernel's requests and go-fuse's tree of nodes, for the
// things that a node's methods cannot do.
//
// It hands the caller's umask to the nodes. The kernel sends it beside the
// mode (DONT_MASK), since a default ACL of the directory replaces it; go-fuse's
// node interface has no place for it, so it travels in bits 16 to 24 of the mode,
// which no mode uses.
//
// It keeps the name of the control file from everything but being looked up.
//
// And it knows when the tree of nodes is behind: a rename has happened in the
// namespace before go-fuse moves the node.
type requests struct {
	fuse.RawFileSystem
	fs *filesystem
}

const umaskShift = 16

// Rename moves a name. Where it meets another one half done, it waits for it.
func (r requests) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if reserved(in.NodeId, oldName) || reserved(in.Newdir, newName) {
		return fuse.EPERM
	}
	r.fs.moves.RLock()
	status := r.RawFileSystem.Rename(cancel, in, oldName, newName)
	r.fs.moves.RUnlock()
	if status != fuse.Status(syscall.ESTALE) {
		return status
	}
	r.fs.moves.Lock()
	defer r.fs.moves.Unlock()
	return r.RawFileSystem.Rename(cancel, in, oldName, newName)
}

// Lookup finds a name. The control file's is looked up each time, and gets another
// inode then.
func (r requests) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	status := r.RawFileSystem.Lookup(cancel, in, name, out)
	if reserved(in.NodeId, name) {
		out.SetEntryTimeout(0)
		out.SetAttrTimeout(0)
	}
	return status
}

func (r requests) Symlink(cancel <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	if reserved(in.NodeId, name) {
		return fuse.EPERM
	}
	return r.RawFileSystem.Symlink(cancel, in, target, name, out)
}

func (r requests) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if reserved(in.NodeId, name) {
		return fuse.EPERM
	}
	return r.RawFileSystem.Link(cancel, in, name, out)
}

func (r requests) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if reserved(in.NodeId, name) {
		return fuse.EPERM
	}
	return r.RawFileSystem.Unlink(cancel, in, name)
}

func (r requests) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if reserved(in.NodeId, name) {
		return fuse.EPERM
	}
	return r.RawFileSystem.Rmdir(cancel, in, name)
}

func (r requests) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if reserved(in.NodeId, name) {
		return fuse.EPERM
	}
	in.Mode = withUmask(in.Mode, in.Umask)
	return r.RawFileSystem.Create(cancel, in, name, out)
}

func (r requests) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if reserved(in.NodeId, name) {
		return fuse.EPERM
	}
	in.Mode = withUmask(in.Mode, in.Umask)
	return r.RawFileSystem.Mkdir(cancel, in, name, out)
}

func (r requests) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if reserved(in.NodeId, name) {
		return fuse.EPERM
	}
	in.Mode = withUmask(in.Mode, in.Umask)
	return r.RawFileSystem.Mknod(cancel, in, name, out)
}

func withUmask(mode, umask uint32) uint32 { return mode&0xffff | umask&0o777<<umaskShift }

// splitUmask undoes withUmask.
func splitUmask(m uint32) (mode, umask uint32) { return m & 0xffff, m >> umaskShift & 0o777 }
