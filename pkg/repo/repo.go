// Package repo makes N+E stores look like one: it encodes objects into shards,
// spreads them over the stores of a pod, and reads around missing, corrupt,
// stale and slow ones.
package repo

import (
	"context"
	"io"
	"iter"
	"time"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
)

// Pod is one placement group: a store for each shard.
type Pod struct {
	Name   string
	Weight int // relative share of new objects; 0: none
	Stores []Store
}

// Store is an object store with a name for messages, status and stat (a
// directory, or endpoint/bucket).
type Store struct {
	objstore.Store
	Name string
}

// Config of a repo; pkg/config makes it from the YAML.
type Config struct {
	Name     string
	Geometry objfmt.Geometry // of new objects
	MinWrite int             // shards that must be durable
	Pods     []Pod
	// Damaged is told of shards found missing, bad or stale, and of shards a
	// write left out. It must not block for long.
	Damaged func(key string, l objfmt.Layout, shards []int, why error)
	// Memory bounds the bytes of all encode and decode buffers of the repo. 0: 256 MiB.
	Memory int64
	// StallTimeout is how long a shard may make no progress before it is given up. 0: 30s.
	StallTimeout time.Duration
	// HedgeAfter is how long a shard read may take before parity is read beside it. 0: adaptive.
	HedgeAfter time.Duration
}

// Repo is a set of pods.
type Repo struct{ cfg Config }

// New checks cfg. It does not touch the stores.
func New(cfg Config) (*Repo, error) { panic("todo") }

// Create starts a new object of unknown length. The layout is final when Close
// returns; the write is durable then, on at least MinWrite stores.
func (r *Repo) Create(ctx context.Context, key string) (*Writer, error) { panic("todo") }

// Writer encodes and uploads one object as it is written.
type Writer struct{}

// Write copies p into the stripe being filled; it blocks while the stores are
// slower than the caller. A failed shard is no error while a quorum remains.
func (w *Writer) Write(p []byte) (int, error) { panic("todo") }

// Close ends the object and waits until it is durable.
func (w *Writer) Close() (objfmt.Layout, error) { panic("todo") }

// Abort gives the object up and removes what was written of it.
func (w *Writer) Abort() { panic("todo") }

// ReadAt fills p from off of an object, reading only the blocks that hold the
// range and verifying each of them. Like io.ReaderAt it returns io.EOF at the end.
func (r *Repo) ReadAt(ctx context.Context, key string, l objfmt.Layout, p []byte, off int64) (int, error) {
	panic("todo")
}

// Remove deletes every shard of an object, by its recorded layout.
func (r *Repo) Remove(ctx context.Context, key string, l objfmt.Layout) error { panic("todo") }

// ShardState says how a shard is.
type ShardState string

// The states of a shard.
const (
	ShardOK          ShardState = "ok"
	ShardMissing     ShardState = "missing"
	ShardCorrupt     ShardState = "corrupt"
	ShardStale       ShardState = "stale" // of another write
	ShardUnavailable ShardState = "unavailable"
)

// Shard is one shard of an object: where it belongs and how it is.
type Shard struct {
	Index int
	Store string
	Size  int64 // bytes stored, header and footer included
	State ShardState
	Err   error
}

// Inspect looks at every shard's presence, size, header and footer (cheap), or
// at every byte when deep.
func (r *Repo) Inspect(ctx context.Context, key string, l objfmt.Layout, deep bool) ([]Shard, error) {
	panic("todo")
}

// Rebuild recreates the shards that Inspect(deep) finds missing, bad or stale,
// and returns how every shard is afterwards.
func (r *Repo) Rebuild(ctx context.Context, key string, l objfmt.Layout) ([]Shard, error) {
	panic("todo")
}

// Find reads the layout of an object back from its shards.
func (r *Repo) Find(ctx context.Context, key string) (objfmt.Layout, error) { panic("todo") }

// Repo is itself a store; these calls find the layout by reading the shards.
var _ objstore.Store = (*Repo)(nil)

func (r *Repo) Put(ctx context.Context, key string, rd io.Reader, size int64) error { panic("todo") }
func (r *Repo) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	panic("todo")
}
func (r *Repo) Stat(ctx context.Context, key string) (objstore.Info, error) { panic("todo") }
func (r *Repo) Delete(ctx context.Context, key string) error                { panic("todo") }
func (r *Repo) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	panic("todo")
}
