package posix

import (
	"math"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// handle is a descriptor shared by concurrent calls. Its number goes back to
// the kernel only after the last call that uses it: a call that races with
// Close gets EBADF and never acts on another file that got the same number.
type handle struct {
	fd    int
	users atomic.Int64 // calls under way, plus closed
}

// closed makes users negative whatever the number of calls under way.
const closed = math.MinInt64

func (h *handle) acquire() error {
	for {
		n := h.users.Load()
		if n < 0 {
			return unix.EBADF
		}
		if h.users.CompareAndSwap(n, n+1) {
			return nil
		}
	}
}

func (h *handle) release() {
	if h.users.Add(-1) == closed {
		unix.Close(h.fd)
	}
}

// close gives the descriptor back, now or when the last call under way ends.
// The error of close(2) is known only in the first case. It is never repeated:
// Linux releases the number also when it says EINTR.
func (h *handle) close() error {
	for {
		n := h.users.Load()
		switch {
		case n < 0:
			return unix.EBADF
		case !h.users.CompareAndSwap(n, n+closed):
			continue
		case n > 0:
			return nil
		}
		if err := unix.Close(h.fd); err != unix.EINTR {
			return err
		}
		return nil
	}
}

// do calls fn with the descriptor, again as long as it is interrupted.
func (h *handle) do(fn func(fd int) error) error {
	if err := h.acquire(); err != nil {
		return err
	}
	defer h.release()
	return retry(func() error { return fn(h.fd) })
}

// retry repeats fn while a signal interrupts it: Go's runtime sends them to
// preempt goroutines, and filesystems in user space let them through.
func retry(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

// procPath names an open file for calls that take no descriptor, or refuse
// O_PATH ones. The link leads to the open file itself, not to its name.
func procPath(fd int) string { return procSelfFD + strconv.Itoa(fd) }

const procSelfFD = "/proc/self/fd/"
