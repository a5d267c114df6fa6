package packer

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// body is a staged content. It is opened when it is read first: the files of a pack
// are more than there are descriptors.
type body struct {
	ctx  context.Context
	meta *metadata.FS
	slot objfmt.Slot
	file *metadata.File // nil: not open
	from mdfs.File      // the bytes
}

func (b *body) ReadAt(p []byte, off int64) (int, error) {
	if b.from == nil {
		if err := b.open(); err != nil {
			return 0, err
		}
	}
	return b.from.ReadAt(p, off)
}

func (b *body) open() (err error) {
	switch kind := b.slot.Source.Kind; kind {
	case objfmt.SourceOwn, objfmt.SourceBody:
	default:
		return fmt.Errorf("source %s is no body: %w", kind, syscall.EINVAL)
	}
	if b.file, err = b.meta.OpenID(b.ctx, b.slot.File); err != nil {
		return err
	}
	if b.slot.Source.Kind == objfmt.SourceOwn {
		b.from = b.file.Inode()
		return nil
	}
	b.from, err = b.file.Body(b.ctx, b.slot.Content)
	return err
}

// Close may be called again, and then reading opens it again.
func (b *body) Close() error {
	var err error
	if b.from != nil && b.slot.Source.Kind == objfmt.SourceBody {
		err = b.from.Close()
	}
	if b.file != nil {
		err = errors.Join(err, b.file.Close())
	}
	b.file, b.from = nil, nil
	return err
}
