package fusefs

import (
	"context"
	"errors"
	"io"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"marfs/pkg/namespace"
)

// Open opens the file n.
func (n *node) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	ctx = context.WithoutCancel(ctx)
	f, err := n.open(ctx, n.caller(ctx), flags)
	if errors.Is(err, syscall.ESTALE) {
		n.fs.settled() // it may be on the move
		f, err = n.open(ctx, n.caller(ctx), flags)
	}
	if err == nil && flags&syscall.O_TRUNC != 0 {
		err = n.truncated(ctx, f)
	}
	if err != nil {
		return nil, 0, n.errno("open", err)
	}
	h, ff := n.newHandle(f, flags)
	return h, ff, 0
}

// open opens by name and checks that it got n. With O_TRUNC it checks before,
// too: a file that took the name meanwhile must not be emptied.
func (n *node) open(ctx context.Context, c namespace.Caller, flags uint32) (*namespace.File, error) {
	where := func() (*namespace.Dir, string, error) { return n.where(ctx) }
	if flags&syscall.O_TRUNC != 0 {
		where = func() (*namespace.Dir, string, error) { return n.same(ctx, c) }
	}
	d, name, err := where()
	if err != nil {
		return nil, stale(err)
	}
	defer d.Close()
	f, err := d.Open(ctx, c, name, flags)
	if err != nil {
		return nil, stale(err)
	}
	a, err := f.Stat(ctx)
	if err == nil && a.Ino != n.ino() {
		err = syscall.ESTALE
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// truncated clears set-id bits of a file that open emptied.
func (n *node) truncated(ctx context.Context, f *namespace.File) error {
	if !n.setID.Load() {
		return nil
	}
	a, err := f.Stat(ctx)
	if err == nil {
		err = n.dropSetID(ctx, &a)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	n.saw(a.Mode)
	return nil
}

// Read reads; fewer bytes than asked for only at the end, which is how the
// kernel takes it.
func (h *handle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	c := idOf(ctx)
	kctx, stop := killable(ctx, c.PID)
	defer stop()
	got, done, err := h.file.Borrow(kctx, c, dest, off)
	if err != nil && !errors.Is(err, io.EOF) {
		done()
		return nil, h.n.errno("read", err)
	}
	if len(got) == 0 { // go-fuse does not tell when it has sent nothing
		done()
		return fuse.ReadResultData(nil), 0
	}
	return lent{got, done}, 0
}

// lent is an answer to a read, in memory that goes back once it was sent. With
// Slices, go-fuse takes the memory as it is, and calls Done after sending it.
type lent struct {
	data []byte
	done func()
}

func (l lent) Bytes([]byte) ([]byte, fuse.Status) { return l.data, fuse.OK }
func (l lent) Slices() ([][]byte, fuse.Status)    { return [][]byte{l.data}, fuse.OK }
func (l lent) Size() int                          { return len(l.data) }
func (l lent) Done()                              { l.done() }

// Write writes.
func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	c := idOf(ctx)
	kctx, stop := killable(ctx, c.PID)
	defer stop()
	h.dirty.Store(true)
	done, err := h.file.WriteAt(kctx, c, data, off)
	if done > 0 {
		h.n.wrote(off, int64(done))
	}
	if err == nil && h.n.setID.Load() && c.UID != 0 {
		err = h.wroteSetID(ctx)
	}
	if err != nil {
		h.n.committed() // it may have ended what others saw of the file
		return uint32(done), h.n.errno("write", err)
	}
	if h.sync {
		return uint32(done), h.commit(ctx, "write", h.file.Commit)
	}
	return uint32(done), 0
}

// wroteSetID clears the set-id bits of a file that was written to.
func (h *handle) wroteSetID(ctx context.Context) error {
	a, err := h.file.Stat(ctx)
	if err == nil {
		err = h.n.dropSetID(ctx, &a)
	}
	if err != nil {
		return err
	}
	h.n.saw(a.Mode)
	h.n.committed()
	return nil
}

// Flush is close(2), also of a duplicate: what was written is durable and
// visible to others when it returns. It is never interrupted: a close that says
// EINTR would leave nobody to try again.
func (h *handle) Flush(ctx context.Context) syscall.Errno {
	return h.commit(ctx, "close", h.file.Flush)
}

// Fsync is fsync(2) and fdatasync(2).
func (h *handle) Fsync(ctx context.Context, _ uint32) syscall.Errno {
	return h.commit(ctx, "fsync", h.file.Commit)
}

func (h *handle) commit(ctx context.Context, op string, fn func(context.Context) error) syscall.Errno {
	h.dirty.Store(false)
	err := fn(context.WithoutCancel(ctx))
	if err != nil {
		h.dirty.Store(true)
	}
	h.n.committed()
	return h.n.errno(op, err)
}

// Release ends the handle; the kernel ignores errors here, so nothing is left
// to fail but what nobody flushed.
func (h *handle) Release(context.Context) syscall.Errno {
	if h.unregister() {
		h.close()
	}
	return 0
}

func (h *handle) close() {
	if err := h.file.Close(); err != nil {
		_ = h.n.errno("release", err) // logged; the kernel takes no answer
	}
	if h.dirty.Load() {
		h.n.committed()
	}
}

// Allocate is fallocate(2).
func (h *handle) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	c := idOf(ctx)
	err := h.file.Allocate(context.WithoutCancel(ctx), c, mode, int64(off), int64(size))
	if err == nil {
		h.n.wrote(int64(off), int64(size))
		h.n.committed()
	}
	return h.n.errno("fallocate", err)
}

// Lseek is lseek(2) with SEEK_DATA or SEEK_HOLE.
func (h *handle) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	pos, err := h.file.Seek(ctx, int64(off), int(whence))
	return uint64(pos), h.n.errno("lseek", err)
}

// CopyFileRange is not offered; the kernel remembers this answer and copies by
// reading and writing.
func (n *node) CopyFileRange(context.Context, gofs.FileHandle, uint64, *gofs.Inode, gofs.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, syscall.ENOSYS
}
