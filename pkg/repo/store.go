package repo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"sync"
	"time"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
)

// Repo is itself a store; these calls find the layout by reading the shards. A
// Put that replaces an object is not atomic for readers, unlike a store's own, and
// of concurrent Puts of one key it may be that none survives; MarFS never reuses keys.
var _ objstore.Store = (*Repo)(nil)

// Put implements objstore.Store.
func (r *Repo) Put(ctx context.Context, key string, rd io.Reader, size int64) error {
	w, err := r.create(ctx, key, size)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := io.Copy(w, rd); err != nil {
		return fmt.Errorf("put %s in repo %s: %w", key, r.cfg.Name, err)
	}
	_, err = w.Close()
	return err
}

// Get implements objstore.Store.
func (r *Repo) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if off < 0 {
		return nil, fmt.Errorf("get %s from repo %s: %w: offset %d", key, r.cfg.Name, fs.ErrInvalid, off)
	}
	l, err := r.Find(ctx, key)
	if err != nil {
		return nil, err
	}
	off = min(off, l.Size)
	if n < 0 || n > l.Size-off {
		n = l.Size - off
	}
	src := &objectReader{ctx: ctx, repo: r, key: key, layout: l, off: off, end: off + n}
	return &bufferedReader{src, bufio.NewReaderSize(src, int(min(n, readBuffer)))}, nil
}

// readBuffer saves small reads of an object opened by Get from one GET each.
const readBuffer = 256 << 10

// bufferedReader keeps to the context even for what is buffered. It has no more methods
// of bufio.Reader: those would not, and its Peek is none of an objstore.Peeker's, which
// lends what there is at the end.
type bufferedReader struct {
	src *objectReader
	buf *bufio.Reader
}

func (b *bufferedReader) Read(p []byte) (int, error) {
	if err := b.src.check(); err != nil {
		return 0, err
	}
	return b.buf.Read(p)
}

func (b *bufferedReader) Close() error {
	b.src.closed = true
	return nil
}

// objectReader reads a range of an object in order.
type objectReader struct {
	ctx      context.Context
	repo     *Repo
	key      string
	layout   objfmt.Layout
	off, end int64
	closed   bool
}

func (o *objectReader) check() error {
	if o.closed {
		return fmt.Errorf("read %s: %w", o.key, fs.ErrClosed)
	}
	if err := o.ctx.Err(); err != nil {
		return fmt.Errorf("read %s from repo %s: %w", o.key, o.repo.cfg.Name, err)
	}
	return nil
}

func (o *objectReader) Read(p []byte) (int, error) {
	if err := o.check(); err != nil {
		return 0, err
	}
	if o.off == o.end {
		return 0, io.EOF
	}
	n, err := o.repo.ReadAt(o.ctx, o.key, o.layout, p[:min(int64(len(p)), o.end-o.off)], o.off)
	o.off += int64(n)
	return n, err
}

// Stat implements objstore.Store. The time is that of the shard stored last.
func (r *Repo) Stat(ctx context.Context, key string) (objstore.Info, error) {
	l, mod, err := r.find(ctx, key)
	if err != nil {
		return objstore.Info{}, err
	}
	return objstore.Info{Key: key, Size: l.Size, ModTime: mod}, nil
}

// Remove deletes every shard of an object, by its recorded layout. All stores are
// tried, but those that failed deletes lately; the error wraps what each of them said.
func (r *Repo) Remove(ctx context.Context, key string, l objfmt.Layout) error {
	stores, err := r.locate(key, l)
	if err != nil {
		return err
	}
	return r.deleteFrom(ctx, key, stores)
}

// within returns how call ended. When ctx ends it is left behind, and the cause is the error.
func within(ctx context.Context, call func() error) error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		if cause := context.Cause(ctx); err != nil && cause != nil {
			return cause
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Delete implements objstore.Store: what is under key in any store goes.
func (r *Repo) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	var stores []*store
	for _, p := range r.pods {
		stores = append(stores, p.stores...)
	}
	return r.deleteFrom(ctx, key, stores)
}

func (r *Repo) deleteFrom(ctx context.Context, key string, stores []*store) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.StallTimeout, errStalled)
	defer cancel()
	errs := make([]error, len(stores))
	var all sync.WaitGroup
	for i, s := range stores {
		all.Go(func() {
			if s.deletes.ask(time.Now()) == avoid {
				errs[i] = fmt.Errorf("store %s: %w", s.Name, errAvoided)
				return
			}
			err := within(ctx, func() error { return s.Delete(ctx, key) })
			s.deletes.report(err)
			if err != nil {
				errs[i] = fmt.Errorf("store %s: %w", s.Name, err)
			}
		})
	}
	all.Wait()
	if err := join(errs...); err != nil {
		return fmt.Errorf("delete %s from repo %s: %w", key, r.cfg.Name, err)
	}
	return nil
}

// List implements objstore.Store. It merges the listings of all stores, so it names
// also what a broken write or a delete left in a few of them; the size of such an
// object is -1 when no shard tells it. Listings of up to E stores of a pod may fail,
// but fewer than N, which may be all that have an object.
func (r *Repo) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		m := r.merge(ctx, prefix, after)
		defer m.stop()
		for {
			key, holders, err := m.next()
			if err != nil {
				yield(objstore.Info{}, fmt.Errorf("list %s in repo %s: %w", prefix, r.cfg.Name, err))
				return
			}
			if len(holders) == 0 {
				return
			}
			if key != objfmt.StoreIdentityKey && !yield(r.describe(ctx, key, holders), nil) {
				return
			}
		}
	}
}

// listing is one store's list, one object ahead.
type listing struct {
	pod   *pod
	store *store
	next  func() (objstore.Info, error, bool)
	stop  func()
	head  objstore.Info
	done  bool
}

// merger merges listings in order of keys.
type merger struct {
	repo   *Repo
	ctx    context.Context
	lists  []*listing
	failed map[*pod]causes
}

func (r *Repo) merge(ctx context.Context, prefix, after string) *merger {
	m := &merger{repo: r, ctx: ctx, failed: make(map[*pod]causes)}
	for _, p := range r.pods {
		for _, s := range p.stores {
			next, stop := iter.Pull2(s.List(ctx, prefix, after))
			l := &listing{pod: p, store: s, next: next, stop: stop}
			m.lists = append(m.lists, l)
			m.advance(l)
		}
	}
	return m
}

func (m *merger) stop() {
	for _, l := range m.lists {
		l.stop()
	}
}

// advance moves a listing to its next object.
func (m *merger) advance(l *listing) {
	info, err, ok := l.next()
	l.head, l.done = info, !ok || err != nil
	if ok && err != nil {
		m.failed[l.pod] = append(m.failed[l.pod], fmt.Errorf("store %s: %w", l.store.Name, err))
	}
}

// next returns the least key and who has it; nobody: the end.
func (m *merger) next() (key string, holders []listing, err error) {
	if err := m.ctx.Err(); err != nil {
		return "", nil, err
	}
	g := m.repo.cfg.Geometry
	for p, errs := range m.failed {
		if len(errs) > min(g.Parity, g.Data-1, len(p.stores)-1) {
			return "", nil, errs
		}
	}
	for _, l := range m.lists {
		if !l.done && (len(holders) == 0 || l.head.Key < key) {
			key, holders = l.head.Key, []listing{*l}
		} else if !l.done && l.head.Key == key {
			holders = append(holders, *l)
		}
	}
	for _, l := range m.lists {
		if !l.done && l.head.Key == key {
			m.advance(l)
		}
	}
	return key, holders, nil
}

// describe reads the size of an object from one of its footers, the newest that is good.
func (r *Repo) describe(ctx context.Context, key string, holders []listing) objstore.Info {
	slices.SortStableFunc(holders, func(a, b listing) int { return b.head.ModTime.Compare(a.head.ModTime) })
	info := objstore.Info{Key: key, Size: -1, ModTime: holders[0].head.ModTime}
	for _, h := range holders {
		if f, err := readFooter(ctx, h.store, key, h.head.Size); err == nil {
			info.Size = f.Size
			break
		}
	}
	return info
}
