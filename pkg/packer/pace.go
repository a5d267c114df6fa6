package packer

import (
	"context"
	"time"
)

// pace makes a pass give way to writers: while there are any, it sleeps for most of
// the time. To pack a file takes two thirds of the work of making one, so a packer
// that keeps up would take that much of the processors from who makes them. What is
// not packed meanwhile waits, up to where there is no room for more; then it does
// not sleep. A nil pace never does.
type pace struct {
	room  *room
	since time.Time // when it last slept
}

const (
	// paceWork is how long it works before it sleeps: long enough for a sleep not to
	// cost more than it gives.
	paceWork = 2 * time.Millisecond
	// paceSleep is how many times as long as it works it sleeps.
	paceSleep = 4
	// paceBusy is how long after something was staged writers count as writing.
	paceBusy = 200 * time.Millisecond
)

func (c *pace) giveWay(ctx context.Context) {
	if c == nil {
		return
	}
	now := time.Now()
	worked := now.Sub(c.since)
	if c.since.IsZero() || worked < paceWork {
		if c.since.IsZero() {
			c.since = now
		}
		return
	}
	// What took so long may have been a store: that does not take a processor.
	if now.UnixNano()-c.room.lastStaged.Load() < int64(paceBusy) && !c.room.crowded() && c.room.urgent.Load() == 0 {
		sleep(ctx, paceSleep*min(worked, 5*paceWork))
		now = time.Now()
	}
	c.since = now
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
