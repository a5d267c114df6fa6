package trash

import (
	"fmt"
	"sync"
	"syscall"
)

// Bounds of what the plans of users other than root hold in memory, in bytes. A plan
// lives until its restore has been told to the end, which its reader can put off.
const (
	maxPlansOfUser = 1 << 30
	maxPlans       = 2 << 30
	plannedBytes   = 512 // bytes for an entry, besides twice its path, at most
)

var errMemory = fmt.Errorf("all that is being restored, by you or by all users, is as much as memory may hold: try again later, or restore it in parts: %w", syscall.EAGAIN)

// budget counts bytes by user. Safe for concurrent use.
type budget struct {
	mu    sync.Mutex // guards what follows
	total int64
	by    map[uint32]int64
}

var plans = budget{by: map[uint32]int64{}}

// take takes n bytes for uid; root needs none. EAGAIN: there are not as many.
func (b *budget) take(uid uint32, n int64) error {
	if uid == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.total+n > maxPlans || b.by[uid]+n > maxPlansOfUser {
		return errMemory
	}
	b.total += n
	b.by[uid] += n
	return nil
}

// give gives n bytes back.
func (b *budget) give(uid uint32, n int64) {
	if uid == 0 || n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total -= n
	if b.by[uid] -= n; b.by[uid] == 0 {
		delete(b.by, uid)
	}
}
