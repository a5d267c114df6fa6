package packer

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// courtesy is how old a pack is before its bodies are released unless there is no
// room: readers who opened its files before, on any node, then need not look again
// where the bytes are.
const courtesy = 30 * time.Second

// resident is a pack whose members' bodies are still in the metadata filesystem.
type resident struct {
	object objfmt.ObjectID
	since  time.Time
	bytes  int64     // of members: at most these come free
	own    bool      // this packer has made it of bodies
	retry  time.Time // not before, unless room is wanted at once
}

// nowResident notes a pack that was just made of bodies.
func (p *Packer) nowResident(object objfmt.ObjectID, bytes int64) {
	p.mu.Lock()
	p.resident = append(p.resident, resident{object: object, since: time.Now(), bytes: bytes, own: true})
	p.mu.Unlock()
	p.countResident()
}

// countResident sums up what is resident. Of that, only what this packer has made
// lately keeps writers waiting: all else can be released.
func (p *Packer) countResident() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all, fresh int64
	for i := range p.resident {
		r := &p.resident[i]
		all += r.bytes
		if r.own && time.Since(r.since) < courtesy {
			fresh += r.bytes
		}
	}
	p.room.resided.Store(all)
	p.room.fresh.Store(fresh)
	p.room.packs.Store(int64(len(p.resident)))
}

// refreshResident lists what is resident: others make and release packs too.
func (p *Packer) refreshResident(ctx context.Context) error {
	began := time.Now()
	packs, err := p.c.Meta.Resident(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	known := make(map[objfmt.ObjectID]resident, len(p.resident))
	for _, r := range p.resident {
		known[r.object] = r
	}
	p.mu.Unlock()
	list := make([]resident, 0, len(packs))
	for _, pack := range packs {
		r, ok := known[pack.Object]
		if !ok {
			if r, ok, err = p.newResident(ctx, pack); err != nil {
				return err
			}
		}
		if ok {
			list = append(list, r)
		}
	}
	p.mu.Lock()
	for _, r := range p.resident { // made meanwhile
		if !r.since.Before(began) && !slices.ContainsFunc(list, func(l resident) bool { return l.object == r.object }) {
			list = append(list, r)
		}
	}
	p.resident = list
	p.mu.Unlock()
	p.countResident()
	return nil
}

// newResident reads how much a pack holds. A table that cannot be read counts nothing.
func (p *Packer) newResident(ctx context.Context, pack metadata.ResidentPack) (r resident, ok bool, err error) {
	r = resident{object: pack.Object, since: pack.Since}
	t, err := p.c.Meta.ResidentMembers(ctx, pack.Object)
	switch {
	case ctx.Err() != nil:
		return r, false, ctx.Err()
	case errors.Is(err, fs.ErrNotExist):
		return r, false, nil
	case err == nil:
		for _, m := range t.Members {
			r.bytes += m.Length
		}
	}
	return r, true, nil
}

// release frees the bodies of packs, oldest first, that want chooses. One that
// cannot be released does not hold up the others. It is called with the turn.
func (p *Packer) release(ctx context.Context, want func(resident) bool) (freed int64, err error) {
	p.mu.Lock()
	list := slices.Clone(p.resident)
	p.mu.Unlock()
	var errs []error
	for _, r := range list {
		if ctx.Err() != nil {
			return freed, errors.Join(append(errs, ctx.Err())...)
		}
		if !want(r) {
			continue
		}
		n, err := p.c.Meta.ReleasePack(ctx, r.object)
		freed += n
		p.released(r.object, err)
		if !errors.Is(err, syscall.ESTALE) { // a member was written to meanwhile: another time
			errs = append(errs, err)
		}
		p.lookNow()
	}
	return freed, errors.Join(errs...)
}

// released takes a pack off the list, or lets it wait.
func (p *Packer) released(object objfmt.ObjectID, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.resident, func(r resident) bool { return r.object == object })
	switch {
	case i < 0:
	case err == nil:
		p.resident = slices.Delete(p.resident, i, i+1)
	default:
		p.resident[i].retry = time.Now().Add(time.Minute)
	}
}

// releaseOld frees the oldest bodies when there are many, down to where there is
// room again.
func (p *Packer) releaseOld(ctx context.Context) (freed int64, err error) {
	if p.lookNow(); !p.room.tight() {
		return 0, nil
	}
	return p.release(ctx, func(r resident) bool {
		now := time.Now()
		return !p.room.eased() && now.Sub(r.since) >= courtesy && !now.Before(r.retry)
	})
}
