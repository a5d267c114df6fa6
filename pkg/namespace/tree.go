package namespace

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// treeNode is one directory of the tree that leads to the namespaces. A node
// with a space is that namespace's root; one without is synthetic, unless the
// namespace around it has a real directory of that name.
type treeNode struct {
	name     string
	space    *space
	ino      uint64
	children []*treeNode // sorted by name
	born     time.Time
}

// syntheticIno marks inode numbers of directories that are in no metadata filesystem.
const syntheticIno = 0xFFFF << 48

func newTree() *treeNode { return &treeNode{born: time.Now()} }

// number gives every node an inode number above last, and returns the highest.
func (t *treeNode) number(last uint64) uint64 {
	t.ino = last + 1
	last = t.ino
	for _, c := range t.children {
		last = c.number(last)
	}
	return last
}

func (t *treeNode) child(name string) *treeNode {
	if t == nil {
		return nil
	}
	if i, ok := slices.BinarySearchFunc(t.children, name, byName); ok {
		return t.children[i]
	}
	return nil
}

func byName(n *treeNode, name string) int { return strings.Compare(n.name, name) }

// add puts a namespace at a clean absolute path.
func (t *treeNode) add(at string, s *space) error {
	if at != path.Clean("/"+at) {
		return fmt.Errorf("path %q is not a clean absolute path", at)
	}
	n := t
	for name := range strings.SplitSeq(strings.Trim(at, "/"), "/") {
		if name == "" {
			break // the root itself
		}
		n = n.enter(name)
	}
	if n.space != nil {
		return fmt.Errorf("path %q is already that of namespace %s", at, n.space.cfg.Name)
	}
	n.space, s.node = s, n
	return nil
}

func (t *treeNode) enter(name string) *treeNode {
	i, ok := slices.BinarySearchFunc(t.children, name, byName)
	if !ok {
		t.children = slices.Insert(t.children, i, &treeNode{name: name, born: t.born})
	}
	return t.children[i]
}

// shownIno is the inode number that stat of the directory shows, but where the
// namespace around it has a real one of the name.
func (t *treeNode) shownIno() uint64 {
	if t.space != nil {
		return t.space.root ^ t.space.inoKey
	}
	return t.ino
}

// attr is what a synthetic directory shows.
func (t *treeNode) attr() Attr {
	ts := syscall.NsecToTimespec(t.born.UnixNano())
	return Attr{Ino: t.ino, Mode: syscall.S_IFDIR | 0o755, Nlink: uint64(2 + len(t.children)),
		Size: 4096, Blksize: 4096, Blocks: 8, Atim: ts, Mtim: ts, Ctim: ts}
}

// openNode opens the directory of a tree node; outer is the directory around it, or nil.
func (f *FS) openNode(n *treeNode, outer *Dir) (*Dir, error) {
	if n.space != nil {
		return &Dir{fs: f, space: n.space, node: n, md: n.space.cfg.Meta.Tree(), ino: n.space.root}, nil
	}
	if outer != nil && outer.space != nil {
		d, err := outer.openReal(n.name)
		if !errors.Is(err, syscall.ENOENT) {
			if d != nil {
				d.node = n
			}
			return d, err
		}
	}
	return &Dir{fs: f, node: n}, nil
}
