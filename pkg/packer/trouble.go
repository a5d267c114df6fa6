package packer

import (
	"sync/atomic"
	"time"

	"marfs/pkg/objfmt"
)

// troubled are contents that were in a pack and not published: damaged, without
// room for another slot, or moved by somebody meanwhile, as by a recovery. Each attempt costs
// dead bytes, so they wait, longer each time. Bounded; what is forgotten is tried once more.
type troubled map[objfmt.ID]trouble

type trouble struct {
	content objfmt.ID
	times   int
	until   time.Time
}

const (
	maxTroubled  = 1 << 16
	firstTrouble = time.Minute
	firstChange  = time.Second // of what only changed
	lastTrouble  = time.Hour
)

// add notes a slot, whose file waits for first at least.
func (t troubled) add(s objfmt.Slot, first time.Duration) {
	old := t[s.File]
	times := 0
	if old.content == s.Content {
		times = old.times + 1
	}
	if len(t) >= maxTroubled {
		clear(t)
	}
	t[s.File] = trouble{s.Content, times, time.Now().Add(doubled(first, lastTrouble, times))}
}

// waits tells whether a slot's content is to be left alone, and until when.
func (t troubled) waits(s objfmt.Slot) (until time.Time, yes bool) {
	x, ok := t[s.File]
	return x.until, ok && x.content == s.Content && time.Now().Before(x.until)
}

// doubled is first, doubled so many times, and last at most.
func doubled(first, last time.Duration, times int) time.Duration {
	for ; times > 0 && first < last; times-- {
		first *= 2
	}
	return min(first, last)
}

// pause is how long nothing is written to a repo whose stores failed.
type pause struct {
	times int
	until time.Time
}

const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// pausedUntil is when a place takes packs again.
func (p *Packer) pausedUntil(place int) time.Time { return p.paused[p.c.Places[place].Repo].until }

// wrote notes how writing to a place went.
func (p *Packer) wrote(place int, err error) {
	repo := p.c.Places[place].Repo
	if err == nil {
		delete(p.paused, repo)
		return
	}
	x := p.paused[repo]
	p.paused[repo] = pause{x.times + 1, time.Now().Add(doubled(firstPause, lastPause, x.times))}
}

// reportSingle tells of files that cannot be packed, once in a while.
func (p *Packer) reportSingle(n int, example error) {
	if n > 0 && p.single.now() {
		p.c.Log.Warn("some staged files cannot be packed", "files", n, "for example", example)
	}
}

// seldom lets one message a minute pass.
type seldom struct{ last atomic.Int64 } // Unix nanoseconds

func (s *seldom) now() bool {
	now, last := time.Now().UnixNano(), s.last.Load()
	return now-last >= int64(time.Minute) && s.last.CompareAndSwap(last, now)
}
