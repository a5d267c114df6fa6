package fusefs

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"marfs/pkg/namespace"
)

// node is one inode that the kernel knows, of any type. Hard links share it. It
// holds no descriptor: there may be millions.
type node struct {
	gofs.Inode
	fs *filesystem

	// acl remembers whether a directory has a default ACL: a time in
	// nanoseconds until which that is believed, its lowest bit the answer.
	acl atomic.Int64
	// setID is whether the mode had set-user-ID or set-group-ID when last seen.
	setID atomic.Bool

	mu   sync.Mutex // guards file
	file *fileState // nil until it is opened
}

func (n *node) ino() uint64 { return n.StableAttr().Ino }

// child makes, or finds, the node for an entry that a call on n returned.
func (n *node) child(ctx context.Context, a *namespace.Attr, out *fuse.EntryOut) *gofs.Inode {
	out.Attr.FromStat(a)
	id := n.identity(a)
	c := &node{fs: n.fs}
	c.saw(a.Mode)
	return n.NewInode(ctx, c, id)
}

// known returns the node that the kernel already has for the name, if it is the same inode.
func (n *node) known(name string, a *namespace.Attr, out *fuse.EntryOut) *gofs.Inode {
	c := n.GetChild(name)
	if c == nil || c.StableAttr() != n.identity(a) {
		return nil
	}
	out.Attr.FromStat(a)
	c.Operations().(*node).saw(a.Mode)
	return c
}

func (n *node) identity(a *namespace.Attr) gofs.StableAttr {
	id := gofs.StableAttr{Mode: a.Mode & syscall.S_IFMT, Ino: a.Ino}
	if id.Mode == syscall.S_IFDIR {
		id.Gen = n.fs.gens.of(a.Ino)
	}
	return id
}

// saw notes what attributes say that later operations need.
func (n *node) saw(mode uint32) {
	if set := mode&(syscall.S_ISUID|syscall.S_ISGID) != 0; set != n.setID.Load() {
		n.setID.Store(set)
	}
}

// OnForget is called when the kernel has forgotten the node.
func (n *node) OnForget() {
	if n.IsDir() {
		n.fs.gens.forgot(n.ino(), n.StableAttr().Gen)
	}
}
