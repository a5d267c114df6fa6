package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
)

// upload is one attempt to store a write in one pod: a Put per shard, each in a
// goroutine of its own, fed with stripes.
type upload struct {
	repo    *Repo
	key     string
	layout  objfmt.Layout // all but Size
	size    int64         // of the object; final when the queues are closed
	ctx     context.Context
	shards  []*shardUpload
	changed chan struct{} // a signal: a shard ended
	looked  time.Time     // when look was last called
	closed  time.Time     // when the queues were

	mu sync.Mutex // guards state and err of the shards
}

type uploadState int

const (
	running uploadState = iota
	stored
	failed
)

type shardUpload struct {
	up     *upload
	index  int
	store  *store
	probe  bool // the store failed lately
	ctx    context.Context
	cancel context.CancelCauseFunc
	queue  chan *stripe // has room for every stripe of the pipeline
	busy   atomic.Int64 // since when the store has been at work, Unix nanoseconds; 0: it waits for us
	took   atomic.Bool  // the store came for more than the header
	sent   atomic.Bool  // the footer was handed over
	ended  chan struct{}

	state uploadState
	err   error
}

// startUpload begins to store shards; sized says that l.Size is known already.
func (r *Repo) startUpload(ctx context.Context, key string, l objfmt.Layout, t target, room int, sized bool) *upload {
	u := &upload{repo: r, key: key, layout: l, ctx: ctx, changed: make(chan struct{}, 1), looked: time.Now()}
	for i, s := range t.stores {
		sh := &shardUpload{up: u, index: i, store: s, probe: t.verdicts[i] == probe, queue: make(chan *stripe, room+len(t.stores)+1), ended: make(chan struct{})}
		sh.ctx, sh.cancel = context.WithCancelCause(ctx)
		u.shards = append(u.shards, sh)
		if t.verdicts[i] == avoid {
			sh.state, sh.err = failed, errAvoided
			close(sh.ended)
			continue
		}
		size := int64(-1)
		if sized {
			size = l.ShardSize(key, i)
		}
		sh.busy.Store(time.Now().UnixNano())
		go sh.run(size)
	}
	return u
}

func (sh *shardUpload) run(size int64) {
	defer close(sh.ended)
	src := &shardSource{sh: sh}
	err := sh.store.Put(sh.ctx, sh.up.key, src, size)
	src.release()
	if err == nil && !sh.sent.Load() {
		err = fmt.Errorf("%w: stored without reading to the end", objstore.ErrCorrupt)
	}
	sh.end(err)
}

// end records how the Put ended.
func (sh *shardUpload) end(err error) {
	if cause := context.Cause(sh.ctx); err != nil && cause != nil {
		err = cause
	} else {
		sh.store.writes.report(err)
	}
	sh.up.mu.Lock()
	if err == nil {
		sh.state, sh.err = stored, nil
	} else if sh.state == running {
		sh.state, sh.err = failed, err
	}
	sh.up.mu.Unlock()
	sh.drain()
	sh.up.signal()
}

// giveUp leaves a running Put behind. Should it still succeed, the better.
func (sh *shardUpload) giveUp(why error) bool {
	sh.up.mu.Lock()
	was := sh.state
	if was == running {
		sh.state, sh.err = failed, why
	}
	sh.up.mu.Unlock()
	if was == running {
		sh.cancel(why)
		sh.drain()
		sh.up.signal()
	}
	return was == running
}

// drain drops what was queued for a shard that takes no more.
func (sh *shardUpload) drain() {
	for {
		select {
		case s, ok := <-sh.queue:
			if !ok {
				return
			}
			s.drop()
		default:
			return
		}
	}
}

func (u *upload) signal() {
	select {
	case u.changed <- struct{}{}:
	default:
	}
}

// send queues a sealed stripe for every shard that is alive.
func (u *upload) send(s *stripe) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, sh := range u.shards {
		if sh.state == running {
			s.hold(1)
			sh.queue <- s
		}
	}
}

// finish ends the shards; size is the object's.
func (u *upload) finish(size int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.size, u.closed = size, time.Now()
	for _, sh := range u.shards {
		close(sh.queue)
	}
}

// progress is where the shards of an upload are.
type progress struct {
	stored, running int
	busy            bool // a running shard has something to send
}

// look gives up stalled shards and returns where the others are. It fails when
// the quorum cannot be reached any more.
func (u *upload) look() (progress, error) {
	now := time.Now()
	awake := now.Sub(u.looked) < u.repo.cfg.StallTimeout/2 // else it is us who stalled
	u.looked = now
	for _, sh := range u.shards {
		if !awake {
			break
		}
		if since := sh.busy.Load(); since != 0 && now.Sub(time.Unix(0, since)) > sh.patience() {
			sh.stall(fmt.Errorf("%w for %v", errStalled, sh.patience()))
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var p progress
	for _, sh := range u.shards {
		switch sh.state {
		case stored:
			p.stored++
		case running:
			p.running++
			p.busy = p.busy || len(sh.queue) > 0 || sh.busy.Load() != 0
		}
	}
	if p.stored+p.running < u.repo.cfg.MinWrite {
		return p, u.quorumLost(p.stored + p.running)
	}
	return p, nil
}

// patience returns how long the store may make no progress. One that failed lately
// has to begin soon, but once it has is as good as any: else one a little slower
// than the others would fail probe after probe. With the last byte a store may have
// much to do that nobody sees: parts to send, and to put together.
func (sh *shardUpload) patience() time.Duration {
	limit := sh.up.repo.cfg.StallTimeout
	switch {
	case sh.sent.Load():
		return limit + sh.up.work(sh.index)
	case sh.probe && !sh.took.Load():
		return limit / probeShare
	}
	return limit
}

// work returns how long a store may be at work on a whole shard.
func (u *upload) work(shard int) time.Duration {
	l := u.layout
	l.Size = u.size
	return transferTime(l.ShardSize(u.key, shard))
}

// transferTime is how long so many bytes may take: a second for each MiB, as S3
// requests have too.
func transferTime(n int64) time.Duration { return time.Duration(n>>20) * time.Second }

// stall gives a shard up and holds it against its store.
func (sh *shardUpload) stall(why error) {
	if sh.giveUp(why) {
		sh.store.writes.report(why)
	}
}

// quorumLost is the error of a write that fails. u.mu is locked.
func (u *upload) quorumLost(have int) error {
	return fmt.Errorf("write %s to repo %s, pod %s: %w: %d of %d, want %d: %w",
		u.key, u.repo.cfg.Name, u.layout.Pod, ErrQuorum, have, len(u.shards), u.repo.cfg.MinWrite, u.failures())
}

// failures returns what failed shards failed of. u.mu is locked.
func (u *upload) failures() error {
	var errs causes
	for _, sh := range u.shards {
		if sh.state == failed {
			errs = append(errs, fmt.Errorf("store %s: shard %d: %w", sh.store.Name, sh.index, sh.err))
		}
	}
	return errs
}

// tick returns how often to look for stalled shards.
func (u *upload) tick() time.Duration {
	return min(max(u.repo.cfg.StallTimeout/64, time.Millisecond), time.Second)
}

// wait returns when enough shards are durable, and the others are too, have
// failed, or have had a fair time more.
func (u *upload) wait() error {
	ticker := time.NewTicker(u.tick())
	defer ticker.Stop()
	var quorum time.Time
	for {
		p, err := u.look()
		if err != nil || p.running == 0 {
			return err
		}
		if p.stored >= u.repo.cfg.MinWrite {
			if quorum.IsZero() {
				quorum = time.Now()
			}
			u.leave(time.Since(quorum), max(u.repo.cfg.StallTimeout/4, quorum.Sub(u.closed)))
		}
		select {
		case <-u.changed:
		case <-ticker.C: // look again
		case <-u.ctx.Done():
			return context.Cause(u.ctx)
		}
	}
}

// leave gives up the stragglers that have had their time since the quorum was
// reached: fair is what the quorum took itself, if that was long.
func (u *upload) leave(since, fair time.Duration) {
	for _, sh := range u.shards {
		if limit := min(sh.patience(), fair); since > limit {
			sh.stall(fmt.Errorf("%w: not done %v after enough others", objstore.ErrUnavailable, limit))
		}
	}
}

// missing returns the shards that are not stored, and why.
func (u *upload) missing() (shards []int, why error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, sh := range u.shards {
		if sh.state != stored {
			shards = append(shards, sh.index)
		}
	}
	return shards, u.failures()
}

// An aborted write waits so long for its Puts to notice, and for deletes.
const (
	abortWait  = time.Second
	deleteWait = 5 * time.Second
)

// abort ends every Put and deletes the shards that may have been stored.
func (u *upload) abort() {
	timeout := time.NewTimer(abortWait)
	defer timeout.Stop()
	for _, sh := range u.shards {
		sh.giveUp(context.Canceled)
		sh.cancel(context.Canceled)
	}
	for _, sh := range u.shards {
		select {
		case <-sh.ended:
		case <-timeout.C:
			timeout.Reset(0)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), deleteWait)
	defer cancel()
	var all sync.WaitGroup
	for _, sh := range u.shards {
		if sh.sent.Load() { // before that, nothing can have become visible
			all.Go(func() { u.repo.removeOwn(ctx, sh.store, u.key, u.layout.WriteID) })
		}
	}
	all.Wait()
}

// removeOwn deletes a shard if it is of this write: the key may hold an older
// object, which a failed write must not take away. Best effort.
func (r *Repo) removeOwn(ctx context.Context, s *store, key string, write objfmt.ID) {
	h, _, err := readHeader(ctx, s, key)
	if err == nil && h.WriteID == write {
		_ = s.Delete(ctx, key) // garbage that reconcile finds
	}
}

// shardSource is what a Put reads: header, cells, footer.
type shardSource struct {
	sh    *shardUpload
	begun bool
	cur   *stripe
	rest  []byte // of what next returned, for Read
}

// next returns the next piece, which is valid until next is called again.
func (r *shardSource) next() ([]byte, error) {
	r.release()
	sh := r.sh
	if err := context.Cause(sh.ctx); err != nil {
		return nil, err
	}
	if sh.sent.Load() {
		return nil, io.EOF
	}
	defer func() { sh.busy.Store(time.Now().UnixNano()) }()
	if !r.begun {
		r.begun = true
		return sh.up.layout.Header(sh.up.key, sh.index).Append(nil)
	}
	sh.took.Store(true)
	sh.busy.Store(0)
	select {
	case s, ok := <-sh.queue:
		if ok {
			r.cur = s
			return s.Shard(sh.index), nil
		}
		sh.sent.Store(true)
		l := sh.up.layout
		l.Size = sh.up.size
		return l.Footer(sh.index).Append(nil), nil
	case <-sh.ctx.Done():
		return nil, context.Cause(sh.ctx)
	}
}

func (r *shardSource) release() {
	if r.cur != nil {
		r.cur.drop()
		r.cur = nil
	}
}

// WriteTo hands the stripes over without copying.
func (r *shardSource) WriteTo(w io.Writer) (n int64, err error) {
	for {
		piece, err := r.next()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		m, err := w.Write(piece)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
}

func (r *shardSource) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		piece, err := r.next()
		if err != nil {
			return 0, err
		}
		r.rest = piece
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.sh.busy.Store(time.Now().UnixNano())
	return n, nil
}
