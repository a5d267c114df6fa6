package packer

import (
	"context"
	"time"
)

// pace makes a pass give way to writers: while there are any, it sleeps as long as
// it works. On a busy machine that halves what it takes of the processors, and it
// still packs several times what one writer stages. A nil pace never sleeps.
type pace struct {
	room  *room
	since time.Time // when it last slept
}

const (
	// paceWork is how long it works before it sleeps: long enough for a sleep not to
	// cost more than it gives.
	paceWork = 2 * time.Millisecond
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
		sleep(ctx, min(worked, 5*paceWork))
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
