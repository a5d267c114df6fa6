package repo

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
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
func (r *Repo) pick(key string, pods []*pod) target {
	for _, p := range pods {
		t := target{pod: p, stores: p.place(key, r.cfg.Geometry)}
		usable := 0
		for _, s := range t.stores {
			v := s.writes.ask(time.Now())
			t.verdicts = append(t.verdicts, v)
			if v == use {
				usable++
			}
		}
		if usable >= r.cfg.MinWrite {
			return t
		}
	}
	return target{pods[0], pods[0].place(key, r.cfg.Geometry), make([]verdict, r.cfg.Geometry.Shards())}
}
