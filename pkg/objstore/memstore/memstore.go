// Package memstore keeps objects in memory: for tests.
package memstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"marfs/pkg/objstore"
)

// Store is an objstore.Store in memory. The zero value is an empty store
// without a limit.
type Store struct {
	// Max bounds the bytes stored; 0: no bound. Put returns ErrNoSpace beyond it.
	Max int64

	mu      sync.RWMutex // guards what follows
	objects map[string]object
	used    int64
}

type object struct {
	data []byte // never changed once stored
	mod  time.Time
}

var _ objstore.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store { return &Store{} }

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := s.check(ctx, key); err != nil {
		return err
	}
	var buf bytes.Buffer
	n, err := io.Copy(&writer{ctx, &buf}, r)
	switch {
	case err != nil:
		return fmt.Errorf("put %s: read: %w", key, err)
	case size >= 0 && n != size:
		return fmt.Errorf("put %s: %w: reader gave %d bytes, not %d", key, fs.ErrInvalid, n, size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	used := s.used - int64(len(s.objects[key].data)) + n
	if s.Max > 0 && used > s.Max {
		return fmt.Errorf("put %s: %w: more than %d bytes", key, objstore.ErrNoSpace, s.Max)
	}
	if s.objects == nil {
		s.objects = make(map[string]object)
	}
	s.used = used
	s.objects[key] = object{buf.Bytes(), time.Now()}
	return nil
}

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if off < 0 {
		return nil, fmt.Errorf("get %s: %w: offset %d", key, fs.ErrInvalid, off)
	}
	o, err := s.lookup(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	data := o.data[min(off, int64(len(o.data))):]
	if n >= 0 {
		data = data[:min(n, int64(len(data)))]
	}
	return &reader{ctx: ctx, Reader: bytes.NewReader(data)}, nil
}

// Stat implements objstore.Store.
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	o, err := s.lookup(ctx, "stat", key)
	if err != nil {
		return objstore.Info{}, err
	}
	return objstore.Info{Key: key, Size: int64(len(o.data)), ModTime: o.mod}, nil
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.check(ctx, key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= int64(len(s.objects[key].data))
	delete(s.objects, key)
	return nil
}

// List implements objstore.Store.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for _, info := range s.infos(prefix, after) {
			if err := ctx.Err(); err != nil {
				yield(objstore.Info{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			if !yield(info, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(objstore.Info{}, fmt.Errorf("list %s: %w", prefix, err))
		}
	}
}

// Corrupt lets change edit a copy of the object's bytes, and stores what it returns.
func (s *Store) Corrupt(key string, change func(data []byte) []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return fmt.Errorf("corrupt %s: %w", key, fs.ErrNotExist)
	}
	was := int64(len(o.data))
	o.data = change(slices.Clone(o.data))
	s.used += int64(len(o.data)) - was
	s.objects[key] = o
	return nil
}

func (s *Store) infos(prefix, after string) []objstore.Info {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var infos []objstore.Info
	for key, o := range s.objects {
		if strings.HasPrefix(key, prefix) && key > after {
			infos = append(infos, objstore.Info{Key: key, Size: int64(len(o.data)), ModTime: o.mod})
		}
	}
	slices.SortFunc(infos, func(a, b objstore.Info) int { return strings.Compare(a.Key, b.Key) })
	return infos
}

func (s *Store) lookup(ctx context.Context, op, key string) (object, error) {
	if err := s.check(ctx, key); err != nil {
		return object{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.objects[key]
	if !ok {
		return object{}, fmt.Errorf("%s %s: %w", op, key, fs.ErrNotExist)
	}
	return o, nil
}

func (s *Store) check(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return objstore.CheckKey(key)
}

// writer fills a buffer until its context ends.
type writer struct {
	ctx context.Context
	buf *bytes.Buffer
}

func (w *writer) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.buf.Write(p)
}

// reader is a bytes.Reader (so an io.WriterTo too) that ends with its context.
type reader struct {
	ctx context.Context
	*bytes.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func (r *reader) Close() error { return nil }
