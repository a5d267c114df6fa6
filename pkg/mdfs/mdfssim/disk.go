package mdfssim

import (
	"maps"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Options of a Disk.
type Options struct {
	// Journal remembers what is not durable yet, for Crash.
	Journal bool
	// OneJournal: all changes but those of data become durable in one order, and
	// any sync makes all so far durable, as on ext4 and XFS. Statfs then reports
	// ext4. Without it every directory and every inode keeps its own order only,
	// and Statfs reports an unknown type.
	OneJournal bool
	// XattrRoom bounds the bytes of one inode's xattr names and values. 0: 64 KiB.
	XattrRoom int
}

// Disk is one simulated filesystem. Safe for concurrent use.
type Disk struct {
	o Options

	mu      sync.Mutex // guards all below
	base    map[uint64]*inode
	over    map[uint64]*inode // changed or made since base
	dirty   []uint64          // inodes of over whose hash is out of date
	sum     uint64
	mounts  uint64
	journal *journal                 // nil without Options.Journal
	locks   map[uint64]map[*file]int // LOCK_SH or LOCK_EX, by inode; no Image has them
	ranges  map[uint64][]byteRange   // as locks
}

// Image is an immutable state of a disk. Safe for concurrent use.
type Image struct {
	inodes map[uint64]*inode
	mounts uint64
}

// New makes an empty disk. Its root is 0700, as a metadata directory has to be.
func New(o Options) *Disk {
	root := &inode{ino: rootIno, parent: rootIno, mode: unix.S_IFDIR | 0o700, nlink: 2}
	return (&Image{inodes: map[uint64]*inode{rootIno: root}, mounts: 1}).Disk(o)
}

// Disk makes a disk that starts in this state, all of it durable.
func (im *Image) Disk(o Options) *Disk {
	d := &Disk{o: o, base: im.inodes, over: map[uint64]*inode{}, mounts: im.mounts, locks: map[uint64]map[*file]int{}, ranges: map[uint64][]byteRange{}}
	if o.XattrRoom == 0 {
		d.o.XattrRoom = 64 << 10
	}
	if o.Journal {
		d.journal = newJournal(o.OneJournal)
	}
	return d
}

// Freeze returns the disk's present state.
func (d *Disk) Freeze() *Image {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rehash()
	all := maps.Clone(d.base)
	for ino, n := range d.over {
		c := n.clone()
		c.counted = 0
		all[ino] = c
	}
	return &Image{inodes: all, mounts: d.mounts}
}

// Hash identifies the state, relative to the Image the disk started from.
func (d *Disk) Hash() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rehash()
	return d.sum + d.lockSum()
}

func (d *Disk) rehash() {
	for _, ino := range d.dirty {
		n := d.over[ino]
		h := n.hash()
		if b := d.base[ino]; b != nil {
			h -= b.hash()
		}
		d.sum += h - n.counted
		n.counted, n.dirty = h, false
	}
	d.dirty = d.dirty[:0]
}

// get returns an inode for reading.
func (d *Disk) get(ino uint64) *inode {
	if n := d.over[ino]; n != nil {
		return n
	}
	return d.base[ino]
}

// mut returns an inode for changing.
func (d *Disk) mut(ino uint64) *inode {
	n := d.over[ino]
	if n == nil {
		n = d.base[ino].clone()
		n.counted, n.dirty = 0, false
		d.over[ino] = n
	}
	d.touch(n)
	return n
}

func (d *Disk) touch(n *inode) {
	if !n.dirty {
		n.dirty = true
		d.dirty = append(d.dirty, n.ino)
	}
}

// add puts a new inode on the disk; it has no name yet.
func (d *Disk) add(n *inode) {
	d.over[n.ino] = n
	d.touch(n)
	if d.journal != nil {
		d.journal.born[n.ino] = n.clone()
	}
}

// change applies f to one domain of an inode.
func (d *Disk) change(ino uint64, p part, f func(*inode)) {
	f(d.mut(ino))
	if d.journal != nil {
		d.journal.add(ino, p, f)
	}
}

// relink adjusts a link count; it is derived from the names and so never journalled.
func (d *Disk) relink(ino uint64, by int64) { d.mut(ino).nlink += by }

// setName makes name in dir stand for ino.
func (d *Disk) setName(dir uint64, name string, ino uint64) {
	d.change(dir, partNames, func(n *inode) { n.setName(name, ino) })
}

func (d *Disk) dropName(dir uint64, name string) {
	d.change(dir, partNames, func(n *inode) { n.dropName(name) })
}

// path names an inode for people: by its directory's place and its name there.
func (d *Disk) path(dir uint64, name string) string {
	parts := []string{name}
	for dir != rootIno {
		n := d.get(dir)
		found := "?"
		for s, ino := range d.get(n.parent).names {
			if ino == dir {
				found = s
			}
		}
		parts = append([]string{found}, parts...)
		dir = n.parent
	}
	return strings.TrimSuffix(strings.Join(parts, "/"), "/")
}
