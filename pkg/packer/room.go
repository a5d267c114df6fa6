package packer

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// room is what is known of the room in the metadata filesystem. Writers ask it for
// each file, so it is counters; who happens to come when they are old refreshes them.
type room struct {
	max     int64 // Policy.MaxBytes; 0: no limit
	most    int64 // packs
	staged  atomic.Int64
	added   atomic.Int64  // all that Staged was told of, ever
	fresh   atomic.Int64  // bytes of this packer's packs that are too young to be released
	resided atomic.Int64  // bytes of all packs that are not released
	packs   atomic.Int64  // how many these are
	free    atomic.Uint64 // share of the filesystem that is free: bits of a float64

	lastStaged atomic.Int64 // Unix nanoseconds
	looked     atomic.Int64 // when free was, Unix nanoseconds
	dirty      atomic.Bool  // something was staged since the last pass began
	urgent     atomic.Int64 // callers of MakeRoom
}

// Shares of MaxBytes and of the filesystem at which something happens.
const (
	holdAbove    = 0.80     // writers wait
	releaseAbove = 0.75     // the oldest packs are released,
	releaseTo    = 0.50     // down to this
	refuseFree   = 1.0 / 16 // less is free: nothing is staged
	releaseFree  = 1.0 / 8  // less is free: packs are released,
	releaseToo   = 1.0 / 6  // until this is
	longestHold  = 100 * time.Millisecond
	lookEvery    = int64(250 * time.Millisecond)
)

// maxPacks bounds the packs that wait to be released, however much room there is: every
// packer lists them once a minute.
const maxPacks = 4096

// share is how much of MaxBytes n is.
func (r *room) share(n int64) float64 {
	if r.max <= 0 {
		return 0
	}
	return float64(n) / float64(r.max)
}

func (r *room) freeShare() float64 { return math.Float64frombits(r.free.Load()) }

// used is what counts for writers: what cannot be released at once.
func (r *room) used() int64 { return r.staged.Load() + r.fresh.Load() }

// crowded tells whether nothing is to wait any more.
func (r *room) crowded() bool {
	return r.share(r.used()) > releaseAbove || r.freeShare() < refuseFree
}

// tight tells whether packs are to be released.
func (r *room) tight() bool {
	return r.share(r.staged.Load()+r.resided.Load()) > releaseAbove || r.freeShare() < releaseFree || r.packs.Load() > r.most
}

// eased tells whether enough is released.
func (r *room) eased() bool {
	return r.share(r.staged.Load()+r.resided.Load()) <= releaseTo && r.freeShare() >= releaseToo && r.packs.Load() <= r.most/4*3
}

// hold is how long a writer of n bytes is held back; ok: he may stage them.
func (r *room) hold(n int64) (wait time.Duration, ok bool) {
	if r.freeShare() < refuseFree {
		return 0, false
	}
	share := r.share(r.used() + n)
	if share >= 1 {
		return 0, false
	}
	if share <= holdAbove {
		return 0, true
	}
	return time.Duration(float64(longestHold) * (share - holdAbove) / (1 - holdAbove)), true
}

// counted replaces the count of what is staged: so many bytes, and what was added
// since added was read.
func (r *room) counted(bytes, added int64) {
	r.staged.Add(max(0, bytes) + r.added.Load() - added - r.staged.Load())
}

// Staged is told of n bytes that were committed as staged.
func (p *Packer) Staged(n int64) {
	r := &p.room
	r.staged.Add(n)
	r.added.Add(n)
	r.lastStaged.Store(time.Now().UnixNano())
	if !r.dirty.Load() && r.dirty.CompareAndSwap(false, true) {
		poke(p.wake)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Admit is asked before n bytes are staged. It holds the writer back for a moment
// when much is staged already, and says no, without waiting, when there is no room:
// then they go to objects at once.
func (p *Packer) Admit(ctx context.Context, n int64) bool {
	if p.limit == 0 {
		return false
	}
	p.look()
	wait, ok := p.room.hold(n)
	if wait == 0 && ok {
		return true
	}
	poke(p.hurry)
	if !ok {
		return false
	}
	sleep(ctx, wait)
	p.look()
	_, ok = p.room.hold(n)
	return ok && ctx.Err() == nil
}

// look refreshes what changes with time, four times a second.
func (p *Packer) look() {
	now := time.Now().UnixNano()
	before := p.room.looked.Load()
	if now-before < lookEvery || !p.room.looked.CompareAndSwap(before, now) {
		return
	}
	p.lookNow()
}

func (p *Packer) lookNow() {
	free := 1.0 // a filesystem that does not tell has room until it refuses
	if st, err := p.c.Meta.MD().Statfs(); err == nil {
		// As df has it: what is kept for root does not count.
		if total := st.Blocks - st.Bfree + st.Bavail; total > 0 {
			free = float64(st.Bavail) / float64(total)
		}
	}
	p.room.free.Store(math.Float64bits(free))
	p.countResident()
}
