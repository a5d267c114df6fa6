package namespace

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// Content is what a deleted file or a version holds, open for reading. It reads one
// content for its life. Safe for concurrent use.
type Content struct {
	Entry TrashEntry
	inode *inode // of its own, not in the table: handles on the mount have nothing to do with it
	size  int64
	who   metadata.Who

	mu   sync.RWMutex // guards view; held shared while reading
	slot objfmt.Slot
	view *view
}

// OpenTrash opens what an entry of the caller's holds, without restoring it. gc
// leaves it alone while it is open.
func (f *FS) OpenTrash(ctx context.Context, c Caller, id string) (*Content, error) {
	s, entry, err := f.trashID(id)
	if err != nil {
		return nil, err
	}
	if err := s.allow(c, RM|RD, "open trash", id); err != nil {
		return nil, err
	}
	e, err := s.trash().Get(ctx, c.Cred, entry)
	if err != nil {
		return nil, err
	}
	if e.Record.File.IsZero() {
		err = syscall.EINVAL
		if e.Mode&syscall.S_IFMT == syscall.S_IFDIR {
			err = syscall.EISDIR
		}
		return nil, pathError("open trash", id, err)
	}
	meta, err := s.cfg.Meta.OpenID(ctx, e.Record.File)
	if err != nil {
		return nil, err
	}
	o := &Content{Entry: s.trashEntry(e), inode: &inode{space: s, meta: meta},
		who: metadata.Who{Cred: c.Cred, Path: e.Record.Path}}
	if err := o.open(ctx); err != nil {
		meta.Close()
		return nil, s.dataError("open trash", o.who, err)
	}
	return o, nil
}

// open holds the file, and looks once more what it is: it was anybody's until it
// was held.
func (o *Content) open(ctx context.Context) error {
	if _, err := o.inode.meta.Hold(); err != nil {
		return err
	}
	if !o.Entry.Version() {
		slot, err := o.inode.meta.Newest(ctx)
		if err == nil {
			_, err = o.inode.space.cfg.Meta.StatID(ctx, o.inode.meta.ID())
		}
		if err != nil {
			return err
		}
		o.slot = slot
		return o.look(ctx)
	}
	return o.reopen(ctx)
}

// look makes the view of o.slot.
func (o *Content) look(ctx context.Context) error {
	v, err := o.inode.open(ctx, o.slot)
	if err == nil {
		o.view, o.size = v, v.size
	}
	return err
}

// reopen finds out where the content is now: it may have moved. ESTALE: it is gone.
func (o *Content) reopen(ctx context.Context) error {
	content := o.slot.Content
	if o.Entry.Version() {
		content = o.Entry.Record.Content
	}
	slot, err := o.inode.meta.Newest(ctx)
	if err != nil {
		return err
	}
	if slot.Content != content {
		r, err := o.inode.space.cfg.Meta.Version(ctx, content)
		if errors.Is(err, syscall.ENOENT) || err == nil && r.Slot == nil {
			return syscall.ESTALE
		}
		if err != nil {
			return err
		}
		slot = *r.Slot
	}
	if o.view != nil {
		o.view.close()
		o.view = nil
	}
	o.slot = slot
	return o.look(ctx)
}

// Size is in bytes.
func (o *Content) Size() int64 { return o.size }

// ReadAt reads as io.ReaderAt does. ESTALE: gc has destroyed it meanwhile.
func (o *Content) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := o.read(ctx, p, off)
	if lost(err) {
		if err = o.again(ctx); err == nil {
			n, err = o.read(ctx, p, off)
		}
		if lost(err) {
			err = syscall.ESTALE
		}
	}
	if errors.Is(err, io.EOF) {
		return n, io.EOF
	}
	return n, o.inode.space.dataError("read trash", o.who, err)
}

func (o *Content) read(ctx context.Context, p []byte, off int64) (int, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.view == nil {
		return 0, syscall.ESTALE
	}
	return o.view.readAt(ctx, p, off)
}

func (o *Content) again(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.reopen(ctx)
}

// Close releases it.
func (o *Content) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.view != nil {
		o.view.close()
		o.view = nil
	}
	return o.inode.meta.Close()
}
