package dirstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"marfs/pkg/objstore"
)

// minRate is how slow a healthy filesystem may take bytes; it scales deadlines.
const minRate = 16 << 20 // bytes per second

// errStuck ends the context of an operation that took too long.
var errStuck = errors.New("filesystem did not answer in time")

// call is run on a directory that is not known to be lost.
func call[T any](ctx context.Context, s *Store, n int64, fn func(context.Context) (T, error), drop func(T)) (T, error) {
	return run(ctx, s, n, func(ctx context.Context) (v T, err error) {
		if err := s.lookSometimes(); err != nil {
			return v, err
		}
		return fn(ctx)
	}, drop)
}

// run runs fn on a goroutine and waits for it until ctx ends or the timeout
// (for an operation on n bytes) passes. fn's context ends then too, which fn
// should look at before it makes anything visible. The value of a call nobody
// waits for any more goes to drop, if that is set.
func run[T any](ctx context.Context, s *Store, n int64, fn func(context.Context) (T, error), drop func(T)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	limit := s.timeout + time.Duration(n/minRate)*time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errStuck)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return zero, gaveUp(ctx, limit)
	}

	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	var settled atomic.Bool // the second to set it knows that the other was first
	go func() {
		v, err := fn(ctx)
		done <- result{v, classify(err)}
		<-s.slots
		if settled.Swap(true) && err == nil && drop != nil {
			drop(v)
		}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		if settled.Swap(true) { // it ended in this very moment
			r := <-done
			return r.v, r.err
		}
		return zero, gaveUp(ctx, limit)
	}
}

// do is call for functions without a value.
func (s *Store) do(ctx context.Context, n int64, fn func(context.Context) error) error {
	_, err := call(ctx, s, n, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) }, nil)
	return err
}

func gaveUp(ctx context.Context, limit time.Duration) error {
	if errors.Is(context.Cause(ctx), errStuck) {
		return fmt.Errorf("%w: %w (%v)", objstore.ErrUnavailable, errStuck, limit)
	}
	return ctx.Err()
}
