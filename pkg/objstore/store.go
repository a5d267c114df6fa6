// Package objstore defines the store seam: what MarFS needs of an object store.
//
// S3 buckets (package s3store), directories (dirstore) and memory (memstore)
// implement it; so does an erasure-coded repo, which is built from stores. One
// suite, objstoretest, covers them all.
package objstore

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Error classes. Every error of a Store that is not one of these, of
// io/fs (ErrNotExist, ErrPermission), or of context is a bug of the store.
var (
	// ErrUnavailable: the store cannot be reached, is overloaded or did not
	// answer in time; the same call may work later.
	ErrUnavailable = errors.New("store unavailable")
	// ErrCorrupt: the store answered with something that cannot be right.
	ErrCorrupt = errors.New("corrupt")
	// ErrNoSpace: the store has no room.
	ErrNoSpace = errors.New("no space in store")
)

// Info describes a stored object.
type Info struct {
	Key     string
	Size    int64 // bytes
	ModTime time.Time
}

// Store keeps objects under keys.
//
// Calls are safe for concurrent use, have deadlines of their own beside the
// context's, and retry passing failures a bounded number of times; so an error
// returned is the last word. A missing object is fs.ErrNotExist, a refused call
// fs.ErrPermission. Keys are slash-separated, of [a-z0-9._-] components.
type Store interface {
	// Put stores what r delivers under key, durably, and all or nothing: after
	// an error nothing new is visible. size is its length in bytes or -1 when
	// unknown. An io.WriterTo r is used as such. r is read once, in order. An
	// existing object is replaced (callers never reuse keys, but for repair).
	Put(ctx context.Context, key string, r io.Reader, size int64) error

	// Get opens n bytes of the object from off; n < 0 means to the end. Fewer
	// bytes come when the object ends before; off beyond the end is io.EOF at
	// the first Read. The reader must be closed.
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)

	// Stat describes the object.
	Stat(ctx context.Context, key string) (Info, error)

	// Delete removes the object; a missing one is no error.
	Delete(ctx context.Context, key string) error

	// List yields the objects whose keys begin with prefix and are greater than
	// after, in byte order of keys. It ends at the first error.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]
}
