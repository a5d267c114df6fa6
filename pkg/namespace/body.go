package namespace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// errMoved is a content that is not where the slot said, and is looked for again.
var errMoved = fmt.Errorf("the content has moved: %w", fs.ErrNotExist)

// body is a content in the metadata filesystem as readers get it: the file's own
// body, or a private one. The first read checks all of it against the slot's
// checksum. An own body may be released at any time and has zeros then, or be cut
// when another content has replaced this one: so zeros are believed only while the
// newest slot names the own body.
type body struct {
	meta *metadata.File
	slot objfmt.Slot
	file mdfs.File // where the slot says

	mu   sync.Mutex // one check at a time; guards copy
	copy mdfs.File  // the body of the version that this content has become
	good atomic.Pointer[mdfs.File]
}

// ReadAt implements io.ReaderAt. errMoved: the newest slot says where it is now.
func (b *body) ReadAt(p []byte, off int64) (int, error) {
	f := b.good.Load()
	if f == nil {
		done, err := b.check(p, off)
		if err != nil {
			return 0, err
		}
		if done {
			return len(p), nil
		}
		f = b.good.Load()
	}
	n, err := (*f).ReadAt(p, off)
	if n == len(p) && !doubtful(p, off) || *f != b.file || b.slot.Source.Kind != objfmt.SourceOwn {
		return n, err
	}
	if named, e := b.named(); named || e != nil {
		return n, errors.Join(err, e)
	}
	if err := b.follow(); err != nil {
		return 0, err
	}
	return (*b.good.Load()).ReadAt(p, off)
}

// check finds the content and sets good. done: p, all of it, has been read by the way.
func (b *body) check(p []byte, off int64) (done bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.good.Load() != nil {
		return false, nil
	}
	src := b.slot.Source
	if src.Sum == 0 || src.Kind == objfmt.SourceBody && b.slot.State == objfmt.Open {
		b.good.Store(&b.file) // not known, or still being written
		return false, nil
	}
	whole := off == 0 && int64(len(p)) == src.Stored
	if !whole {
		p = nil
	}
	if err = checkBody(b.file, src, p); err == nil {
		b.good.Store(&b.file)
		return whole, nil
	}
	if named, e := b.named(); named || e != nil {
		return false, errors.Join(fmt.Errorf("%s body of file %s, content %s: %w", src.Kind, b.slot.File, b.slot.Content, err), e)
	}
	return false, b.followLocked()
}

// named tells whether the newest slot still names the body, as it was or appended to.
func (b *body) named() (bool, error) {
	top, err := b.meta.Newest(context.Background())
	src := b.slot.Source
	return top.Source.Kind == src.Kind && top.Source.Stored >= src.Stored &&
		(src.Kind == objfmt.SourceOwn || top.Content == b.slot.Content), err
}

func (b *body) follow() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.followLocked()
}

// followLocked reads on from what the content has become when another has replaced
// it: a version has a body of its own.
func (b *body) followLocked() error {
	if b.copy != nil {
		return nil
	}
	top, err := b.meta.Newest(context.Background())
	if err != nil {
		return err
	}
	if top.Content == b.slot.Content {
		return errMoved
	}
	c, err := b.meta.Body(context.Background(), b.slot.Content)
	if errors.Is(err, syscall.ENOENT) {
		return errMoved
	}
	if err != nil {
		return err
	}
	if checkBody(c, b.slot.Source, nil) != nil {
		c.Close()
		return errMoved
	}
	b.copy = c
	b.good.Store(&b.copy)
	return nil
}

// Close does not close what the slot names.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.copy == nil {
		return nil
	}
	return b.copy.Close()
}

// checkBody reads a whole content, to p if that is not nil, and compares its checksum.
func checkBody(f io.ReaderAt, src objfmt.Source, p []byte) error {
	buf := p
	if buf == nil {
		buf = getSegment()
		defer putSegment(buf)
	}
	var sum uint64
	for off := int64(0); off < src.Stored; {
		part := buf[:min(int64(len(buf)), src.Stored-off)]
		if n, err := f.ReadAt(part, off); n < len(part) {
			if err == nil || errors.Is(err, io.EOF) {
				err = errShort
			}
			return err
		}
		sum = objfmt.Update(sum, part)
		off += int64(len(part))
	}
	if sum != src.Sum {
		return fmt.Errorf("%w: have %016x, want %016x", objfmt.ErrChecksum, sum, src.Sum)
	}
	return nil
}

// smallestBlock is that of the metadata filesystems there are: of what is released,
// at least so much reads as zeros.
const smallestBlock = 512

// doubtful tells whether what was read at off may be of a body that was released or
// cut: some block, as far as it was read, holds nothing but zeros, or the end does.
func doubtful(p []byte, off int64) bool {
	if len(p) > 0 && p[len(p)-1] == 0 {
		return true
	}
	for len(p) > 0 {
		n := min(int64(len(p)), smallestBlock-off%smallestBlock)
		if allZero(p[:n]) {
			return true
		}
		p, off = p[n:], off+n
	}
	return false
}

func allZero(p []byte) bool {
	for _, c := range p {
		if c != 0 {
			return false
		}
	}
	return true
}

// residue is the body that a packed content was packed from, as long as it is
// there. It saves reads of the pack; in any doubt the pack is read.
type residue struct {
	meta *metadata.File
	slot objfmt.Slot // packed

	mu      sync.Mutex // one look at a time; guards private
	private mdfs.File
	looked  atomic.Bool
	file    atomic.Pointer[mdfs.File] // nil: read the pack
}

// read reports whether it has filled p.
func (r *residue) read(p []byte, off int64) bool {
	if !r.looked.Load() {
		r.look()
	}
	f := r.file.Load()
	if f == nil {
		return false
	}
	if n, err := (*f).ReadAt(p, off); n == len(p) && err == nil && !doubtful(p, off) {
		return true
	}
	if own := r.meta.Inode(); *f == own {
		r.file.Store(nil)
	}
	return false
}

// look finds a body with the content: the file's own, or a private one.
func (r *residue) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.looked.Swap(true) || r.slot.Source.Sum == 0 {
		return
	}
	own := r.meta.Inode()
	if _, err := own.Seek(0, unix.SEEK_DATA); err == nil && checkBody(own, r.slot.Source, nil) == nil {
		r.file.Store(&own)
		return
	}
	c, err := r.meta.Body(context.Background(), r.slot.Content)
	if err != nil {
		return
	}
	if checkBody(c, r.slot.Source, nil) != nil {
		c.Close()
		return
	}
	r.private = c
	r.file.Store(&r.private)
}

// Close closes what look has opened.
func (r *residue) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.private == nil {
		return nil
	}
	return r.private.Close()
}
