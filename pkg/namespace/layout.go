package namespace

import (
	"context"
	"syscall"

	"golang.org/x/sync/errgroup"

	"marfs/pkg/objfmt"
	"marfs/pkg/repo"
)

// Layout is what `marfsctl stat` shows: where the bytes of an entry are.
type Layout struct {
	Path      string // below the namespace's root
	Namespace string
	Attr      Attr
	Type      string      // empty, own, body, uni, packed, multi; or directory, symlink, fifo, socket, device
	Slot      objfmt.Slot // regular files
	Objects   []LayoutObject
}

// LayoutObject is one object of a file and where its shards are.
type LayoutObject struct {
	Key    string
	Ref    objfmt.ObjectRef
	Offset int64 // in the file
	Length int64 // bytes of the file in it; 0: a truncate has cut them off
	Shards []repo.Shard
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
	if err := f.look(ctx); err != nil {
		return Layout{}, d.space.dataError("layout", f.who, err)
	}
	defer f.mu.RUnlock()
	l.Slot, l.Type = f.slot, typeOf(f.slot.Source)
	return l, d.inspect(ctx, &l, f.view, deep)
}

// inspect looks at the shards of every object of a view.
func (d *Dir) inspect(ctx context.Context, l *Layout, v *view, deep bool) error {
	for _, p := range v.pieces {
		if p.object != nil {
			l.Objects = append(l.Objects, LayoutObject{Key: p.object.key, Ref: p.object.ref, Offset: p.off, Length: p.length})
		}
	}
	for _, p := range v.cutOff {
		if p.object != nil {
			l.Objects = append(l.Objects, LayoutObject{Key: p.object.key, Ref: p.object.ref, Offset: p.off})
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range l.Objects {
		o := &l.Objects[i]
		r := d.space.cfg.Repos[o.Ref.Repo] // there: the view has it
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
