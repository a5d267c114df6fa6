package metadata

import (
	"errors"
	"path"
	"strings"
	"sync"
	"syscall"

	"marfs/pkg/mdfs"
)

// maxDirs bounds the private directories kept open.
const maxDirs = 1024

// dirs keeps private directories open, because every operation uses a few of a
// thousand. Fan-out directories are made when first used: 1280 of them for a
// namespace that never holds a thousand files would be a waste, and a test's time.
// Those of trash/purged are there from the beginning (makePurged).
type dirs struct {
	f    *FS
	root mdfs.Dir

	mu   sync.Mutex // guards the fields below; never held across a call of mdfs
	held map[string]*heldDir
	uses uint64
}

type heldDir struct {
	mdfs.Dir
	refs  int
	used  uint64
	named bool // its name is durable, as far as this process knows
	gone  bool // not in the map any more: the last user closes it
}

func newDirs(f *FS) *dirs {
	return &dirs{f: f, root: f.md.Root(), held: map[string]*heldDir{}}
}

// making is what is done about a directory that is not there.
type making int

const (
	makeNot making = iota
	makeUnsynced
	makeDurable
)

// in runs fn with the private directory at p, which is not there: ENOENT.
func (f *FS) in(p string, fn func(d mdfs.Dir) error) error { return f.dirs.with(p, makeNot, fn) }

// inMade is in for a directory that is made, durably, when it is not there.
func (f *FS) inMade(p string, fn func(d mdfs.Dir) error) error {
	return f.dirs.with(p, makeDurable, fn)
}

// inUnsynced is inMade for names that are not made durable themselves.
func (f *FS) inUnsynced(p string, fn func(d mdfs.Dir) error) error {
	return f.dirs.with(p, makeUnsynced, fn)
}

func (c *dirs) with(p string, mk making, fn func(d mdfs.Dir) error) error {
	for {
		h, err := c.get(p, mk)
		if err != nil {
			return err
		}
		err = fn(h.Dir)
		again := errors.Is(err, syscall.ENOENT) && c.removed(p, h)
		c.put(h)
		if !again {
			return err
		}
	}
}

// removed tells whether the directory was removed, empty, while it was kept open,
// and forgets it. Days of trash/ and nodes of work/ come and go.
func (c *dirs) removed(p string, h *heldDir) bool {
	if top, _, below := strings.Cut(p, "/"); !below || top != trashName && top != workName {
		return false
	}
	if st, err := h.Stat(); err == nil && st.Nlink > 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for q, held := range c.held { // its parents may have been removed with it
		if held == h || strings.HasPrefix(p, q+"/") && strings.Contains(q, "/") {
			delete(c.held, q)
			if held.gone = true; held.refs == 0 {
				held.Close()
			}
		}
	}
	return true
}

// get returns the directory at p and a reference to it.
func (c *dirs) get(p string, mk making) (*heldDir, error) {
	if p == "." {
		return &heldDir{Dir: c.root, refs: 2, named: true}, nil
	}
	if h := c.find(p, mk == makeDurable); h != nil {
		return h, nil
	}
	parent, err := c.get(path.Dir(p), mk)
	if err != nil {
		return nil, err
	}
	defer c.put(parent)
	d, err := c.open(parent.Dir, p, mk)
	if errors.Is(err, syscall.ENOENT) && c.removed(path.Dir(p), parent) {
		return c.get(p, mk) // the parent has been made anew, or is now
	}
	if err != nil {
		return nil, err
	}
	if old := c.find(p, false); old != nil { // its name was not known to be durable; it may not be it any more
		c.removed(p, old)
		c.put(old)
	}
	return c.keep(p, d, mk == makeDurable), nil
}

// open opens or makes the directory. One that is there may have been made by
// another node a moment ago: before this process relies on its name being
// durable, the parent is synced once ([D]).
func (c *dirs) open(parent mdfs.Dir, p string, mk making) (mdfs.Dir, error) {
	name := path.Base(p)
	d, err := parent.OpenDir(name)
	made := false
	if mk != makeNot && errors.Is(err, syscall.ENOENT) {
		if err := ignore(mkdir(stepFan, parent, name, dirMode(p)), syscall.EEXIST); err != nil {
			return nil, err
		}
		made = true
		d, err = parent.OpenDir(name)
	}
	if err != nil {
		return nil, err
	}
	if mk == makeDurable && (made || !c.f.covers) {
		if err := syncDir(stepFan, parent); err != nil {
			d.Close()
			return nil, err
		}
	}
	return d, nil
}

// dirMode: homes can be linked back into the tree with the rights of a user, so
// their directories let names be looked up. The 0700 of the directory above, and
// of the metadata directory itself, keeps everybody out but who holds a descriptor.
func dirMode(p string) uint32 {
	top, _, fan := strings.Cut(p, "/")
	if fan && (top == filesName || top == stagedName) {
		return 0o711
	}
	return 0o700
}

// find returns a directory that is held; with named only if its name is durable.
func (c *dirs) find(p string, named bool) *heldDir {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[p]
	if h == nil || named && !h.named {
		return nil
	}
	c.uses++
	h.refs, h.used = h.refs+1, c.uses
	return h
}

// keep puts d into the map, unless somebody was faster.
func (c *dirs) keep(p string, d mdfs.Dir, named bool) *heldDir {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uses++
	h := c.held[p]
	if h != nil {
		d.Close()
	} else {
		h = &heldDir{Dir: d}
		c.held[p] = h
	}
	h.refs, h.used, h.named = h.refs+1, c.uses, h.named || named
	if len(c.held) > maxDirs {
		c.evict()
	}
	return h
}

// evict drops the directory that was used least recently; c.mu is held.
func (c *dirs) evict() {
	var oldest string
	for p, h := range c.held {
		if o := c.held[oldest]; o == nil || h.used < o.used {
			oldest = p
		}
	}
	h := c.held[oldest]
	delete(c.held, oldest)
	if h.gone = true; h.refs == 0 {
		h.Close()
	}
}

func (c *dirs) put(h *heldDir) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.refs--; h.gone && h.refs == 0 {
		h.Close()
	}
}

func (c *dirs) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.held {
		if h.gone = true; h.refs == 0 {
			h.Close()
		}
	}
	c.held = map[string]*heldDir{}
}
