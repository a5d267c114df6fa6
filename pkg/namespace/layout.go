package namespace

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/repo"
)

// Residence says where the bytes of a file with content are.
type Residence string

// The residences. What is archived is in objects, or in packs.
const (
	Staged   Residence = "staged"   // some only in the metadata filesystem: not archived
	Resident Residence = "resident" // archived, and still in the metadata filesystem
	Released Residence = "released" // archived, and not there
)

// Layout is what `marfsctl stat` shows: where the bytes of an entry are.
type Layout struct {
	Path      string // below the namespace's root
	Namespace string
	Attr      Attr
	Type      string      // empty, own, body, uni, packed, multi; or directory, symlink, fifo, socket, device
	Slot      objfmt.Slot // regular files
	Residence Residence   // "": no content
	Objects   []LayoutObject
	Pack      *LayoutPack // of a packed file
}

// LayoutObject is one object of a file and where its shards are.
type LayoutObject struct {
	Key    string
	Ref    objfmt.ObjectRef
	Offset int64 // in the file
	Length int64 // bytes of the file in it; 0: a truncate has cut them off
	Shards []repo.Shard
}

// LayoutPack is a file's place in a pack, and what else is in it.
type LayoutPack struct {
	Object         objfmt.ObjectID
	Offset, Length int64 // of the file's bytes in it
	Members        int   // 0: the pack is not finished, and nothing else is known
	Bytes          int64 // of all members
	Dead           int   // members that are known to be dead
	DeadBytes      int64
}

// Layout describes where the bytes of name are and looks at every shard; deep
// reads and verifies each of their bytes.
func (d *Dir) Layout(ctx context.Context, c Caller, name string, deep bool) (Layout, error) {
	a, err := d.Lookup(ctx, c, name)
	if err != nil {
		return Layout{}, err
	}
	l := Layout{Path: d.join(name), Namespace: d.Namespace(), Attr: a, Type: kindOf(a.Mode)}
	if l.Type != "" {
		return l, nil
	}
	f, err := d.Open(ctx, c, name, syscall.O_RDONLY)
	if err != nil {
		return Layout{}, err
	}
	defer f.Close()
	if err := d.describe(ctx, &l, f.inode.meta, deep); err != nil {
		return Layout{}, d.space.dataError("layout", f.who, err)
	}
	return l, nil
}

// describe fills in what the newest slot says of the content.
func (d *Dir) describe(ctx context.Context, l *Layout, meta *metadata.File, deep bool) (err error) {
	if l.Slot, err = meta.Newest(ctx); err != nil {
		return err
	}
	src := l.Slot.Source
	l.Type = typeOf(src)
	if l.Residence, err = residence(ctx, meta, l.Slot); err != nil {
		return err
	}
	switch src.Kind {
	case objfmt.SourceObj:
		l.add(objfmt.Chunk{Length: src.Stored, Object: src.Object})
	case objfmt.SourceTable:
		t, err := meta.Table(ctx, l.Slot)
		if err != nil {
			return err
		}
		for _, c := range t.Chunks {
			l.add(c)
		}
	}
	if l.Type == "packed" {
		if l.Pack, err = d.pack(ctx, src); err != nil {
			return err
		}
	}
	return d.inspect(ctx, l, deep)
}

// add adds the object of a chunk. Of what a truncate has cut off the file has nothing.
func (l *Layout) add(c objfmt.Chunk) {
	l.Objects = append(l.Objects, LayoutObject{Key: c.Object.Key(l.Namespace), Ref: c.Object, Offset: c.Offset,
		Length: min(c.Length, max(l.Slot.Size-c.Offset, 0))})
}

func residence(ctx context.Context, meta *metadata.File, s objfmt.Slot) (Residence, error) {
	switch s.Source.Kind {
	case objfmt.SourceEmpty, "":
		return "", nil
	case objfmt.SourceOwn, objfmt.SourceBody:
		return Staged, nil
	}
	if !s.Source.Tail.IsZero() {
		return Staged, nil
	}
	body, err := meta.Body(ctx, s.Content)
	if err == nil {
		return Resident, body.Close()
	}
	if !errors.Is(err, syscall.ENOENT) {
		return "", err
	}
	// Not by st_blocks: those of extended attributes count there.
	_, err = meta.Inode().Seek(0, unix.SEEK_DATA)
	if errors.Is(err, syscall.ENXIO) {
		return Released, nil
	}
	return Resident, err
}

// pack sums up the pack that a source is in.
func (d *Dir) pack(ctx context.Context, src objfmt.Source) (*LayoutPack, error) {
	p := &LayoutPack{Object: src.Object.Object, Offset: src.Offset, Length: src.Stored}
	t, err := d.space.cfg.Meta.Members(ctx, p.Object)
	if errors.Is(err, syscall.ENOENT) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	hints, err := d.space.cfg.Meta.HintsOf(ctx, p.Object)
	if err != nil {
		return nil, err
	}
	dead := make(map[objfmt.ID]bool, len(hints))
	for _, id := range hints {
		dead[id] = true
	}
	p.Members = len(t.Members)
	for _, m := range t.Members {
		p.Bytes += m.Length
		if dead[m.Content] {
			p.Dead++
			p.DeadBytes += m.Length
		}
	}
	return p, nil
}

// inspect looks at the shards of every object.
func (d *Dir) inspect(ctx context.Context, l *Layout, deep bool) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range l.Objects {
		o := &l.Objects[i]
		r := d.space.cfg.Repos[o.Ref.Repo]
		if r == nil {
			return fmt.Errorf("object %s is in repo %q, which the configuration does not have", o.Key, o.Ref.Repo)
		}
		g.Go(func() (err error) {
			o.Shards, err = r.Inspect(ctx, o.Key, o.Ref.Layout, deep)
			return err
		})
	}
	return g.Wait()
}

// kindOf names what is not a regular file.
func kindOf(mode uint32) string {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return ""
	case syscall.S_IFDIR:
		return "directory"
	case syscall.S_IFLNK:
		return "symlink"
	case syscall.S_IFIFO:
		return "fifo"
	case syscall.S_IFSOCK:
		return "socket"
	}
	return "device"
}

func typeOf(s objfmt.Source) string {
	switch {
	case s.Kind == objfmt.SourceObj && s.Packed:
		return "packed"
	case s.Kind == objfmt.SourceObj:
		return "uni"
	case s.Kind == objfmt.SourceTable:
		return "multi"
	case s.Kind == "":
		return string(objfmt.SourceEmpty)
	}
	return string(s.Kind)
}
