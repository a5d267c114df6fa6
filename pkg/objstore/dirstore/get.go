package dirstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"sync"
	"syscall"

	"marfs/pkg/objstore"
)

// chunkSize is how much of a file is read at once: enough to make the price of
// a bounded call (two microseconds) small, and little enough to stay in the
// processor's cache until it is copied on.
const chunkSize = 1 << 20

// shortRange is read together with opening the file, in the same bounded call.
const shortRange = 64 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	err := check(ctx, key)
	if err == nil && off < 0 {
		err = fmt.Errorf("%w: offset %d", fs.ErrInvalid, off)
	}
	if err != nil {
		return nil, failed("get", key, err)
	}
	if n < 0 {
		n = math.MaxInt64
	}
	r, err := call(ctx, s, 0, func(context.Context) (*reader, error) { return s.reader(key, off, n) },
		func(r *reader) { _ = r.Close() })
	if err != nil {
		return nil, failed("get", key, err)
	}
	r.ctx = ctx
	return r, nil
}

// reader opens a range of an object, and reads it if it is short.
func (s *Store) reader(key string, off, n int64) (*reader, error) {
	f, size, err := s.open(key)
	if err != nil {
		return nil, err
	}
	r := &reader{s: s, key: key, f: f, off: off, left: min(n, max(size-off, 0))}
	if r.left > shortRange {
		return r, nil
	}
	r.chunk = make([]byte, r.left)
	err = readAt(f, r.chunk, off)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	r.f, r.left = nil, 0
	return r, nil
}

// open opens an object's file. O_NONBLOCK: a planted fifo must not hold us.
func (s *Store) open(key string) (*os.File, int64, error) {
	f, err := s.root.OpenFile(key, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil {
		err = regular(fi)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

// reader reads a file in chunks of its own: a stuck read may fill its buffer
// long after the caller took back the one it gave to Read.
type reader struct {
	ctx  context.Context
	s    *Store
	key  string
	f    *os.File // nil: closed
	off  int64
	left int64 // bytes of the range not yet read from f

	buf   *[chunkSize]byte // nil: none yet, or given up to a stuck read
	chunk []byte           // read, not yet delivered
	err   error            // sticky
}

var (
	_ io.WriterTo     = (*reader)(nil)
	_ objstore.Peeker = (*reader)(nil)
)

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.chunk) == 0 {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

// Peek implements objstore.Peeker.
func (r *reader) Peek(n int) ([]byte, error) {
	if len(r.chunk) == 0 {
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
	return r.chunk[:min(n, len(r.chunk))], nil
}

// Discard implements objstore.Peeker: n are bytes that Peek has returned.
func (r *reader) Discard(n int) (int, error) {
	n = min(n, len(r.chunk))
	r.chunk = r.chunk[n:]
	return n, nil
}

// WriteTo hands the chunks over without another copy.
func (r *reader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if len(r.chunk) == 0 {
			err := r.fill()
			if errors.Is(err, io.EOF) {
				return total, nil
			}
			if err != nil {
				return total, err
			}
		}
		n, err := w.Write(r.chunk)
		total += int64(n)
		r.chunk = r.chunk[n:]
		if err != nil {
			return total, err
		}
	}
}

// fill reads the next chunk; io.EOF at the end of the range.
func (r *reader) fill() error {
	if r.err != nil {
		return r.err
	}
	if r.left == 0 {
		return io.EOF
	}
	if r.buf == nil {
		r.buf = chunks.Get().(*[chunkSize]byte)
	}
	n := min(r.left, chunkSize)
	f, buf, off := r.f, r.buf[:n], r.off // not r's: the call may outlive Close
	err := r.s.do(r.ctx, n, func(context.Context) error { return readAt(f, buf, off) })
	if err != nil {
		r.buf = nil // the read may be stuck, and write to it later
		r.err = failed("read", r.key, err)
		return r.err
	}
	r.chunk = buf
	r.off += n
	r.left -= n
	return nil
}

// readAt fills buf. A file that got shorter, and an error of the medium, are
// damage to this object; other errors are the filesystem's.
func readAt(f *os.File, buf []byte, off int64) error {
	n, err := f.ReadAt(buf, off)
	if n == len(buf) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EIO) {
		return fmt.Errorf("%w: %d of %d bytes at %d: %w", objstore.ErrCorrupt, n, len(buf), off, err)
	}
	return err
}

func (r *reader) Close() error {
	var err error
	if r.f != nil {
		err = r.f.Close()
	}
	if r.buf != nil {
		chunks.Put(r.buf)
	}
	r.f, r.buf, r.chunk = nil, nil, nil
	r.err = failed("read", r.key, fs.ErrClosed)
	if err != nil {
		return failed("close", r.key, classify(err))
	}
	return nil
}
