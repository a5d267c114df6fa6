package config

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/trash"
)

// Garbage is a namespace of which garbage can be collected.
type Garbage struct {
	*trash.Trash
	recovery *recovery
	first    time.Time          // when its heartbeats were looked at first
	counts   map[[4]byte]uint64 // what they were then

	now   func() time.Time // the clock; tests turn it
	sleep func(ctx context.Context, d time.Duration) error
}

// ErrNoNamespace is a name that the configuration does not have.
var ErrNoNamespace = fmt.Errorf("is not in the configuration")

// Named returns the namespaces with these names, or all, in the order of the
// configuration.
func (s *System) Named(names ...string) ([]Opened, error) {
	for _, name := range names {
		if !slices.ContainsFunc(s.Namespaces, func(n Opened) bool { return n.Name == name }) {
			return nil, fmt.Errorf("namespace %s: %w", name, ErrNoNamespace)
		}
	}
	var list []Opened
	for _, n := range s.Namespaces {
		if len(names) == 0 || slices.Contains(names, n.Name) {
			list = append(list, n)
		}
	}
	return list, nil
}

// Garbage looks at the heartbeats in the namespaces with these names, or in all,
// and returns what can be collected of each, in the order of the configuration.
func (s *System) Garbage(ctx context.Context, names ...string) ([]*Garbage, error) {
	spaces, err := s.Named(names...)
	if err != nil {
		return nil, err
	}
	var list []*Garbage
	for _, n := range spaces {
		g := &Garbage{
			Trash:    &trash.Trash{Namespace: n.Name, Meta: n.Meta, Policy: n.Trash.policy()},
			recovery: &recovery{meta: n.Meta, log: slog.New(slog.DiscardHandler), watch: metadata.NewWatch(deadAfter)},
			counts:   map[[4]byte]uint64{}, now: time.Now, sleep: sleep,
		}
		if err := g.look(ctx); err != nil {
			return nil, fmt.Errorf("namespace %s: %w", n.Name, err)
		}
		list = append(list, g)
	}
	return list, nil
}

// look notes the heartbeats that later ones are compared with.
func (g *Garbage) look(ctx context.Context) error {
	g.first = g.now()
	nodes, _, err := g.recovery.look(ctx, g.first)
	for _, n := range nodes {
		g.counts[n.Instance] = n.Count
	}
	return err
}

// Alive tells which nodes live as far as is known by now: those of this host by
// their processes, others until they have been still for a minute.
func (g *Garbage) Alive(ctx context.Context) (metadata.Alive, error) {
	_, alive, err := g.recovery.look(ctx, g.now())
	return alive, err
}

// AwaitAlive is Alive that waits until it is known of every node with unfinished
// work, at most until a minute after the first look. It tells say whom it waits for,
// and until when.
func (g *Garbage) AwaitAlive(ctx context.Context, say func(nodes []string, until time.Time)) (metadata.Alive, error) {
	until := g.first.Add(deadAfter)
	told := false
	for {
		now := g.now()
		nodes, alive, err := g.recovery.look(ctx, now)
		if err != nil {
			return nil, err
		}
		open, err := g.unknown(ctx, nodes)
		if err != nil || len(open) == 0 || !now.Before(until) {
			return alive, err
		}
		if !told {
			say(open, until)
			told = true
		}
		if err := g.sleep(ctx, min(heartbeat/2, until.Sub(now))); err != nil {
			return nil, err
		}
	}
}

// unknown lists the nodes of other hosts that have unfinished work and were not
// seen to move.
func (g *Garbage) unknown(ctx context.Context, nodes []metadata.Node) (names []string, err error) {
	for _, n := range nodes {
		if _, here := pidHere(n.Name); here {
			continue
		}
		if first, seen := g.counts[n.Instance]; seen && first != n.Count {
			continue
		}
		busy, err := g.Meta.Busy(ctx, n)
		if err != nil {
			return nil, err
		}
		if busy {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
