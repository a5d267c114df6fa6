package namespace

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// stage is where a stream keeps its bytes.
type stage int

const (
	undecided stage = iota // there are none yet
	inOwn                  // all in the file's own body: staged
	inBody                 // all in a private body, the spool: staged
	inObjects              // in objects, and perhaps the last of them in the spool
)

// errReplaced is a stream whose committed content another node has replaced.
var errReplaced = fmt.Errorf("another node has replaced the file meanwhile: %w", syscall.ESTALE)

// limit is the size of the largest file that is staged.
func (s *space) limit() int64 {
	if s.cfg.Packer == nil {
		return 0
	}
	return s.cfg.Packer.Limit()
}

// makeRoomTime bounds how long a writer waits for room in the metadata filesystem.
const makeRoomTime = 30 * time.Second

// withRoom does what needs room in the metadata filesystem; where there is none,
// again, as long as the packer makes some.
func (s *space) withRoom(ctx context.Context, do func() error) error {
	err := do()
	if s.limit() == 0 || !noRoom(err) {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, makeRoomTime)
	defer stop()
	for noRoom(err) && s.quota.helps(err) && s.cfg.Packer.MakeRoom(ctx) && ctx.Err() == nil {
		err = do()
	}
	return err
}

// quota is how often the packer is asked for room because of somebody's quota, which
// may well be full of other things. Each time all that is staged is packed, however
// little, and all that is packed is released: one user who goes on trying must not
// have that done to the files of all.
type quota struct {
	last   atomic.Int64 // Unix nanoseconds; 0: never
	staged atomic.Int64 // bytes since
}

// It is asked again after quotaTime, or when quotaBytes more are staged.
const (
	quotaTime  = int64(10 * time.Second)
	quotaBytes = 64 << 20
)

// helps tells whether making room may help against err, which is about room.
func (q *quota) helps(err error) bool {
	if errors.Is(err, syscall.ENOSPC) {
		return true
	}
	now, last := time.Now().UnixNano(), q.last.Load()
	if last != 0 && now-last < quotaTime && q.staged.Load() < quotaBytes || !q.last.CompareAndSwap(last, now) {
		return false
	}
	q.staged.Store(0)
	return true
}

func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// decide says, at the first of n bytes, where the stream keeps them.
func (w *stream) decide(ctx context.Context, n int64) {
	s := w.inode.space
	switch {
	case n > s.limit() || !s.cfg.Packer.Admit(ctx, n):
		w.stage = inObjects
	case w.own != nil:
		w.stage = inOwn
	default:
		w.stage = inBody
	}
}

// stageBytes puts p after what is staged. staged is false when there is no room
// for it, which changes nothing.
func (w *stream) stageBytes(p []byte) (staged bool, err error) {
	if w.pos()+int64(len(p)) > w.inode.space.limit() {
		return false, nil
	}
	err = w.inode.space.withRoom(w.ctx, func() error {
		if err := w.openStage(); err != nil {
			return err
		}
		if w.stage == inOwn {
			_, err := w.own.Body().WriteAt(p, w.pos())
			return err
		}
		_, err := w.spool.file.WriteAt(p, w.spool.len)
		return err
	})
	if noRoom(err) {
		return false, nil
	}
	if err == nil {
		w.sum = objfmt.Update(w.sum, p)
		if w.stage == inBody {
			w.spool.len += int64(len(p))
		}
	}
	return err == nil, err
}

// openStage gets the right to write behind what is staged. It ends with each
// commit, since the packer may take the content from then on.
func (w *stream) openStage() (err error) {
	switch {
	case w.stage == inOwn && w.own == nil:
		w.own, err = w.inode.space.cfg.Meta.Append(w.ctx, w.inode.meta, w.who, w.slot)
		if errors.Is(err, metadata.ErrNotAppendable) {
			return w.copyOn()
		}
		return err
	case w.stage == inBody && w.sealed():
		return w.copyOn()
	case w.stage == inBody:
		return w.openSpool()
	}
	return nil
}

// sealed tells whether the spool is a committed content, which is written to no more.
func (w *stream) sealed() bool { return w.spool.named && w.slot.State != objfmt.Open }

// copyOn goes on in a new private body, which begins with what is committed.
func (w *stream) copyOn() error {
	top, err := w.inode.meta.Newest(w.ctx)
	switch {
	case err != nil:
		return err
	case top.Content != w.slot.Content || top.Size != w.slot.Size:
		return errReplaced
	case w.sess == nil:
		w.slot = top // the session begins where the content is now
	}
	v, err := w.staged()
	if err != nil {
		return err
	}
	defer v.close()
	if err := w.begin(); err != nil {
		return err
	}
	var next spool
	if next.id, next.file, err = w.sess.NewBody(w.ctx); err != nil {
		return err
	}
	err = w.copyStaged(v, func(p []byte) error {
		n, err := next.file.WriteAt(p, next.len)
		next.len += int64(n)
		return err
	})
	if err != nil {
		return errors.Join(err, w.sess.Discard(next.id))
	}
	old := w.spool.id
	w.stage, w.spool, w.again = inBody, next, true
	if old.IsZero() {
		w.told = 0 // it was packed: all of it is staged once more
		return nil
	}
	return w.sess.Discard(old)
}

// staged is a view of what is staged, committed or not. w.mu is held.
func (w *stream) staged() (*view, error) {
	v := &view{size: w.pos()}
	switch {
	case w.stage == inOwn && w.own != nil:
		v.pieces = []piece{{length: v.size, file: w.inode.meta.Inode()}}
		return v, nil
	case w.stage == inBody && !w.sealed():
		return v, w.inode.addBody(w.ctx, v, w.spool.id, w.spool.len)
	}
	// Committed: it may be anywhere by now.
	top, err := w.inode.meta.Newest(w.ctx)
	if err != nil {
		return nil, err
	}
	if top.Content != w.slot.Content || top.Size != w.slot.Size {
		top = w.slot
	}
	return w.inode.open(w.ctx, top)
}

// copyStaged gives all of a view of what is staged to put, and checks that it is
// what was written.
func (w *stream) copyStaged(v *view, put func(p []byte) error) error {
	buf := getSegment()
	defer putSegment(buf)
	var sum uint64
	for off := int64(0); off < v.size; {
		p := buf[:min(segmentSize, v.size-off)]
		if _, err := v.readAt(w.ctx, p, off); err != nil {
			return err
		}
		sum = objfmt.Update(sum, p)
		if err := put(p); err != nil {
			return err
		}
		off += int64(len(p))
	}
	if v.size != w.pos() || sum != w.sum {
		return fmt.Errorf("what is staged is not what was written: %w: have %016x of %d bytes, want %016x of %d",
			objfmt.ErrChecksum, sum, v.size, w.sum, w.pos())
	}
	return nil
}

// unstage goes on with objects, what is staged first. w.mu is held.
func (w *stream) unstage() error {
	v, err := w.staged()
	if err != nil {
		return err
	}
	defer v.close()
	own, old := w.own, w.spool.id
	if err := w.begin(); err != nil {
		return err
	}
	w.moved.Add(1)
	w.stage, w.spool = inObjects, spool{}
	if err := w.copyStaged(v, w.upload); err != nil {
		return err
	}
	switch {
	case !old.IsZero():
		return w.sess.Discard(old)
	case own != nil && own.Base().Size == 0:
		// Nobody but this mount's readers has ever seen these bytes.
		return own.Body().Truncate(0)
	}
	w.left = true // a slot names them still
	return nil
}

// publishStaged commits what is staged. done is false when there is no room for
// that in the metadata filesystem.
func (w *stream) publishStaged(kind commitKind) (done bool, err error) {
	s := w.inode.space
	switch {
	case w.stage == inBody:
		err = s.withRoom(w.ctx, onceSynced(func() error { return w.publishBody(kind) }))
	case w.own != nil:
		err = s.withRoom(w.ctx, onceSynced(w.publishOwn))
	}
	if noRoom(err) {
		if w.own != nil && w.slot.Prev == w.own.Base().Nonce {
			w.own = nil // published all the same, but for the sync: a session goes on top of that
		}
		return false, nil
	}
	if err == nil {
		n := w.pos()
		s.cfg.Packer.Staged(n - w.told)
		s.quota.staged.Add(n - w.told)
		w.told = n
	}
	return err == nil, err
}

// onceSynced does not do again what has failed to make bytes durable: the system may
// have dropped them, and an fsync that finds nothing to do succeeds. Objects are made
// of what can still be read, and is what was written.
func onceSynced(do func() error) func() error {
	var unsynced error
	return func() error {
		if unsynced != nil {
			return unsynced
		}
		err := do()
		if errors.Is(err, metadata.ErrUnsynced) {
			unsynced = err
		}
		return err
	}
}

// publishOwn ends the right to write the own body. A program that is left to sync
// does so by File.Commit. What is published may be packed and released, so readers
// who have not read yet what they found in the body look again; before, since
// nobody waits for them.
func (w *stream) publishOwn() error {
	w.moved.Add(1)
	slot, err := w.own.Commit(w.ctx, w.pos(), w.sum, !w.inode.space.cfg.LazySync)
	if slot.Nonce != 0 {
		w.slot = slot
	}
	if err == nil {
		w.own = nil
	}
	return err
}

// publishBody makes the first commit final, as if it were the last: mostly it is.
// Those after it leave the content open, or each would make another copy.
func (w *stream) publishBody(kind commitKind) error {
	state := objfmt.Final
	if w.again && kind != commitEnd {
		state = objfmt.Open
	}
	src := objfmt.Source{Kind: objfmt.SourceBody, Stored: w.spool.len, Sum: w.sum}
	return w.put(w.spool.id, src, state)
}

// giveBack ends a right to write the own body that no commit has ended. What was
// written by it is nobody's.
func (w *stream) giveBack() {
	own := w.own
	w.own = nil
	if own == nil || w.stage != inOwn {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(w.ctx), time.Minute)
	defer stop()
	base := own.Base()
	top, err := w.inode.meta.Newest(ctx)
	if err == nil && top.Nonce != base.Nonce {
		return // somebody else's by now
	}
	w.moved.Add(1)
	if err == nil {
		err = own.Body().Truncate(base.Size)
	}
	if err == nil && base.Size > 0 {
		_, err = own.Commit(ctx, base.Size, base.Source.Sum, true)
	}
	if err != nil {
		_ = w.inode.space.dataError("give up", w.who, err) // for the log; recovery does it once this process has ended
	}
}

// releaseOwn frees the own body of a file that has outgrown it, or got another
// content: it is in no pack whose release would. Staged again, it waits for its own.
func (w *stream) releaseOwn() {
	if !w.left {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	if _, err := w.inode.meta.Release(ctx); err != nil && !errors.Is(err, syscall.EBUSY) {
		_ = w.inode.space.dataError("release", w.who, err) // for the log: the content is elsewhere
	}
}
