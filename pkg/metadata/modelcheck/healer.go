package modelcheck

import (
	"errors"
	"io"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"

	"golang.org/x/sys/unix"
)

// setupEnd is after everything that setups recorded, and before anything actors do.
var setupEnd = time.Unix(0, epoch+1)

// always is after everything; who expires that far must have a late clock.
var always = time.Unix(0, epoch).AddDate(1, 0, 0)

// recoverAll recovers what every other node left, whether it lives or not, and
// then opens every file, as users will.
func (p *Party) recoverAll() error {
	err := p.recover()
	for range 2 { // one may wait for what the next gives back
		if err != nil {
			err = p.recover()
		}
	}
	if err != nil && !errors.Is(err, unix.EAGAIN) { // EAGAIN: a gc died holding a version; a sweep must come first
		return err
	}
	return p.openAll()
}

// openAll opens every file, which heals what a crash left of it.
func (p *Party) openAll() error {
	return eachName(p.md.Tree(), func(d mdfs.Dir, name string) error {
		fl, err := p.md.Open(p.ctx, d, name)
		if err != nil {
			return err
		}
		return fl.Close()
	})
}

// recover abandons or finishes every session and pack but this node's own.
func (p *Party) recover() error { return p.md.Recover(p.ctx, nil) }

// gc expires and sweeps what was recorded, or taken, before a time.
func (p *Party) gc(before time.Time) error {
	refs, err := p.trashRefs()
	if err != nil {
		return err
	}
	_, err = p.md.Expire(p.ctx, refs, before, nil)
	return errors.Join(err, p.md.Sweep(p.ctx, before, nil))
}

// trashRefs lists the records in trash/.
func (p *Party) trashRefs() (refs []metadata.TrashRef, err error) {
	days, err := p.md.TrashDays(p.ctx)
	if err != nil {
		return nil, err
	}
	for _, day := range days {
		for ref, err := range p.md.Trash(p.ctx, day) {
			if err != nil {
				return nil, err
			}
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// expireAll recovers and expires everything until nothing changes any more. An
// error may be that something is in somebody's hands, and pass; the last counts.
func (p *Party) expireAll() (err error) {
	for range 5 {
		err = errors.Join(p.recover(), p.gc(always), p.retireDead())
	}
	days, e := p.md.TrashDays(p.ctx)
	for _, day := range days {
		e = errors.Join(e, p.md.PruneDay(p.ctx, day))
	}
	return errors.Join(err, e)
}

// retireDead queues packs that hold nothing live, as the packer does by hints.
func (p *Party) retireDead() error {
	_, err := p.md.RetireDead(p.ctx)
	return err
}

// list names the entries of a private directory.
func (p *Party) list(path string) ([]string, error) {
	d, err := mdfs.Walk(p.disk.Root(), path)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e, err := d.Entries()
	if err != nil {
		return nil, err
	}
	var names []string
	for {
		ent, err := e.Next()
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		names = append(names, ent.Name)
	}
}
