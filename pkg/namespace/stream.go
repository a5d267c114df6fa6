package namespace

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// stream is a new content of a file that is written in order, and becomes the
// file's content at the commit. While it is small enough to be staged it is in a
// body of the metadata filesystem: a new file's in its own, durable there by one
// fsync. What is larger goes straight to objects, chunk by chunk. From
// the first commit, or the first read of what is not committed, the bytes after
// it are spooled in a private body, so that small flushes do not each make an
// object. So are those of files open at once beyond what there are uploads for.
type stream struct {
	inode *inode
	who   metadata.Who
	base  objfmt.Slot
	ctx   context.Context // of uploads: they outlive the requests that feed them
	stop  context.CancelFunc

	emptied uint64 // inode.emptied when it began: handles with less have no part in it

	mu      sync.Mutex // guards all below; held while writes wait for the stores
	stage   stage
	own     *metadata.Own // the right to write the own body: a new file's, or an append's
	sum     uint64        // of what is staged
	told    int64         // bytes that the packer knows of
	again   bool          // it was written to after a commit
	left    bool          // the own body has, or may have, bytes that are in objects by now, or replaced
	sess    *metadata.Session
	content objfmt.ID  // of a uni file; the session gives it out
	place   *Placement // nil while bytes are held back
	held    []byte     // bytes whose placement waits for the size
	chunk   *chunkWriter
	chunks  []objfmt.Chunk // complete
	done    int64          // bytes in chunks
	spooled bool           // what follows goes to the spool
	spool   spool
	dirty   bool        // something is not committed
	err     error       // what every call gets from now on: it failed, or errOver
	over    atomic.Bool // err is set; read without mu
	slot    objfmt.Slot

	moved atomic.Int64 // how often bytes went from where readers may be reading them

	all atomic.Pointer[Bytes] // the newest slot's, if they are all that was written, else nil

	meta  sync.Mutex // guards size and mtime, so that stat never waits for stores
	size  int64
	mtime time.Time
	fixed bool // mtime was set by the user after the last write
}

// spool is the tail of a stream in a body of the metadata filesystem.
type spool struct {
	id    objfmt.ID
	file  mdfs.File // the session's
	len   int64
	named bool // by a published slot: then written only while that slot is open
}

// errOver is a stream that has ended, well or because the file was begun anew.
// Callers look for the file's content again; nobody else sees it.
var errOver = errors.New("the write has ended")

// newStream starts a content that replaces base; fresh says that it differs from
// base as it stands, which is empty. own is its right to write the own body, or nil.
// n.begin is held.
func (n *inode) newStream(who metadata.Who, base objfmt.Slot, own *metadata.Own, fresh bool) *stream {
	ctx, stop := context.WithCancel(context.Background())
	w := &stream{inode: n, who: who, base: base, own: own, ctx: ctx, stop: stop, emptied: n.emptied,
		slot: base, dirty: fresh, mtime: time.Now(), fixed: !fresh,
		left: fresh && (base.Source.Kind == objfmt.SourceOwn || base.Source.Kind == objfmt.SourceBody)}
	if p := n.space.cfg.Placement; len(p) == 1 {
		w.place = &p[0]
	}
	n.writing.Store(w)
	n.commits.Add(1)
	return w
}

// overlay shows what is written to the other handles of this mount.
func (w *stream) overlay(st *mdfs.Stat) {
	w.meta.Lock()
	defer w.meta.Unlock()
	st.Size = w.size
	st.Blocks = (w.size + 511) / 512
	if !w.fixed {
		st.Mtim = syscall.NsecToTimespec(w.mtime.UnixNano())
	}
}

func (w *stream) pos() int64 {
	w.meta.Lock()
	defer w.meta.Unlock()
	return w.size
}

// setMTime keeps a time that the user set on the file being written.
func (w *stream) setMTime(m mdfs.TimeSet) {
	t := m.Time
	if m.Now {
		t = time.Now()
	}
	w.meta.Lock()
	w.mtime, w.fixed = t, true
	w.meta.Unlock()
}

// write appends p at off, after zeros where that leaves a gap.
func (w *stream) write(ctx context.Context, f *File, p []byte, off int64) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		return 0, w.err
	case f.emptied < w.emptied && f.flags&syscall.O_APPEND == 0:
		return 0, errEmptied
	}
	f.part.Store(w)
	if err := w.fillTo(ctx, off); err != nil {
		return 0, err
	}
	w.changed()
	if err := w.append(ctx, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// extend makes the file n bytes long, with zeros.
func (w *stream) extend(ctx context.Context, f *File, n int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	f.part.Store(w)
	return w.fillTo(ctx, n)
}

// maxGap bounds the zeros that one call may have stored.
const maxGap = 1 << 30

var zeroBlock [256 << 10]byte

// fillTo stores zeros from the end of what is written to off, as long as ctx
// lives. Going back, and far ahead, is EOPNOTSUPP. w.mu is held.
func (w *stream) fillTo(ctx context.Context, off int64) error {
	switch gap := off - w.pos(); {
	case gap < 0:
		return fmt.Errorf("at %d, before the end of what is written, %d: %w", off, w.pos(), errInPlace)
	case gap > maxGap:
		return fmt.Errorf("at %d, more than %d beyond the end, %d: %w", off, maxGap, w.pos(), syscall.EOPNOTSUPP)
	}
	for left := off - w.pos(); left > 0; left = off - w.pos() {
		if err := ctx.Err(); err != nil {
			return err
		}
		w.changed()
		if err := w.append(ctx, zeroBlock[:min(left, int64(len(zeroBlock)))]); err != nil {
			return err
		}
	}
	return nil
}

// append puts p after what was written; w.mu is held. A failure is for good.
func (w *stream) append(ctx context.Context, p []byte) error {
	if w.stage == undecided && len(p) > 0 {
		w.decide(ctx, int64(len(p)))
	}
	if err := w.store(p); err != nil {
		return w.fail("write", err)
	}
	w.meta.Lock()
	w.size += int64(len(p))
	w.mtime, w.fixed = time.Now(), w.stage == inOwn // whose inode has the time
	w.meta.Unlock()
	return nil
}

// store keeps p where the stream's bytes are.
func (w *stream) store(p []byte) error {
	switch w.stage {
	case undecided:
		return nil
	case inOwn, inBody:
		if staged, err := w.stageBytes(p); staged || err != nil {
			return err
		}
		if err := w.unstage(); err != nil {
			return err
		}
	}
	return w.upload(p)
}

// upload takes p for an object.
func (w *stream) upload(p []byte) error {
	switch {
	case w.spooled:
		return w.appendSpool(p)
	case w.place == nil:
		return w.hold(p)
	}
	return w.appendChunk(p)
}

// fail makes err the end of the stream: its handle gets it from now on, and
// everybody else sees the old content. It is in the log once, however many calls
// meet it. What the stream holds goes at once, since its handle may stay open for
// long, and others wait for uploads. w.mu is held.
func (w *stream) fail(op string, err error) error {
	w.release()
	w.end(w.inode.space.dataError(op, w.who, err))
	return w.err
}

// end makes err what every call gets from now on. w.mu is held.
func (w *stream) end(err error) {
	w.err = err
	w.over.Store(true)
	w.inode.commits.Add(1)
}

// hold keeps bytes back while the file may still be small enough for a
// placement of small files.
func (w *stream) hold(p []byte) error {
	places := w.inode.space.cfg.Placement
	limit := places[len(places)-2].MaxSize
	small := w.inode.space.fs.small
	if int64(len(w.held)+len(p)) <= limit && small.TryAcquire(int64(len(p))) {
		w.held = append(w.held, p...)
		return nil
	}
	if err := w.settle(limit + 1); err != nil {
		return err
	}
	return w.appendChunk(p)
}

// settle decides the placement of a file of n bytes and lets go what was held back.
func (w *stream) settle(n int64) error {
	if w.place != nil {
		return nil
	}
	places := w.inode.space.cfg.Placement
	for i := range places {
		if m := places[i].MaxSize; m == 0 || n <= m {
			w.place = &places[i]
			break
		}
	}
	if w.place == nil {
		w.place = &places[len(places)-1]
	}
	held := w.held
	w.held = nil
	defer w.inode.space.fs.small.Release(int64(len(held)))
	return w.appendChunk(held)
}

// begin makes the work record: it is durable before any byte leaves this process.
func (w *stream) begin() (err error) {
	if w.sess != nil {
		return nil
	}
	err = w.inode.space.withRoom(w.ctx, func() (err error) {
		if w.own != nil {
			w.sess, err = w.own.Begin(w.ctx)
		} else {
			w.sess, err = w.inode.space.cfg.Meta.Begin(w.ctx, w.inode.meta, w.who, w.slot)
		}
		return err
	})
	if err == nil {
		w.own = nil // the session's
		w.content = w.sess.NewContent()
	}
	return err
}

// appendChunk uploads p, ending chunks that are full.
func (w *stream) appendChunk(p []byte) error {
	for len(p) > 0 {
		if w.chunk == nil {
			uploads := w.inode.space.fs.uploads
			if w.spooled = !uploads.TryAcquire(1); w.spooled {
				return w.appendSpool(p)
			}
			if err := w.openChunk(uploads); err != nil {
				return err
			}
		}
		n := min(int64(len(p)), w.place.ChunkSize-w.chunk.length)
		if err := w.chunk.write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
		if w.chunk.length == w.place.ChunkSize {
			if err := w.closeChunk(); err != nil {
				return err
			}
		}
	}
	return nil
}

// openChunk begins the next object. It takes over one of slot.
func (w *stream) openChunk(slot *semaphore.Weighted) (err error) {
	if err := w.begin(); err != nil {
		slot.Release(1)
		return err
	}
	ref := objfmt.ObjectRef{Object: w.sess.Object, Chunk: uint32(len(w.chunks))}
	w.chunk, err = w.inode.space.newChunk(w.ctx, w.place, ref, slot, w.old)
	return err
}

// old ends an object short that a slow or idle program has kept open for too long.
func (w *stream) old(c *chunkWriter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.chunk != c {
		return
	}
	if err := w.drain(); err != nil {
		_ = w.fail("write", err) // the next call gets it
	}
}

// closeChunk ends the chunk being uploaded and waits until it is durable.
func (w *stream) closeChunk() error {
	c := w.chunk
	w.chunk = nil
	t, err := w.trailer(c)
	if err != nil {
		c.abort()
		return err
	}
	chunk, err := c.close(w.done, t)
	if err != nil {
		return err
	}
	w.chunks = append(w.chunks, chunk)
	w.done += chunk.Length
	return nil
}

// maxSpool is how much of a file is spooled before it becomes an object: the
// room that streams may take of the metadata filesystem.
const maxSpool = 64 << 20

// appendSpool writes p to the spool, which becomes a chunk when it is full.
func (w *stream) appendSpool(p []byte) error {
	for len(p) > 0 {
		if err := w.openSpool(); err != nil {
			return err
		}
		full := min(w.place.ChunkSize, maxSpool)
		n := min(int64(len(p)), full-w.spool.len)
		if _, err := w.spool.file.WriteAt(p[:n], w.spool.len); err != nil {
			return err
		}
		w.spool.len += n
		p = p[n:]
		if w.spool.len == full {
			if err := w.archiveSpool(); err != nil {
				return err
			}
		}
	}
	return nil
}

// openSpool makes the spool writable: a body is written only before a slot names
// it, or while the newest slot says that this session is at it.
func (w *stream) openSpool() (err error) {
	if err := w.begin(); err != nil {
		return err
	}
	if w.spool.file == nil {
		w.spool.id, w.spool.file, err = w.sess.NewBody(w.ctx)
		return err
	}
	if !w.spool.named || w.slot.State == objfmt.Open {
		return nil
	}
	s, err := w.sess.Publish(w.ctx, w.slot.Content, w.slot.Source, w.slot.Size, w.slot.MTime, objfmt.Open)
	if err == nil {
		w.slot = s
	}
	return err
}

// archiveSpool makes the spool the next chunk.
func (w *stream) archiveSpool() error {
	if w.spool.len == 0 {
		return nil
	}
	archives := w.inode.space.fs.archives
	if err := archives.Acquire(w.ctx, 1); err != nil {
		return err
	}
	if err := w.openChunk(archives); err != nil {
		return err
	}
	buf := getSegment()
	defer putSegment(buf)
	for off := int64(0); off < w.spool.len; {
		p := buf[:min(segmentSize, w.spool.len-off)]
		if _, err := w.spool.file.ReadAt(p, off); err != nil {
			return errors.Join(errShort, err)
		}
		if err := w.chunk.write(p); err != nil {
			return err
		}
		off += int64(len(p))
	}
	if err := w.closeChunk(); err != nil {
		return err
	}
	done := w.spool.id
	w.spool = spool{}
	return w.sess.Discard(done)
}
