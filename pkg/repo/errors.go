package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"marfs/pkg/objstore"
)

// ErrQuorum is a write that too few stores took, or an object of which too few
// good shards can be read. What each store said is wrapped with it.
var ErrQuorum = errors.New("too few shards")

var (
	errAvoided = fmt.Errorf("%w: failed lately, not asked", objstore.ErrUnavailable)
	errShort   = fmt.Errorf("%w: object shorter or longer than announced", fs.ErrInvalid)
	errStalled = fmt.Errorf("%w: no progress", objstore.ErrUnavailable)
)

// causes is several errors on one line.
type causes []error

func (c causes) Error() string {
	var b strings.Builder
	for i, err := range c {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

func (c causes) Unwrap() []error { return c }

// join returns nil when every error is.
func join(errs ...error) error {
	var c causes
	for _, err := range errs {
		if err != nil {
			c = append(c, err)
		}
	}
	if len(c) == 0 {
		return nil
	}
	return c
}

// shardState says what an error of reading a shard tells about the shard.
func shardState(err error) ShardState {
	switch {
	case err == nil:
		return ShardOK
	case errors.Is(err, errStale):
		return ShardStale
	case errors.Is(err, fs.ErrNotExist):
		return ShardMissing
	case errors.Is(err, objstore.ErrCorrupt):
		return ShardCorrupt
	default:
		return ShardUnavailable
	}
}

// damaged reports whether the shard must be rebuilt; one whose store is away need not.
func (s ShardState) damaged() bool {
	return s == ShardMissing || s == ShardCorrupt || s == ShardStale
}

// truncated turns the end of a shard where there should be more into corruption.
func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: shard is too short", objstore.ErrCorrupt)
	}
	return err
}

// blames reports whether the store, not the object or the caller, is to blame for err.
func blames(err error) bool {
	return err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, fs.ErrInvalid) &&
		shardState(err) == ShardUnavailable
}
