package control

import (
	"context"
	"errors"
	"io"
	"iter"
	"path"
	"syscall"

	"marfs/pkg/namespace"
	"marfs/pkg/trash"
)

// answer runs the request in text, and tells what comes of it.
func (s *Server) answer(ctx context.Context, c namespace.Caller, text []byte, e *encoder) {
	e.line(line{Version: Version})
	r, err := parseRequest(text)
	if err == nil {
		err = s.do(ctx, c, r, e)
	}
	if err != nil {
		e.line(line{Error: wireErrorOf(err)})
	}
	if ctx.Err() == nil {
		e.line(line{Done: true})
	}
}

func (s *Server) do(ctx context.Context, c namespace.Caller, r request, e *encoder) error {
	switch r.Do {
	case List:
		each(s.fs.Trash(ctx, c, r.query()), e)
	case Purge:
		each(s.fs.PurgeTrash(ctx, c, r.query()), e)
	case Restore:
		s.restore(ctx, c, r, e)
	case Versions:
		all, err := s.fs.Versions(ctx, c, string(r.Path))
		each(slice(all), e)
		return err
	case Revert:
		return s.revert(ctx, c, r, e)
	case Read:
		return s.read(ctx, c, r, e)
	}
	return nil
}

// each tells entries as they come; an error of one does not end it.
func each(entries iter.Seq2[namespace.TrashEntry, error], e *encoder) {
	for entry, err := range entries {
		l := line{Error: wireErrorOf(err)}
		if err == nil || entry.ID != (trash.ID{}) {
			l.Entry = wireOf(&entry)
		}
		if !e.line(l) {
			return
		}
	}
}

func slice(all []namespace.TrashEntry) iter.Seq2[namespace.TrashEntry, error] {
	return func(yield func(namespace.TrashEntry, error) bool) {
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (s *Server) restore(ctx context.Context, c namespace.Caller, r request, e *encoder) {
	q := namespace.TrashRestoration{TrashQuery: r.query(), To: string(r.To), Force: r.Force, DryRun: r.DryRun}
	for done, err := range s.fs.RestoreTrash(ctx, c, q) {
		if err == nil {
			err = done.Err
		}
		l := line{Error: wireErrorOf(err)}
		if done.ID != (trash.ID{}) {
			l.Entry, l.Where = wireOf(&done.TrashEntry), []byte(done.Where)
		}
		if done.Where != "" && !r.DryRun {
			s.o.Changed(Change{Path: done.Where, Dir: done.Mode&syscall.S_IFMT == syscall.S_IFDIR, Content: done.Version()})
		}
		if !e.line(l) {
			return
		}
	}
}

func (s *Server) revert(ctx context.Context, c namespace.Caller, r request, e *encoder) error {
	entry, err := s.fs.RestoreVersion(ctx, c, string(r.Path), r.Content)
	if err != nil {
		return err
	}
	s.o.Changed(Change{Path: path.Clean("/" + string(r.Path)), Content: true})
	e.line(line{Entry: wireOf(&entry), Where: r.Path})
	return nil
}

// read sends what an entry holds.
func (s *Server) read(ctx context.Context, c namespace.Caller, r request, e *encoder) error {
	content, err := s.fs.OpenTrash(ctx, c, r.IDs[0])
	if err != nil {
		return err
	}
	err = send(ctx, content, e)
	return errors.Join(err, content.Close())
}

// readerAt is what Content is of io.ReaderAt.
type readerAt interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
}

func send(ctx context.Context, from readerAt, e *encoder) error {
	buf := make([]byte, maxData)
	for off := int64(0); ; {
		n, err := from.ReadAt(ctx, buf, off)
		if n > 0 && !e.data(buf[:n]) {
			return nil // nobody is there any more
		}
		off += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
