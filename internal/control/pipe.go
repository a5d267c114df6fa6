package control

import (
	"context"
	"io"
	"sync"
	"syscall"
	"time"
)

// pipe carries an answer from its one writer to its one reader, in bounded memory.
// A reader that waits gets an empty line now and then, so that it can look whether
// it is still wanted: reading a file cannot be cancelled otherwise.
type pipe struct {
	size int           // bytes that may wait to be read
	idle time.Duration // the writer waits so long for a reader that reads nothing
	beat time.Duration // the reader waits so long for a line

	reading sync.Mutex // held by the one reader

	mu    sync.Mutex // guards what follows
	buf   []byte
	whole bool          // what was written up to now ends with a whole line
	end   error         // what the reader gets after the rest
	data  chan struct{} // holds one when there may be something to read
	room  chan struct{} // holds one when something was read
}

func newPipe(size int, idle, beat time.Duration) *pipe {
	return &pipe{size: size, idle: idle, beat: beat, whole: true, data: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// write returns when all of b has been read but what there is room for. ETIMEDOUT:
// nobody reads.
func (p *pipe) write(ctx context.Context, b []byte) error {
	for {
		b = b[p.put(b):]
		if len(b) == 0 {
			return nil
		}
		t := time.NewTimer(p.idle)
		select {
		case <-p.room:
		case <-t.C:
			return syscall.ETIMEDOUT
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
		t.Stop()
	}
}

func (p *pipe) put(b []byte) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(b), p.size-len(p.buf))
	p.buf = append(p.buf, b[:n]...)
	p.whole = n == len(b)
	signal(p.data)
	return n
}

// close makes the reader get err, io.EOF for nil, after what was written. Only the
// first counts.
func (p *pipe) close(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end != nil {
		return
	}
	if err == nil {
		err = io.EOF
	}
	p.end = err
	signal(p.data)
}

// discard gives up what nobody has read.
func (p *pipe) discard() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.buf = nil
}

// read is io.Reader's, until ctx ends. EBUSY: somebody else is reading.
func (p *pipe) read(ctx context.Context, b []byte) (int, error) {
	if !p.reading.TryLock() {
		return 0, syscall.EBUSY
	}
	defer p.reading.Unlock()
	t := time.NewTimer(p.beat)
	defer t.Stop()
	for late := false; ; {
		if n, err := p.take(b, late); n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		select {
		case <-p.data:
		case <-t.C:
			late = true
			t.Reset(p.beat)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// take returns what there is; with late, an empty line where there is nothing.
func (p *pipe) take(b []byte, late bool) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(p.buf) > 0:
		n = copy(b, p.buf)
		p.buf = p.buf[:copy(p.buf, p.buf[n:])]
		signal(p.room)
	case p.end != nil:
		return 0, p.end
	case late && p.whole:
		n = copy(b, "\n")
	}
	return n, nil
}

// drained reports whether the reader has all there will be.
func (p *pipe) drained() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end != nil && len(p.buf) == 0
}
