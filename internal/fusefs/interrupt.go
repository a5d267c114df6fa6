package fusefs

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// killPoll is how often an interrupted request looks whether its caller is dying.
const killPoll = 100 * time.Millisecond

// killable returns a context that ends when the caller of a request is being
// killed. The kernel tells of every signal, once, even of those the caller
// handles and goes on (window changes, timers, Go's preemption); read(2) and
// write(2) of a file do not end with EINTR for those on any local filesystem, and
// programs do not expect it. So the first signal only starts to watch for a
// deadly one. stop releases what killable holds.
func killable(ctx context.Context, pid uint32) (kctx context.Context, stop func()) {
	kctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	unwatch := context.AfterFunc(ctx, func() {
		t := time.NewTicker(killPoll)
		defer t.Stop()
		for !dying(pid) {
			select {
			case <-t.C:
			case <-kctx.Done():
				return
			}
		}
		cancel()
	})
	return kctx, func() { unwatch(); cancel() }
}

// dying reports whether a thread is gone or has SIGKILL pending, as it has when
// any signal is ending its process.
func dying(pid uint32) bool {
	if pid == 0 {
		return false
	}
	dir, err := unix.Open("/proc/"+strconv.FormatUint(uint64(pid), 10), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.IsNotExist(err)
	}
	defer unix.Close(dir)
	status, err := readStatus(dir)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	return pending(status, "SigPnd:") || pending(status, "ShdPnd:")
}

func pending(status []byte, set string) bool {
	v, err := field(status, set)
	if err != nil {
		return false
	}
	bits, err := strconv.ParseUint(string(bytes.TrimSpace(v)), 16, 64)
	return err == nil && bits&(1<<(unix.SIGKILL-1)) != 0
}
