package posix

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

// process is the identity that every thread of the process has, and returns to.
type process struct {
	uid, gid uint32
	groups   []int
	caps     capabilities
	switches bool // may take on another identity
}

func currentProcess() (process, error) {
	groups, err := unix.Getgroups()
	if err != nil {
		return process{}, fmt.Errorf("identity of the process: %w", os.NewSyscallError("getgroups", err))
	}
	caps, err := getCaps()
	if err != nil {
		return process{}, fmt.Errorf("identity of the process: %w", err)
	}
	const need = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	return process{
		uid:      uint32(os.Geteuid()),
		gid:      uint32(os.Getegid()),
		groups:   groups,
		caps:     caps,
		switches: caps[0].Effective&need == need,
	}, nil
}

// as runs fn with the rights of c. The kernel keeps fsuid, fsgid, groups and
// capabilities per thread, so this is a matter of one locked thread; what the Go
// runtime starts from a locked thread, it starts from a clean one.
func (p *process) as(c mdfs.Cred, fn func() error) error {
	if !p.switches {
		if c.UID == p.uid {
			return fn()
		}
		return fmt.Errorf("act as uid %d: %w", c.UID, unix.EPERM)
	}
	if p.isRoot(c) && p.unswitched() {
		return fn()
	}
	return p.switched(c, fn)
}

// isRoot says that c has no more and no fewer rights than this process, which
// is root: for root, groups grant nothing.
func (p *process) isRoot(c mdfs.Cred) bool {
	if c.UID != 0 || p.uid != 0 || c.GID != p.gid {
		return false
	}
	return !slices.ContainsFunc(c.Groups, func(g uint32) bool {
		return g != c.GID && !slices.Contains(p.groups, int(g))
	})
}

// unswitched says that this goroutine is not inside an As of another identity. A
// goroutine that is not locked to its thread may move to another one meanwhile,
// but then all it can meet are clean ones.
func (p *process) unswitched() bool {
	uid, gid := fsIDs()
	return uid == p.uid && gid == p.gid
}

// switched runs fn in a goroutine of its own: if its thread cannot be switched
// back, the goroutine ends while it is locked to it, and the runtime destroys the
// thread (the main thread it parks for good); the caller goes on with a clean
// one. While the caller waits, the scheduler runs the goroutine in its place:
// 0.5 µs, beside the 8 µs or more of the system calls.
func (p *process) switched(c mdfs.Cred, fn func() error) error {
	var out outcome
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer func() {
			if p.leave() == nil {
				runtime.UnlockOSThread()
			}
		}()
		if err := p.enter(c); err != nil {
			out.err = fmt.Errorf("act as uid %d: %w", c.UID, err)
			return
		}
		out.call(fn)
	}()
	<-done
	return out.resume()
}

// enter gives this thread the identity c. With fsuid the kernel takes away the
// capabilities over files, but not those that pass by quotas, reserved blocks
// (CAP_SYS_RESOURCE) and trusted xattrs (CAP_SYS_ADMIN): only root keeps any.
func (p *process) enter(c mdfs.Cred) error {
	if c.UID == math.MaxUint32 || c.GID == math.MaxUint32 {
		return unix.EINVAL
	}
	groups := make([]int, len(c.Groups))
	for i, g := range c.Groups {
		groups[i] = int(g)
	}
	if err := setIDs(c.UID, c.GID, groups); err != nil || c.UID == 0 {
		return err
	}
	caps := p.caps
	caps[0].Effective, caps[1].Effective = 0, 0
	return setCaps(caps)
}

// leave gives this thread the identity of the process back.
func (p *process) leave() error {
	if err := setCaps(p.caps); err != nil { // first: setgroups needs one
		return err
	}
	return setIDs(p.uid, p.gid, p.groups)
}

// setIDs sets this thread's groups, fsgid and fsuid, and looks whether it did:
// setfsuid(2) and setfsgid(2) do not say.
func setIDs(uid, gid uint32, groups []int) error {
	if err := unix.Setgroups(groups); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	unix.SetfsgidRetGid(int(gid))
	unix.SetfsuidRetUid(int(uid))
	if nowUID, nowGID := fsIDs(); nowUID != uid || nowGID != gid {
		return fmt.Errorf("setfsuid and setfsgid had no effect: %w", unix.EPERM)
	}
	return nil
}

// fsIDs returns this thread's fsuid and fsgid: an id that is none changes nothing.
func fsIDs() (uid, gid uint32) {
	u, _ := unix.SetfsuidRetUid(-1)
	g, _ := unix.SetfsgidRetGid(-1)
	return uint32(u), uint32(g)
}

// capabilities are a thread's, 64 of each set in two halves.
type capabilities [2]unix.CapUserData

func getCaps() (c capabilities, err error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	err = unix.Capget(&hdr, &c[0])
	return c, os.NewSyscallError("capget", err)
}

func setCaps(c capabilities) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	return os.NewSyscallError("capset", unix.Capset(&hdr, &c[0]))
}

// outcome is how a function ended: with an error, a panic, or runtime.Goexit.
type outcome struct {
	err    error
	panic  *fnPanic
	exited bool
}

func (o *outcome) call(fn func() error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			o.panic = &fnPanic{value: v, stack: debug.Stack()}
		} else {
			o.exited = true
		}
	}()
	o.err = fn()
	returned = true
}

// resume ends in this goroutine as the function ended in its own.
func (o *outcome) resume() error {
	if o.panic != nil {
		panic(o.panic)
	}
	if o.exited {
		runtime.Goexit()
	}
	return o.err
}

// fnPanic carries a panic over to the caller's goroutine, with the stack it had.
type fnPanic struct {
	value any
	stack []byte
}

func (p *fnPanic) Error() string { return fmt.Sprintf("%v\n\n%s", p.value, p.stack) }

func (p *fnPanic) Unwrap() error {
	err, _ := p.value.(error)
	return err
}
