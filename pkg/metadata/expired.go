package metadata

import (
	"context"
	"errors"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// Tokens of gc in the names of taken version records: not decided, doomed.
const (
	tokenGC     = "g"
	tokenDoomed = "x"
)

// expiredVersion is a version that no slot names, in the hands of token.
type expiredVersion struct {
	record objfmt.Record
	token  string
	entry  *TrashRef // the queue entry, when known
	found  bool      // another may have begun to destroy it
}

// takeExpired takes the version's record that a queue entry stands for. An entry
// that is the last link of its record has no version any more.
func (f *FS) takeExpired(ctx context.Context, ref TrashRef, r objfmt.Record, before time.Time, done *Expired) (doomed, error) {
	early := f.o.Omit.Has(omit.TakeVersion)
	var looked use
	var err error
	if early {
		if looked, err = f.usedBy(ctx, r.File, r.Content); err != nil {
			return nil, err
		}
	}
	token := tokenGC + f.suffix()
	v, err := f.takeVersion(stepTake, r.Content, token)
	if errors.Is(err, syscall.ENOENT) {
		return nil, f.dropStaleEntry(ctx, ref, r, done)
	}
	if err != nil {
		return nil, err
	}
	if !v.When.Before(before) { // the entry is of an older record of the same content
		done.Kept++
		return nil, errors.Join(f.putVersionBack(v, token), f.dropStaleEntry(ctx, ref, r, &Expired{}))
	}
	if !early {
		if looked, err = f.usedBy(ctx, v.File, v.Content); err != nil {
			return nil, err
		}
	}
	return f.judge(&expiredVersion{record: v, token: token, entry: &ref}, looked, done)
}

// judge: the newest slot names it: no version (any more), drop the record; only a
// lower slot: back, whoever drops that slot needs it; none: it can go. The lower
// slot is dropped here: a truncate that died has no record that leads to it, and
// it would keep the version for ever.
func (f *FS) judge(v *expiredVersion, looked use, done *Expired) (doomed, error) {
	switch looked {
	case usedNewest:
		done.Dropped++
		if err := f.dropTakenAs(v.record.Content, v.token); err != nil {
			return nil, err
		}
		return nil, f.dropEntry(v.entry)
	case usedLower:
		done.Kept++
		return nil, errors.Join(f.putVersionBack(v.record, v.token), f.dropLowerOf(v.record))
	}
	token := tokenDoomed + f.suffix()
	err := f.in(fanned(takenName, v.record.Content), func(d mdfs.Dir) error {
		return rename(stepTake, d, takenVersion(v.record.Content, v.token), d, takenVersion(v.record.Content, token), 0)
	})
	if err != nil {
		return nil, ignore(err, syscall.ENOENT) // a sweep took it over
	}
	v.token = token
	return v, nil
}

// dropLowerOf drops the lower slots of a version's file.
func (f *FS) dropLowerOf(v objfmt.Record) error {
	fl, err := f.openHome(v.File, homePlaces)
	if err != nil {
		return ignore(err, syscall.ENOENT)
	}
	defer fl.Close()
	_, err = fl.dropLower(Who{Cred: mdfs.Cred{UID: v.By}, Path: v.Path}, v.Why, 0)
	return err
}

func (v *expiredVersion) of() objfmt.ID { return v.record.File }

func (v *expiredVersion) doom(ctx context.Context, f *FS) (Doom, error) {
	doom := Doom{Record: v.record, Size: v.record.Slot.Size, UID: v.record.By, Slots: []objfmt.Slot{*v.record.Slot}}
	st, err := f.StatID(ctx, v.record.File)
	if err == nil {
		doom.UID, doom.GID = st.Uid, st.Gid
	}
	return doom, ignore(err, syscall.ENOENT)
}

func (v *expiredVersion) destroy(ctx context.Context, b *batch) error {
	if err := b.destroyContent(ctx, *v.record.Slot); err != nil {
		return err
	}
	if err := b.f.dropTakenAs(v.record.Content, v.token); err != nil {
		return err
	}
	b.done.Destroyed++
	return b.f.dropEntry(v.entry)
}

// giveBack: what was found doomed waits for the next sweep.
func (v *expiredVersion) giveBack(f *FS) error {
	if v.found {
		return nil
	}
	return f.putVersionBack(v.record, v.token)
}

func (f *FS) dropEntry(ref *TrashRef) error {
	if ref == nil {
		return nil
	}
	return f.dropTrash(stepDrop, *ref)
}

// dropStaleEntry removes a queue entry whose record is in no other place any more,
// and the copy of an own body that a writer made for it and did not live to use.
func (f *FS) dropStaleEntry(ctx context.Context, ref TrashRef, r objfmt.Record, done *Expired) error {
	var st mdfs.Stat
	err := f.in(ref.dir(), func(d mdfs.Dir) (err error) {
		st, err = d.Lstat(ref.Name)
		return err
	})
	if err != nil {
		return ignore(err, syscall.ENOENT)
	}
	if st.Nlink > 1 {
		done.Kept++
		return nil
	}
	done.Dropped++
	if err := f.dropOrphan(ctx, r); err != nil {
		return err
	}
	return f.dropTrash(stepDrop, ref)
}

// dropOrphan removes the body of a content that no slot and no version names.
// Versions are looked at before and after the slots, since they move into them.
func (f *FS) dropOrphan(ctx context.Context, r objfmt.Record) error {
	if r.Slot == nil || r.Slot.Source.Kind != objfmt.SourceBody {
		return nil
	}
	if kept, taken, err := f.keptAsVersion(r.Content); kept || taken || err != nil {
		return err
	}
	if use, err := f.usedBy(ctx, r.File, r.Content); use != usedNot || err != nil {
		return err
	}
	if kept, taken, err := f.keptAsVersion(r.Content); kept || taken || err != nil {
		return err
	}
	return f.removeBody(r.Content)
}
