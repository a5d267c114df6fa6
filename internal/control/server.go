package control

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"sync"
	"syscall"
	"time"

	"marfs/pkg/namespace"
)

// Trash is what a Server serves: *namespace.FS.
type Trash interface {
	Trash(context.Context, namespace.Caller, namespace.TrashQuery) iter.Seq2[namespace.TrashEntry, error]
	PurgeTrash(context.Context, namespace.Caller, namespace.TrashQuery) iter.Seq2[namespace.TrashEntry, error]
	RestoreTrash(context.Context, namespace.Caller, namespace.TrashRestoration) iter.Seq2[namespace.RestoredEntry, error]
	Versions(context.Context, namespace.Caller, string) ([]namespace.TrashEntry, error)
	RestoreVersion(context.Context, namespace.Caller, string, string) (namespace.TrashEntry, error)
	OpenTrash(context.Context, namespace.Caller, string) (*namespace.Content, error)
}

// Change is what a session has changed in the tree that users see.
type Change struct {
	Path    string // below the mount
	Dir     bool   // a directory is there now
	Content bool   // a file has another content; else a name has appeared or was replaced
}

// Options of a Server. Zero values are the defaults.
type Options struct {
	// Changed is called after each change, before its caller is told.
	Changed func(Change)
	PerUser int // sessions of one uid at once: 4
	Total   int // of all users but root, who has PerUser besides: 64
	// Arrive is how long a session waits for its request (1 minute), Idle for a reader that
	// reads nothing (15 minutes), Beat is how often a reader that waits gets an empty line (1 second).
	Arrive, Idle, Beat time.Duration
}

// buffered is how many bytes of an answer a session holds at most.
const buffered = 64 << 10

// Server opens sessions. Safe for concurrent use.
type Server struct {
	fs   Trash
	o    Options
	ctx  context.Context
	stop context.CancelCauseFunc
	work sync.WaitGroup

	mu    sync.Mutex // guards what follows, and work.Add against Close
	users map[uint32]int
	total int // users other than root
}

// NewServer starts nothing. Close ends it.
func NewServer(fs Trash, o Options) *Server {
	if o.Changed == nil {
		o.Changed = func(Change) {}
	}
	set(&o.PerUser, 4)
	set(&o.Total, 64)
	set(&o.Arrive, time.Minute)
	set(&o.Idle, 15*time.Minute)
	set(&o.Beat, time.Second)
	s := &Server{fs: fs, o: o, users: map[uint32]int{}}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	return s
}

func set[T int | time.Duration](v *T, unset T) {
	if *v == 0 {
		*v = unset
	}
}

// Stop ends all sessions, and refuses others. What is being changed at that moment is finished.
func (s *Server) Stop() { s.stop(syscall.ESHUTDOWN) }

// Close stops, and waits until no session is at work.
func (s *Server) Close() {
	s.mu.Lock() // no Open is between looking and adding
	s.Stop()
	s.mu.Unlock()
	s.work.Wait()
}

// Open begins a session of c's. EAGAIN: there are as many as may be.
func (s *Server) Open(c namespace.Caller) (*Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ctx.Err() != nil:
		return nil, syscall.ESHUTDOWN
	case s.users[c.UID] >= s.o.PerUser, c.UID != 0 && s.total >= s.o.Total:
		return nil, syscall.EAGAIN
	}
	s.users[c.UID]++
	if c.UID != 0 {
		s.total++
	}
	n := &Session{caller: c, server: s, request: make(chan []byte, 1), out: newPipe(buffered, s.o.Idle, s.o.Beat)}
	n.ctx, n.end = context.WithCancelCause(s.ctx)
	s.work.Go(n.run)
	return n, nil
}

func (s *Server) leave(c namespace.Caller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[c.UID]--; s.users[c.UID] == 0 {
		delete(s.users, c.UID)
	}
	if c.UID != 0 {
		s.total--
	}
}

// Session is one request and its answer. Whoever writes and reads, it acts as the
// caller it was opened for.
type Session struct {
	caller  namespace.Caller
	server  *Server
	ctx     context.Context
	end     context.CancelCauseFunc
	request chan []byte
	out     *pipe

	mu   sync.Mutex // guards what follows
	line []byte     // of the request, as far as it has come
	full bool       // it is complete
}

// errClosed is a session whose caller has closed it.
var errClosed = errors.New("closed")

// Write takes the request, or a part of it, and never waits. EINVAL: there is one
// already. EMSGSIZE: it is too long.
func (n *Session) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := bytes.IndexByte(p, '\n')
	switch {
	case n.full || at >= 0 && at != len(p)-1:
		return 0, syscall.EINVAL
	case n.ctx.Err() != nil:
		return 0, n.cause()
	case len(n.line)+len(p) > MaxRequest:
		return 0, syscall.EMSGSIZE
	}
	n.line = append(n.line, p...)
	if at >= 0 {
		n.full = true
		n.request <- n.line
		n.line = nil
	}
	return len(p), nil
}

// Read takes what there is of the answer, and waits if there is nothing. EINVAL:
// there was no request.
func (n *Session) Read(ctx context.Context, p []byte) (int, error) {
	n.mu.Lock()
	asked := n.full
	n.mu.Unlock()
	if !asked {
		if n.ctx.Err() != nil {
			return 0, n.cause()
		}
		return 0, syscall.EINVAL
	}
	return n.out.read(ctx, p)
}

// Close ends the session. What is being changed at that moment is finished.
func (n *Session) Close() { n.end(errClosed) }

func (n *Session) cause() error { return context.Cause(n.ctx) }

// run lives as long as the session counts: until its answer is read, or it is
// closed, or nobody uses it.
func (n *Session) run() {
	defer n.server.leave(n.caller)
	defer func() {
		n.end(errClosed)
		n.out.close(n.cause())
	}()
	arrive := time.NewTimer(n.server.o.Arrive)
	defer arrive.Stop()
	select {
	case line := <-n.request:
		n.out.close(n.answer(line))
		n.linger()
	case <-arrive.C:
		n.end(syscall.ETIMEDOUT)
	case <-n.ctx.Done():
	}
}

// linger waits until the answer is read.
func (n *Session) linger() {
	idle := time.NewTimer(n.server.o.Idle)
	defer idle.Stop()
	for !n.out.drained() {
		select {
		case <-n.out.room:
			idle.Reset(n.server.o.Idle)
		case <-idle.C:
			n.out.discard() // the reader sees that the answer has no end
			return
		case <-n.ctx.Done():
			return
		}
	}
}

// answer runs one request. The error is why the answer has no end.
func (n *Session) answer(line []byte) error {
	e := &encoder{w: pipeWriter{n.ctx, n.out}}
	n.server.answer(n.ctx, n.caller, line, e)
	if n.ctx.Err() != nil {
		return n.cause()
	}
	return e.err
}

type pipeWriter struct {
	ctx context.Context
	p   *pipe
}

func (w pipeWriter) Write(b []byte) (int, error) {
	if err := w.p.write(w.ctx, b); err != nil {
		return 0, err
	}
	return len(b), nil
}
