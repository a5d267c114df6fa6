package packer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/repo"
)

// Repack rewrites packs into as few as there need be, having looked again whether
// they still are to be: their live members get a copy of their bytes in a new pack.
// The old ones are retired before, so that gc destroys each once nothing is in it
// that anybody can reach. Files in trash are moved as well. Killed, it is run again.
//
// A pack or member that cannot be read stays where it is: the error tells of it. An
// error of the stores that are written to ends it.
func (p *Packer) Repack(ctx context.Context, list []Candidate, progress func(Result)) (Result, error) {
	r := &repacking{p: p, progress: progress, batches: map[int]*batch{}}
	for _, c := range list {
		if err := r.move(ctx, c.Object); err != nil {
			return r.sum, errors.Join(append(r.errs, err)...)
		}
	}
	for place := range r.batches {
		if err := r.flush(ctx, place); err != nil {
			return r.sum, errors.Join(append(r.errs, err)...)
		}
	}
	return r.sum, errors.Join(r.errs...)
}

// repacking is one Repack.
type repacking struct {
	p        *Packer
	progress func(Result)
	batches  map[int]*batch // by place
	ahead    readAhead
	paths    paths
	sum      Result
	errs     []error // at most maxErrors
}

// batch is a new pack that fills up.
type batch struct {
	items   []Item
	bytes   int64
	trailer int64
}

// maxErrors bounds how many members a Repack tells of.
const maxErrors = 100

func (r *repacking) fail(what any, err error) {
	if len(r.errs) < maxErrors {
		r.errs = append(r.errs, fmt.Errorf("%v: %w", what, err))
	}
}

// move takes the live members of a pack into batches. An error ends the Repack.
func (r *repacking) move(ctx context.Context, object objfmt.ObjectID) error {
	defer r.paths.close()
	_, due, err := r.p.inspect(ctx, object)
	if err == nil && due {
		err = r.p.retire(ctx, object)
	}
	var t *objfmt.MemberTable
	if err == nil && due {
		t, err = r.p.c.Meta.Members(ctx, object)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, fs.ErrNotExist):
		return nil // destroyed meanwhile
	case err != nil:
		r.fail("pack "+object.String(), err)
		return nil
	case !due:
		return nil
	}
	var noted map[objfmt.ID]string // by content; nil: not read
	for _, m := range t.Members {
		fl, s, err := r.p.newest(ctx, m.File)
		if err == nil && names(s, object) {
			if noted == nil {
				noted = r.noted(ctx, s.Source.Object)
			}
			err = r.add(ctx, fl, s, noted[s.Content])
		}
		if fl != nil {
			fl.Close()
		}
		if err := r.one(ctx, m.File, err); err != nil {
			return err
		}
	}
	return nil
}

// one keeps the error of one file, unless it is one of all.
func (r *repacking) one(ctx context.Context, file objfmt.ID, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var w *writeError
	if errors.As(err, &w) {
		return err
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.sum.Lost++
		r.fail("file "+file.String(), err)
	}
	return nil
}

// writeError is that of a new pack.
type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

// add puts a member into its batch, after that was written when it is full.
func (r *repacking) add(ctx context.Context, fl *metadata.File, s objfmt.Slot, noted string) error {
	in := fl.Inode()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	from := r.p.c.Repos[s.Source.Object.Repo]
	place, ok := r.p.place(s.Source.Stored)
	if from == nil || !ok {
		return fmt.Errorf("repo %q is not configured, or takes no packs: %w", s.Source.Object.Repo, fs.ErrInvalid)
	}
	it := Item{
		Member: metadata.PackMember{Slot: s},
		File: objfmt.TrailerFile{Path: r.paths.verify(r.p.c.Meta.Tree(), noted, st.Ino), Mode: st.Mode, UID: st.Uid, GID: st.Gid,
			MTime: time.Unix(st.Mtim.Unix()), Xattrs: metadata.TrailerXattrs(in)},
		Content: &packed{ctx: ctx, ahead: &r.ahead, repo: from, key: s.Source.Object.Key(r.p.c.Namespace), source: s.Source},
	}
	b := r.batches[place]
	if b == nil {
		b = &batch{}
		r.batches[place] = b
	}
	if n := len(b.items); n > 0 && (n >= packFiles || b.trailer >= maxTrailer || b.bytes+s.Source.Stored > r.p.c.Policy.TargetSize) {
		if err := r.flush(ctx, place); err != nil {
			return &writeError{err}
		}
	}
	b.items = append(b.items, it)
	b.bytes += s.Source.Stored
	b.trailer += trailerBytes(&it.File)
	return nil
}

// flush writes a batch.
func (r *repacking) flush(ctx context.Context, place int) error {
	b := r.batches[place]
	items := b.items
	*b = batch{}
	if len(items) == 0 {
		return nil
	}
	if _, err := r.p.write(ctx, r.p.c.Places[place].Repo, items, nil); err != nil {
		return fmt.Errorf("rewrite %d files: %w", len(items), err)
	}
	packs := r.sum.Packs
	for i := range items {
		it := &items[i]
		if it.Err == nil {
			r.sum.Files++
			r.sum.Bytes += it.Member.Slot.Source.Stored
			packs = r.sum.Packs + 1
			continue
		}
		r.sum.Lost++
		if !errors.Is(it.Err, errChanged) {
			r.fail("file "+it.Member.Slot.File.String(), it.Err)
		}
	}
	if r.sum.Packs = packs; r.progress != nil {
		r.progress(r.sum)
	}
	return nil
}

// maxOldTrailer bounds the trailer of an old pack that is read for the sake of its
// paths; without it files have none in the new trailer.
const maxOldTrailer = 64 << 20

// noted reads what the trailer of an old pack says of the paths of its files, by
// content: they are noted nowhere else any more.
func (r *repacking) noted(ctx context.Context, ref objfmt.ObjectRef) map[objfmt.ID]string {
	paths := map[objfmt.ID]string{}
	from := r.p.c.Repos[ref.Repo]
	if from == nil || ref.Size < objfmt.TrailerFooterSize {
		return paths
	}
	read := func(n int64) []byte {
		b := make([]byte, n)
		if got, _ := from.ReadAt(ctx, ref.Key(r.p.c.Namespace), ref.Layout, b, ref.Size-n); int64(got) < n {
			return nil
		}
		return b
	}
	n, err := objfmt.ParseTrailerFooter(read(objfmt.TrailerFooterSize))
	if err != nil || n > min(ref.Size, maxOldTrailer) {
		return paths
	}
	t, err := objfmt.ParseTrailer(read(n))
	if err != nil {
		return paths
	}
	for _, f := range t.Files {
		if leadsDown(f.Path) {
			paths[f.Content] = f.Path
		}
	}
	return paths
}

// packed is a content in an old pack.
type packed struct {
	ctx    context.Context
	ahead  *readAhead
	repo   *repo.Repo
	key    string
	source objfmt.Source
}

func (c *packed) ReadAt(b []byte, off int64) (int, error) {
	return c.ahead.read(c, b, c.source.Offset+off)
}

// readAhead is the piece of an old pack that was read last: members come in order of
// their offsets.
type readAhead struct {
	key string
	ref objfmt.ObjectRef
	off int64
	buf []byte
}

const readAheadBytes = 4 << 20

// read fills b from off of the pack that c is in.
func (a *readAhead) read(c *packed, b []byte, off int64) (int, error) {
	ref, end := c.source.Object, off+int64(len(b))
	if off < 0 || end > ref.Size {
		return 0, fmt.Errorf("%d bytes at %d of %d: %w", len(b), off, ref.Size, io.ErrUnexpectedEOF)
	}
	if a.ref != ref || off < a.off || end > a.off+int64(len(a.buf)) {
		if err := a.fill(c, max(int64(len(b)), min(readAheadBytes, ref.Size-off)), off); err != nil {
			// A damaged neighbour is none of this content's.
			return c.repo.ReadAt(c.ctx, c.key, ref.Layout, b, off)
		}
	}
	return copy(b, a.buf[off-a.off:]), nil
}

func (a *readAhead) fill(c *packed, n, off int64) error {
	if int64(cap(a.buf)) < n {
		a.buf = make([]byte, max(n, readAheadBytes))
	}
	a.ref, a.off, a.buf = c.source.Object, off, a.buf[:n]
	got, err := c.repo.ReadAt(c.ctx, c.key, c.source.Object.Layout, a.buf, off)
	if int64(got) == n {
		return nil
	}
	a.ref, a.buf = objfmt.ObjectRef{}, a.buf[:0]
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}
