package packer

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// Backlog is what waits in the metadata filesystem.
type Backlog struct {
	Files, Bytes int64     // staged: not packed yet
	Oldest       time.Time // of them; zero: there are none
	Packs        int64     // whose members' bodies may not be released yet
	Resident     int64     // bytes of those bodies, at most
}

// Backlog counts it, by listing queues. No file is opened, so files that are being
// written count as well, but for those without bytes in the metadata filesystem.
func (p *Packer) Backlog(ctx context.Context) (b Backlog, err error) {
	for id, err := range p.c.Meta.Staged(ctx) {
		if err != nil {
			return b, err
		}
		st, err := p.c.Meta.StatID(ctx, id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return b, err
		}
		if st.Size == 0 { // nothing to pack: empty, or on its way to objects
			continue
		}
		b.Files++
		b.Bytes += p.stagedBytes(&st)
		if at := ctimeOf(&st); b.Oldest.IsZero() || at.Before(b.Oldest) {
			b.Oldest = at
		}
	}
	packs, err := p.c.Meta.Resident(ctx)
	if err != nil {
		return b, err
	}
	for _, pack := range packs {
		r, ok, err := p.newResident(ctx, pack)
		if err != nil {
			return b, err
		}
		if ok {
			b.Packs++
			b.Resident += r.bytes
		}
	}
	return b, ctx.Err()
}
