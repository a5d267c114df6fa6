package fusefs

import (
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"marfs/pkg/namespace"
)

// fileState is what a node knows of its open files. The kernel has one page cache
// for an inode, whoever opened it and whatever they opened; so the cache belongs
// to one content at a time, cut off at one place, and a handle on any other goes
// around it.
type fileState struct {
	open   map[*handle]struct{}
	pages  namespace.Bytes // whose pages the kernel may have; zero: unknown
	cached int             // open handles that use the page cache
}

// handle is an open file.
type handle struct {
	n      *node
	file   *namespace.File
	sync   bool        // O_DSYNC or O_SYNC: each write is committed
	cached bool        // reads go through the page cache
	maps   bool        // it can fill pages although not cached, by a private mmap
	dirty  atomic.Bool // it has written what no commit has made durable

	// Guarded by n.mu.
	users    int // operations on the node that borrowed it
	released bool
}

// newHandle registers an open file and says how the kernel shall use it.
func (n *node) newHandle(f *namespace.File, flags uint32) (*handle, uint32) {
	mode := flags & syscall.O_ACCMODE
	h := &handle{n: n, file: f,
		sync: flags&syscall.O_DSYNC != 0, // O_SYNC has this bit too
		maps: mode != syscall.O_WRONLY,
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		n.file = &fileState{open: map[*handle]struct{}{}}
	}
	n.file.open[h] = struct{}{}
	if mode != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0 {
		// The application's own requests reach us whole.
		return h, fuse.FOPEN_DIRECT_IO
	}
	if !n.fs.direct && n.claimPages(f.Bytes()) {
		h.cached = true
		n.file.cached++
		return h, fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	}
	return h, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH
}

// claimPages makes the page cache that of want, if no handle on other bytes uses
// it. The kernel drops the old pages before the open is answered: were it left to
// do so after (without KEEP_CACHE), a second opener could read them. n.mu is held.
func (n *node) claimPages(want namespace.Bytes) bool {
	s := n.file
	switch {
	case want.Content.IsZero(): // being written here, or empty
		return false
	case s.pages == want:
		return true
	case s.cached > 0:
		return false
	}
	if e := n.NotifyContent(0, 0); e != 0 && e != syscall.ENOENT {
		return false
	}
	s.pages = want
	return true
}

// wrote drops pages of a range that was written around the cache, so that handles
// which use it see the new bytes.
func (n *node) wrote(off, size int64) {
	if n.disown() {
		_ = n.NotifyContent(off, size) // fails when the kernel has forgotten the node
	}
}

// committed is called when a write has ended, well or badly. Handles open on the
// old content follow to the newest, so its pages go; and the kernel must ask again
// for size and times, which a commit sets.
func (n *node) committed() {
	off := int64(-1) // attributes only
	if n.disown() {
		off = 0
	}
	_ = n.NotifyContent(off, 0) // as in wrote
}

// disown says that nobody knows whose the pages are any more. It reports whether
// a handle uses them.
func (n *node) disown() (inUse bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		return false
	}
	n.file.pages = namespace.Bytes{}
	return n.file.cached > 0
}

// withOpen runs fn on any open file of n, which stays open meanwhile.
func (n *node) withOpen(fn func(*namespace.File) error) (found bool, err error) {
	h := n.borrow()
	if h == nil {
		return false, nil
	}
	defer h.giveBack()
	return true, fn(h.file)
}

func (n *node) borrow() *handle {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		return nil
	}
	for h := range n.file.open {
		h.users++
		return h
	}
	return nil
}

func (h *handle) giveBack() {
	h.n.mu.Lock()
	h.users--
	last := h.released && h.users == 0
	h.n.mu.Unlock()
	if last {
		h.close()
	}
}

// unregister ends the handle's part in the node, and reports whether it may be
// closed now.
func (h *handle) unregister() bool {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	s := h.n.file
	delete(s.open, h)
	if h.cached {
		s.cached--
	} else if h.maps {
		s.pages = namespace.Bytes{} // it may have put pages of its own there
	}
	h.released = true
	return h.users == 0
}
