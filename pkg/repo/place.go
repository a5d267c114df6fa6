package repo

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"time"
)

// rank orders the pods for a new object: weighted rendezvous hashing, so that a
// new pod takes its share from all the others and nothing else moves. The choice
// is recorded with the object; nobody computes it again.
func (r *Repo) rank(key string) []*pod {
	type ranked struct {
		*pod
		score float64
	}
	var all []ranked
	for _, p := range r.cfg.Pods {
		if p.Weight > 0 {
			sum := sha256.Sum256([]byte(p.Name + "\x00" + key))
			u := (float64(binary.BigEndian.Uint64(sum[:])>>11) + 0.5) / (1 << 53) // in (0, 1)
			all = append(all, ranked{r.pods[p.Name], -float64(p.Weight) / math.Log(u)})
		}
	}
	slices.SortFunc(all, func(a, b ranked) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return 0
	})
	pods := make([]*pod, len(all))
	for i := range all {
		pods[i] = all[i].pod
	}
	return pods
}

// target is a pod to write to, and how far to trust its stores, by shard.
type target struct {
	pod      *pod
	stores   []*store
	verdicts []verdict
}

// pick returns the first of the pods that can reach the quorum without avoided
// stores. If none can, the first with all of its stores is as good as any.
func (r *Repo) pick(ctx context.Context, key string, pods []*pod) target {
	for _, p := range pods {
		t := target{pod: p, stores: p.place(key, r.cfg.Geometry)}
		if r.trust(&t) && (t.count(use) >= r.cfg.MinWrite || r.knock(ctx, key, &t)) {
			return t
		}
	}
	return target{pods[0], pods[0].place(key, r.cfg.Geometry), make([]verdict, r.cfg.Geometry.Shards())}
}

func (t *target) count(v verdict) int {
	n := 0
	for _, have := range t.verdicts {
		if have == v {
			n++
		}
	}
	return n
}

// trust asks for the verdicts if they suffice for a quorum. If not it uses up no
// probe: those of stores that failed at different times would never come together.
func (r *Repo) trust(t *target) bool {
	r.picking.Lock()
	defer r.picking.Unlock()
	now := time.Now()
	usable := 0
	for _, s := range t.stores {
		if s.writes.look(now) != avoid {
			usable++
		}
	}
	if usable < r.cfg.MinWrite {
		return false
	}
	for _, s := range t.stores {
		t.verdicts = append(t.verdicts, s.writes.ask(now))
	}
	return true
}

// knock finds out which of the stores to be probed answer at all, and reports
// whether there is a quorum with them. Unlike a single shard, a write that depends on
// probes is lost with them if it cannot begin anew elsewhere.
func (r *Repo) knock(ctx context.Context, key string, t *target) bool {
	ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.StallTimeout/probeShare, errStalled)
	defer cancel()
	var all sync.WaitGroup
	for i, s := range t.stores {
		if t.verdicts[i] == probe {
			all.Go(func() {
				err := within(ctx, func() error {
					_, err := s.Stat(ctx, key)
					return err
				})
				if blames(err) {
					s.writes.report(err) // an answer is no success yet
					t.verdicts[i] = avoid
				}
			})
		}
	}
	all.Wait()
	return len(t.stores)-t.count(avoid) >= r.cfg.MinWrite
}
