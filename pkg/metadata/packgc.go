package metadata

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// doomedPack is a pack that nothing names, its record in dead/.
type doomedPack struct {
	name   string
	record objfmt.Record
}

// doomPack asks every member of a retired pack whose record is in dead/.
func (f *FS) doomPack(ctx context.Context, name string, r objfmt.Record, done *Expired) (doomed, error) {
	t, err := f.readMembers(packsName, r.Object.String())
	if errors.Is(err, syscall.ENOENT) {
		return nil, f.packGone(name, r, done)
	}
	if err != nil {
		return nil, err
	}
	for _, m := range t.Members {
		names, err := f.memberNeeds(ctx, m, r.Object)
		if err != nil {
			return nil, err
		}
		if names {
			done.Kept++
			return nil, f.backToTrash(name, r)
		}
	}
	return &doomedPack{name: name, record: r}, nil
}

// memberNeeds is memberNames for good: a lower slot that nobody has dropped, since
// a power failure brought it back, does not count.
func (f *FS) memberNeeds(ctx context.Context, m objfmt.Member, object objfmt.ObjectID) (bool, error) {
	names, err := f.memberNames(ctx, m, object)
	if !names || err != nil {
		return names, err
	}
	if err := f.dropLowerOf(objfmt.Record{File: m.File, Why: "pack"}); err != nil {
		return true, err
	}
	return f.memberNames(ctx, m, object)
}

// packGone: without a member table the pack is deleted, or not finished yet.
func (f *FS) packGone(name string, r objfmt.Record, done *Expired) error {
	for dir, prefix := range map[string]string{openPacks: r.Object.String(), deadName: deadPack + r.Object.String()} {
		found, err := f.anyName(dir, prefix)
		if err != nil {
			return err
		}
		if found {
			done.Kept++
			return f.backToTrash(name, r)
		}
	}
	if err := f.leaveResident(r.Object); err != nil {
		return err
	}
	done.Dropped++
	return f.dropDead(name)
}

func (d *doomedPack) of() objfmt.ID { return objfmt.ID(d.record.Object) }

func (d *doomedPack) doom(context.Context, *FS) (Doom, error) { return Doom{Record: d.record}, nil }

func (d *doomedPack) destroy(ctx context.Context, b *batch) error {
	object := d.record.Object
	if err := b.f.deletePrefix(ctx, object, nil); err != nil {
		return err
	}
	if err := b.f.dropHints(object); err != nil {
		return err
	}
	err := b.f.in(packsName, func(packs mdfs.Dir) error { return remove(stepDrop, packs, object.String()) })
	if err != nil {
		return err
	}
	if err := b.f.leaveResident(object); err != nil {
		return err
	}
	b.done.Destroyed++
	return b.f.dropDead(d.name)
}

func (d *doomedPack) giveBack(f *FS) error { return f.backToTrash(d.name, d.record) }

// dropHints removes repack/<object>/.
func (f *FS) dropHints(object objfmt.ObjectID) error {
	return f.in(repackName, func(all mdfs.Dir) error {
		d, err := all.OpenDir(object.String())
		if err != nil {
			return ignore(err, syscall.ENOENT)
		}
		defer d.Close()
		err = eachEntry(d, "", func(name string) (bool, error) { return false, remove(stepHint, d, name) })
		if err != nil {
			return err
		}
		return ignore(removeDir(stepHint, all, object.String()), syscall.ENOENT, syscall.ENOTEMPTY)
	})
}

// RetireDead puts the packs of which every content is noted as dead into the queue of
// expiry, and returns how many. Whether they are is gc's to find out.
func (f *FS) RetireDead(ctx context.Context) (retired int, err error) {
	hints, err := f.Hints(ctx)
	if err != nil {
		return 0, err
	}
	for pack, dead := range hints {
		done, err := f.retireDead(ctx, pack, dead)
		if err != nil {
			return retired, fmt.Errorf("pack %s: %w", pack, err)
		}
		if done {
			retired++
		}
	}
	return retired, nil
}

func (f *FS) retireDead(ctx context.Context, pack objfmt.ObjectID, dead int) (bool, error) {
	var st mdfs.Stat
	err := f.in(packsName, func(d mdfs.Dir) (err error) {
		st, err = d.Lstat(pack.String())
		return err
	})
	// The table tells by its size that more than those must be in it, without being read.
	if err != nil || st.Size > objfmt.MemberTableSize(dead) {
		return false, ignore(err, syscall.ENOENT)
	}
	if refs, err := f.TrashOf(ctx, objfmt.ID(pack)); err != nil || len(refs) > 0 {
		return false, err // it is in the queue
	}
	return true, f.Retire(pack, "pack")
}
