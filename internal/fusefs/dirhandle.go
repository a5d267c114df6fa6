package fusefs

import (
	"context"
	"errors"
	"io"
	"math"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"marfs/internal/control"
	"marfs/pkg/namespace"
)

// dirHandle is an open directory: a stream of its entries in the metadata
// filesystem's order, whose offsets it passes on. go-fuse calls one method that
// moves the stream at a time.
type dirHandle struct {
	n       *node
	dir     *namespace.Dir
	entries *namespace.Entries
	dots    int // how many of "." and ".." were given
}

// Offsets after "." and "..". Filesystems use neither: ext4's largest is the end
// itself, others stay far below.
const (
	afterDot    = math.MaxInt64 - 2
	afterDotDot = math.MaxInt64 - 1
)

// OpendirHandle opens the directory n for reading.
func (n *node) OpendirHandle(ctx context.Context, _ uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	d, err := n.dir(ctx)
	if err != nil {
		return nil, 0, n.errno("opendir", err)
	}
	e, err := d.Entries(ctx, n.caller(ctx))
	if err != nil {
		d.Close()
		return nil, 0, n.errno("opendir", err)
	}
	return &dirHandle{n: n, dir: d, entries: e}, 0, 0
}

// Readdirent returns the next entry, nil at the end.
func (h *dirHandle) Readdirent(context.Context) (*fuse.DirEntry, syscall.Errno) {
	switch h.dots {
	case 0:
		h.dots = 1
		return &fuse.DirEntry{Name: ".", Mode: syscall.S_IFDIR, Ino: h.n.ino(), Off: afterDot}, 0
	case 1:
		h.dots = 2
		return &fuse.DirEntry{Name: "..", Mode: syscall.S_IFDIR, Ino: h.n.upIno(), Off: afterDotDot}, 0
	}
	e, err := h.entries.Next()
	if err == nil && e.Name == control.Name && h.n.IsRoot() { // the control file hides it
		e, err = h.entries.Next()
	}
	if errors.Is(err, io.EOF) {
		return nil, 0
	}
	if err != nil {
		return nil, h.n.errno("readdir", err)
	}
	return &fuse.DirEntry{Name: e.Name, Mode: e.Type, Ino: e.Ino, Off: uint64(e.Next)}, 0
}

// upIno is the inode number of the directory above; the root's is its own.
func (n *node) upIno() uint64 {
	if _, p := n.Parent(); p != nil {
		return p.StableAttr().Ino
	}
	return n.ino()
}

// Seekdir continues after the entry that had this offset.
func (h *dirHandle) Seekdir(_ context.Context, off uint64) syscall.Errno {
	pos := int64(off)
	switch off {
	case 0:
		h.dots = 0
	case afterDot:
		h.dots, pos = 1, 0
	case afterDotDot:
		h.dots, pos = 2, 0
	default:
		h.dots = 2
	}
	return h.n.errno("seekdir", h.entries.SeekTo(pos))
}

// Fsyncdir makes the directory's entries durable.
func (h *dirHandle) Fsyncdir(ctx context.Context, _ uint32) syscall.Errno {
	return h.n.errno("fsyncdir", h.dir.Sync(context.WithoutCancel(ctx)))
}

// Releasedir ends the handle.
func (h *dirHandle) Releasedir(context.Context, uint32) {
	if err := h.entries.Close(); err != nil {
		_ = h.n.errno("closedir", err) // logged; the kernel takes no answer
	}
	h.dir.Close()
}
