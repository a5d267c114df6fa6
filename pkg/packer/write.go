package packer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/repo"
)

const (
	// packTime bounds how long one pack is written. It is far below the age at which
	// stores take unfinished objects for those of crashed writers.
	packTime = time.Hour
	// abortTime bounds what is done about a pack that came to nothing, also when
	// that is because the caller's context has ended.
	abortTime = 30 * time.Second
	copyBytes = 256 << 10
)

// errChanged is why an item whose pack was written is not packed.
var errChanged = fmt.Errorf("changed while it was packed: %w", syscall.ESTALE)

// errNothing means that no item of a pack is good.
var errNothing = errors.New("nothing to pack")

// Write makes one pack of the items in a repo, and publishes them. On return without
// an error the pack is durable, and so is every item without Err. With an error none
// can be relied on.
//
// The member table, which recovery needs before the first byte is in a store, has
// the checksums that slots say; so contents are read once, while they are uploaded.
// One that turns out to be another stays in the pack as dead bytes. All contents
// are closed.
func (p *Packer) Write(ctx context.Context, r *repo.Repo, items []Item) error {
	_, err := p.write(ctx, r, items, nil)
	return err
}

func (p *Packer) write(ctx context.Context, r *repo.Repo, items []Item, pace *pace) (objfmt.ObjectID, error) {
	ctx, cancel := context.WithTimeout(ctx, packTime)
	defer cancel()
	w := &writing{p: p, pace: pace, buf: make([]byte, copyBytes)}
	defer closeContents(items)
	if err := w.layOut(ctx, items); err != nil || len(w.items) == 0 {
		return objfmt.ObjectID{}, err
	}
	pack, err := p.c.Meta.BeginPack(ctx, w.members)
	if err == nil {
		err = w.fill(ctx, r, pack)
	}
	if err == nil {
		return pack.Object, nil
	}
	if errors.Is(err, errNothing) {
		err = nil // each item has its error
	}
	if pack != nil {
		err = errors.Join(err, p.abort(ctx, pack))
	}
	return objfmt.ObjectID{}, err
}

// abort gives a pack up. One that cannot be given up now is remembered: recovery
// leaves alone what belongs to a process that lives.
func (p *Packer) abort(ctx context.Context, pack *metadata.Pack) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	err := pack.Abort(ctx)
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.undone = append(p.undone, pack)
	}
	return err
}

// abortAgain tries what abort could not do.
func (p *Packer) abortAgain(ctx context.Context) error {
	p.mu.Lock()
	list := p.undone
	p.undone = nil
	p.mu.Unlock()
	var errs []error
	for _, pack := range list {
		errs = append(errs, p.abort(ctx, pack))
	}
	return errors.Join(errs...)
}

// writing is one pack being written.
type writing struct {
	p       *Packer
	pace    *pace
	items   []*Item               // those that have a checksum, in order
	members []metadata.PackMember // of them; the Pack's, too
	end     int64                 // bytes of all
	buf     []byte
}

// layOut decides where each content goes.
func (w *writing) layOut(ctx context.Context, items []Item) error {
	for i := range items {
		it := &items[i]
		if it.Err != nil {
			continue
		}
		sum, err := w.sum(ctx, it)
		if reaches(err) {
			return err
		}
		if it.Err = err; err != nil {
			continue
		}
		it.Member.Sum, it.Member.Offset = sum, w.end
		w.end += it.Member.Slot.Source.Stored
		w.items = append(w.items, it)
		w.members = append(w.members, it.Member)
	}
	return nil
}

// sum is the checksum that a content must have. A content in a body or object that
// was cut has none in its slot: it is read twice.
func (w *writing) sum(ctx context.Context, it *Item) (uint64, error) {
	src := it.Member.Slot.Source
	if src.Stored < 1 {
		return 0, fmt.Errorf("pack %d bytes: %w", src.Stored, syscall.EINVAL)
	}
	if src.Sum != 0 {
		return src.Sum, nil
	}
	if it.Member.Sum != 0 {
		return it.Member.Sum, nil
	}
	sum := uint64(0)
	_, err := w.read(ctx, it, func(b []byte) error {
		sum = objfmt.Update(sum, b)
		return nil
	})
	return sum, err
}

// reaches tells whether an error of one content is one of all: the context has
// ended, or a store does not answer.
func reaches(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, objstore.ErrUnavailable)
}

// read calls fn with the bytes of a content, in order. done is how many it got.
func (w *writing) read(ctx context.Context, it *Item, fn func([]byte) error) (done int64, err error) {
	for n := it.Member.Slot.Source.Stored; done < n; {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		b := w.buf[:min(n-done, copyBytes)]
		got, err := it.Content.ReadAt(b, done)
		if got < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return done, fmt.Errorf("read %d bytes at %d: %w", len(b), done, err)
		}
		if err := fn(b); err != nil {
			return done, err
		}
		done += int64(len(b))
	}
	return done, nil
}

// fill uploads the pack and publishes its members.
func (w *writing) fill(ctx context.Context, r *repo.Repo, pack *metadata.Pack) error {
	ref := objfmt.ObjectRef{Object: pack.Object}
	up, err := r.Create(ctx, ref.Key(w.p.c.Namespace))
	if err != nil {
		return err
	}
	if err := w.stream(ctx, up, pack.Object); err != nil {
		up.Abort()
		return err
	}
	if ref.Layout, err = up.Close(); err != nil {
		return err
	}
	if _, err := pack.Publish(ctx, ref); err != nil {
		return err
	}
	if err := pack.Finish(ctx); err != nil {
		return err
	}
	for i, it := range w.items {
		if it.Member = w.members[i]; it.Err == nil && !it.Member.Won() {
			it.Err = errChanged
		}
	}
	return nil
}

// stream writes the contents and the recovery trailer.
func (w *writing) stream(ctx context.Context, up *repo.Writer, object objfmt.ObjectID) error {
	t := objfmt.Trailer{Namespace: w.p.c.Namespace, Object: object, Chunks: 1, Stored: w.end}
	for i, it := range w.items {
		w.pace.giveWay(ctx)
		if err := w.copy(ctx, up, it); err != nil {
			return err
		}
		if closeContent(it); it.Err != nil {
			w.members[i].Bad = true
		} else {
			t.Files = append(t.Files, trailerFile(it))
		}
	}
	if len(t.Files) == 0 {
		return errNothing
	}
	b, err := t.Encode()
	if err == nil {
		_, err = up.Write(b)
	}
	return err
}

// copy writes one content, in its length whatever comes.
func (w *writing) copy(ctx context.Context, up *repo.Writer, it *Item) error {
	var failed error
	sum := uint64(0)
	done, err := w.read(ctx, it, func(b []byte) error {
		sum = objfmt.Update(sum, b)
		_, failed = up.Write(b)
		return failed
	})
	switch {
	case failed != nil || reaches(err):
		return err
	case err == nil && sum != it.Member.Sum:
		err = fmt.Errorf("%w: have %016x, want %016x", objfmt.ErrChecksum, sum, it.Member.Sum)
	}
	it.Err = err
	return w.pad(up, it.Member.Slot.Source.Stored-done)
}

func (w *writing) pad(up *repo.Writer, n int64) error {
	clear(w.buf)
	for ; n > 0; n -= min(n, copyBytes) {
		if _, err := up.Write(w.buf[:min(n, copyBytes)]); err != nil {
			return err
		}
	}
	return nil
}

// trailerFile completes what the item says of the file.
func trailerFile(it *Item) objfmt.TrailerFile {
	m, f := &it.Member, it.File
	f.File, f.Content, f.Size = m.Slot.File, m.Slot.Content, m.Slot.Size
	f.Offset, f.At, f.Length, f.Sum = 0, m.Offset, m.Slot.Source.Stored, m.Sum
	if f.MTime.IsZero() {
		f.MTime = m.Slot.MTime
	}
	return f
}

func closeContents(items []Item) {
	for i := range items {
		closeContent(&items[i])
	}
}

// closeContent may be called again.
func closeContent(it *Item) {
	if c, ok := it.Content.(io.Closer); ok {
		c.Close()
	}
}
