package fusefs

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"marfs/internal/control"
	"marfs/pkg/namespace"
)

// controlNode is the control file in the root, through which users reach their
// trash. It is no file of a namespace: it cannot be changed, replaced or listed.
//
// Each lookup gets an inode of its own, so that no two users share one: whose pages
// a private mmap fills, whose write holds its lock.
type controlNode struct {
	gofs.Inode
	fs *filesystem
}

// controlIno is shown as its inode number.
const controlIno = 0xFFFF<<48 | 0xFFFFFFFFFF00

var controlLookups atomic.Uint64

// controlEntry answers a lookup of the control file in the root n. The kernel must
// not keep the name, which requests.Lookup sees to.
func (n *node) controlEntry(ctx context.Context, out *fuse.EntryOut) *gofs.Inode {
	out.Attr = controlAttr()
	id := gofs.StableAttr{Mode: syscall.S_IFREG, Ino: controlIno, Gen: controlLookups.Add(1)}
	return n.NewInode(ctx, &controlNode{fs: n.fs}, id)
}

func controlAttr() fuse.Attr {
	return fuse.Attr{Ino: controlIno, Mode: syscall.S_IFREG | 0o666, Nlink: 1}
}

// Getattr describes the control file: root's, for everybody to read and write.
func (c *controlNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Attr = controlAttr()
	return 0
}

// Setattr is refused.
func (c *controlNode) Setattr(context.Context, gofs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return syscall.EPERM
}

// Getxattr finds none.
func (c *controlNode) Getxattr(context.Context, string, []byte) (uint32, syscall.Errno) {
	return 0, syscall.ENODATA
}

// Listxattr finds none.
func (c *controlNode) Listxattr(context.Context, []byte) (uint32, syscall.Errno) { return 0, 0 }

// Setxattr is refused.
func (c *controlNode) Setxattr(context.Context, string, []byte, uint32) syscall.Errno {
	return syscall.EPERM
}

// Removexattr is refused.
func (c *controlNode) Removexattr(context.Context, string) syscall.Errno { return syscall.EPERM }

// Open begins a session of whoever opens it. Whoever writes and reads later, by a
// descriptor that was handed on, it stays theirs. EPERM: the program has more than
// one identity; what a user makes a set-user-ID program write must not be root's wish.
func (c *controlNode) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDWR {
		return nil, 0, syscall.EINVAL
	}
	who := idOf(ctx)
	groups, err := c.fs.callers.single(who)
	if err != nil {
		c.fs.log.Warn("refused", "op", "open", "path", control.Name, "uid", who.UID, "pid", who.PID, "reason", err.Error())
		return nil, 0, syscall.EPERM
	}
	who.Groups = groups
	s, err := c.fs.control.Open(who)
	if err != nil {
		return nil, 0, controlErrno(err)
	}
	return &controlHandle{s}, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_STREAM | fuse.FOPEN_NONSEEKABLE | fuse.FOPEN_NOFLUSH, 0
}

// controlHandle is an open control file.
type controlHandle struct{ session *control.Session }

// Write takes the request. It does not wait: the kernel holds the inode.
func (h *controlHandle) Write(_ context.Context, data []byte, _ int64) (uint32, syscall.Errno) {
	n, err := h.session.Write(data)
	return uint32(n), controlErrno(err)
}

// Read waits for the next of the answer. Any signal ends it, as of a pipe; nothing is lost.
func (h *controlHandle) Read(ctx context.Context, dest []byte, _ int64) (fuse.ReadResult, syscall.Errno) {
	n, err := h.session.Read(ctx, dest)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, controlErrno(err)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

// Release ends the session. Not Flush: a child that closes its copy ends nothing.
func (h *controlHandle) Release(context.Context) syscall.Errno {
	h.session.Close()
	return 0
}

func controlErrno(err error) syscall.Errno {
	e, _ := errnoOf(err)
	return e
}

// reserved reports whether name in the directory with this node id is the control file's.
func reserved(dir uint64, name string) bool { return dir == fuse.FUSE_ROOT_ID && name == control.Name }

// changed makes the kernel forget what a session has made untrue. It runs within no
// request, and holds nothing: the kernel may wait for requests in the directory.
func (f *filesystem) changed(c control.Change) {
	f.settled() // or the tree of nodes may be behind
	dir := &f.root.Inode
	names := strings.Split(strings.Trim(c.Path, "/"), "/")
	for _, name := range names[:len(names)-1] {
		next := dir.GetChild(name)
		if next == nil { // the kernel knows nothing below, but perhaps that it is not there
			_ = dir.NotifyEntry(name)
			return
		}
		dir = next
	}
	name := names[len(names)-1]
	old := dir.GetChild(name)
	if !c.Content {
		if old != nil && !c.Dir {
			f.buried(old)
		}
		_ = dir.NotifyEntry(name) // and the directory's attributes; fails when it is forgotten
	}
	if old == nil {
		return
	}
	if n, ok := old.Operations().(*node); ok {
		n.committed()
	}
}

// newControl serves the trash of ns to users.
func (f *filesystem) newControl(ns *namespace.FS) {
	f.control = control.NewServer(ns, control.Options{Changed: f.changed})
}
