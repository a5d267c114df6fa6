package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"syscall"

	"marfs/pkg/namespace"
)

// Conn carries one request and its answer.
type Conn interface {
	Write(p []byte) (int, error)
	Read(ctx context.Context, p []byte) (int, error)
	Close()
}

// Client asks a server.
type Client struct {
	// Dial connects for one request.
	Dial func(context.Context) (Conn, error)
}

// Local is a client of a server in the same process, as c.
func Local(s *Server, c namespace.Caller) Client {
	return Client{Dial: func(context.Context) (Conn, error) { return s.Open(c) }}
}

var (
	errProtocol = errors.New("the answer is none of MarFS")
	errCut      = errors.New("the answer has no end: the daemon has ended, or this session")
)

// List yields the entries that q selects.
func (c Client) List(ctx context.Context, q namespace.TrashQuery) iter.Seq2[Entry, error] {
	return c.entries(ctx, requestOf(List, q))
}

// Purge lets entries go, and yields each; one that stays with its error.
func (c Client) Purge(ctx context.Context, q namespace.TrashQuery) iter.Seq2[Entry, error] {
	return c.entries(ctx, requestOf(Purge, q))
}

// Versions yields the earlier contents of the file at path, newest first.
func (c Client) Versions(ctx context.Context, path string) iter.Seq2[Entry, error] {
	return c.entries(ctx, request{Do: Versions, Path: []byte(path)})
}

func requestOf(do Verb, q namespace.TrashQuery) request {
	return request{Do: do, Path: []byte(q.Path), IDs: q.IDs, Filter: filterOf(q.Filter)}
}

func (c Client) entries(ctx context.Context, r request) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for l, err := range c.ask(ctx, r, nil) {
			if err == nil {
				err = l.Error.err()
			}
			var e Entry
			if l.Entry != nil {
				e = l.Entry.entry()
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Restore puts entries back. An error without an entry is the second value.
func (c Client) Restore(ctx context.Context, t namespace.TrashRestoration) iter.Seq2[Restored, error] {
	r := requestOf(Restore, t.TrashQuery)
	r.To, r.Force, r.DryRun = []byte(t.To), t.Force, t.DryRun
	return c.restored(ctx, r)
}

// Revert makes an earlier content of the file at path its content.
func (c Client) Revert(ctx context.Context, path, version string) iter.Seq2[Restored, error] {
	return c.restored(ctx, request{Do: Revert, Path: []byte(path), Content: version})
}

func (c Client) restored(ctx context.Context, r request) iter.Seq2[Restored, error] {
	return func(yield func(Restored, error) bool) {
		for l, err := range c.ask(ctx, r, nil) {
			var d Restored
			switch {
			case err != nil:
			case l.Entry == nil:
				err = l.Error.err()
			default:
				d = Restored{l.Entry.entry(), string(l.Where), l.Error.err()}
			}
			if !yield(d, err) {
				return
			}
		}
	}
}

// Read writes what an entry holds to w.
func (c Client) Read(ctx context.Context, id string, w io.Writer) error {
	var errs []error
	for l, err := range c.ask(ctx, request{Do: Read, IDs: []string{id}}, w) {
		if err == nil {
			err = l.Error.err()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ask yields the lines of an answer that say something; data goes to w. An error
// of the connection is the last.
func (c Client) ask(ctx context.Context, r request, w io.Writer) iter.Seq2[line, error] {
	return func(yield func(line, error) bool) {
		conn, err := c.begin(ctx, r)
		if err != nil {
			yield(line{}, err)
			return
		}
		defer conn.Close()
		in := &answer{bufio.NewReaderSize(connReader{ctx, conn}, MaxLine)}
		for first := true; ; first = false {
			l, err := in.next(first)
			if err == nil && l.Data > 0 {
				err = in.data(l.Data, w)
			}
			switch {
			case err != nil:
				yield(line{}, err)
				return
			case l.Done:
				return
			case (l.Entry != nil || l.Error != nil) && !yield(l, nil):
				return
			}
		}
	}
}

func (c Client) begin(ctx context.Context, r request) (Conn, error) {
	text, err := r.encode()
	if err != nil {
		return nil, err
	}
	conn, err := c.Dial(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(text); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// answer reads what an encoder writes.
type answer struct{ *bufio.Reader }

// next returns the next line that is not empty; the first must be the version.
func (a *answer) next(first bool) (l line, err error) {
	for {
		text, err := a.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return l, errCut
		case errors.Is(err, bufio.ErrBufferFull):
			return l, errProtocol
		case err != nil:
			return l, err
		}
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		if first {
			return l, version(text)
		}
		if err := decodeStrictly(text, &l); err != nil {
			return l, fmt.Errorf("%w: %w", errProtocol, err)
		}
		return l, nil
	}
}

func version(text []byte) error {
	var l line
	switch err := json.Unmarshal(text, &l); {
	case err != nil || l.Version == 0:
		return errProtocol
	case l.Version != Version:
		return fmt.Errorf("the daemon speaks version %d, this program version %d: %w", l.Version, Version, syscall.EPROTONOSUPPORT)
	}
	return nil
}

func (a *answer) data(n int, w io.Writer) error {
	if w == nil || n > maxData {
		return errProtocol
	}
	_, err := io.CopyN(w, a, int64(n))
	if errors.Is(err, io.EOF) {
		err = errCut
	}
	return err
}

// connReader looks, between one read and the next, whether the answer is wanted.
type connReader struct {
	ctx  context.Context
	conn Conn
}

func (r connReader) Read(p []byte) (int, error) {
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		n, err := r.conn.Read(r.ctx, p)
		if n > 0 || !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}
