package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/objstore/dirstore"
)

// connectDeadline bounds the opening of one store and the reading of its
// identity: a directory on a dead file server never answers.
const connectDeadline = 15 * time.Second

// errNoDirectory is a store whose directory is not there: a disk that is gone, or
// was never made.
var errNoDirectory = fmt.Errorf("%w: the directory is not there", objstore.ErrUnavailable)

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
	st, err := patiently(ctx, func() (*dirstore.Store, error) {
		return dirstore.Open(s.Dir, dirstore.Options{Mark: objfmt.StoreIdentityKey})
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errNoDirectory
	case err != nil:
		return nil, err
	}
	return st, nil
}

// putMemory is the most bytes that the store holds for one object being written.
func (s Store) putMemory() int64 {
	if s.S3 != nil {
		return s.S3.config().PutMemory()
	}
	return dirstore.PutMemory
}

// patiently runs fn, which may be stuck in the kernel for ever, and waits for it
// until ctx or the deadline ends.
func patiently[T any](ctx context.Context, fn func() (T, error)) (v T, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectDeadline)
	defer cancel()
	done := make(chan struct{})
	var got T
	var failed error
	go func() {
		got, failed = fn()
		close(done)
	}()
	select {
	case <-done:
		return got, failed
	case <-ctx.Done():
		return v, fmt.Errorf("%w: no answer in time: %w", objstore.ErrUnavailable, ctx.Err())
	}
}

// create makes the directory or bucket of a store if it is not there.
func (s Store) create(ctx context.Context) error {
	if s.S3 != nil {
		return s.S3.create(ctx)
	}
	return dirstore.Create(s.Dir)
}

// candidate is a store of the configuration that may be one that is missing. The
// late stores of a pod share them.
type candidate struct {
	spec Store
	open func(ctx context.Context) (objstore.Store, objfmt.StoreIdentity, error) // may never return
	turn chan struct{}                                                           // holds an element while an attempt lasts
}

func newCandidate(spec Store) *candidate {
	return &candidate{spec: spec, open: spec.probe, turn: make(chan struct{}, 1)}
}

// take returns the store if its identity is want. An attempt that is stuck in the
// kernel is left behind and keeps others from starting, so there is never more than
// one: each holds a thread.
func (c *candidate) take(ctx context.Context, want objfmt.StoreIdentity) (objstore.Store, error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: no answer since an earlier attempt", objstore.ErrUnavailable)
	}
	return patiently(ctx, func() (objstore.Store, error) {
		defer func() { <-c.turn }()
		st, id, err := c.open(ctx)
		switch {
		case err != nil:
			return nil, err
		case id != want:
			err = fmt.Errorf("%s: %w: it holds shard %d of repo %s, pod %s", c.spec, errForeign, id.Index, id.Repo, id.Pod)
		case ctx.Err() != nil: // nobody waits for it any more
			err = ctx.Err()
		default:
			return st, nil
		}
		return nil, errors.Join(err, closeStore(st))
	})
}

// probe opens a store and reads its identity.
func (s Store) probe(ctx context.Context) (objstore.Store, objfmt.StoreIdentity, error) {
	if s.S3 == nil {
		s.awaitAnswer()
	}
	st, err := s.connect(ctx)
	if err != nil {
		return nil, objfmt.StoreIdentity{}, err
	}
	id, err := readIdentity(ctx, st)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: %w", s, errNoIdentity)
		}
		_ = closeStore(st) // nothing was written
		return nil, id, err
	}
	return st, id, nil
}

// awaitAnswer returns when the directory has answered, be it with an error: never
// on a dead server, where what a store leaves behind could not be told from here.
func (s Store) awaitAnswer() {
	root, err := os.OpenRoot(s.Dir)
	if err != nil {
		return
	}
	defer root.Close()
	f, err := root.OpenFile(objfmt.StoreIdentityKey, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.Read(make([]byte, 1))
}

// lateRetry is the least time between two attempts to reach a store that is away.
const lateRetry = 5 * time.Second

// late is a store that may come late, or go and come again. Calls fail with
// objstore.ErrUnavailable while it is away; once one of the candidates answers with
// the identity that belongs here, it is that store. It goes when its directory is
// lost (see package dirstore): a disk was replaced.
type late struct {
	want       objfmt.StoreIdentity
	candidates []*candidate
	log        *slog.Logger

	store  atomic.Pointer[reached]
	mu     sync.Mutex         // guards what follows
	stop   context.CancelFunc // ends the attempt under way; nil: none is
	cause  error              // why there is no store
	tried  time.Time
	closed bool
}

// reached is a store behind an interface, for an atomic pointer.
type reached struct {
	objstore.Store
	name string
}

var (
	_ objstore.Store   = (*late)(nil)
	_ objstore.Cleaner = (*late)(nil)
)

// lost returns why the store can never be used again, or nil.
func (r *reached) lost() error {
	if s, ok := r.Store.(*dirstore.Store); ok {
		return s.Lost()
	}
	return nil
}

// get returns the store, or tries to reach it. Only one caller waits for an
// attempt, once in a while; and when it leaves, the attempt goes on: calls are
// cancelled as soon as other shards have answered.
func (l *late) get(ctx context.Context) (objstore.Store, error) {
	if st := l.store.Load(); st != nil && st.lost() == nil {
		return st.Store, nil
	}
	select {
	case <-l.attempt(ctx):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if st := l.store.Load(); st != nil {
		return st.Store, nil
	}
	// Not %w: what is wrong with the store, such as that its identity does not
	// exist, is not what is wrong with the object of the call.
	return nil, fmt.Errorf("%w: %s", objstore.ErrUnavailable, l.cause.Error())
}

// attempt starts one if it is time, and returns what is closed at its end.
func (l *late) attempt(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.letGo()
	if l.closed || l.stop != nil || l.store.Load() != nil || time.Since(l.tried) < lateRetry {
		close(done)
		return done
	}
	ctx, l.stop = context.WithTimeout(context.WithoutCancel(ctx), connectDeadline)
	go func() {
		defer close(done)
		l.settle(l.try(ctx))
	}()
	return done
}

// settle ends an attempt.
func (l *late) settle(st *reached, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
	l.stop, l.tried = nil, time.Now()
	switch {
	case err != nil:
		l.cause = err
	case l.closed:
		_ = closeStore(st.Store) // nothing was written
	default:
		l.store.Store(st)
		l.log.Info("store taken into use", "store", st.name)
	}
}

// letGo forgets a store that is lost.
func (l *late) letGo() {
	st := l.store.Load()
	if st == nil || st.lost() == nil {
		return
	}
	l.cause = st.lost()
	l.log.Warn("store is not used any more", "error", l.cause,
		"hint", "mount it; if a disk was replaced, run marfsctl init --replace STORE: it is used again when it has its identity")
	l.store.Store(nil)
	_ = closeStore(st.Store)
}

// try looks for the store among the candidates, all at the same time: one that does
// not answer must not hide the others.
func (l *late) try(ctx context.Context) (found *reached, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // guards what is returned
	var all sync.WaitGroup
	for _, c := range l.candidates {
		all.Go(func() {
			st, why := c.take(ctx, l.want)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case why != nil:
				err = why
			case found != nil:
				_ = closeStore(st) // a copy
			default:
				found = &reached{st, c.spec.String()}
				cancel()
			}
		})
	}
	all.Wait()
	if found != nil {
		return found, nil
	}
	return nil, err
}

// Close closes the store if it was reached.
func (l *late) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.stop != nil {
		l.stop()
	}
	if st := l.store.Load(); st != nil {
		return closeStore(st.Store)
	}
	return nil
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

// Clean implements objstore.Cleaner. A store that is away is cleaned another time.
func (l *late) Clean(ctx context.Context, olderThan time.Duration) (int, error) {
	st, err := l.get(ctx)
	if err != nil {
		return 0, nil
	}
	if c, ok := st.(objstore.Cleaner); ok {
		return c.Clean(ctx, olderThan)
	}
	return 0, nil
}
