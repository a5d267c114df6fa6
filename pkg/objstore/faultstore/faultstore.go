// Package faultstore makes a store fail on purpose, for tests.
//
//	s := faultstore.New(memstore.New())
//	s.Inject(faultstore.Fault{Op: faultstore.Get, Key: "ns/7f/*", Skip: 2, Count: 1, Do: faultstore.Flip(100)})
//
// lets two Gets pass and damages the third.
package faultstore

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"sync"
	"time"

	"marfs/pkg/objstore"
)

// Op is a set of operations.
type Op uint

// The operations of a store.
const (
	Put Op = 1 << iota
	Get
	Stat
	Delete
	List
	Any Op = 0
)

// Fault says which calls fail, and how.
type Fault struct {
	Op    Op     // Any: all
	Key   string // a path.Match pattern; "": all. Of List it is the prefix
	Skip  int    // calls that pass before the first to fail
	Count int    // calls that fail; 0: all
	Do    Action
}

// Action is what happens to a call.
type Action struct {
	err   error         // instead of the call
	delay time.Duration // before the call
	hang  bool          // until the context ends
	drop  bool          // success, without the call
	body  func(io.Reader) io.Reader
}

// Fail answers with err instead of doing anything.
func Fail(err error) Action { return Action{err: err} }

// Unavailable fails as a store with a server error does.
func Unavailable() Action { return Fail(fmt.Errorf("%w: injected", objstore.ErrUnavailable)) }

// NoSpace fails as a full store does.
func NoSpace() Action { return Fail(fmt.Errorf("%w: injected", objstore.ErrNoSpace)) }

// Lose behaves as if the object did not exist.
func Lose() Action { return Fail(fmt.Errorf("injected: %w", fs.ErrNotExist)) }

// Delay waits before doing the call.
func Delay(d time.Duration) Action { return Action{delay: d} }

// Hang waits until the call's context ends.
func Hang() Action { return Action{hang: true} }

// Drop acknowledges a Put or Delete and does nothing.
func Drop() Action { return Action{drop: true} }

// Flip changes a bit of byte off of what is stored (Put) or delivered (Get; off
// counts from the start of the range).
func Flip(off int64) Action {
	return Action{body: func(r io.Reader) io.Reader { return &flipped{r: r, at: off} }}
}

// Truncate stores or delivers n bytes only, and calls that the whole.
func Truncate(n int64) Action {
	return Action{body: func(r io.Reader) io.Reader { return io.LimitReader(r, n) }}
}

// Reset breaks a body off after n bytes, as a lost connection does.
func Reset(n int64) Action {
	return Action{body: func(r io.Reader) io.Reader {
		return io.MultiReader(io.LimitReader(r, n), broken{})
	}}
}

// HangAfter delivers n bytes of a body and then nothing until the context ends.
func HangAfter(n int64) Action { return Action{hang: true, body: Truncate(n).body} }

// Store is a store with faults.
type Store struct {
	inner objstore.Store

	mu     sync.Mutex // guards what follows
	faults []*Fault
	calls  map[Op]int
}

var _ objstore.Store = (*Store)(nil)

// New returns inner, without faults for now.
func New(inner objstore.Store) *Store {
	return &Store{inner: inner, calls: make(map[Op]int)}
}

// Inject adds a fault. Of several for one call the first added that is not used
// up takes effect. The function returned removes it.
func (s *Store) Inject(f Fault) (remove func()) {
	if _, err := path.Match(f.Key, ""); err != nil {
		panic(err) // a mistake in the test
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Count == 0 {
		f.Count = int(^uint(0) >> 1)
	}
	s.faults = append(s.faults, &f)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		f.Count = 0
	}
}

// Heal removes all faults.
func (s *Store) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Calls returns how many calls of the operations there were, failed ones included.
func (s *Store) Calls(op Op) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for o, count := range s.calls {
		if op == Any || o&op != 0 {
			n += count
		}
	}
	return n
}

// action counts a call and returns what shall happen to it.
func (s *Store) action(op Op, key string) Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[op]++
	for _, f := range s.faults {
		if f.Count == 0 || (f.Op != Any && f.Op&op == 0) {
			continue
		}
		if ok, _ := path.Match(f.Key, key); !ok && f.Key != "" {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		f.Count--
		return f.Do
	}
	return Action{}
}

// before does what comes before the call; an error means to stop there.
func (a Action) before(ctx context.Context) error {
	switch {
	case a.hang && a.body == nil:
		<-ctx.Done()
		return ctx.Err()
	case a.delay > 0:
		timer := time.NewTimer(a.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return a.err
}

// wrap applies the action to a body.
func (a Action) wrap(ctx context.Context, r io.Reader) io.Reader {
	r = a.body(r)
	if a.hang {
		r = io.MultiReader(r, hanging{ctx})
	}
	return r
}

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	a := s.action(Put, key)
	if err := a.before(ctx); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	if a.drop {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	if a.body == nil {
		return s.inner.Put(ctx, key, r, size)
	}
	if err := s.inner.Put(ctx, key, a.wrap(ctx, r), -1); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, r) // what was cut off
	return err
}

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	a := s.action(Get, key)
	if err := a.before(ctx); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	r, err := s.inner.Get(ctx, key, off, n)
	if err != nil || a.body == nil {
		return r, err
	}
	return struct {
		io.Reader
		io.Closer
	}{a.wrap(ctx, r), r}, nil
}

// Stat implements objstore.Store.
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := s.action(Stat, key).before(ctx); err != nil {
		return objstore.Info{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return s.inner.Stat(ctx, key)
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	a := s.action(Delete, key)
	if err := a.before(ctx); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	if a.drop {
		return nil
	}
	return s.inner.Delete(ctx, key)
}

// List implements objstore.Store.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		if err := s.action(List, prefix).before(ctx); err != nil {
			yield(objstore.Info{}, fmt.Errorf("list %s: %w", prefix, err))
			return
		}
		s.inner.List(ctx, prefix, after)(yield)
	}
}

// flipped changes a bit of one byte.
type flipped struct {
	r  io.Reader
	at int64 // bytes until then
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if f.at >= 0 && f.at < int64(n) {
		p[f.at] ^= 0x10
	}
	f.at -= int64(n)
	return n, err
}

type broken struct{}

func (broken) Read([]byte) (int, error) {
	return 0, fmt.Errorf("%w: connection reset (injected)", objstore.ErrUnavailable)
}

type hanging struct{ ctx context.Context }

func (h hanging) Read([]byte) (int, error) {
	<-h.ctx.Done()
	return 0, h.ctx.Err()
}
