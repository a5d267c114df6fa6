package repo

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"marfs/pkg/objstore"
)

// A store that failed maxFailures times in a row is left alone, but for one call
// after each pause, which doubles up to maxPause while it goes on failing.
const (
	maxFailures = 3
	minPause    = time.Second
	maxPause    = time.Minute
)

// health is what is known of one kind of call to a store: a circuit breaker, so that
// a dead store does not cost a timeout per read, write or delete.
type health struct {
	mu       sync.Mutex // guards what follows
	failures int        // in a row
	pause    time.Duration
	probing  bool      // a probe has not come back
	retry    time.Time // when the next call may try, once there are maxFailures
}

// verdict says how far to trust a store with the next call.
type verdict int

const (
	use   verdict = iota
	probe         // try, but do not wait long
	avoid
)

// probeShare is which part of the stall timeout a probe gets to show a sign of life.
const probeShare = 16

// ask returns what to do with the store. Of several callers at the time of a
// probe one gets it.
func (h *health) ask(now time.Time) verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.verdict(now)
	if v == probe {
		h.retry, h.probing = now.Add(h.pause), true
	}
	return v
}

// look returns what ask would.
func (h *health) look(now time.Time) verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.verdict(now)
}

// verdict is for ask and look. h.mu is locked.
func (h *health) verdict(now time.Time) verdict {
	switch {
	case h.failures < maxFailures:
		return use
	case now.Before(h.retry):
		return avoid
	}
	return probe
}

// report takes the end of a call to the store into account.
func (h *health) report(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case blames(err):
		h.failures++
		// Of calls that were under way together all fail when the store does: they
		// are one failure, or a short outage would cost a long pause.
		if h.failures == maxFailures || h.probing {
			h.pause = min(max(2*h.pause, minPause), maxPause)
			h.retry, h.probing = time.Now().Add(h.pause), false
		}
	case err == nil || shardState(err) != ShardUnavailable:
		h.failures, h.pause, h.probing = 0, 0, false
	}
}

// budget bounds memory. Waiters are served in order; nobody waits for ever.
type budget struct {
	what string
	size int64
	wait time.Duration
	sem  *semaphore.Weighted

	mu   sync.Mutex // guards used
	used int64
}

func newBudget(what string, size int64, wait time.Duration) *budget {
	return &budget{what: what, size: size, wait: wait, sem: semaphore.NewWeighted(size)}
}

// acquire waits for n bytes.
func (b *budget) acquire(ctx context.Context, n int64) error {
	if b.sem.TryAcquire(n) {
		b.count(n)
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, b.wait)
	defer cancel()
	if err := b.sem.Acquire(limited, n); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: no memory for %s within %v: all %d bytes are in use", objstore.ErrUnavailable, b.what, b.wait, b.size)
	}
	b.count(n)
	return nil
}

// try takes n bytes if that leaves reserve bytes to others.
func (b *budget) try(n, reserve int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+n > b.size-reserve || !b.sem.TryAcquire(n) {
		return false
	}
	b.used += n
	return true
}

func (b *budget) release(n int64) {
	b.count(-n)
	b.sem.Release(n)
}

func (b *budget) count(n int64) {
	b.mu.Lock()
	b.used += n
	b.mu.Unlock()
}

// latency learns how long shard reads take, to know when one is late.
type latency struct {
	fixed time.Duration // not adaptive, if set

	mu      sync.Mutex // guards what follows
	samples [64]time.Duration
	n       int
	p95     time.Duration
	credit  float64 // late reads that may be hedged
}

// Hedges are at most hedgeShare of the reads in the long run, maxCredit at once:
// when everything is slow, reading more makes it worse.
const (
	hedgeShare = 0.1
	maxCredit  = 16
	hedgeFloor = 50 * time.Millisecond
	hedgeStart = time.Second // before anything is known
)

// weight makes reads of different lengths comparable: 16 cells, 1 MiB, take about
// as long as the first byte does.
func weight(cells int64) float64 { return 1 + float64(cells)/16 }

// observe takes a finished read into account.
func (l *latency) observe(d time.Duration, cells int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.credit = min(l.credit+hedgeShare, maxCredit)
	l.samples[l.n%len(l.samples)] = time.Duration(float64(d) / weight(cells))
	l.n++
	if l.n%8 == 0 {
		known := slices.Clone(l.samples[:min(l.n, len(l.samples))])
		slices.Sort(known)
		l.p95 = known[len(known)*95/100]
	}
}

// late returns after how long a read of so many cells is late.
func (l *latency) late(cells int64) time.Duration {
	if l.fixed > 0 {
		return l.fixed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n < 8 {
		return hedgeStart
	}
	return max(time.Duration(4*float64(l.p95)*weight(cells)), hedgeFloor)
}

// spend reports whether one more late read may be hedged.
func (l *latency) spend() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.credit < 1 {
		return false
	}
	l.credit--
	return true
}

// recent remembers what was reported lately, in bounded memory: two generations,
// of which the older goes when the younger is full or old.
type recent struct {
	mu         sync.Mutex // guards what follows
	young, old map[string]struct{}
	since      time.Time
}

const (
	recentMax = 4096
	recentAge = 5 * time.Minute
)

// first reports whether id has not been seen lately.
func (r *recent) first(id string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.young == nil || len(r.young) >= recentMax || now.Sub(r.since) > recentAge {
		r.old, r.young, r.since = r.young, make(map[string]struct{}), now
	}
	_, young := r.young[id]
	_, old := r.old[id]
	if young || old {
		return false // and not remembered anew: what goes on is reported again
	}
	r.young[id] = struct{}{}
	return true
}
