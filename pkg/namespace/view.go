package namespace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"

	"golang.org/x/sync/errgroup"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
	"marfs/pkg/repo"
)

// view is one content of a file, ready to be read: pieces in order, zeros where
// there are none.
type view struct {
	size   int64
	pieces []piece
	cutOff []piece     // what the file has beyond its end: nobody reads it
	bodies []io.Closer // to be closed with the view
}

// piece is a range of the file and where its bytes are: an object or a file of
// the metadata filesystem.
type piece struct {
	off, length int64
	from        int64 // where in the source the piece begins
	object      *objectSource
	file        io.ReaderAt
	residue     *residue // of what is packed: perhaps nearer than object
}

// objectSource is an object that can be read.
type objectSource struct {
	repo *repo.Repo
	key  string
	ref  objfmt.ObjectRef
	pack *packCache // of a pack: what its reads go through
}

// object finds the repo of a reference.
func (s *space) object(ref objfmt.ObjectRef) (*objectSource, error) {
	r := s.cfg.Repos[ref.Repo]
	if r == nil {
		return nil, fmt.Errorf("object %s is in repo %q, which the configuration does not have", ref.Key(s.cfg.Name), ref.Repo)
	}
	return &objectSource{repo: r, key: ref.Key(s.cfg.Name), ref: ref}, nil
}

// open makes the view of a slot.
func (n *inode) open(ctx context.Context, slot objfmt.Slot) (*view, error) {
	v := &view{size: slot.Size}
	var err error
	switch src := slot.Source; src.Kind {
	case objfmt.SourceEmpty, "":
	case objfmt.SourceOwn:
		v.addChecked(&body{meta: n.meta, slot: slot, file: n.meta.Inode()})
	case objfmt.SourceBody:
		var b mdfs.File
		if b, err = n.meta.Body(ctx, slot.Content); err == nil {
			v.bodies = append(v.bodies, b)
			v.addChecked(&body{meta: n.meta, slot: slot, file: b})
		}
	case objfmt.SourceObj:
		err = n.addObject(v, objfmt.Chunk{Length: src.Stored, Object: src.Object}, src.Offset)
		if err == nil && src.Packed {
			v.pieces[len(v.pieces)-1].object.pack = n.space.fs.ahead.packs
		}
	case objfmt.SourceTable:
		err = n.addTable(ctx, v, slot)
	}
	if err != nil {
		v.close()
		return nil, err
	}
	if slot.Source.Packed {
		r := &residue{meta: n.meta, slot: slot}
		v.pieces[0].residue = r
		v.bodies = append(v.bodies, r)
	}
	v.cut(min(slot.Size, slot.Source.Stored))
	return v, nil
}

func (v *view) addChecked(b *body) {
	v.bodies = append(v.bodies, b)
	v.pieces = append(v.pieces, piece{length: b.slot.Source.Stored, file: b})
}

func (n *inode) addObject(v *view, c objfmt.Chunk, from int64) error {
	o, err := n.space.object(c.Object)
	if err != nil {
		return err
	}
	v.pieces = append(v.pieces, piece{off: c.Offset, length: c.Length, from: from, object: o})
	return nil
}

func (n *inode) addBody(ctx context.Context, v *view, id objfmt.ID, length int64) error {
	b, err := n.meta.Body(ctx, id)
	if err != nil {
		return err
	}
	v.bodies = append(v.bodies, b)
	v.pieces = append(v.pieces, piece{off: v.end(), length: length, file: b})
	return nil
}

func (n *inode) addTable(ctx context.Context, v *view, slot objfmt.Slot) error {
	t, err := n.meta.Table(ctx, slot)
	if err != nil {
		return err
	}
	for _, c := range t.Chunks {
		if err := n.addObject(v, c, 0); err != nil {
			return err
		}
	}
	if left := slot.Source.Stored - v.end(); left > 0 && !slot.Source.Tail.IsZero() {
		return n.addBody(ctx, v, slot.Source.Tail, left)
	}
	return nil
}

// end is where the last piece ends.
func (v *view) end() int64 {
	if len(v.pieces) == 0 {
		return 0
	}
	p := v.pieces[len(v.pieces)-1]
	return p.off + p.length
}

// cut drops what lies beyond size: a truncated file keeps its objects, but their
// bytes beyond the cut never come back, also when it grows again.
func (v *view) cut(size int64) {
	i := sort.Search(len(v.pieces), func(i int) bool { return v.pieces[i].off >= size })
	v.pieces, v.cutOff = v.pieces[:i:i], v.pieces[i:]
	if i > 0 {
		p := &v.pieces[i-1]
		p.length = min(p.length, size-p.off)
	}
}

func (v *view) close() {
	for _, b := range v.bodies {
		b.Close()
	}
}

// readAt fills p from off, each piece beside the others; io.EOF at the end.
func (v *view) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off >= v.size {
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > v.size-off {
		p, eof = p[:v.size-off], io.EOF
	}
	i := sort.Search(len(v.pieces), func(i int) bool { return v.pieces[i].off+v.pieces[i].length > off })
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	at := off // everything before is filled or being filled
	for ; i < len(v.pieces) && v.pieces[i].off < off+int64(len(p)); i++ {
		pc := v.pieces[i]
		lo, hi := max(at, pc.off), min(off+int64(len(p)), pc.off+pc.length)
		clear(p[at-off : lo-off])
		dst := p[lo-off : hi-off]
		g.Go(func() error { return pc.get(ctx, dst, lo-pc.off) })
		at = hi
	}
	clear(p[at-off:])
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return len(p), eof
}

// errShort is stored content that ends before it should.
var errShort = errors.New("stored content is shorter than its pointer says")

// get reads from where the bytes are nearest.
func (pc piece) get(ctx context.Context, p []byte, off int64) error {
	if pc.residue != nil && pc.residue.read(p, off) {
		return nil
	}
	return pc.read(ctx, p, off)
}

// read fills p from off of the piece.
func (pc piece) read(ctx context.Context, p []byte, off int64) (err error) {
	var n int
	switch o := pc.object; {
	case o == nil:
		n, err = pc.file.ReadAt(p, pc.from+off)
	case o.pack != nil:
		n, err = o.pack.readAt(ctx, o, extent{pc.from, pc.from + pc.length}, p, pc.from+off)
	default:
		n, err = o.repo.ReadAt(ctx, o.key, o.ref.Layout, p, pc.from+off)
	}
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return errShort
	}
	return err
}

// lost reports whether an error says that the content's objects are gone, as
// when it was moved or replaced on another node.
func lost(err error) bool { return errors.Is(err, fs.ErrNotExist) }
