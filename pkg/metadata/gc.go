package metadata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// Expired counts what Expire did with records.
type Expired struct {
	Destroyed int   // what they stood for is gone for good
	Kept      int   // not old enough, still needed, or in somebody's hands
	Dropped   int   // the record alone went: what it stood for lives, or was gone
	Bytes     int64 // of content that was destroyed; those in packs stay there until a repack
}

// Doom is something that is about to be destroyed.
type Doom struct {
	Record objfmt.Record // of the removal, the version or the pack; a version's with its slot where the content is now
	Size   int64         // bytes of content that go with it; 0 of a pack, whose members were counted when they went
	UID    uint32        // owner; of a version whose file is gone, who replaced it, and no group
	GID    uint32
	Slots  []objfmt.Slot // the contents that go with it
	Spared bool          // it was told of before, and stays after all
}

// Expire destroys what the records in trash/ stand for that were made before the
// given time (R5). Each record is taken first, by renaming it, so that nobody can
// restore what is being looked at; what turns out to be alive, or is held
// ([File.Hold]), is put back or left alone. What is doomed becomes durable by one
// sync, then objects go, then metadata. An error of one record does not stop the
// others. What could not be destroyed waits in dead/ for [FS.Sweep].
//
// doomed, if not nil, is told what is about to go, in the words of an audit log,
// before the sync and before anything goes. It is called for at most 256 at a time,
// and may be called by several Expire at once. When it fails, or the sync does,
// or ctx ends before, nothing of those is destroyed and all of them are given back.
// What it was told may still be spared, which it is told then, or end with an error,
// and be told again.
//
// before must lie at least Options.Grace back: open readers on other nodes may
// still be reading what was deleted or replaced, and sessions may be about to
// publish what they started from. It is lowered to that if it does not.
//
// Any number of Expire may run at once, in one process and in several.
func (f *FS) Expire(ctx context.Context, refs []TrashRef, before time.Time, doomed func([]Doom) error) (Expired, error) {
	var done Expired
	if f.copied {
		return done, ErrCopied
	}
	if floor := f.now().Add(-f.o.Grace); before.After(floor) {
		before = floor
	}
	var errs []error
	for chunk := range slices.Chunk(refs, expireAtOnce) {
		if errs = append(errs, f.expire(ctx, chunk, before, doomed, &done)); ctx.Err() != nil {
			break
		}
	}
	return done, errors.Join(errs...)
}

// expireAtOnce bounds what one call has in dead/ at a time, and so what a gc which
// dies leaves to sweeps.
const expireAtOnce = 256

func (f *FS) expire(ctx context.Context, refs []TrashRef, before time.Time, tell func([]Doom) error, done *Expired) error {
	b := &batch{f: f, tell: tell, done: done}
	var errs []error
	for _, ref := range refs {
		if ctx.Err() != nil {
			break // told once, by the batch
		}
		d, err := f.take(ctx, ref, before, done)
		if err != nil {
			errs = append(errs, fmt.Errorf("expire %s: %w", ref.Name, err))
		} else if d != nil {
			b.list = append(b.list, d)
		}
	}
	return errors.Join(append(errs, b.destroy(ctx))...)
}

// doomed is something that nobody can reach any more.
type doomed interface {
	// of is the file that it is or was of, so that those of one file go together.
	of() objfmt.ID
	// doom says what goes.
	doom(ctx context.Context, f *FS) (Doom, error)
	// destroy does it, and counts it.
	destroy(ctx context.Context, b *batch) error
	// giveBack undoes the taking.
	giveBack(f *FS) error
}

// batch is what is destroyed behind one sync.
type batch struct {
	f      *FS
	tell   func([]Doom) error // nil: nobody
	done   *Expired
	list   []doomed
	dooms  []Doom         // of list, when somebody is told
	told   map[doomed]int // which of dooms; of the records of one file, the first's
	spared []Doom         // of those
	tables tables
}

// destroy makes durable what the decisions were based on, then destroys. A removal
// in tree/ was never synced, and must not come back after its objects went. Those
// of one file come one after the other, for the sake of its chunk tables.
func (b *batch) destroy(ctx context.Context) error {
	slices.SortStableFunc(b.list, func(x, y doomed) int { return bytes.Compare(idBytes(x), idBytes(y)) })
	errs := []error{b.describe(ctx)}
	if len(b.list) == 0 {
		return errors.Join(append(errs, ctx.Err())...)
	}
	if err := b.announce(ctx); err != nil {
		return errors.Join(append(errs, err, b.giveBack())...)
	}
	for _, d := range b.list {
		err := d.destroy(ctx, b)
		if err != nil {
			b.tables.forget()
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, b.tellSpared())...)
}

// spare notes that something stays.
func (b *batch) spare(d doomed) {
	if i, ok := b.told[d]; ok {
		doom := b.dooms[i]
		doom.Spared = true
		b.spared = append(b.spared, doom)
	}
}

func (b *batch) tellSpared() error {
	if len(b.spared) == 0 {
		return nil
	}
	return b.tell(b.spared)
}

func idBytes(d doomed) []byte {
	id := d.of()
	return id[:]
}

func (b *batch) announce(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		b.told = nil
		return err
	}
	if b.tell != nil {
		if err := b.tell(b.dooms); err != nil {
			b.told = nil
			return err
		}
	}
	if err := ctx.Err(); err != nil || b.f.o.Omit.Has(omit.SyncBeforePunch) {
		return err
	}
	return syncAll(stepSyncAll, b.f.md)
}

// describe asks for what is to be told. What cannot be described is given back.
func (b *batch) describe(ctx context.Context) error {
	if b.tell == nil {
		return nil
	}
	var errs []error
	b.told = map[doomed]int{}
	told := map[objfmt.ID]bool{} // files: one may have several records, and goes once
	b.list = slices.DeleteFunc(b.list, func(d doomed) bool {
		x, isFile := d.(*deletion)
		if isFile && told[x.file] {
			return false
		}
		doom, err := d.doom(ctx, b.f)
		switch {
		case err == nil:
			b.told[d] = len(b.dooms)
			b.dooms = append(b.dooms, doom)
			if isFile {
				told[x.file] = true
			}
			return false
		case isFile && errors.Is(err, syscall.ENOENT): // another is faster
			errs = append(errs, x.lost(b))
			return true
		}
		b.done.Kept++
		errs = append(errs, err, d.giveBack(b.f))
		return true
	})
	return errors.Join(errs...)
}

// giveBack ends a batch of which nothing was destroyed. What cannot be given back
// stays in dead/: a sweep gives it back, or tells of it and destroys it.
func (b *batch) giveBack() error {
	var errs []error
	for _, d := range b.list {
		b.done.Kept++
		b.spare(d)
		errs = append(errs, d.giveBack(b.f))
	}
	return errors.Join(append(errs, b.tellSpared())...)
}

// take takes one record, and what it stands for, if it is old enough and dead.
func (f *FS) take(ctx context.Context, ref TrashRef, before time.Time, done *Expired) (doomed, error) {
	if err := ref.Valid(); err != nil {
		return nil, err
	}
	r, err := f.recordAt(ref.dir(), ref.Name, ref.Name)
	if err != nil {
		return nil, ignore(err, syscall.ENOENT)
	}
	if !r.When.Before(before) {
		done.Kept++
		return nil, nil
	}
	if r.Kind == objfmt.RecordVersion {
		return f.takeExpired(ctx, ref, r, before, done)
	}
	looked, err := f.lookFirst(r)
	if err != nil {
		return nil, err
	}
	name, err := f.takeTrash(ref)
	if errors.Is(err, syscall.ENOENT) {
		done.Kept++
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	switch r.Kind {
	case objfmt.RecordFile:
		return f.doom(name, r, before, looked, done)
	case objfmt.RecordPack:
		return f.doomPack(ctx, name, r, done)
	}
	return &leftRecord{name: name, record: r}, nil
}

// takeTrash takes a record of trash/ into dead/, where its name tells where it was.
func (f *FS) takeTrash(ref TrashRef) (name string, err error) {
	name = deadTrash + ref.taken()
	return name, f.in(ref.dir(), func(d mdfs.Dir) error {
		return f.in(deadName, func(dead mdfs.Dir) error { return rename(stepTake, d, ref.Name, dead, name, 0) })
	})
}

// takenPurged ends the name of a taken record that was in PurgedDay.
const takenPurged = "." + PurgedDay

// taken is the record's name in the hands of whoever takes it.
func (r TrashRef) taken() string {
	if r.Day == PurgedDay {
		return r.Name + takenPurged
	}
	return r.Name
}

// takenRef is where a record belongs that was taken under this name.
func takenRef(name string, r objfmt.Record) (TrashRef, error) {
	ref := TrashRef{Day: r.When.UTC().Format(dayFormat), Name: name}
	if before, purged := strings.CutSuffix(name, takenPurged); purged {
		ref = TrashRef{Day: PurgedDay, Name: before}
	}
	return ref, ref.Valid()
}

// recordAt reads the record at place/name that was made in trash/ under the name
// made. A record of a removal whose bytes a power failure has taken is stood in
// for: the name tells the file, the inode the time. Damage of other records is an
// error, for fsck.
func (f *FS) recordAt(place, name, made string) (r objfmt.Record, err error) {
	var st mdfs.Stat
	err = f.in(place, func(d mdfs.Dir) (err error) {
		if st, err = d.Lstat(name); err == nil {
			r, err = readRecord(d, name)
		}
		return err
	})
	if err == nil || !errors.Is(err, objfmt.ErrFormat) && !errors.Is(err, objfmt.ErrChecksum) {
		return r, err
	}
	id, e := objfmt.ParseID(made[:min(32, len(made))])
	if e != nil {
		return r, err
	}
	return objfmt.Record{Kind: objfmt.RecordFile, File: id, When: mtimeOf(&st)}, nil
}

// leftRecord is the record of a directory, symlink or special, in dead/: nothing
// else is left of it.
type leftRecord struct {
	name   string
	record objfmt.Record
}

func (l *leftRecord) of() objfmt.ID { return l.record.File }

func (l *leftRecord) doom(context.Context, *FS) (Doom, error) {
	return Doom{Record: l.record, UID: l.record.UID, GID: l.record.GID}, nil
}

func (l *leftRecord) destroy(_ context.Context, b *batch) error {
	err := b.f.dropDead(l.name)
	if err == nil {
		b.done.Destroyed++
	}
	return err
}

func (l *leftRecord) giveBack(f *FS) error { return f.backToTrash(l.name, l.record) }
