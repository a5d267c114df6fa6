package config

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
)

const (
	// damageBacklog bounds the notes that wait to be recorded. A note lost when it
	// is full is made again by the next read or scrub of the object.
	damageBacklog = 1024
	// damageDeadline bounds the recording of one note.
	damageDeadline = 30 * time.Second
)

// damageQueue carries what repos say about bad shards to the metadata of the
// object's namespace, so that a read never waits for a metadata filesystem.
type damageQueue struct {
	log     *slog.Logger
	notes   chan damageNote
	dropped atomic.Int64
	quit    chan struct{} // closed by stop
	done    sync.WaitGroup
}

type damageNote struct {
	key  string
	what string // for the log
	objfmt.Damage
}

func newDamageQueue(log *slog.Logger) *damageQueue {
	return &damageQueue{log: log, notes: make(chan damageNote, damageBacklog), quit: make(chan struct{})}
}

// add queues one note; it is the Damaged of every repo and never blocks.
func (q *damageQueue) add(key string, l objfmt.Layout, shards []int, why error) {
	n := damageNote{key, inWords(why), objfmt.Damage{Object: objfmt.ObjectRef{Layout: l}, Shards: shards, Why: why.Error()}}
	select {
	case q.notes <- n:
	default:
		q.dropped.Add(1)
	}
}

// inWords tells shards that are not there or not as they were written from those
// that a full, read-only or absent store never took: only the first are rot. A
// store that is away may say that its identity does not exist.
func inWords(why error) string {
	causes := []error{why}
	if several, ok := why.(interface{ Unwrap() []error }); ok { //nolint:errorlint // one cause for each shard
		causes = several.Unwrap()
	}
	for _, err := range causes {
		if errors.Is(err, objstore.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) && !errors.Is(err, objstore.ErrUnavailable) {
			return "damaged shards found"
		}
	}
	return "object written without all shards"
}

// start records notes until stop.
func (q *damageQueue) start(spaces []Opened) {
	meta := make(map[string]*metadata.FS, len(spaces))
	for _, s := range spaces {
		meta[s.Name] = s.Meta
	}
	q.done.Go(func() {
		for {
			select {
			case n := <-q.notes:
				q.record(meta, n)
			case <-q.quit:
				q.drain(meta)
				return
			}
		}
	})
}

// drain records what is queued already.
func (q *damageQueue) drain(meta map[string]*metadata.FS) {
	for {
		select {
		case n := <-q.notes:
			q.record(meta, n)
		default:
			return
		}
	}
}

// stop records what is queued and ends.
func (q *damageQueue) stop() {
	close(q.quit)
	q.done.Wait()
	if n := q.dropped.Load(); n > 0 {
		q.log.Warn("notes of damaged objects were dropped, run marfsctl scrub", "count", n)
	}
}

func (q *damageQueue) record(meta map[string]*metadata.FS, n damageNote) {
	name, id, chunk, err := objfmt.ParseObjectKey(n.key)
	m := meta[name]
	if err != nil || m == nil {
		q.log.Warn(n.what+", of no namespace here", "key", n.key, "shards", n.Shards, "why", n.Why)
		return
	}
	n.Object.Object, n.Object.Chunk = id, chunk
	ctx, cancel := context.WithTimeout(context.Background(), damageDeadline)
	defer cancel()
	if err := m.Degraded(ctx, n.Damage); err != nil {
		q.log.Error(n.what+", which could not be recorded", "key", n.key, "shards", n.Shards, "why", n.Why, "error", err)
		return
	}
	q.log.Warn(n.what, "key", n.key, "shards", n.Shards, "why", n.Why)
}
