// Package repo makes N+E stores look like one: it encodes objects into shards,
// spreads them over the stores of a pod, and reads around missing, corrupt,
// stale and slow ones.
//
// Writing: a [Writer] copies bytes once, into a stripe that is held as the shards
// store it; full stripes are encoded and go, by reference, through short queues to
// one upload per shard. Reading: one ranged GET per data shard that holds part of the
// range; each cell is verified by a checksum that only this cell of this write has;
// parity is read when a shard is missing, bad, or late.
//
// # Memory
//
// All buffers come out of Config.Memory: half for writers, the rest for reads, which
// hold theirs only within a call. A writer takes nothing until it is written to, then
// what the smallest stripes need (40 KiB for 4+2), and can go on from there whatever
// others do. It takes more while there is ample memory, up to the configured block
// size and a few stripes ahead; if there is not, it uses smaller blocks for this
// object. A quarter of the memory is for smallest stripes alone: 1600 more writers
// of 4+2 with 256 MiB. Beyond that the first Write waits, StallTimeout at most, and
// then fails with ErrUnavailable: no number of open writers is a deadlock.
//
// # Stores that fail
//
// A store that fails several times in a row is avoided for a while and then probed;
// by reads, writes and deletes each for itself, so that a full store can be read, and
// freed. A call to a store that hangs and ignores its context is left behind, with its
// buffers still counted; it never touches memory of a caller. That is why reads copy
// cells out of a buffer of their own rather than read into the caller's directly.
package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
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
	MinWrite int             // shards that must be durable. 0: N+E-1 when E >= 2, else N+E
	Pods     []Pod
	// Damaged is told of shards that a read finds missing, bad or stale. It must not
	// block; what it forgets another read finds again.
	Damaged func(key string, l objfmt.Layout, shards []int, why error)
	// LeftOut is told of shards that a write could not store, before the write
	// succeeds; if it fails so does the write. It must make a durable note: reads ask
	// for parity only when something else is bad. nil: Damaged is told.
	LeftOut func(ctx context.Context, key string, l objfmt.Layout, shards []int, why error) error
	// Memory bounds the bytes of all encode and decode buffers of the repo. 0: 256 MiB.
	Memory int64
	// StallTimeout is how long a shard may make no progress before it is given up. 0: 30s.
	// Once it has all of a shard, a store gets a second more for each MiB.
	StallTimeout time.Duration
	// HedgeAfter is how long a shard read may take before parity is read beside it. 0: adaptive.
	HedgeAfter time.Duration
}

// Repo is a set of pods. Safe for concurrent use.
type Repo struct {
	cfg  Config
	pods map[string]*pod

	writes  *budget // stripes and heads of writers
	reads   *budget // a few cells for each read
	repairs *budget // rows of cells for reads that reconstruct; never waited for with another one held but reads

	stripes  sync.Pool // *stripe of the configured geometry
	cells    sync.Pool // *[]byte of a cell and its checksum
	latency  latency
	reported recent
	picking  sync.Mutex // held while a write takes the probes of a pod: all or none
}

type pod struct {
	Pod
	stores []*store
}

type store struct {
	Store
	reads, writes, deletes health // of such calls: what fails for one need not for others
}

// New checks cfg. It does not touch the stores.
func New(cfg Config) (*Repo, error) {
	if err := cfg.fill(); err != nil {
		return nil, fmt.Errorf("repo %s: %w", cfg.Name, err)
	}
	r := &Repo{
		cfg:     cfg,
		pods:    make(map[string]*pod),
		writes:  newBudget("a writer of repo "+cfg.Name, cfg.Memory/2, cfg.StallTimeout),
		reads:   newBudget("a read of repo "+cfg.Name, cfg.Memory/4, cfg.StallTimeout),
		repairs: newBudget("a repairing read of repo "+cfg.Name, cfg.Memory/4, cfg.StallTimeout),
		latency: latency{fixed: cfg.HedgeAfter, credit: maxCredit},
	}
	for _, p := range cfg.Pods {
		if err := r.addPod(p); err != nil {
			return nil, fmt.Errorf("repo %s: pod %s: %w", cfg.Name, p.Name, err)
		}
	}
	return r, nil
}

// fill sets defaults and refuses what cannot work.
func (c *Config) fill() error {
	g := c.Geometry
	if err := g.Validate(); err != nil {
		return err
	}
	if c.MinWrite == 0 {
		c.MinWrite = DefaultMinWrite(g)
	}
	if c.MinWrite < g.Data || c.MinWrite > g.Shards() {
		return fmt.Errorf("min_write %d: want %d to %d for %d+%d", c.MinWrite, g.Data, g.Shards(), g.Data, g.Parity)
	}
	if c.Memory == 0 {
		c.Memory = 256 << 20
	}
	if least := leastMemory(g); c.Memory < least {
		return fmt.Errorf("memory of %d bytes: %d+%d needs %d at least", c.Memory, g.Data, g.Parity, least)
	}
	if c.StallTimeout == 0 {
		c.StallTimeout = 30 * time.Second
	}
	if len(c.Pods) == 0 {
		return errors.New("no pods")
	}
	return nil
}

// DefaultMinWrite is Config.MinWrite when nothing is said: with two or more parity
// shards one store may be down without stopping writers, and redundancy is still left.
func DefaultMinWrite(g objfmt.Geometry) int {
	if g.Parity >= 2 {
		return g.Shards() - 1
	}
	return g.Shards()
}

// LeastMemory is what one writer, one read and one repair of it need.
func LeastMemory(g objfmt.Geometry) int64 { return leastMemory(g) }

func leastMemory(g objfmt.Geometry) int64 {
	return max(2*ladder(g)[0].memory(g), 4*rowMemory(g.Shards(), 2, g.Cell()))
}

func (r *Repo) addPod(p Pod) error {
	if _, ok := r.pods[p.Name]; ok {
		return errors.New("two pods of this name")
	}
	if p.Weight < 0 || p.Weight > 0 && len(p.Stores) < r.cfg.Geometry.Shards() {
		return fmt.Errorf("weight %d, %d stores: %d+%d needs %d", p.Weight, len(p.Stores), r.cfg.Geometry.Data, r.cfg.Geometry.Parity, r.cfg.Geometry.Shards())
	}
	own := &pod{Pod: p}
	for _, s := range p.Stores {
		own.stores = append(own.stores, &store{Store: s})
	}
	r.pods[p.Name] = own
	return nil
}

// checkKey also refuses the key of what is each store's own.
func checkKey(key string) error {
	if key == objfmt.StoreIdentityKey {
		return fmt.Errorf("key %q: %w: reserved", key, fs.ErrInvalid)
	}
	return objstore.CheckKey(key)
}

// locate returns the stores of an object's shards, by shard.
func (r *Repo) locate(key string, l objfmt.Layout) ([]*store, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if err := l.Validate(); err != nil {
		return nil, fmt.Errorf("repo %s: %s: %w", r.cfg.Name, key, err)
	}
	p := r.pods[l.Pod]
	if p == nil || len(p.stores) < l.Shards() {
		return nil, fmt.Errorf("repo %s: %s: %w: no pod %q of %d stores is configured", r.cfg.Name, key, fs.ErrInvalid, l.Pod, l.Shards())
	}
	return p.place(key, l.Geometry), nil
}

func (p *pod) place(key string, g objfmt.Geometry) []*store {
	stores := make([]*store, g.Shards())
	for i := range stores {
		stores[i] = p.stores[g.Place(key, i)]
	}
	return stores
}

// Shard is one shard of an object: where it belongs and how it is.
type Shard struct {
	Index int
	Store string
	Size  int64 // bytes of a whole shard, header and footer included
	State ShardState
	Err   error
}

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

// Locate says where the shards of an object belong, without asking the stores:
// State is empty.
func (r *Repo) Locate(key string, l objfmt.Layout) ([]Shard, error) {
	stores, err := r.locate(key, l)
	if err != nil {
		return nil, err
	}
	shards := make([]Shard, len(stores))
	for i, s := range stores {
		shards[i] = Shard{Index: i, Store: s.Name, Size: l.ShardSize(key, i)}
	}
	return shards, nil
}

// leftOut reports shards that a write could not store.
func (r *Repo) leftOut(ctx context.Context, key string, l objfmt.Layout, shards []int, why error) error {
	if r.cfg.LeftOut == nil {
		r.damaged(key, l, shards, why)
		return nil
	}
	if err := r.cfg.LeftOut(ctx, key, l, shards, why); err != nil {
		return err
	}
	r.unreported(key, l, shards)
	return nil
}

// damaged reports shards once in a while.
func (r *Repo) damaged(key string, l objfmt.Layout, shards []int, why error) {
	fresh := r.unreported(key, l, shards)
	if len(fresh) > 0 && r.cfg.Damaged != nil {
		r.cfg.Damaged(key, l, fresh, why)
	}
}

// unreported returns which of the shards have not been reported lately, and takes
// them for reported.
func (r *Repo) unreported(key string, l objfmt.Layout, shards []int) []int {
	var fresh []int
	for _, i := range shards {
		if r.reported.first(fmt.Sprint(key, " ", l.WriteID, " ", i), time.Now()) {
			fresh = append(fresh, i)
		}
	}
	return fresh
}
