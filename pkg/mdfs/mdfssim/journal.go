package mdfssim

import (
	"maps"
	"slices"
)

// part is what of an inode becomes durable together.
type part uint8

const (
	partNames part = iota // a directory's entries
	partAttrs             // size, mode, owner, times, xattrs
	partData
)

// domain is one part of one inode: the unit whose changes stay in order.
type domain struct {
	ino  uint64
	part part
}

// journal is what changed since the disk was made.
type journal struct {
	one     bool              // all but data in one domain
	born    map[uint64]*inode // new inodes as they were made
	changes map[domain][]entry
	durable map[domain]int // entries that must survive
}

type entry struct {
	ino   uint64
	apply func(*inode)
	pair  *pair // the other half of a rename, which survives with this one
	needs int   // changes of the inode's data without which this one is not seen
}

type pair struct {
	with domain
	n    int // entries of with that must survive
}

func newJournal(one bool) *journal {
	return &journal{one, map[uint64]*inode{}, map[domain][]entry{}, map[domain]int{}}
}

// domain is where the changes of one part of an inode are kept in order.
func (j *journal) domain(ino uint64, p part) domain {
	if j.one && p != partData {
		return domain{}
	}
	return domain{ino, p}
}

func (j *journal) add(ino uint64, p part, f func(*inode)) {
	d := j.domain(ino, p)
	j.changes[d] = append(j.changes[d], entry{ino: ino, apply: f})
}

// grown says that the inode's last change of attributes is the size that its last
// change of data gave it. With one journal the size waits for the data: ext4 and XFS
// allocate late, and show after a power failure what is before the lost bytes.
func (j *journal) grown(ino uint64) {
	if c := j.changes[domain{}]; j.one {
		c[len(c)-1].needs = len(j.changes[domain{ino, partData}])
	}
}

// join makes the last changes of two directories one.
func (j *journal) join(a, b uint64) {
	da, db := j.domain(a, partNames), j.domain(b, partNames)
	ca, cb := j.changes[da], j.changes[db]
	if da == db { // removal and addition, in this order, are both at the end
		ca[len(ca)-2].pair = &pair{da, len(ca)}
		return
	}
	ca[len(ca)-1].pair = &pair{db, len(cb)}
	cb[len(cb)-1].pair = &pair{da, len(ca)}
}

// sync makes every change of a part of an inode so far durable.
func (j *journal) sync(ino uint64, p part) {
	d := j.domain(ino, p)
	if len(j.changes[d]) > j.durable[d] {
		j.durable[d] = len(j.changes[d])
		j.close(j.durable)
	}
}

func (j *journal) syncAll() {
	for d, c := range j.changes {
		j.durable[d] = len(c)
	}
}

// close raises cuts until both halves of every pair survive together.
func (j *journal) close(cuts map[domain]int) {
	for again := true; again; {
		again = false
		for d, cut := range cuts {
			for _, e := range j.changes[d][:cut] {
				if e.pair != nil && cuts[e.pair.with] < e.pair.n {
					cuts[e.pair.with] = e.pair.n
					again = true
				}
			}
		}
	}
}

// Volatile is one domain with changes that a power failure may lose: it keeps
// between Min and Max of them.
type Volatile struct {
	dom      domain
	Min, Max int
}

// Volatile lists the domains that have lost-able changes, in a fixed order.
func (d *Disk) Volatile() []Volatile {
	d.mu.Lock()
	defer d.mu.Unlock()
	var vs []Volatile
	for dom, c := range d.journal.changes {
		if n := d.journal.durable[dom]; n < len(c) {
			vs = append(vs, Volatile{dom, n, len(c)})
		}
	}
	slices.SortFunc(vs, func(a, b Volatile) int {
		return compare(a.dom.ino, b.dom.ino, int(a.dom.part), int(b.dom.part))
	})
	return vs
}

func compare(a, b uint64, p, q int) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return p - q
}

// Crash is the disk as a power failure leaves it when the i-th Volatile domain
// keeps keep[i] of its changes. Both halves of a rename survive or none, as on
// every journalling filesystem. Open handles of d do not reach the new disk.
func (d *Disk) Crash(vs []Volatile, keep []int) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	cuts := maps.Clone(d.journal.durable)
	for i, v := range vs {
		cuts[v.dom] = max(cuts[v.dom], keep[i])
	}
	d.journal.close(cuts)
	after := (&Image{d.base, d.mounts}).Disk(d.o)
	after.journal = nil
	after.o.Journal = false
	for ino := range d.over {
		n := d.base[ino]
		if n == nil {
			n = d.journal.born[ino]
		}
		after.over[ino] = d.journal.replay(n.clone(), cuts)
	}
	after.settle()
	return after
}

// replay applies what survives of an inode's changes.
func (j *journal) replay(n *inode, cuts map[domain]int) *inode {
	for p := partNames; p <= partData; p++ {
		dom := j.domain(n.ino, p)
		if j.one && p == partAttrs {
			continue // with the names
		}
		for _, e := range j.changes[dom][:cuts[dom]] {
			if e.ino == n.ino && e.needs <= cuts[domain{n.ino, partData}] {
				e.apply(n)
			}
		}
	}
	n.counted, n.dirty = 0, false
	return n
}

// settle derives link counts from the names that survived and forgets what has
// none, as a filesystem's own recovery does.
func (d *Disk) settle() {
	links := map[uint64]int64{}
	for ino, n := range d.over {
		if b := d.base[ino]; b != nil {
			links[ino] += b.names0()
			countNames(links, b, -1)
		}
		countNames(links, n, 1)
	}
	for d.dropLost(links) {
	}
	for ino, by := range links {
		n := d.get(ino)
		if _, changed := d.over[ino]; !changed {
			by += n.names0()
		}
		if !n.isDir() && n.nlink != by {
			d.mut(ino).nlink = by
		}
	}
	for _, n := range d.over {
		n.nlink = n.nlinkNow(d)
		d.touch(n)
	}
}

// names0 is the number of names the inode's link count stands for.
func (n *inode) names0() int64 {
	if n.isDir() {
		return 1
	}
	return n.nlink
}

// nlinkNow is the link count: a directory's follows from its subdirectories, a
// file without a name in any surviving directory has none.
func (n *inode) nlinkNow(d *Disk) int64 {
	if !n.isDir() {
		return n.nlink
	}
	links := int64(2)
	for _, ino := range n.names {
		if d.get(ino).isDir() {
			links++
		}
	}
	return links
}

// dropLost empties directories that lost their name.
func (d *Disk) dropLost(links map[uint64]int64) (again bool) {
	for ino, n := range d.over {
		if n.isDir() && ino != rootIno && links[ino] == 0 && len(n.names) > 0 {
			countNames(links, n, -1)
			n.names, n.sum, again = nil, 0, true
		}
	}
	return again
}

func countNames(links map[uint64]int64, n *inode, by int64) {
	for _, ino := range n.names {
		links[ino] += by
	}
}
