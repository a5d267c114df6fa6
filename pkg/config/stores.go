package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"sync"
	"time"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/objstore/dirstore"
)

// connectDeadline bounds the opening of one store: a directory on a dead file
// server never answers.
const connectDeadline = 30 * time.Second

// String names a store in messages: a directory, or endpoint/bucket.
func (s Store) String() string {
	if s.S3 != nil {
		return strings.TrimSuffix(s.S3.Endpoint, "/") + "/" + s.S3.Bucket
	}
	return s.Dir
}

// connect opens a store. A directory that is not there is objstore.ErrUnavailable:
// its disk may be missing.
func (s Store) connect(ctx context.Context) (objstore.Store, error) {
	if s.S3 != nil {
		return s.S3.connect()
	}
	type result struct {
		st  *dirstore.Store
		err error
	}
	done := make(chan result, 1)
	go func() {
		st, err := dirstore.Open(s.Dir, dirstore.Options{})
		done <- result{st, err}
	}()
	ctx, cancel := context.WithTimeout(ctx, connectDeadline)
	defer cancel()
	select {
	case r := <-done:
		if errors.Is(r.err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: the directory is not there", objstore.ErrUnavailable)
		}
		if r.err != nil {
			return nil, r.err
		}
		return r.st, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %s did not answer in time", objstore.ErrUnavailable, s.Dir)
	}
}

// create makes the directory or bucket of a store if it is not there.
func (s Store) create(ctx context.Context) error {
	if s.S3 != nil {
		return s.S3.create(ctx)
	}
	return dirstore.Create(s.Dir)
}

// lateRetry is the least time between two attempts to reach a store that could
// not be reached at the start.
const lateRetry = 5 * time.Second

// late is a store that could not be reached at the start. Calls fail with
// objstore.ErrUnavailable until one of the candidates answers with the identity
// that belongs here; from then on it is that store.
type late struct {
	want       objfmt.StoreIdentity
	candidates []Store
	cause      error // why it was not there at the start

	mu    sync.Mutex // guards what follows; held while connecting
	store objstore.Store
	tried time.Time
}

var _ objstore.Store = (*late)(nil)

// get returns the store, or tries to reach it.
func (l *late) get(ctx context.Context) (objstore.Store, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store != nil || time.Since(l.tried) < lateRetry {
		return l.current()
	}
	for _, spec := range l.candidates {
		st, err := spec.connect(ctx)
		if err != nil {
			l.cause = err
			continue
		}
		id, err := readIdentity(ctx, st)
		if err == nil && id == l.want {
			l.store = st
			break
		}
		if err == nil {
			err = fmt.Errorf("%s: %w: it holds shard %d of repo %s, pod %s", spec, errForeign, id.Index, id.Repo, id.Pod)
		}
		l.cause = err
		closeStore(st)
	}
	l.tried = time.Now()
	return l.current()
}

func (l *late) current() (objstore.Store, error) {
	if l.store == nil {
		return nil, fmt.Errorf("%w: not reached since the start: %w", objstore.ErrUnavailable, l.cause)
	}
	return l.store, nil
}

// Close closes the store if it was reached.
func (l *late) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store == nil {
		return nil
	}
	return closeStore(l.store)
}

// closeStore closes a store that has something to close.
func closeStore(st objstore.Store) error {
	if c, ok := st.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Put implements objstore.Store.
func (l *late) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	st, err := l.get(ctx)
	if err != nil {
		return err
	}
	return st.Put(ctx, key, r, size)
}

// Get implements objstore.Store.
func (l *late) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	st, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return st.Get(ctx, key, off, n)
}

// Stat implements objstore.Store.
func (l *late) Stat(ctx context.Context, key string) (objstore.Info, error) {
	st, err := l.get(ctx)
	if err != nil {
		return objstore.Info{}, err
	}
	return st.Stat(ctx, key)
}

// Delete implements objstore.Store.
func (l *late) Delete(ctx context.Context, key string) error {
	st, err := l.get(ctx)
	if err != nil {
		return err
	}
	return st.Delete(ctx, key)
}

// List implements objstore.Store.
func (l *late) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		st, err := l.get(ctx)
		if err != nil {
			yield(objstore.Info{}, err)
			return
		}
		st.List(ctx, prefix, after)(yield)
	}
}
