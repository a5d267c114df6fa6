package metadata

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

// Node is a running daemon or tool, as its record in nodes/ tells. Its counter
// moves with every heartbeat: whoever wants to know whether it lives watches the
// counter by his own clock. That only tells when to try a recovery; recovery is
// safe at any time.
type Node struct {
	Name     string
	Instance [4]byte // bytes 8 to 11 of the ids of its sessions
	Count    uint64
}

const nodeFormat = "marfs node v1 instance %s count %016x\n"

func (f *FS) nodeText(count uint64) []byte {
	return fmt.Appendf(nil, nodeFormat, f.instanceName(), count)
}

// Nodes reads the records of all nodes. One that cannot be read is left out: its
// sessions are recovered, and fail if they live.
func (f *FS) Nodes(ctx context.Context) ([]Node, error) {
	names, err := f.names(nodesName, "")
	if err != nil {
		return nil, err
	}
	var nodes []Node
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if n, ok := f.readNode(name); ok {
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

// Busy tells whether a node has unfinished work: records of sessions, or packs.
func (f *FS) Busy(ctx context.Context, n Node) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if busy, err := f.anyName(workName+"/"+n.Name, ""); busy || err != nil {
		return busy, err
	}
	packs, err := f.names(openPacks, "")
	suffix := "." + hex.EncodeToString(n.Instance[:])
	return slices.ContainsFunc(packs, func(p string) bool { return strings.HasSuffix(p, suffix) }), err
}

func (f *FS) readNode(name string) (n Node, ok bool) {
	var b []byte
	err := f.in(nodesName, func(d mdfs.Dir) (err error) {
		b, err = readFile(d, name, 128)
		return err
	})
	var instance string
	if err == nil {
		_, err = fmt.Sscanf(string(b), strings.TrimSuffix(nodeFormat, "\n"), &instance, &n.Count)
	}
	id, e := hex.DecodeString(instance)
	if err != nil || e != nil || len(id) != len(n.Instance) {
		return Node{}, false
	}
	n.Name = name
	copy(n.Instance[:], id)
	return n, true
}

// heartbeat keeps a node's record.
type heartbeat struct {
	f     *FS
	count uint64
	once  sync.Once // of closing end
	end   chan struct{}
	done  sync.WaitGroup
}

// startHeartbeat makes the node's record, replacing one of an earlier instance,
// and moves its counter if Options say so. The record needs no fsync.
func (f *FS) startHeartbeat() (*heartbeat, error) {
	b := &heartbeat{f: f, end: make(chan struct{})}
	if err := b.create(); err != nil && !full(err) { // a later beat makes it, when there is room
		return nil, fmt.Errorf("node record %q: %w", f.o.Node, err)
	}
	if f.o.Heartbeat > 0 {
		b.done.Go(b.run)
	}
	return b, nil
}

func (b *heartbeat) create() error {
	return b.f.in(nodesName, func(d mdfs.Dir) error {
		if err := remove(stepNode, d, b.f.o.Node); err != nil {
			return err
		}
		return writeFile(stepNode, d, b.f.o.Node, b.f.nodeText(b.count), false)
	})
}

// beat moves the counter. A record that is gone was removed by a node that took
// this one for dead: it is made again. One of another instance stays: it has
// taken over the name, and this one's sessions fail.
func (b *heartbeat) beat() error {
	b.count++
	n, ok := b.f.readNode(b.f.o.Node)
	switch {
	case !ok:
		return b.create()
	case n.Instance != b.f.instance:
		return nil
	}
	return b.f.in(nodesName, func(d mdfs.Dir) error {
		fl, err := d.OpenFile(b.f.o.Node, unix.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer fl.Close()
		return writeAt(stepNode, fl, b.f.nodeText(b.count), 0)
	})
}

// run moves the counter until stop. A write that fails is tried again next time:
// at worst others believe that this node is dead, and its sessions fail.
func (b *heartbeat) run() {
	t := time.NewTicker(b.f.o.Heartbeat)
	defer t.Stop()
	for {
		select {
		case <-b.end:
			return
		case <-t.C:
			_ = b.beat()
		}
	}
}

// stop ends the heartbeat and removes the record, if it is still this instance's,
// and the directory of the node's work records, if it is empty.
func (b *heartbeat) stop() error {
	if b == nil {
		return nil
	}
	b.once.Do(func() { close(b.end) })
	b.done.Wait()
	if n, ok := b.f.readNode(b.f.o.Node); !ok || n.Instance != b.f.instance {
		return nil
	}
	return b.f.forgetNode(b.f.o.Node)
}

// forgetNode removes what is left of a node that has ended.
func (f *FS) forgetNode(name string) error {
	err := f.in(workName, func(d mdfs.Dir) error { return removeDir(stepNode, d, name) })
	if err := ignore(err, syscall.ENOENT, syscall.ENOTEMPTY, syscall.EEXIST); err != nil {
		return err
	}
	return f.in(nodesName, func(d mdfs.Dir) error { return remove(stepNode, d, name) })
}

// Watch judges by their counters which nodes live: one whose counter has not
// moved for a while, by the watcher's clock, is taken for dead. Not safe for
// concurrent use.
type Watch struct {
	after time.Duration
	seen  map[[4]byte]sighting
}

type sighting struct {
	count uint64
	moved time.Time // when the watcher first saw the count
}

// NewWatch makes a watch that takes a node for dead after that time without a
// heartbeat: several times Options.Heartbeat.
func NewWatch(after time.Duration) *Watch {
	return &Watch{after: after, seen: map[[4]byte]sighting{}}
}

// Look notes what [FS.Nodes] has just returned.
func (w *Watch) Look(nodes []Node, now time.Time) {
	seen := make(map[[4]byte]sighting, len(nodes))
	for _, n := range nodes {
		s, ok := w.seen[n.Instance]
		if !ok || s.count != n.Count {
			s = sighting{n.Count, now}
		}
		seen[n.Instance] = s
	}
	w.seen = seen
}

// Alive is an [Alive] as of a time. A node that was never looked at has just come.
func (w *Watch) Alive(now time.Time) Alive {
	return func(n Node) bool {
		s, ok := w.seen[n.Instance]
		return !ok || s.count != n.Count || now.Sub(s.moved) < w.after
	}
}
