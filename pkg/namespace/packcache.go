package namespace

import (
	"context"
	"sync"
	"time"

	"marfs/pkg/objfmt"
	"marfs/pkg/repo"
)

// What is remembered of packs, and when their segments are read.
const (
	maxPacks   = 256       // packs of which reads are remembered
	maxRecent  = 8         // members remembered of each
	nearMember = 128 << 10 // bytes between two members that count as neighbours
	maxAhead   = 2         // segments ahead of readers that move forward

	// Segments cost credit. Each read earns what it would fetch by itself, once for its
	// pack, and once for all.
	maxCredit = 8 * segmentSize  // of a pack
	maxPool   = 16 * segmentSize // of all

	idlePack    = 5 * time.Second // how long a segment is kept that nobody reads
	packTimeout = 2 * time.Minute // of reading one
)

// packCache holds segments of packs. Who reads many small files opens one after the
// other; what was written together lies together, in about that order. So a read near
// what was just read of a pack fetches the whole segment, and when readers move
// forward, the next ones too; a read elsewhere fetches its range and nothing else.
//
// Programs that only seem to read in order cannot make it fetch much in vain: a
// segment costs credit, of the pack or of the pool of all, and reads, from memory or
// not, earn it. So all that is fetched is never more than three times what the reads
// would have fetched each by itself, and the pool that there is in the beginning.
//
// Memory comes from the budget of read-ahead: half of it at most. Readers of large
// files may take it back, but for an eighth.
type packCache struct {
	budget      *aheadBudget
	most, least int64           // bytes
	ctx         context.Context // ends the reads in the background
	cancel      context.CancelFunc
	wg          sync.WaitGroup

	mu     sync.Mutex // guards all below; taken after a readAhead's, before the budget's
	packs  map[packKey]*cachedPack
	pool   int64 // bytes of segments that may be read beyond the credit of their packs
	bytes  int64 // of segments, also of those that are gone but in use
	idle   *time.Timer
	closed bool
}

// packKey names bytes that never change.
type packKey struct {
	repo  *repo.Repo
	key   string
	write objfmt.ID
}

// cachedPack is what is known of a pack. All of it is guarded by packCache.mu.
type cachedPack struct {
	source   *objectSource
	size     int64 // bytes that may be members: up to the trailer, once that is known
	looked   bool  // for the trailer
	looking  bool
	used     time.Time
	segments map[int64]*packSegment

	recent [maxRecent]extent // members read last
	oldest int               // of recent
	credit int64             // bytes of segments that may be read
	at     int64             // segment that is read now
	run    int64             // segments read in order up to it
	ahead  int64             // those before were asked for ahead of readers
}

// extent is where a member lies in a pack.
type extent struct{ off, end int64 }

// packSegment is a segment of a pack; used and gone are guarded by packCache.mu.
type packSegment struct {
	segment
	off  int64 // in the pack
	last time.Time
}

func newPackCache(budget *aheadBudget, bytes int64) *packCache {
	ctx, cancel := context.WithCancel(context.Background())
	c := &packCache{budget: budget, most: bytes / 2, least: bytes / 8, ctx: ctx, cancel: cancel,
		packs: map[packKey]*cachedPack{}, pool: maxPool}
	c.idle = time.AfterFunc(idlePack, c.tidy)
	return c
}

// close ends the reads in the background and gives all memory back; later reads go
// straight to the packs.
func (c *packCache) close() {
	c.cancel()
	c.mu.Lock()
	c.closed = true
	c.idle.Stop()
	for key := range c.packs {
		c.forget(key)
	}
	c.mu.Unlock()
	c.wg.Wait()
}

// readAt fills p from off of a pack, within the member m of it.
func (c *packCache) readAt(ctx context.Context, o *objectSource, m extent, p []byte, off int64) (n int, err error) {
	segs := c.want(o, m, off, int64(len(p)))
	defer c.put(segs)
	for _, s := range segs {
		select {
		case <-s.done:
		case <-ctx.Done():
			return n, ctx.Err()
		}
		if s.err != nil {
			break // the reader's own error, in its own words
		}
		n += copy(p[n:], s.data[off+int64(n)-s.off:])
	}
	if n == len(p) {
		return n, nil
	}
	rest, err := o.repo.ReadAt(ctx, o.key, o.ref.Layout, p[n:], off+int64(n))
	return n + rest, err
}

// want returns the segments that hold the range from its start on, as many of them as
// are there, or worth to be read. They must be given back to put.
func (c *packCache) want(o *objectSource, m extent, off, n int64) (segs []*packSegment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	p := c.pack(o)
	near := p.note(m)
	alone := max(n, int64(o.ref.Cell()))
	p.credit, c.pool = min(p.credit+alone, maxCredit), min(c.pool+alone, maxPool)
	if n > segmentSize || off+n > p.size {
		return nil
	}
	for i := off / segmentSize; i*segmentSize < off+n; i++ {
		s := p.segments[i]
		if s == nil && near {
			s = c.start(p, i)
		}
		if s == nil {
			break
		}
		s.used++
		s.last = p.used
		segs = append(segs, s)
		p.move(i)
	}
	if segs != nil {
		c.goAhead(p)
	}
	return segs
}

// pack returns what is known of a pack, forgetting the one not read for longest.
func (c *packCache) pack(o *objectSource) *cachedPack {
	key := packKey{o.repo, o.key, o.ref.WriteID}
	p := c.packs[key]
	if p == nil {
		if len(c.packs) >= maxPacks {
			c.forget(c.oldestPack())
		}
		p = &cachedPack{source: o, size: o.ref.Size, segments: map[int64]*packSegment{}, at: -2}
		c.packs[key] = p
	}
	p.used = time.Now()
	return p
}

func (c *packCache) oldestPack() (oldest packKey) {
	var used time.Time
	for key, p := range c.packs {
		if used.IsZero() || p.used.Before(used) {
			oldest, used = key, p.used
		}
	}
	return oldest
}

func (c *packCache) forget(key packKey) {
	p := c.packs[key]
	delete(c.packs, key)
	for _, s := range p.segments {
		c.drop(p, s)
	}
}

// note remembers that a member is read, and tells whether it lies near others that
// were just read: it is a neighbour of one, or in the segment of two.
func (p *cachedPack) note(m extent) (near bool) {
	known, neighbours, inSegment := false, 0, 0
	for _, r := range p.recent {
		switch {
		case r == m:
			known = true
		case r.end == 0: // none yet
		case m.off-r.end <= nearMember && r.off-m.end <= nearMember:
			neighbours++
		case m.off/segmentSize == r.off/segmentSize:
			inSegment++
		}
	}
	if !known {
		p.recent[p.oldest] = m
		p.oldest = (p.oldest + 1) % maxRecent
	}
	return neighbours > 0 || inSegment > 1
}

// move follows readers from segment to segment. Several that read beside each other
// step back one at times.
func (p *cachedPack) move(i int64) {
	switch {
	case i == p.at+1:
		p.at, p.run = i, p.run+1
	case i < p.at-1 || i > p.at:
		p.at, p.run, p.ahead = i, 0, 0
	}
}

// goAhead begins to read the segments that readers who move forward come to next,
// each once. Where the members end is looked up before, since the trailer of a pack
// of small files may be as long as a segment.
func (c *packCache) goAhead(p *cachedPack) {
	for i := max(p.at+1, p.ahead); i <= p.at+min(p.run, maxAhead); i++ {
		if !p.looked {
			c.lookForEnd(p)
			return
		}
		if i*segmentSize >= p.size {
			return
		}
		p.ahead = i + 1
		if p.segments[i] == nil && c.start(p, i) == nil {
			return
		}
	}
}

// lookForEnd finds out where the trailer of a pack begins, in the background.
func (c *packCache) lookForEnd(p *cachedPack) {
	if p.looking {
		return
	}
	p.looking = true
	c.wg.Go(func() {
		end := p.source.end(c.ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		p.size, p.looked = end, true
	})
}

// end returns where the trailer begins; where the object ends if that cannot be read.
func (o *objectSource) end(ctx context.Context) int64 {
	ctx, stop := context.WithTimeout(ctx, packTimeout)
	defer stop()
	size := o.ref.Size
	var footer [objfmt.TrailerFooterSize]byte
	if size < int64(len(footer)) {
		return size
	}
	if _, err := o.repo.ReadAt(ctx, o.key, o.ref.Layout, footer[:], size-int64(len(footer))); err != nil {
		return size
	}
	n, err := objfmt.ParseTrailerFooter(footer[:])
	if err != nil || n > size {
		return size
	}
	return size - n
}

// start begins to read a segment; nil without credit or memory.
func (c *packCache) start(p *cachedPack, i int64) *packSegment {
	size := min(segmentSize, p.size-i*segmentSize)
	lent := max(size-p.credit, 0)
	if lent > c.pool || size > c.most || !c.take(size) {
		return nil
	}
	p.credit, c.pool = p.credit-size+lent, c.pool-lent
	s := &packSegment{off: i * segmentSize, last: p.used}
	s.segment = segment{done: make(chan struct{}), data: newSegment(size), used: 1}
	p.segments[i] = s
	c.wg.Go(func() { c.load(p, s) })
	return s
}

// load reads a segment for all who wait for it; none of them can end it. One that
// could not be read is forgotten at once.
func (c *packCache) load(p *cachedPack, s *packSegment) {
	ctx, stop := context.WithTimeout(c.ctx, packTimeout)
	defer stop()
	_, s.err = p.source.repo.ReadAt(ctx, p.source.key, p.source.ref.Layout, s.data, s.off)
	close(s.done)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.err != nil {
		c.drop(p, s)
	}
	c.release(s)
}

// put gives segments back that want has returned.
func (c *packCache) put(segs []*packSegment) {
	if segs == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range segs {
		c.release(s)
	}
}

// release ends a use of a segment; c.mu is held.
func (c *packCache) release(s *packSegment) {
	s.used--
	c.free(s)
}

// drop forgets a segment; c.mu is held. Its memory is free once nobody uses it.
func (c *packCache) drop(p *cachedPack, s *packSegment) {
	if s.gone {
		return
	}
	delete(p.segments, s.off/segmentSize)
	s.gone = true
	c.free(s)
}

func (c *packCache) free(s *packSegment) {
	if s.used > 0 || !s.gone {
		return
	}
	size := int64(len(s.data))
	freeSegment(s.data)
	s.data = nil
	c.bytes -= size
	c.budget.Release(size)
}

// take gets memory, if need be that of the segment not used for longest. c.mu is held.
func (c *packCache) take(n int64) bool {
	for c.bytes+n > c.most || !c.budget.takeFree(n) {
		if c.evict(time.Time{}) == 0 {
			return false
		}
	}
	if c.bytes == 0 {
		c.idle.Reset(idlePack)
	}
	c.bytes += n
	return true
}

// yield gives n bytes back for readers of large files, while there is more than the
// least share.
func (c *packCache) yield(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for freed := int64(0); freed < n && c.bytes > c.least; {
		size := c.evict(time.Time{})
		if size == 0 {
			return
		}
		freed += size
	}
}

// evict drops the segment that was not used for longest, since before a time if it is
// not zero, and returns its bytes; 0 when there is none. c.mu is held.
func (c *packCache) evict(before time.Time) int64 {
	var of *cachedPack
	var oldest *packSegment
	for _, p := range c.packs {
		for _, s := range p.segments {
			if s.used == 0 && (oldest == nil || s.last.Before(oldest.last)) {
				of, oldest = p, s
			}
		}
	}
	if oldest == nil || !before.IsZero() && !oldest.last.Before(before) {
		return 0
	}
	size := int64(len(oldest.data))
	c.drop(of, oldest)
	return size
}

// tidy drops what nobody has read for a while, as long as there is anything.
func (c *packCache) tidy() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for before := time.Now().Add(-idlePack); c.evict(before) > 0; {
	}
	if c.bytes > 0 && !c.closed {
		c.idle.Reset(idlePack)
	}
}
