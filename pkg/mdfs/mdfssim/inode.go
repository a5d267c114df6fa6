package mdfssim

import (
	"bytes"
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// blockSize is the unit of allocation: what a punch can free.
const blockSize = 4096

// rootIno is the inode number of every disk's root.
const rootIno = 2

// seed makes state hashes; they are compared within one process only.
var seed = maphash.MakeSeed()

// inode is one file, directory, symlink or special. Those of an Image are
// immutable; a Disk clones one before its first change.
type inode struct {
	ino, parent  uint64 // parent: of directories
	mode         uint32
	uid, gid     uint32
	rdev         uint64
	nlink        int64
	size         int64
	atime, mtime int64 // ns
	ctime        int64
	xattrs       []xattr // by name
	blocks       map[int64][]byte
	names        map[string]uint64
	target       string

	sum     uint64 // of the items above: xattrs, blocks, names
	counted uint64 // hash that the Disk's sum holds for this inode
	dirty   bool   // counted is out of date
}

type xattr struct {
	name  string
	value []byte // immutable
}

func (n *inode) kind() uint32 { return n.mode & unix.S_IFMT }
func (n *inode) isDir() bool  { return n.kind() == unix.S_IFDIR }

func (n *inode) clone() *inode {
	c := *n
	c.xattrs = slices.Clone(n.xattrs)
	c.blocks = maps.Clone(n.blocks)
	c.names = maps.Clone(n.names)
	return &c
}

// hash is the canonical hash of the whole inode.
func (n *inode) hash() uint64 {
	h := mix(n.sum, n.ino)
	h = mix(h, uint64(n.mode)<<32|uint64(n.uid))
	h = mix(h, uint64(n.gid)<<32|uint64(n.nlink))
	h = mix(h, uint64(n.size))
	h = mix(h, uint64(n.mtime))
	if n.target != "" {
		h = mix(h, hashString(n.target))
	}
	return h
}

func (n *inode) setName(name string, ino uint64) {
	n.dropName(name)
	if n.names == nil {
		n.names = map[string]uint64{}
	}
	n.names[name] = ino
	n.sum += mix(hashString(name), ino)
}

func (n *inode) dropName(name string) {
	if old, ok := n.names[name]; ok {
		delete(n.names, name)
		n.sum -= mix(hashString(name), old)
	}
}

func (n *inode) findXattr(name string) (int, bool) {
	return slices.BinarySearchFunc(n.xattrs, name, func(x xattr, s string) int { return strings.Compare(x.name, s) })
}

func (n *inode) setXattr(name string, value []byte) {
	x := xattr{name, value}
	i, found := n.findXattr(name)
	if found {
		n.sum -= n.xattrs[i].hash()
		n.xattrs[i] = x
	} else {
		n.xattrs = slices.Insert(n.xattrs, i, x)
	}
	n.sum += x.hash()
}

func (n *inode) dropXattr(name string) {
	if i, found := n.findXattr(name); found {
		n.sum -= n.xattrs[i].hash()
		n.xattrs = slices.Delete(n.xattrs, i, i+1)
	}
}

func (x xattr) hash() uint64 { return mix(hashString(x.name), maphash.Bytes(seed, x.value)) }

// setBlock replaces block i; data is at most blockSize long, zeros follow it. nil is a hole.
func (n *inode) setBlock(i int64, data []byte) {
	if old, ok := n.blocks[i]; ok {
		n.sum -= blockHash(i, old)
		delete(n.blocks, i)
	}
	if data == nil {
		return
	}
	if n.blocks == nil {
		n.blocks = map[int64][]byte{}
	}
	n.blocks[i] = data
	n.sum += blockHash(i, data)
}

func blockHash(i int64, b []byte) uint64 { return mix(uint64(i)+1, maphash.Bytes(seed, b)) }

// write stores p at off; it does not change the size.
func (n *inode) write(p []byte, off int64) {
	for len(p) > 0 {
		i, from := off/blockSize, int(off%blockSize)
		count := min(len(p), blockSize-from)
		b := make([]byte, max(from+count, len(n.blocks[i])))
		copy(b, n.blocks[i])
		copy(b[from:], p[:count])
		n.setBlock(i, b)
		p, off = p[count:], off+int64(count)
	}
}

// read fills p from off, with zeros where there is no data.
func (n *inode) read(p []byte, off int64) {
	clear(p)
	for len(p) > 0 {
		i, from := off/blockSize, int(off%blockSize)
		count := min(len(p), blockSize-from)
		if b := n.blocks[i]; from < len(b) {
			copy(p[:count], b[from:])
		}
		p, off = p[count:], off+int64(count)
	}
}

// zero makes [off, end) read as zeros, freeing the blocks it covers wholly.
func (n *inode) zero(off, end int64) {
	for i := range n.blockRange(off, end) {
		from, to := max(off-i*blockSize, 0), min(end-i*blockSize, blockSize)
		if from == 0 && to == blockSize {
			n.setBlock(i, nil)
			continue
		}
		b := bytes.Clone(n.blocks[i])
		if from < int64(len(b)) {
			clear(b[from:min(to, int64(len(b)))])
			n.setBlock(i, b)
		}
	}
}

// blockRange yields the blocks present that overlap [off, end).
func (n *inode) blockRange(off, end int64) func(func(int64) bool) {
	return func(yield func(int64) bool) {
		for _, i := range slices.Sorted(maps.Keys(n.blocks)) {
			if i*blockSize < end && (i+1)*blockSize > off && !yield(i) {
				return
			}
		}
	}
}

// allocate gives every block of [off, end) room.
func (n *inode) allocate(off, end int64) {
	for i := off / blockSize; i*blockSize < end; i++ {
		if n.blocks[i] == nil {
			n.setBlock(i, []byte{})
		}
	}
}

// seek implements SEEK_DATA and SEEK_HOLE; ok is false beyond the end (ENXIO).
func (n *inode) seek(off int64, hole bool) (pos int64, ok bool) {
	if off < 0 || off >= n.size {
		return 0, false
	}
	i := off / blockSize
	if hole {
		for n.blocks[i] != nil {
			i++
		}
		return min(max(off, i*blockSize), n.size), true
	}
	for j := range n.blockRange(off, n.size) {
		return max(off, j*blockSize), true
	}
	return 0, false
}

// mix combines two hashes; the order matters.
func mix(a, b uint64) uint64 {
	h := (a ^ 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	h ^= h >> 29
	h += b
	h *= 0x94d049bb133111eb
	return h ^ h>>32
}

func hashString(s string) uint64 { return maphash.String(seed, s) }
