package namespace

import (
	"context"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	segmentSize = 4 << 20   // bytes read at once: a stripe of 4 data blocks of 1 MiB
	maxWindow   = 4         // segments ahead of a reader
	minRun      = 256 << 10 // bytes in sequence that make a reader sequential
)

// readAhead reads the segments that a sequential reader will want next. Requests
// of one reader come a little out of order, since the kernel has several under
// way. Memory is taken from a budget shared by all files; without any left, and
// for random reads, reads go straight to the view.
type readAhead struct {
	budget *aheadBudget
	view   *view
	ctx    context.Context // ends the reads in the background
	cancel context.CancelFunc

	mu       sync.Mutex // guards all below
	next     int64      // where a sequential reader goes on
	run      int64      // bytes read in sequence so far
	segments map[int64]*segment
	asked    time.Time // when the reader last wanted something
	wg       sync.WaitGroup
}

// aheadBudget is the memory of all read-ahead. Readers that have not asked for a
// while give theirs up when others want it: a program may hold a file open for days.
type aheadBudget struct {
	*semaphore.Weighted
	packs *packCache // has a part of it

	mu      sync.Mutex // guards the rest; taken before no reader's
	readers map[*readAhead]struct{}
	swept   time.Time
}

// idleReader is how long a reader may ask for nothing before others get its memory.
const idleReader = 2 * time.Second

func newAheadBudget(bytes int64) *aheadBudget {
	b := &aheadBudget{Weighted: semaphore.NewWeighted(bytes), readers: map[*readAhead]struct{}{}}
	b.packs = newPackCache(b, bytes)
	return b
}

// take gets memory for a segment of a reader, whose mu is held.
func (b *aheadBudget) take() bool {
	if b.takeFree(segmentSize) {
		return true
	}
	b.packs.yield(segmentSize)
	return b.TryAcquire(segmentSize)
}

// takeFree gets memory that is free, or an idle reader's.
func (b *aheadBudget) takeFree(n int64) bool {
	return b.TryAcquire(n) || b.sweep(time.Now()) && b.TryAcquire(n)
}

// sweep takes the segments of idle readers, once in a while. A reader whose mu is
// held is not idle.
func (b *aheadBudget) sweep(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.swept) < idleReader/2 {
		return false
	}
	b.swept = now
	for a := range b.readers {
		if a.mu.TryLock() {
			if now.Sub(a.asked) >= idleReader {
				a.forget(allSegments)
			}
			a.mu.Unlock()
		}
	}
	return true
}

func (b *aheadBudget) join(a *readAhead) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readers[a] = struct{}{}
}

func (b *aheadBudget) leave(a *readAhead) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.readers, a)
}

// segment is one aligned piece of the content, read or being read.
type segment struct {
	done chan struct{} // closed when data and err are there
	data []byte
	err  error
	used int // who uses it now; guarded, as gone, by the mu of its owner
	gone bool
}

func newReadAhead(v *view, budget *aheadBudget) *readAhead {
	ctx, cancel := context.WithCancel(context.Background())
	return &readAhead{view: v, budget: budget, ctx: ctx, cancel: cancel, segments: map[int64]*segment{}}
}

// borrow is view.readAt with read-ahead for sequential readers, whose segments it
// lends, until done is called.
func (a *readAhead) borrow(ctx context.Context, p []byte, off int64) (got []byte, done func(), err error) {
	first, last := off/segmentSize, (off+int64(len(p))-1)/segmentSize
	var seg *segment
	if first == last && len(p) > 0 && off < a.view.size {
		seg = a.want(first, off, int64(len(p)))
	}
	if seg != nil {
		select {
		case <-seg.done:
		case <-ctx.Done():
			a.put(seg)
			return nil, keep, ctx.Err()
		}
		if seg.err == nil {
			got = seg.data[min(off-first*segmentSize, int64(len(seg.data))):]
			got = got[:min(len(got), len(p))]
			if len(got) < len(p) {
				err = io.EOF
			}
			return got, func() { a.put(seg) }, err
		}
		a.put(seg) // the reader's own error, in its own words
	}
	n, err := a.view.readAt(ctx, p, off)
	return p[:n], keep, err
}

// want returns the segment a sequential reader needs, having started it and those
// after it; nil for a random one, or without memory.
func (a *readAhead) want(i, off, n int64) *segment {
	a.mu.Lock()
	defer a.mu.Unlock()
	near := off >= a.next-segmentSize && off <= a.next+segmentSize
	if near {
		a.run += n
	} else {
		a.run = 0
	}
	a.next = max(off+n, min(a.next, off+n+segmentSize))
	a.asked = time.Now()
	if a.ctx.Err() != nil {
		return nil
	}
	if a.segments[i] == nil && a.run < minRun {
		return nil
	}
	a.forget(i - 1)
	seg := a.start(i)
	if seg == nil {
		return nil
	}
	for k := int64(1); k <= min(maxWindow, a.run>>20); k++ {
		if (i+k)*segmentSize >= a.view.size || a.start(i+k) == nil {
			break
		}
	}
	seg.used++
	return seg
}

// start begins to read a segment, if it is not there and memory is; a.mu is held.
func (a *readAhead) start(i int64) *segment {
	if seg := a.segments[i]; seg != nil {
		return seg
	}
	size := min(segmentSize, a.view.size-i*segmentSize)
	if !a.budget.take() {
		return nil
	}
	if len(a.segments) == 0 {
		a.budget.join(a)
	}
	seg := &segment{done: make(chan struct{}), data: getSegment()[:size]}
	a.segments[i] = seg
	a.wg.Go(func() {
		_, seg.err = a.view.readAt(a.ctx, seg.data, i*segmentSize)
		close(seg.done)
	})
	return seg
}

// allSegments is beyond all of them.
const allSegments = 1 << 62

// forget drops segments before i that are read; a.mu is held.
func (a *readAhead) forget(i int64) {
	for k, seg := range a.segments {
		if k < i || k > i+1+maxWindow+1 {
			delete(a.segments, k)
			seg.gone = true
			a.free(seg)
		}
	}
}

// free gives a segment's memory back once nobody uses it; a.mu is held.
func (a *readAhead) free(seg *segment) {
	if seg.used > 0 || !seg.gone {
		return
	}
	select {
	case <-seg.done:
		putSegment(seg.data)
		a.budget.Release(segmentSize)
	default: // still being read: whoever waits for that frees it
		seg.used++
		a.wg.Go(func() {
			<-seg.done
			a.put(seg)
		})
	}
}

func (a *readAhead) put(seg *segment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	seg.used--
	a.free(seg)
}

// stop ends the reads in the background and gives all memory back.
func (a *readAhead) stop() {
	a.cancel()
	a.mu.Lock()
	a.forget(allSegments)
	a.mu.Unlock()
	a.budget.leave(a) // nothing is started any more
	a.wg.Wait()
}

var segmentPool = sync.Pool{New: func() any { return new([segmentSize]byte) }}

// newSegment makes room for a segment of n bytes, which freeSegment takes back.
func newSegment(n int64) []byte {
	if n < segmentSize {
		return make([]byte, n) // the last of an object
	}
	return getSegment()
}

func freeSegment(b []byte) {
	if len(b) == segmentSize {
		putSegment(b)
	}
}

func getSegment() []byte  { return segmentPool.Get().(*[segmentSize]byte)[:] }
func putSegment(b []byte) { segmentPool.Put((*[segmentSize]byte)(b[:segmentSize])) }
