package packer

import (
	"context"
	"errors"
	"time"
)

// makeTime bounds one urgent pass.
const makeTime = time.Minute

// flight is a MakeRoom that others wait for.
type flight struct {
	done  chan struct{} // closed at the end; what follows is read then
	freed bool
	ended bool // it came to its end; else whoever made it has gone away
}

// MakeRoom packs and releases at once, because the metadata filesystem is full, and
// waits for it, as long as ctx lives. It reports whether any room came of it. Many
// callers share one pass; when its maker's context ends, another goes on.
func (p *Packer) MakeRoom(ctx context.Context) bool {
	p.room.urgent.Add(1)
	defer p.room.urgent.Add(-1)
	for ctx.Err() == nil {
		f, first := p.join()
		if first {
			f.freed, f.ended = p.makeRoom(ctx)
			p.land(f)
			return f.freed
		}
		select {
		case <-ctx.Done():
			return false
		case <-f.done:
			if f.ended {
				return f.freed
			}
		}
	}
	return false
}

func (p *Packer) join() (f *flight, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.making != nil {
		return p.making, false
	}
	p.making = &flight{done: make(chan struct{})}
	return p.making, true
}

func (p *Packer) land(f *flight) {
	p.mu.Lock()
	p.making = nil
	p.mu.Unlock()
	close(f.done)
}

// makeRoom releases all there is, packs all there is, and releases that. A body that
// was packed a moment ago may be released, though somebody may just be reading it: the
// slot that says where else the bytes are is durable, and readers check what they have
// read from a body by its checksum, or look at the slot again. The courtesy of waiting
// only saves them that second read.
func (p *Packer) makeRoom(ctx context.Context) (freed, ended bool) {
	within, cancel := context.WithTimeout(ctx, makeTime)
	defer cancel()
	if p.take(within) != nil {
		return false, ctx.Err() == nil
	}
	defer p.give()
	ps := &pass{p: p, o: PackOptions{All: true}}
	err := errors.Join(p.refreshResident(within), ps.release(within))
	err = errors.Join(err, ps.run(within), ps.release(within))
	if err != nil && p.general.now() {
		p.c.Log.Warn("the metadata filesystem is full, and not all that is staged could be packed and released", "error", err)
	}
	return ps.sum.Released > 0, ctx.Err() == nil
}
