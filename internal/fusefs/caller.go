package fusefs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/namespace"
)

const (
	groupsTTL  = time.Second // how long a process's groups are believed
	maxCallers = 512         // processes remembered; each holds a descriptor
	maxStatus  = 1 << 20     // bytes of /proc/<pid>/status: 65536 groups fit
)

// daemon is the identity of this process.
func daemon() namespace.Caller {
	return namespace.Caller{Cred: mdfs.Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, PID: uint32(os.Getpid())}
}

// caller is whose request it is, with supplementary groups.
func (n *node) caller(ctx context.Context) namespace.Caller {
	c := idOf(ctx)
	c.Groups = n.fs.callers.groups(c)
	return c
}

// idOf is the caller without groups, enough for operations on open files.
func idOf(ctx context.Context) namespace.Caller {
	fc, ok := fuse.FromContext(ctx)
	if !ok {
		return daemon()
	}
	return namespace.Caller{Cred: mdfs.Cred{UID: fc.Uid, GID: fc.Gid}, PID: fc.Pid}
}

// callers remembers the supplementary groups of processes for a moment: the
// kernel sends only uid and gid.
//
// A remembered process is held by a descriptor of its /proc directory, which
// stops working when the process ends. So another one that gets the same number
// is never taken for it, at a fraction of what reading its start time costs.
type callers struct {
	proc string // "/proc"

	mu   sync.Mutex // guards what follows
	byID map[callerKey]process
}

type callerKey struct{ pid, uid, gid uint32 }

type process struct {
	dir    int // O_PATH descriptor of /proc/<pid>
	groups []uint32
	until  time.Time
}

func newCallers(proc string) *callers {
	return &callers{proc: proc, byID: map[callerKey]process{}}
}

// groups returns nil when they cannot be known: then the caller has the rights
// of its uid and gid, never more.
func (cs *callers) groups(c namespace.Caller) []uint32 {
	if c.PID == 0 || c.UID == 0 {
		return nil // the kernel's own, or outside our pid namespace; or root, whom groups give nothing
	}
	key := callerKey{c.PID, c.UID, c.GID}
	if g, ok := cs.remembered(key); ok {
		return g
	}
	p, err := cs.look(key)
	if err != nil {
		return nil
	}
	cs.remember(key, p)
	return p.groups
}

func (cs *callers) remembered(key callerKey) ([]uint32, bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	p, ok := cs.byID[key]
	if !ok {
		return nil, false
	}
	if time.Now().After(p.until) || unix.Faccessat(p.dir, "status", unix.F_OK, 0) != nil {
		cs.forget(key)
		return nil, false
	}
	return p.groups, true
}

func (cs *callers) remember(key callerKey, p process) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.forget(key)
	for k := range cs.byID { // any one will do
		if len(cs.byID) < maxCallers {
			break
		}
		cs.forget(k)
	}
	cs.byID[key] = p
}

// forget drops an entry, if there; cs.mu is held.
func (cs *callers) forget(key callerKey) {
	if p, ok := cs.byID[key]; ok {
		unix.Close(p.dir)
		delete(cs.byID, key)
	}
}

// look reads the groups of a process.
func (cs *callers) look(key callerKey) (process, error) {
	dir, err := unix.Open(cs.proc+"/"+strconv.FormatUint(uint64(key.pid), 10), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return process{}, err
	}
	groups, err := readGroups(dir, key)
	if err != nil {
		unix.Close(dir)
		return process{}, err
	}
	return process{dir: dir, groups: groups, until: time.Now().Add(groupsTTL)}, nil
}

// single reads the groups of a process that is nobody else besides: its real,
// effective, saved and filesystem ids are all the caller's. So a set-user-ID program
// is refused, whatever it has been made to open.
func (cs *callers) single(c namespace.Caller) ([]uint32, error) {
	if c.PID == 0 {
		return nil, errors.New("the caller is in another pid namespace")
	}
	dir, err := unix.Open(cs.proc+"/"+strconv.FormatUint(uint64(c.PID), 10), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	status, err := readStatus(dir)
	if err != nil {
		return nil, err
	}
	uid, gid, err := identities(status)
	if err != nil {
		return nil, err
	}
	other := func(want uint32) func(uint32) bool { return func(id uint32) bool { return id != want } }
	if len(uid) != 4 || len(gid) != 4 || slices.ContainsFunc(uid, other(c.UID)) || slices.ContainsFunc(gid, other(c.GID)) {
		return nil, errors.New("the program has more than one identity")
	}
	return ids(status, "Groups:")
}

// identities are the real, effective, saved and filesystem ids.
func identities(status []byte) (uid, gid []uint32, err error) {
	if uid, err = ids(status, "Uid:"); err != nil {
		return nil, nil, err
	}
	gid, err = ids(status, "Gid:")
	return uid, gid, err
}

func readGroups(dir int, key callerKey) ([]uint32, error) {
	status, err := readStatus(dir)
	if err != nil {
		return nil, err
	}
	uid, gid, err := identities(status)
	if err != nil {
		return nil, err
	}
	// real, effective, saved, filesystem: a process that has changed identity
	// since it asked must not lend its new groups to the old one.
	if len(uid) != 4 || len(gid) != 4 || uid[3] != key.uid || gid[3] != key.gid {
		return nil, errors.New("the caller changed its identity")
	}
	return ids(status, "Groups:")
}

func readStatus(dir int) ([]byte, error) {
	fd, err := unix.Openat(dir, "status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "status")
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxStatus))
	if err == nil && len(data) == maxStatus {
		err = errors.New("status too long")
	}
	return data, err
}

// field returns the value of a line of /proc/<pid>/status.
func field(status []byte, name string) ([]byte, error) {
	for line := range bytes.Lines(status) {
		if v, ok := bytes.CutPrefix(line, []byte(name)); ok {
			return v, nil
		}
	}
	return nil, errors.New("no " + name + " in status")
}

func ids(status []byte, name string) ([]uint32, error) {
	v, err := field(status, name)
	if err != nil {
		return nil, err
	}
	var out []uint32
	for f := range bytes.FieldsSeq(v) {
		id, err := strconv.ParseUint(string(f), 10, 32)
		if err != nil {
			return nil, err
		}
		out = append(out, uint32(id))
	}
	return out, nil
}
