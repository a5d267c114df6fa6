package repo

import (
	"context"
	"sync"
	"sync/atomic"

	"marfs/pkg/erasure"
	"marfs/pkg/objfmt"
)

// rung is one step of a writer's memory: a head of N blocks of plain bytes, and
// the stripe they become when the object ends or no more memory is to be had.
type rung struct {
	block int
	head  bool // false for the last: bytes go to the stripe directly
}

func (s rung) memory(g objfmt.Geometry) int64 {
	m := erasure.StripeMemory(g, s.block)
	if s.head {
		m += int64(s.capacity(g))
	}
	return m
}

// climbReserve is what of a budget a writer must leave to others to climb above
// the smallest rung, and aheadReserve to have another stripe. So there is always
// room for (size/2)/40 KiB more writers of 4+2, whatever the first ones do.
func climbReserve(size int64) int64 { return size / 2 }
func aheadReserve(size int64) int64 { return size / 8 * 5 }

// capacity returns the bytes of an object that fit.
func (s rung) capacity(g objfmt.Geometry) int { return g.Data * s.block }

// ladder returns the steps from the smallest stripe to the configured one.
func ladder(g objfmt.Geometry) []rung {
	var rungs []rung
	for b := objfmt.BlockUnit; b < g.Block; b *= 4 {
		rungs = append(rungs, rung{b, true})
	}
	return append(rungs, rung{g.Block, false})
}

// A writer may be ahead of its uploads by so many bytes, and stripes.
const (
	aheadBytes = 24 << 20
	aheadMin   = 2
	aheadMax   = 64
)

// pipeline is the stripes of one writer: some filling, some being sent, some free.
type pipeline struct {
	repo     *Repo
	geometry objfmt.Geometry // with the block size of this object
	freed    chan struct{}   // a signal: something became free

	mu   sync.Mutex // guards what follows
	free []*stripe
	out  int  // stripes that are not free
	done bool // the writer is gone: what comes back goes to the repo
}

func newPipeline(r *Repo, g objfmt.Geometry) *pipeline {
	return &pipeline{repo: r, geometry: g, freed: make(chan struct{}, 1)}
}

// most returns how many stripes the writer may have.
func (p *pipeline) most() int {
	return int(min(max(aheadBytes/erasure.StripeMemory(p.geometry, p.geometry.Block), aheadMin), aheadMax))
}

// get returns a free stripe, or a new one if there is ample memory; else nil.
func (p *pipeline) get() (*stripe, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		s := p.free[n-1]
		p.free = p.free[:n-1]
		p.out++
		s.hold(1)
		return s, nil
	}
	memory := erasure.StripeMemory(p.geometry, p.geometry.Block)
	if p.out >= p.most() || !p.repo.writes.try(memory, aheadReserve(p.repo.writes.size)) {
		return nil, nil
	}
	return p.make(p.geometry.Block, memory)
}

// wait takes memory for a stripe beyond those that stuck uploads hold.
func (p *pipeline) wait(ctx context.Context) (*stripe, error) {
	memory := erasure.StripeMemory(p.geometry, p.geometry.Block)
	if err := p.repo.writes.acquire(ctx, memory); err != nil {
		return nil, err
	}
	return p.adopt(p.geometry.Block, memory)
}

// adopt makes a stripe from memory that the writer owns already.
func (p *pipeline) adopt(block int, memory int64) (*stripe, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.make(block, memory)
}

// make returns a new stripe, held by the caller. p.mu is locked.
func (p *pipeline) make(block int, memory int64) (*stripe, error) {
	s, err := p.repo.newStripe(p.geometry, block, memory)
	if err != nil {
		return nil, err
	}
	p.out++
	s.home = p
	s.hold(1)
	return s, nil
}

// put takes back a stripe that nobody reads any more.
func (p *pipeline) put(s *stripe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out--
	if p.done {
		p.repo.freeStripe(s)
		return
	}
	s.Reset()
	p.free = append(p.free, s)
	select {
	case p.freed <- struct{}{}:
	default:
	}
}

// finish gives everything that is free to the repo, and later what comes back.
func (p *pipeline) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	for _, s := range p.free {
		p.repo.freeStripe(s)
	}
	p.free = nil
}

// newStripe returns an empty stripe; memory, its size, has been acquired.
func (r *Repo) newStripe(g objfmt.Geometry, block int, memory int64) (*stripe, error) {
	pooled := g == r.cfg.Geometry && block == g.Block
	if pooled {
		if s, ok := r.stripes.Get().(*stripe); ok {
			s.Reset()
			return s, nil
		}
	}
	s, err := erasure.NewStripe(g, block)
	if err != nil {
		r.writes.release(memory)
		return nil, err
	}
	return &stripe{Stripe: s, memory: memory, pooled: pooled}, nil
}

func (r *Repo) freeStripe(s *stripe) {
	memory := s.memory
	if s.pooled {
		r.stripes.Put(s)
	}
	r.writes.release(memory)
}

// stripe is a stripe of a write. The last of those who hold it gives it back.
type stripe struct {
	*erasure.Stripe
	memory int64 // bytes acquired for it
	pooled bool
	home   *pipeline
	refs   atomic.Int32
}

func (s *stripe) hold(n int32) { s.refs.Add(n) }

func (s *stripe) drop() {
	if s.refs.Add(-1) == 0 {
		s.home.put(s)
	}
}

// cell returns a buffer for a cell of size bytes and its checksum.
func (r *Repo) cell(size int) *[]byte {
	if size < objfmt.CellSize/2 {
		b := make([]byte, size+objfmt.SumSize)
		return &b
	}
	if b, ok := r.cells.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, objfmt.CellSize+objfmt.SumSize)
	return &b
}

// giveCell takes back what cell returned.
func (r *Repo) giveCell(b *[]byte) {
	if len(*b) == objfmt.CellSize+objfmt.SumSize {
		r.cells.Put(b)
	}
}

// rowMemory is what rows of cells take.
func rowMemory(shards int, rows int64, cell int) int64 {
	return int64(shards) * rows * int64(cell+objfmt.SumSize)
}
