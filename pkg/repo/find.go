package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
)

// sighting is what one store says of a key.
type sighting struct {
	pod    *pod
	layout objfmt.Layout
	mod    time.Time
	err    error
}

// Find reads the layout of an object back from its shards. N of one write that
// agree with each other are needed, whatever else is under the key. It is
// fs.ErrNotExist when too many stores know nothing of the key for an object to be
// there, ErrQuorum when there are some shards but too few.
func (r *Repo) Find(ctx context.Context, key string) (objfmt.Layout, error) {
	l, _, err := r.find(ctx, key)
	return l, err
}

func (r *Repo) find(ctx context.Context, key string) (objfmt.Layout, time.Time, error) {
	if err := checkKey(key); err != nil {
		return objfmt.Layout{}, time.Time{}, err
	}
	seen := r.sight(ctx, key)
	if err := ctx.Err(); err != nil {
		return objfmt.Layout{}, time.Time{}, fmt.Errorf("find %s in repo %s: %w", key, r.cfg.Name, err)
	}
	votes := make(map[objfmt.Layout]int)
	newest := make(map[objfmt.Layout]time.Time)
	var best objfmt.Layout
	for _, s := range seen {
		if s.err != nil {
			continue
		}
		l := s.layout
		votes[l]++
		if s.mod.After(newest[l]) {
			newest[l] = s.mod
		}
		if votes[l] >= l.Data && (best.Data == 0 || votes[l] > votes[best] || votes[l] == votes[best] && newest[l].After(newest[best])) {
			best = l
		}
	}
	if best.Data == 0 {
		return best, time.Time{}, fmt.Errorf("find %s in repo %s: %w", key, r.cfg.Name, r.notFound(seen))
	}
	return best, newest[best], nil
}

// sight asks every store of every pod.
func (r *Repo) sight(ctx context.Context, key string) []sighting {
	ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.StallTimeout, errStalled)
	defer cancel()
	var seen []sighting
	for _, p := range r.cfg.Pods {
		for range p.Stores {
			seen = append(seen, sighting{pod: r.pods[p.Name]})
		}
	}
	var all sync.WaitGroup
	at := 0
	for _, p := range r.cfg.Pods {
		for _, s := range r.pods[p.Name].stores {
			sight := &seen[at]
			at++
			all.Go(func() {
				if s.reads.ask(time.Now()) == avoid {
					sight.err = errAvoided
				} else {
					sight.err = sight.look(ctx, r.cfg.Name, s, key)
					s.reads.report(sight.err)
				}
				if sight.err != nil {
					sight.err = fmt.Errorf("store %s: %w", s.Name, sight.err)
				}
			})
		}
	}
	all.Wait()
	return seen
}

// look reads the layout that a shard tells of, and checks that it is whole as far
// as can be seen, and where it belongs.
func (s *sighting) look(ctx context.Context, repo string, from *store, key string) error {
	info, err := from.Stat(ctx, key)
	if err != nil {
		return err
	}
	h, b, err := readHeader(ctx, from, key)
	if err != nil {
		return err
	}
	var f objfmt.ShardFooter
	if int64(len(b)) == info.Size {
		f, err = objfmt.ParseShardFooter(b)
		err = corrupt(err)
	} else {
		f, err = readFooter(ctx, from, key, info.Size)
	}
	if err != nil {
		return err
	}
	s.mod = info.ModTime
	s.layout = objfmt.Layout{Repo: repo, Pod: h.Pod, Geometry: h.Geometry, WriteID: h.WriteID, Size: f.Size}
	belongs := h.Key == key && h.Pod == s.pod.Name && h.Shards() <= len(s.pod.stores) &&
		s.pod.stores[h.Place(key, h.Shard)] == from
	if !belongs || f != s.layout.Footer(h.Shard) || info.Size != s.layout.ShardSize(key, h.Shard) {
		return fmt.Errorf("%w: shard %d of %s in pod %s does not belong here", objstore.ErrCorrupt, h.Shard, h.Key, h.Pod)
	}
	return nil
}

// notFound is the error of a key for which no N shards agree.
func (r *Repo) notFound(seen []sighting) error {
	absent := make(map[*pod]int)
	some := false
	var why causes
	for _, s := range seen {
		switch {
		case errors.Is(s.err, fs.ErrNotExist):
			absent[s.pod]++
		case s.err != nil:
			why = append(why, s.err)
			some = some || shardState(s.err) != ShardUnavailable
		default:
			some = true
		}
	}
	if some {
		return join(ErrQuorum, why)
	}
	for _, p := range r.pods {
		if absent[p] <= min(r.cfg.Geometry.Parity, len(p.stores)-1) {
			return why
		}
	}
	return fs.ErrNotExist
}
