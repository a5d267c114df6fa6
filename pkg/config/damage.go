package config

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

const (
	// damageBacklog bounds the notes of readers that wait to be recorded. A note lost
	// when it is full is made again by the next read or scrub of the object.
	damageBacklog = 1024
	// damageDeadline bounds the recording of one note, and of all at the end.
	damageDeadline = 30 * time.Second
)

// damageNotes records what repos say about shards in the metadata of the object's
// namespace: what writes leave out at once, what reads find a little later, so
// that no read waits for a metadata filesystem.
type damageNotes struct {
	log     *slog.Logger
	meta    map[string]*metadata.FS // by namespace; set before anything is read or written
	found   chan damageNote
	dropped atomic.Int64
	quit    chan struct{} // closed by stop
	done    sync.WaitGroup
}

type damageNote struct {
	key string
	objfmt.Damage
}

func newDamageNotes(log *slog.Logger) *damageNotes {
	return &damageNotes{log: log, found: make(chan damageNote, damageBacklog), quit: make(chan struct{})}
}

// newDamageNote cuts the reason, in which stores have their say, to what a record takes.
func newDamageNote(key string, l objfmt.Layout, shards []int, why error) damageNote {
	text := why.Error()
	text = strings.ToValidUTF8(text[:min(len(text), objfmt.MaxWhy)], "")
	return damageNote{key, objfmt.Damage{Object: objfmt.ObjectRef{Layout: l}, Shards: shards, Why: text}}
}

// leftOut is the LeftOut of every repo.
func (d *damageNotes) leftOut(ctx context.Context, key string, l objfmt.Layout, shards []int, why error) error {
	ctx, cancel := context.WithTimeout(ctx, damageDeadline)
	defer cancel()
	n := newDamageNote(key, l, shards, why)
	if err := d.record(ctx, n); err != nil {
		// Not %w of both: it is not what is wrong with a store that fails the write.
		return fmt.Errorf("note that shards %v of %s are missing (%s): %w", shards, key, n.Why, err)
	}
	d.log.Warn("object written without all shards", "op", "write", "key", key, "shards", shards, "why", n.Why)
	return nil
}

// bad is the Damaged of every repo. It never blocks.
func (d *damageNotes) bad(key string, l objfmt.Layout, shards []int, why error) {
	select {
	case d.found <- newDamageNote(key, l, shards, why):
	default:
		if d.dropped.Add(1) == 1 {
			d.log.Warn("too many damaged objects to note each: read or scrub them again", "key", key)
		}
	}
}

// start records what reads find until stop.
func (d *damageNotes) start(spaces []Opened) {
	d.meta = make(map[string]*metadata.FS, len(spaces))
	for _, s := range spaces {
		d.meta[s.Name] = s.Meta
	}
	d.done.Go(func() {
		for {
			select {
			case n := <-d.found:
				ctx, cancel := context.WithTimeout(context.Background(), damageDeadline)
				d.tell(ctx, n)
				cancel()
			case <-d.quit:
				d.drain()
				return
			}
		}
	})
}

// drain records what is queued already.
func (d *damageNotes) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), damageDeadline)
	defer cancel()
	for {
		select {
		case n := <-d.found:
			d.tell(ctx, n)
		default:
			return
		}
	}
}

// stop records what is queued and ends.
func (d *damageNotes) stop() {
	close(d.quit)
	d.done.Wait()
	if n := d.dropped.Load(); n > 0 {
		d.log.Warn("damaged objects were not noted, read or scrub them again", "count", n)
	}
}

func (d *damageNotes) tell(ctx context.Context, n damageNote) {
	attrs := []any{"key", n.key, "shards", n.Shards, "why", n.Why}
	if err := d.record(ctx, n); err != nil {
		d.log.Error("damaged shards found, which could not be recorded", append(attrs, "error", err)...)
		return
	}
	d.log.Warn("damaged shards found", attrs...)
}

// record makes the note durable in the namespace that the object is of.
func (d *damageNotes) record(ctx context.Context, n damageNote) error {
	name, id, chunk, err := objfmt.ParseObjectKey(n.key)
	if err != nil {
		return err
	}
	m := d.meta[name]
	if m == nil {
		return fmt.Errorf("the configuration has no namespace %s", name)
	}
	n.Object.Object, n.Object.Chunk = id, chunk
	return m.Degraded(ctx, n.Damage)
}
