package fusefs

import "github.com/hanwen/go-fuse/v2/fuse"

// umasker hands the caller's umask to the nodes. The kernel sends it beside the
// mode (DONT_MASK), since a default ACL of the directory replaces it; go-fuse's
// node interface has no place for it, so it travels in bits 16 to 24 of the mode,
// which no mode uses.
type umasker struct{ fuse.RawFileSystem }

const umaskShift = 16

func (u umasker) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	in.Mode = withUmask(in.Mode, in.Umask)
	return u.RawFileSystem.Create(cancel, in, name, out)
}

func (u umasker) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	in.Mode = withUmask(in.Mode, in.Umask)
	return u.RawFileSystem.Mkdir(cancel, in, name, out)
}

func (u umasker) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	in.Mode = withUmask(in.Mode, in.Umask)
	return u.RawFileSystem.Mknod(cancel, in, name, out)
}

func withUmask(mode, umask uint32) uint32 { return mode&0xffff | umask&0o777<<umaskShift }

// splitUmask undoes withUmask.
func splitUmask(m uint32) (mode, umask uint32) { return m & 0xffff, m >> umaskShift & 0o777 }
