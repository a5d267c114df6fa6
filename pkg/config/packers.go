package config

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/packer"
)

// openPackers makes a packer for each namespace, also where nothing is staged any
// more: what was staged under another configuration is packed all the same.
func (s *System) openPackers(log *slog.Logger) {
	for i := range s.Namespaces {
		n := &s.Namespaces[i]
		c := packer.Config{
			Namespace: n.Name,
			Meta:      n.Meta,
			Repos:     s.Repos,
			Policy:    n.packing(s.frontEnd),
			Dead:      newLiveness(n.Meta).dead,
			Log:       log.With("namespace", n.Name),
		}
		for _, p := range n.placements() {
			c.Places = append(c.Places, packer.Place{MaxSize: int64(p.MaxSize), Repo: s.Repos[p.Repo], Pack: p.Pack})
		}
		n.Packer = packer.New(c)
	}
}

// packing is the namespace's policy. Who runs marfsctl wants packed what there is,
// however little.
func (n *Namespace) packing(front FrontEnd) packer.Policy {
	p := packer.Policy{
		MaxFile:    int64(n.Stage.MaxFile),
		MaxBytes:   int64(n.Stage.MaxBytes),
		Linger:     n.Stage.Linger.Std(),
		TargetSize: int64(n.Pack.TargetSize),
		MinFiles:   n.Pack.MinFiles,
		MaxAge:     n.Pack.MaxAge.Std(),
		BelowLive:  n.Repack.BelowLive,
	}
	if front == Batch {
		p.MinFiles = 1
	}
	return p
}

// startPackers lets every packer work in the background until the System closes.
func (s *System) startPackers() {
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	for _, n := range s.Namespaces {
		done.Go(func() { n.Packer.Run(ctx) })
	}
	s.stopPackers = func() { stop(); done.Wait() }
}

const (
	// lookAgain is how long heartbeats that were read serve for an instance that is
	// not among them: it may have started since.
	lookAgain = time.Second
	// lookDeadline bounds one reading of the heartbeats.
	lookDeadline = 30 * time.Second
)

// liveness tells a packer which processes that have staged something are gone, by
// the heartbeats. Nothing rests on it: packers of two processes that both take
// files for theirs only do work twice.
type liveness struct {
	meta *metadata.FS
	now  func() time.Time // the clock; tests turn it

	mu     sync.Mutex // guards what follows
	watch  *metadata.Watch
	looked time.Time
	living map[[4]byte]bool
}

func newLiveness(m *metadata.FS) *liveness {
	return &liveness{meta: m, now: time.Now, watch: metadata.NewWatch(deadAfter)}
}

// dead reports whether no living process has this instance, as far as is known.
// Where heartbeats cannot be read nobody is dead.
func (l *liveness) dead(instance [4]byte) bool {
	if instance == l.meta.Instance() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	age := now.Sub(l.looked)
	if age < lookAgain || age < heartbeat && l.living[instance] {
		return l.living != nil && !l.living[instance]
	}
	l.looked = now
	l.living = l.look(now)
	return l.living != nil && !l.living[instance]
}

// look reads who lives; nil: it cannot be read.
func (l *liveness) look(now time.Time) map[[4]byte]bool {
	ctx, cancel := context.WithTimeout(context.Background(), lookDeadline)
	defer cancel()
	r := recovery{meta: l.meta, watch: l.watch}
	nodes, alive, err := r.look(ctx, now)
	if err != nil {
		return nil
	}
	living := make(map[[4]byte]bool, len(nodes))
	for _, n := range nodes {
		if alive(n) {
			living[n.Instance] = true
		}
	}
	return living
}
