package fusefs

import "sync"

// generations tells apart the directories that one inode number stood for. A
// removed directory lives on in the kernel while somebody is in it; when the
// metadata filesystem gives its number to a new directory, that one must not
// become the dead one's node. Files need none of this: what is cached of a file
// goes by content id.
//
// An entry is there only while a removed directory, or the one that got its
// number, is known to the kernel.
type generations struct {
	mu    sync.Mutex // guards byIno
	byIno map[uint64]generation
}

type generation struct {
	now  uint64 // of the next node with this number
	used bool   // by a node
}

// of returns the generation for a node of a directory.
func (g *generations) of(ino uint64) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	e, ok := g.byIno[ino]
	if ok && !e.used {
		e.used = true
		g.byIno[ino] = e
	}
	return e.now
}

// died says that the directory with this number and generation was removed.
func (g *generations) died(ino, gen uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byIno == nil {
		g.byIno = map[uint64]generation{}
	}
	if g.byIno[ino].now <= gen {
		g.byIno[ino] = generation{now: gen + 1}
	}
}

// forgot says that the kernel has forgotten the node.
func (g *generations) forgot(ino, gen uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e, ok := g.byIno[ino]
	if !ok {
		return
	}
	if e.now == gen || e.now == gen+1 && !e.used {
		delete(g.byIno, ino)
	}
}
