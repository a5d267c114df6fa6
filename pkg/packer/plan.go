package packer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// Candidate is a pack that is to be rewritten, or, when no member of it lives, to be
// retired.
type Candidate struct {
	Object  objfmt.ObjectID
	Members int   // in the pack
	Live    int   // of them
	Bytes   int64 // of all members
	Alive   int64 // bytes of the live ones
	Pinned  int64 // bytes that stay in the old pack until gc: old versions
}

// share is the live part of a pack's bytes.
func (c *Candidate) share() float64 {
	if c.Bytes == 0 {
		return 0
	}
	return float64(c.Alive) / float64(c.Bytes)
}

// Plan lists the packs to rewrite, those with the smallest share of live bytes first.
// It looks at packs of which something is known to be dead, and changes nothing. One
// that cannot be looked at does not hide the others: the error tells of it.
func (p *Packer) Plan(ctx context.Context) ([]Candidate, error) {
	hints, err := p.c.Meta.Hints(ctx)
	if err != nil {
		return nil, err
	}
	var list []Candidate
	var errs []error
	for object := range maps.Keys(hints) {
		c, due, err := p.inspect(ctx, object)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("pack %s: %w", object, err))
		} else if due {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(a.share(), b.share()), slices.Compare(a.Object[:], b.Object[:]))
	})
	return list, errors.Join(errs...)
}

// inspect counts what lives in a pack, and tells whether something is to be done about
// it. A pack that is gone, or not finished, is no candidate.
func (p *Packer) inspect(ctx context.Context, object objfmt.ObjectID) (c Candidate, due bool, err error) {
	t, err := p.c.Meta.Members(ctx, object)
	if errors.Is(err, fs.ErrNotExist) {
		return c, false, nil
	}
	if err != nil {
		return c, false, err
	}
	c = Candidate{Object: object, Members: len(t.Members)}
	for _, m := range t.Members {
		live, pinned, err := p.lives(ctx, m, object)
		if err != nil {
			return c, false, err
		}
		c.Bytes += m.Length
		if live {
			c.Live++
			c.Alive += m.Length
		} else if pinned {
			c.Pinned += m.Length
		}
	}
	if c.Live > 0 {
		return c, c.share() < p.c.Policy.BelowLive, nil
	}
	retired, err := p.retired(ctx, object)
	return c, !retired, err
}

// lives tells whether a member's file has its newest content in the pack, or else
// whether a version has.
func (p *Packer) lives(ctx context.Context, m objfmt.Member, object objfmt.ObjectID) (live, pinned bool, err error) {
	fl, s, err := p.newest(ctx, m.File)
	if err == nil {
		fl.Close()
		if names(s, object) {
			return true, false, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, false, err
	}
	v, err := p.c.Meta.Version(ctx, m.Content)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	return false, err == nil && v.Slot != nil && names(*v.Slot, object), err
}

// newest opens a file and reads its newest slot.
func (p *Packer) newest(ctx context.Context, id objfmt.ID) (*metadata.File, objfmt.Slot, error) {
	fl, err := p.c.Meta.OpenID(ctx, id)
	if err != nil {
		return nil, objfmt.Slot{}, err
	}
	s, err := fl.Newest(ctx)
	if err != nil {
		fl.Close()
		return nil, s, err
	}
	return fl, s, nil
}

// names tells whether a slot's content is in the pack.
func names(s objfmt.Slot, object objfmt.ObjectID) bool {
	return s.Source.Kind == objfmt.SourceObj && s.Source.Packed && s.Source.Object.Object == object
}

// retired tells whether the pack waits for gc already. A record stays until the pack
// is destroyed, so one is enough, however often a repack is killed.
func (p *Packer) retired(ctx context.Context, object objfmt.ObjectID) (bool, error) {
	refs, err := p.c.Meta.TrashOf(ctx, objfmt.ID(object))
	return len(refs) > 0, err
}

func (p *Packer) retire(ctx context.Context, object objfmt.ObjectID) error {
	if retired, err := p.retired(ctx, object); retired || err != nil {
		return err
	}
	return p.c.Meta.Retire(object, "repack")
}
