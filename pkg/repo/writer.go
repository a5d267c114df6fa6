package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"marfs/pkg/erasure"
	"marfs/pkg/objfmt"
)

// Writer encodes and uploads one object as it is written. It is for one goroutine.
type Writer struct {
	repo   *Repo
	ctx    context.Context
	cancel context.CancelFunc
	key    string
	layout objfmt.Layout // Size so far; Pod and Block are set when the first stripe goes out
	size   int64         // announced; -1: not
	err    error         // why nothing more can be done

	rungs []rung // steps of memory
	at    int    // index of the step that owned pays for; -1: none
	owned int64  // bytes of the budget, beside those of stripes
	head  []byte // all bytes so far, while there is no pipeline

	pipe    *pipeline
	current *stripe   // being filled
	index   int64     // of current
	replay  []*stripe // every stripe sent so far; nil when some are gone
	pods    []*pod    // not tried yet, best first
	up      *upload   // from the first stripe that goes out
	ended   bool      // every byte has been sent
}

var (
	errClosed  = fmt.Errorf("write to a closed object: %w", fs.ErrClosed)
	errAborted = errors.New("write aborted")
)

// Create starts a new object of unknown length. The layout is final when Close
// returns; the write is durable then, on at least MinWrite stores. Cancelling ctx
// ends the write, so it must live as long as the Writer, which must be closed or aborted.
func (r *Repo) Create(ctx context.Context, key string) (*Writer, error) {
	return r.create(ctx, key, -1)
}

// create is Create for an object of known length, unless size is -1: stores are told
// the sizes of shards in advance. Close fails if another number of bytes was written.
func (r *Repo) create(ctx context.Context, key string, size int64) (*Writer, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("write %s to repo %s: %w", key, r.cfg.Name, err)
	}
	pods := r.rank(key)
	if len(pods) == 0 {
		return nil, fmt.Errorf("write %s to repo %s: %w: no pod has a weight", key, r.cfg.Name, fs.ErrPermission)
	}
	ctx, cancel := context.WithCancel(ctx)
	return &Writer{
		repo:   r,
		ctx:    ctx,
		cancel: cancel,
		key:    key,
		layout: objfmt.Layout{Repo: r.cfg.Name, Geometry: r.cfg.Geometry, WriteID: objfmt.NewID()},
		size:   size,
		rungs:  ladder(r.cfg.Geometry),
		at:     -1,
		pods:   pods,
		replay: []*stripe{},
	}, nil
}

// Write copies p into the stripe being filled; it blocks while the stores are
// slower than the caller. A failed shard is no error while a quorum remains.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil || len(p) == 0 {
		return 0, w.err
	}
	n, err := w.write(p)
	if err != nil {
		w.fail(err)
	}
	return n, err
}

func (w *Writer) write(p []byte) (done int, err error) {
	if end := w.layout.Size + int64(len(p)); end > objfmt.MaxObject || w.size >= 0 && end > w.size {
		return 0, fmt.Errorf("write %s to repo %s: %w", w.key, w.repo.cfg.Name, errShort)
	}
	if err := w.ctx.Err(); err != nil {
		return 0, fmt.Errorf("write %s to repo %s: %w", w.key, w.repo.cfg.Name, err)
	}
	if w.pipe == nil {
		fits, err := w.climb(len(p))
		if err != nil {
			return 0, err
		}
		if fits {
			w.extend(p)
			return len(p), nil
		}
	}
	for len(p) > done {
		if w.current == nil || w.current.Full() {
			if err := w.turn(); err != nil {
				return done, err
			}
		}
		n := w.current.Fill(p[done:])
		done += n
		w.layout.Size += int64(n)
		if w.current.Full() && w.up != nil {
			if err := w.push(); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

// turn sends a full stripe and takes another. (The first stripe is not sent before
// something follows it, so that the shards of small objects have known sizes.)
func (w *Writer) turn() error {
	if w.current != nil {
		if err := w.push(); err != nil {
			return err
		}
	}
	s, err := w.stripe()
	w.current = s
	return err
}

// push seals the current stripe and sends it.
func (w *Writer) push() error {
	s := w.current
	w.current = nil
	defer s.drop()
	if err := s.Seal(w.layout.WriteID, w.index); err != nil {
		return err
	}
	w.index++
	if w.replay != nil {
		s.hold(1)
		w.replay = append(w.replay, s)
	}
	if w.up == nil {
		w.start()
	} else {
		w.up.send(s)
	}
	return w.check()
}

// start opens an upload to the best pod left and sends what has been written so far.
func (w *Writer) start() {
	t := w.repo.pick(w.ctx, w.key, w.pods)
	w.layout.Pod = t.pod.Name
	rest := w.pods[:0:0]
	for _, p := range w.pods {
		if p != t.pod {
			rest = append(rest, p)
		}
	}
	w.pods = rest
	l := w.layout
	if w.size >= 0 {
		l.Size = w.size
	}
	w.up = w.repo.startUpload(w.ctx, w.key, l, t, w.pipe.most(), w.size >= 0)
	for _, s := range w.replay {
		w.up.send(s)
	}
	if w.ended {
		w.up.finish(w.layout.Size)
	}
}

// check returns nil while the quorum can be reached, if need be in another pod.
func (w *Writer) check() error {
	_, err := w.up.look()
	return w.retry(err)
}

// retry goes to the next pod after err, if every byte so far is still in memory.
func (w *Writer) retry(err error) error {
	for tried := (causes)(nil); err != nil; _, err = w.up.look() {
		tried = append(tried, err)
		if cause := context.Cause(w.ctx); cause != nil {
			return fmt.Errorf("write %s to repo %s: %w", w.key, w.repo.cfg.Name, cause)
		}
		if !errors.Is(err, ErrQuorum) || w.replay == nil || len(w.pods) == 0 {
			return join(tried...)
		}
		w.up.abort()
		w.start()
	}
	return nil
}

// stripe returns an empty stripe to fill, and waits for one while the uploads
// have all there are.
func (w *Writer) stripe() (*stripe, error) {
	ticker := time.NewTicker(w.up.tick())
	defer ticker.Stop()
	for {
		if err := w.check(); err != nil {
			return nil, err
		}
		if s, err := w.pipe.get(); s != nil || err != nil {
			return s, err
		}
		if w.replay != nil {
			w.forget()
			continue
		}
		if p, err := w.up.look(); err == nil && !p.busy {
			return w.pipe.wait(w.ctx) // Puts left behind hold the others
		}
		select {
		case <-w.pipe.freed:
		case <-w.up.changed:
		case <-ticker.C:
		case <-w.ctx.Done():
			return nil, context.Cause(w.ctx)
		}
	}
}

// forget gives up the possibility to go to another pod.
func (w *Writer) forget() {
	for _, s := range w.replay {
		s.drop()
	}
	w.replay = nil
}

// Close ends the object and waits until it is durable.
func (w *Writer) Close() (objfmt.Layout, error) {
	if w.err != nil {
		return objfmt.Layout{}, w.err
	}
	if err := w.close(); err != nil {
		w.fail(err)
		return objfmt.Layout{}, err
	}
	w.err = errClosed
	w.release()
	return w.layout, nil
}

func (w *Writer) close() error {
	if w.size >= 0 && w.layout.Size != w.size {
		return fmt.Errorf("write %s to repo %s: %w", w.key, w.repo.cfg.Name, errShort)
	}
	if w.pipe == nil {
		if err := w.layOut(); err != nil {
			return err
		}
	}
	if w.up == nil {
		w.size = w.layout.Size
	}
	if w.current != nil {
		if err := w.push(); err != nil {
			return err
		}
	}
	if w.up == nil {
		w.start()
	}
	w.ended = true
	w.up.finish(w.layout.Size)
	for {
		err := w.up.wait()
		if err == nil {
			return w.record()
		}
		if err = w.retry(err); err != nil {
			return err
		}
	}
}

// record sees to it that somebody knows of the shards that the write leaves out.
func (w *Writer) record() error {
	shards, why := w.up.missing()
	if len(shards) == 0 {
		return nil
	}
	if err := w.repo.leftOut(w.ctx, w.key, w.layout, shards, why); err != nil {
		return fmt.Errorf("write %s to repo %s: record missing shards %v: %w", w.key, w.repo.cfg.Name, shards, err)
	}
	return nil
}

// climb puts n more bytes within reach: it takes the memory for a head that holds
// them or, at the top, or when there is no more memory, for a stripe. It reports
// whether they belong in the head, which has room for them then.
func (w *Writer) climb(n int) (fits bool, err error) {
	g := w.repo.cfg.Geometry
	total := max(len(w.head)+n, int(min(w.size, g.Stripe())))
	want := 0
	for want < len(w.rungs)-1 && w.rungs[want].capacity(g) < total {
		want++
	}
	for i := want; i > w.at; i-- {
		if extra := w.rungs[i].memory(g) + int64(cap(w.head)) - w.owned; w.repo.writes.try(extra, climbReserve(w.repo.writes.size)) {
			w.at, w.owned = i, w.owned+extra
		}
	}
	if w.at < 0 {
		least := w.rungs[0].memory(g)
		if err := w.repo.writes.acquire(w.ctx, least); err != nil {
			return false, err
		}
		w.at, w.owned = 0, least
	}
	top := w.rungs[w.at]
	if !top.head || top.capacity(g) < len(w.head)+n {
		return false, w.stream(top.block)
	}
	return true, nil
}

// extend appends p to the head, which grows within its rung.
func (w *Writer) extend(p []byte) {
	total := len(w.head) + len(p)
	if total > cap(w.head) {
		grown := make([]byte, len(w.head), min(max(2*cap(w.head), total), w.rungs[w.at].capacity(w.layout.Geometry)))
		copy(grown, w.head)
		w.head = grown
	}
	w.head = append(w.head, p...)
	w.layout.Size = int64(total)
}

// stream begins to write stripes, of the block size that there is memory for.
func (w *Writer) stream(block int) error {
	w.layout.Block = block
	return w.pour(block)
}

// layOut makes the only stripe of an object that ended in the head.
func (w *Writer) layOut() error {
	if len(w.head) == 0 {
		w.pipe = newPipeline(w.repo, w.layout.Geometry)
		return nil
	}
	return w.pour(w.layout.LastBlock(w.layout.Size))
}

// pour moves the head into the first stripe, and gives back the memory it took.
func (w *Writer) pour(block int) error {
	w.pipe = newPipeline(w.repo, w.layout.Geometry)
	memory := erasure.StripeMemory(w.layout.Geometry, block)
	s, err := w.pipe.adopt(block, memory)
	w.owned -= memory
	if err != nil {
		return err
	}
	s.Fill(w.head)
	w.current, w.head = s, nil
	w.repo.writes.release(w.owned)
	w.owned = 0
	return nil
}

// Abort gives the object up and removes what was written of it. After Close it does nothing.
func (w *Writer) Abort() {
	if w.err == nil {
		w.fail(errAborted)
	}
}

// fail removes what was written; nothing more can be done then.
func (w *Writer) fail(err error) {
	w.err = err
	if w.up != nil {
		w.up.abort()
	}
	w.release()
}

// release gives the memory back; what Puts left behind still hold comes later.
func (w *Writer) release() {
	w.cancel()
	w.forget()
	if w.current != nil {
		w.current.drop()
		w.current = nil
	}
	if w.pipe != nil {
		w.pipe.finish()
	}
	w.repo.writes.release(w.owned)
	w.owned, w.head = 0, nil
}
