package metadata

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

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
	return fmt.Appendf(nil, nodeFormat, hex.EncodeToString(f.instance[:]), count)
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
	file  mdfs.File
	count uint64
	end   chan struct{}
	done  sync.WaitGroup
}

// startHeartbeat makes the node's record, replacing one of an earlier instance,
// and moves its counter if Options say so. The record needs no fsync.
func (f *FS) startHeartbeat() (*heartbeat, error) {
	b := &heartbeat{f: f, end: make(chan struct{})}
	err := f.in(nodesName, func(d mdfs.Dir) error {
		if err := remove(stepNode, d, f.o.Node); err != nil {
			return err
		}
		fl, err := create(stepNode, d, f.o.Node, 0o600)
		b.file = fl
		return err
	})
	if err == nil {
		err = b.write()
	}
	if err != nil {
		return nil, fmt.Errorf("node record %q: %w", f.o.Node, err)
	}
	if f.o.Heartbeat > 0 {
		b.done.Go(b.run)
	}
	return b, nil
}

func (b *heartbeat) write() error {
	b.count++
	return writeAt(stepNode, b.file, b.f.nodeText(b.count), 0)
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
			_ = b.write()
		}
	}
}

// stop ends the heartbeat and removes the record, if it is still this instance's.
func (b *heartbeat) stop() error {
	if b == nil {
		return nil
	}
	close(b.end)
	b.done.Wait()
	defer b.file.Close()
	if n, ok := b.f.readNode(b.f.o.Node); !ok || n.Instance != b.f.instance {
		return nil
	}
	err := b.f.in(nodesName, func(d mdfs.Dir) error { return remove(stepNode, d, b.f.o.Node) })
	return ignore(err, syscall.ENOENT)
}
