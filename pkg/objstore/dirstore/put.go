package dirstore

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/objstore"
)

const (
	bufferSize = 256 << 10 // gathers small writes; larger ones pass by it
	flushEvery = 8 << 20   // bytes after which the disk is set to work
	maxSynced  = 1 << 16   // directories remembered
)

var buffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, bufferSize) }}

// PutMemory is the bytes that a Put under way holds.
const PutMemory = bufferSize

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := check(ctx, key); err != nil {
		return failed("put", key, err)
	}
	if err := s.put(ctx, key, r, size); err != nil {
		return failed("put", key, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, key string, r io.Reader, size int64) error {
	t, err := s.newTemp(ctx)
	if err != nil {
		return err
	}
	err = t.fill(r, size)
	if err == nil {
		err = s.do(ctx, t.written, func(ctx context.Context) error { return t.commit(ctx, key) })
	}
	if err != nil {
		t.discard()
	}
	return err
}

// temp is a file being written.
type temp struct {
	ctx     context.Context // of the Put
	s       *Store
	f       *os.File
	name    string
	written int64
	flushed int64 // bytes the kernel was told to write out
}

func (s *Store) newTemp(ctx context.Context) (*temp, error) {
	var id [16]byte
	rand.Read(id[:])
	t := &temp{ctx: ctx, s: s, name: path.Join(tempDir, hex.EncodeToString(id[:]))}
	var err error
	t.f, err = call(ctx, s, 0, func(context.Context) (*os.File, error) { return s.create(t.name) }, func(f *os.File) {
		f.Close()
		_ = s.root.Remove(t.name)
	})
	return t, vanished(err)
}

// create makes a temporary file, and locks it.
func (s *Store) create(name string) (*os.File, error) {
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.lookForMark(); err != nil {
			return nil, err
		}
		if err := s.root.Mkdir(tempDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		f, err = s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return nil, err
	}
	_, _ = lock(f) // nobody else knows the file; where there are no locks its age must do
	return f, nil
}

// fill copies r into the file. The buffer gathers small pieces and hands large
// ones through as they are.
func (t *temp) fill(r io.Reader, size int64) error {
	w := buffers.Get().(*bufio.Writer)
	w.Reset(t)
	n, err := io.Copy(w, r)
	if err == nil {
		err = w.Flush()
	}
	w.Reset(nil)
	buffers.Put(w)
	if err == nil && size >= 0 && n != size {
		err = fmt.Errorf("%w: reader gave %d bytes, not %d", fs.ErrInvalid, n, size)
	}
	return err
}

// Write appends p to the file. When it gives up on a stuck disk the kernel may
// still read p later, into a file that nobody will see.
func (t *temp) Write(p []byte) (int, error) {
	err := t.s.do(t.ctx, int64(len(p)), func(context.Context) error {
		if _, err := t.f.Write(p); err != nil {
			return err
		}
		return t.flush(t.written + int64(len(p)))
	})
	if err != nil {
		return 0, err
	}
	t.written += int64(len(p))
	return len(p), nil
}

// flush starts writing out what has gathered, so that the disk works while the
// object is still arriving and the sync at the end has little left to do.
func (t *temp) flush(end int64) error {
	if end-t.flushed < flushEvery {
		return nil
	}
	raw, err := t.f.SyscallConn()
	if err != nil {
		return err
	}
	from := t.flushed
	t.flushed = end
	return raw.Control(func(fd uintptr) {
		// Advice only: the sync at the end reports what goes wrong.
		_ = unix.SyncFileRange(int(fd), from, end-from, unix.SYNC_FILE_RANGE_WRITE)
	})
}

// commit makes the file durable, then visible under key, then durably so. It
// runs inside a call whose context ends when nobody waits for it any more.
func (t *temp) commit(ctx context.Context, key string) error {
	if err := errors.Join(t.f.Sync(), t.f.Close()); err != nil {
		return err
	}
	err := t.place(ctx, key)
	if errors.Is(err, fs.ErrNotExist) { // somebody removed a directory that was there
		if err := t.s.lookForMark(); err != nil {
			return err
		}
		t.s.forgetDirs()
		err = t.place(ctx, key)
	}
	if err == nil {
		err = t.s.look() // whether others see it, too
	}
	return vanished(err)
}

// place gives the file its name, durably.
func (t *temp) place(ctx context.Context, key string) error {
	dir := path.Dir(key)
	if err := t.s.makeDir(dir); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := t.s.root.Rename(t.name, key); err != nil {
		return misplaced(err)
	}
	return t.s.syncDir(dir)
}

// vanished is for a directory of the store that somebody removes under our
// hands: a Put must not say that its object does not exist.
func vanished(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", objstore.ErrUnavailable, err.Error())
	}
	return err
}

// misplaced is for a key that is a directory of others, or below one: not a
// missing object, but a call that cannot work.
func misplaced(err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", fs.ErrInvalid, err)
	}
	return err
}

// discard removes the file, also when the Put's context has ended; a commit that
// is stuck finds nothing to rename then. It does not wait long; what it cannot
// remove Clean will.
func (t *temp) discard() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), time.Second)
	defer cancel()
	_, _ = run(ctx, t.s, 0, func(context.Context) (struct{}, error) { // of a lost store, too
		return struct{}{}, errors.Join(t.f.Close(), t.s.root.Remove(t.name))
	}, nil)
}

// makeDir makes dir and those above it, and sees to it that their names are
// durable. A directory that exists already may be another process's, not synced
// yet, or a crashed one's: it counts only after a sync of ours.
func (s *Store) makeDir(dir string) error {
	if dir == "." || s.isSynced(dir) {
		return nil
	}
	parent := path.Dir(dir)
	if err := s.makeDir(parent); err != nil {
		return err
	}
	if err := s.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return misplaced(err)
	}
	if err := s.syncDir(parent); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.synced) >= maxSynced {
		clear(s.synced)
	}
	s.synced[dir] = struct{}{}
	return nil
}

func (s *Store) isSynced(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.synced[dir]
	return ok
}

func (s *Store) forgetDirs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.synced)
}

func (s *Store) syncDir(dir string) error {
	d, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
