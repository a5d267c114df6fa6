package packer

import (
	"context"
	"errors"
	"time"
)

const (
	// shortest and longest are between passes: the longest is also how often it is
	// looked what others left.
	shortest = time.Second
	longest  = time.Minute
	// hurried is between passes when room is wanted.
	hurried = 100 * time.Millisecond
)

// Run packs and releases in the background until ctx ends. It looks at the queue
// once a minute, and more often while this process is staging.
func (p *Packer) Run(ctx context.Context) {
	next, failures := time.Now(), 0
	for last := next; p.await(ctx, last, next); last = time.Now() {
		due, err := p.round(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errYield):
			due = time.Now() // MakeRoom has the turn next
		case err != nil:
			if p.general.now() {
				p.c.Log.Warn("staged files are not packed; it is tried again", "error", err)
			}
			due = time.Now().Add(doubled(firstPause, lastPause, failures))
			failures++
		default:
			failures = 0
		}
		next = due
	}
}

// await waits for the next pass, which is sooner when something is staged or room is
// wanted. It returns false when ctx has ended.
func (p *Packer) await(ctx context.Context, last, next time.Time) bool {
	for ctx.Err() == nil {
		t := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
		case <-t.C:
			return true
		case <-p.wake:
			next = earlier(next, time.Now().Add(p.interval()))
		case <-p.hurry:
			next = earlier(next, last.Add(hurried))
		}
		t.Stop()
	}
	return false
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// interval is between passes while something is being staged.
func (p *Packer) interval() time.Duration {
	return min(max(p.c.Policy.Linger, shortest), longest)
}

// round is one pass with what belongs to it, and returns when the next is due.
func (p *Packer) round(ctx context.Context) (due time.Time, err error) {
	if err := p.take(ctx); err != nil {
		return due, err
	}
	defer p.give()
	p.room.dirty.Store(false)
	if time.Since(p.looked) >= longest {
		p.looked = time.Now()
		err = p.refreshResident(ctx)
	}
	_, e := p.releaseOld(ctx)
	err = errors.Join(err, e)
	ps := &pass{p: p, o: PackOptions{All: p.room.crowded()}, patient: true, pace: &pace{room: &p.room}}
	err = errors.Join(err, ps.run(ctx))
	_, e = p.releaseOld(ctx)
	now := time.Now()
	if ps.due.IsZero() || ps.due.After(now.Add(longest)) {
		ps.due = now.Add(longest)
	}
	if least := now.Add(shortest); ps.due.Before(least) {
		ps.due = least
	}
	if p.room.tight() { // packs come of age
		ps.due = earlier(ps.due, now.Add(p.interval()))
	}
	return ps.due, errors.Join(err, e)
}
