package namespace

import (
	"context"
	"time"

	"marfs/pkg/objfmt"
)

// commitKind says what a commit is for.
type commitKind int

const (
	commitFlush commitKind = iota // close(2) of one descriptor, perhaps not the last
	commitSync                    // fsync(2): more will follow
	commitEnd                     // the last handle is gone
)

// commit makes everything written durable and publishes it. Nothing new, nothing done.
func (w *stream) commit(kind commitKind) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.commitLocked(kind)
}

func (w *stream) commitLocked(kind commitKind) error {
	if w.err != nil {
		return w.err
	}
	if !w.dirty {
		return nil
	}
	if err := w.publish(kind); err != nil {
		return w.fail("commit", err)
	}
	w.dirty = false
	all := bytesOf(w.slot)
	w.all.Store(&all)
	w.inode.commits.Add(1)
	return nil
}

// changed notes that something is not committed; w.mu is held.
func (w *stream) changed() {
	w.dirty = true
	w.all.Store(nil)
}

// bytes names those of the newest slot when they are all that was written, else
// nothing. It does not wait for a commit under way.
func (w *stream) bytes() Bytes {
	if b := w.all.Load(); b != nil {
		return *b
	}
	return Bytes{}
}

// publish ends the object being written, if there is one, and publishes all.
func (w *stream) publish(kind commitKind) error {
	switch w.stage {
	case inOwn, inBody:
		if done, err := w.publishStaged(kind); done || err != nil {
			return err
		}
		if err := w.unstage(); err != nil {
			return err
		}
	}
	if w.stage == inObjects {
		if err := w.drain(); err != nil {
			return err
		}
	}
	if kind == commitEnd || len(w.chunks) == 0 {
		if err := w.archiveSpool(); err != nil {
			return err
		}
	}
	content, src, err := w.source()
	if err != nil {
		return err
	}
	state := objfmt.Final
	if kind == commitSync || kind == commitFlush && w.spool.len > 0 {
		state = objfmt.Open // it goes on: the spool may be written without a publish before
	}
	return w.put(content, src, state)
}

func (w *stream) put(content objfmt.ID, src objfmt.Source, state objfmt.State) error {
	if err := w.begin(); err != nil {
		return err
	}
	w.meta.Lock()
	size, mtime := w.size, w.mtime
	w.meta.Unlock()
	s, err := w.sess.Publish(w.ctx, content, src, size, mtime, state)
	if err != nil {
		return err
	}
	w.slot = s
	w.spool.named = w.spool.file != nil
	return nil
}

// drain ends the object being written short; what follows is spooled.
func (w *stream) drain() error {
	if err := w.settle(w.pos()); err != nil {
		return err
	}
	if w.chunk != nil {
		if err := w.closeChunk(); err != nil {
			return err
		}
	}
	w.spooled = w.spooled || w.done > 0
	return nil
}

// source makes what the next slot names: nothing, one object, or a table, perhaps
// with the spool as its tail. The content id is zero where any new one will do.
func (w *stream) source() (content objfmt.ID, src objfmt.Source, err error) {
	switch {
	case w.spool.len > 0: // Publish makes it durable
	case len(w.chunks) == 0:
		return objfmt.ID{}, objfmt.Source{Kind: objfmt.SourceEmpty}, nil
	case len(w.chunks) == 1:
		c := w.chunks[0]
		return w.content, objfmt.Source{Kind: objfmt.SourceObj, Stored: c.Length, Sum: c.Sum, Object: c.Object}, nil
	}
	if err := w.begin(); err != nil {
		return content, src, err
	}
	content, src, err = w.sess.PutTable(w.ctx, &objfmt.ChunkTable{Chunks: w.chunks})
	src.Stored = w.done + w.spool.len
	if w.spool.len > 0 {
		src.Tail = w.spool.id
	}
	return content, src, err
}

// finish ends the stream after its last handle: what is not committed is, the
// spool becomes an object, and the session's records go. The caller holds
// inode.begin. A stream that never committed anything leaves no trace.
func (w *stream) finish() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.commitLocked(commitEnd)
	if err == nil && w.slot.State == objfmt.Open && w.sess != nil {
		err = w.publish(commitEnd)
	}
	if e := w.endSession(err); err == nil {
		err = e
	}
	w.releaseOwn()
	w.leave(err)
	return err
}

// leave makes room for the next stream. w.mu and inode.begin are held.
func (w *stream) leave(err error) {
	if err == nil {
		err = errOver
	}
	w.stop()
	w.inode.writing.Store(nil)
	w.end(err)
}

// endSession drops the session: undone when err says that its last bytes are in
// no slot.
func (w *stream) endSession(err error) error {
	w.release()
	if w.sess == nil {
		return nil
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(w.ctx), time.Minute)
	defer stop()
	if err != nil && !w.published() {
		return w.sess.Abort(ctx)
	}
	return w.sess.End(ctx)
}

// published reports whether anything was committed. w.mu is held.
func (w *stream) published() bool { return w.slot.Nonce != w.base.Nonce }

// replaces reports whether a commit would replace a content that is still the file's.
func (w *stream) replaces() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.base.Size > 0 && !w.published()
}

// release gives up what is in memory and under way.
func (w *stream) release() {
	if w.chunk != nil {
		w.chunk.abort()
		w.chunk = nil
	}
	w.inode.space.fs.small.Release(int64(len(w.held)))
	w.held = nil
	w.spool = spool{}
	w.giveBack()
}

// abandon ends a stream whose content is replaced from the start, or given up.
// The caller holds inode.begin.
func (w *stream) abandon() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.endSession(errOver)
	w.leave(nil)
	return err
}

// view returns what is written so far, ready to be read, and its size. What is
// being uploaded cannot be read back, so the object is ended short first.
func (w *stream) view() (*view, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	v := &view{size: w.pos()}
	switch w.stage {
	case undecided:
		return v, nil
	case inOwn, inBody:
		return w.staged()
	}
	if err := w.drain(); err != nil {
		return nil, w.fail("read", err)
	}
	for _, c := range w.chunks {
		if err := w.inode.addObject(v, c, 0); err != nil {
			return nil, err
		}
	}
	if w.spool.len > 0 {
		b, err := w.inode.meta.Body(w.ctx, w.spool.id)
		if err != nil {
			return nil, err
		}
		v.bodies = append(v.bodies, b)
		v.pieces = append(v.pieces, piece{off: w.done, length: w.spool.len, file: b})
	}
	return v, nil
}

// readAt reads what is written so far.
func (w *stream) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	v, err := w.view()
	if err != nil {
		return 0, err
	}
	defer v.close()
	return v.readAt(ctx, p, off)
}
