// Package dirstore keeps objects as files below one directory: the store of
// small and test installations, and of sites whose filesystem is the store.
//
// The object "ns/7f/id" is the file ns/7f/id. A Put writes a file of a private
// temporary directory, syncs it, renames it into place and syncs the directory,
// and every directory above it that this process has not seen synced. Delete
// leaves directories alone: keys are spread over few of them, and pruning would
// race with Puts.
//
// The directory is opened once and used through os.Root, so nothing planted
// inside it leads out, and a filesystem mounted or unmounted over it later is
// never mistaken for it. What is no regular file with a name that a key can
// have is never listed and never served.
//
// # Replaced directories
//
// A directory that is held stays usable when its disk is unmounted or it is
// renamed, but nobody else sees what is written there. So a Store looks every few
// seconds, and after each write, whether its path still leads to the directory.
// When it does not, the Store lets go of it for good: every call fails with
// [ErrLost], and who wants the directory that is there now opens a new Store.
//
// # Deadlines
//
// A system call on a dead disk or file server cannot be cancelled. So each runs
// on a goroutine of its own, and the caller stops waiting for it when the
// context ends or Timeout passes (longer for many bytes). The goroutine stays
// until the kernel lets it go; it holds one of MaxCalls slots meanwhile, so a
// dead filesystem costs at most that many threads, after which calls fail
// without a thread of their own.
package dirstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"marfs/pkg/objstore"
)

// tempDir holds files being written. No key can have this name.
const tempDir = "~tmp"

// Options of a store; the zero value is good.
type Options struct {
	// Timeout bounds one filesystem operation, beside a second for each 16 MiB
	// that it has to write or sync. 0: 30s.
	Timeout time.Duration
	// MaxCalls bounds the operations under way, stuck ones included. 0: 64.
	MaxCalls int
	// Mark is the key of an object that tells whose store it is. When it was there
	// at the start, and is not when directories have vanished, somebody emptied the
	// store; then that is lost, too. "": none.
	Mark string
}

// Store is an objstore.Store of one directory.
type Store struct {
	dir     string // absolute
	root    *os.Root
	mark    string // key of an object that was there at the start; "": none
	timeout time.Duration
	slots   chan struct{} // one element for each operation under way
	batch   int           // names of one directory that a listing sorts at a time

	mu     sync.Mutex          // guards what follows
	synced map[string]struct{} // directories whose names are known to be durable
	looked time.Time           // when dir was last seen to lead to root
	lost   error               // why root is closed; nil: it is not
}

var (
	_ objstore.Store   = (*Store)(nil)
	_ objstore.Cleaner = (*Store)(nil)
)

// Create makes the directory of a new store, durably. An existing one is no error.
func Create(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := Create(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// Open opens the store in an existing directory.
func Open(dir string, o Options) (*Store, error) {
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.MaxCalls == 0 {
		o.MaxCalls = 64
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", classify(err))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", classify(err))
	}
	s := &Store{
		dir:     dir,
		root:    root,
		timeout: o.Timeout,
		slots:   make(chan struct{}, o.MaxCalls),
		batch:   batchNames,
		synced:  make(map[string]struct{}),
	}
	if o.Mark != "" {
		if _, err := root.Lstat(o.Mark); err == nil {
			s.mark = o.Mark
		}
	}
	return s, nil
}

// Close lets go of the directory. No call may follow.
func (s *Store) Close() error { return s.root.Close() }

// Stat implements objstore.Store.
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := check(ctx, key); err != nil {
		return objstore.Info{}, failed("stat", key, err)
	}
	fi, err := call(ctx, s, 0, func(context.Context) (fs.FileInfo, error) { return s.root.Lstat(key) }, nil)
	if err == nil {
		err = regular(fi)
	}
	if err != nil {
		return objstore.Info{}, failed("stat", key, err)
	}
	return objstore.Info{Key: key, Size: fi.Size(), ModTime: fi.ModTime()}, nil
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return failed("delete", key, err)
	}
	err := s.do(ctx, 0, func(context.Context) error {
		// What is not there, or goes, must not be that of a directory replaced.
		if err := s.look(); err != nil {
			return err
		}
		// Root.Remove would take an empty directory too.
		if fi, err := s.root.Lstat(key); err != nil || fi.IsDir() {
			return err
		}
		if err := s.root.Remove(key); err != nil {
			return err
		}
		return s.syncDir(path.Dir(key))
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return failed("delete", key, err)
	}
	return nil
}

// check is what every call does before it touches anything.
func check(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return objstore.CheckKey(key)
}

// regular says why a file is not an object. A directory is merely where others are.
func regular(fi fs.FileInfo) error {
	switch {
	case fi.Mode().IsRegular():
		return nil
	case fi.IsDir():
		return fs.ErrNotExist
	}
	return fmt.Errorf("%w: is a %v, not a file", objstore.ErrCorrupt, fi.Mode().Type())
}

func failed(op, key string, err error) error {
	return &fs.PathError{Op: op, Path: key, Err: err}
}

// classify wraps a system call's error in the class the Store contract wants.
func classify(err error) error {
	var errno syscall.Errno
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrInvalid),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, objstore.ErrUnavailable), errors.Is(err, objstore.ErrCorrupt):
		return err
	case errors.Is(err, fs.ErrClosed):
		return fmt.Errorf("%w: %w", objstore.ErrUnavailable, err)
	case !errors.As(err, &errno):
		// os.Root found a way out: something planted a symlink.
		return fmt.Errorf("%w: %w", objstore.ErrCorrupt, err)
	}
	switch errno {
	case syscall.ENOTDIR: // a component of the path is a file, so there is nothing below it
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case syscall.EISDIR, syscall.ENAMETOOLONG:
		return fmt.Errorf("%w: %w", fs.ErrInvalid, err)
	case syscall.EROFS:
		return fmt.Errorf("%w: %w", fs.ErrPermission, err)
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return fmt.Errorf("%w: %w", objstore.ErrNoSpace, err)
	case syscall.EUCLEAN, syscall.EBADMSG, syscall.ELOOP: // the filesystem's own checksums; a planted link
		return fmt.Errorf("%w: %w", objstore.ErrCorrupt, err)
	}
	return fmt.Errorf("%w: %w", objstore.ErrUnavailable, err)
}
