// Package objstore defines the store seam: what MarFS needs of an object store.
//
// S3 buckets (package s3store), directories (dirstore) and memory (memstore)
// implement it; so does an erasure-coded repo, which is built from stores. One
// suite, objstoretest, covers them all; faultstore makes any of them fail.
package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"time"
)

// Error classes. Every error of a Store wraps one of these, one of io/fs
// (ErrNotExist, ErrPermission, ErrInvalid for a call that can never work), the
// context's own error, or the error of the reader handed to Put. Anything else
// is a bug of the store.
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
// fs.ErrPermission. Keys are as [CheckKey] wants them, and none is a directory
// of another ("a/b" beside "a/b/c"): some stores keep objects as files.
type Store interface {
	// Put stores what r delivers under key, durably, and all or nothing: a
	// part of r is never visible, and after an error nothing new is, but for one
	// case: when the store was unavailable or the context ended, the store may
	// have taken the whole object without saying so. size is its length in
	// bytes or -1 when unknown; another length from r is fs.ErrInvalid. An
	// io.WriterTo r is used as such. r is read once, in order, and not after Put
	// returns. An existing object is replaced (callers never reuse keys, but for
	// repair); of concurrent Puts of a key one wins as a whole.
	Put(ctx context.Context, key string, r io.Reader, size int64) error

	// Get opens n bytes of the object from off; n < 0 means to the end. Fewer
	// bytes come when the object ends before; off beyond the end is io.EOF at
	// the first Read, and no other error of the reader wraps io.EOF. A missing
	// object is an error of Get itself, whatever the range. The reader must be
	// closed; ctx governs its reads too.
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)

	// Stat describes the object.
	Stat(ctx context.Context, key string) (Info, error)

	// Delete removes the object; a missing one is no error.
	Delete(ctx context.Context, key string) error

	// List yields the objects whose keys begin with prefix and are greater than
	// after, in byte order of keys. It ends at the first error. Objects put or
	// deleted meanwhile may or may not be among them.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]
}

// Peeker is what a reader of Get may be besides: one whose bytes lie in memory
// already, so that they need not be copied to be looked at. (A bufio.Reader is
// none: its Peek fails where fewer bytes are left.)
type Peeker interface {
	// Peek returns the next n bytes, or fewer if they do not lie together; they are
	// good until the next Peek, Read or Close. Fewer is no error.
	Peek(n int) ([]byte, error)
	// Discard takes n bytes that Peek has returned.
	Discard(n int) (int, error)
}

// Cleaner is a store in which crashed writers leave what no listing shows: files
// or parts of objects that were never finished.
type Cleaner interface {
	// Clean removes what writers began more than olderThan ago and have not
	// finished, and returns how many objects that would have been. It cannot tell
	// a slow writer from a crashed one, so olderThan must be longer than any Put.
	Clean(ctx context.Context, olderThan time.Duration) (int, error)
}

// Limits of keys: what the tightest store takes (S3: 1024 bytes in all; file
// systems: 255 a name, of which temporary names need a few).
const (
	MaxKey       = 1000
	MaxComponent = 240
)

// CheckKey reports, as fs.ErrInvalid, a key that is not one or more components
// of [a-z0-9._-], separated by slashes, none of them "." or "..".
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("key of %d bytes: %w: want 1 to %d", len(key), fs.ErrInvalid, MaxKey)
	}
	for part := range strings.SplitSeq(key, "/") {
		if !ValidComponent(part) {
			return fmt.Errorf("key %q: %w: bad component %q", key, fs.ErrInvalid, part)
		}
	}
	return nil
}

// CheckPrefix reports whether some key could begin with prefix. Listing any
// other prefix finds nothing.
func CheckPrefix(prefix string) bool {
	dir, last, found := cutLast(prefix)
	if found && CheckKey(dir) != nil {
		return false
	}
	return last == "" || last == "." || last == ".." || ValidComponent(last)
}

func cutLast(s string) (dir, last string, found bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

// ValidComponent reports whether s may be a component of a key.
func ValidComponent(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) > MaxComponent {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
