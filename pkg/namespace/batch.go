package namespace

import (
	"context"
	"syscall"
	"time"
)

// Batch writes many small new files straight into packs. Names are made as files
// are added; a file has content, and counts as written, once its pack is durable,
// which Add's callback and Flush tell. Of a batch that is given up or killed, empty
// files remain.
//
// A Batch holds the bytes of one pack in memory and those of another while it is
// uploaded. Safe for concurrent use.
type Batch struct {
	fs *FS
	c  Caller
}

// BatchFile is what Batch.Add makes.
type BatchFile struct {
	Name  string
	Mode  uint32    // permission bits
	MTime time.Time // zero: now
}

// Batch begins a batch of new files of a caller, which must be ended with Close.
func (f *FS) Batch(c Caller) *Batch { return &Batch{fs: f, c: c} }

// Add makes the file in d with a content, of at most Limit bytes of d. It may wait
// for an upload. done is called once, from any goroutine, when the file is durable
// or has failed; not when Add returns an error.
func (b *Batch) Add(ctx context.Context, d *Dir, file BatchFile, content []byte, done func(error)) error {
	return syscall.ENOSYS
}

// Flush writes what was added and waits for it. Its error is that of packs; those of
// single files were told.
func (b *Batch) Flush(ctx context.Context) error { return nil }

// Close flushes and ends the batch.
func (b *Batch) Close(ctx context.Context) error { return b.Flush(ctx) }
