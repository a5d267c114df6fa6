package namespace

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"

	"marfs/pkg/objfmt"
	"marfs/pkg/repo"
)

// maxChunkAge is how long an object is written to: stores take unfinished uploads
// that are older, by a good margin, for those of crashed writers.
const maxChunkAge = 12 * time.Hour

// chunkWriter uploads one object and checksums its content. It holds one of the
// slots that bound how many there are at once.
type chunkWriter struct {
	slot   *semaphore.Weighted
	old    *time.Timer      // fires after maxChunkAge
	ref    objfmt.ObjectRef // its layout comes with close
	w      *repo.Writer
	length int64
	sum    uint64
}

// newChunk takes over a slot, also when it fails. old is called when the object has
// been written to for too long.
func (s *space) newChunk(ctx context.Context, p *Placement, ref objfmt.ObjectRef, slot *semaphore.Weighted, old func(*chunkWriter)) (*chunkWriter, error) {
	w, err := p.Repo.Create(ctx, ref.Key(s.cfg.Name))
	if err != nil {
		slot.Release(1)
		return nil, err
	}
	c := &chunkWriter{slot: slot, ref: ref, w: w}
	c.old = time.AfterFunc(maxChunkAge, func() { old(c) })
	return c, nil
}

func (c *chunkWriter) write(p []byte) error {
	if _, err := c.w.Write(p); err != nil {
		return err
	}
	c.sum = objfmt.Update(c.sum, p)
	c.length += int64(len(p))
	return nil
}

// close ends the object with its recovery trailer and waits until it is durable.
// off is where its content begins in the file.
func (c *chunkWriter) close(off int64, trailer []byte) (objfmt.Chunk, error) {
	c.old.Stop()
	defer c.slot.Release(1)
	if _, err := c.w.Write(trailer); err != nil {
		c.w.Abort()
		return objfmt.Chunk{}, err
	}
	l, err := c.w.Close()
	if err != nil {
		return objfmt.Chunk{}, err
	}
	c.ref.Layout = l
	return objfmt.Chunk{Offset: off, Length: c.length, Object: c.ref, Sum: c.sum}, nil
}

func (c *chunkWriter) abort() {
	c.old.Stop()
	c.w.Abort()
	c.slot.Release(1)
}
