package metadata

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"
	"syscall"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// Staged lists the files whose content is not archived: the packer's candidates,
// and what recovery looks at. Files come and go while it runs.
func (f *FS) Staged(ctx context.Context) iter.Seq2[objfmt.ID, error] {
	return func(yield func(objfmt.ID, error) bool) {
		f.eachFan(ctx, stagedName, func(name string, err error) bool {
			if err != nil {
				return yield(objfmt.ID{}, err)
			}
			id, err := objfmt.ParseID(name)
			return err != nil || yield(id, nil) // not an id: not ours
		})
	}
}

// eachFan calls fn with every name below the fan-out directories of top.
func (f *FS) eachFan(ctx context.Context, top string, fn func(name string, err error) (more bool)) {
	f.eachFanFrom(ctx, top, "", fn)
}

// eachFanFrom is eachFan that begins with the directory named first, or the next one.
func (f *FS) eachFanFrom(ctx context.Context, top, first string, fn func(name string, err error) (more bool)) {
	fans, err := f.names(top, "")
	if err != nil {
		fn("", err)
		return
	}
	slices.Sort(fans)
	start, _ := slices.BinarySearch(fans, first)
	for _, fan := range slices.Concat(fans[start:], fans[:start]) {
		more, err := f.eachIn(ctx, top+"/"+fan, fn)
		if err != nil {
			more = fn("", err)
		}
		if !more {
			return
		}
	}
}

// eachIn does not keep the directory open: of many, as those of PurgedDay, most are empty.
func (f *FS) eachIn(ctx context.Context, dir string, fn func(name string, err error) bool) (more bool, err error) {
	more = true
	err = f.in(path.Dir(dir), func(top mdfs.Dir) error {
		d, err := top.OpenDir(path.Base(dir))
		if err != nil {
			return err
		}
		defer d.Close()
		return eachEntry(d, "", func(name string) (bool, error) {
			if err := ctx.Err(); err != nil {
				return true, err
			}
			more = fn(name, nil)
			return !more, nil
		})
	})
	return more, ignore(err, syscall.ENOENT)
}

// TrashDays lists the days with records, oldest first, and PurgedDay last.
func (f *FS) TrashDays(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	names, err := f.names(trashName, "")
	names = slices.DeleteFunc(names, func(n string) bool { return !validDay(n) })
	slices.Sort(names) // digits come before letters
	return names, err
}

// Trash lists the records of one day, of removals, versions and packs.
func (f *FS) Trash(ctx context.Context, day string) iter.Seq2[TrashRef, error] {
	return f.TrashFrom(ctx, day, "")
}

// TrashFrom is Trash that begins with the fan-out directory hh (two hexadecimal
// digits): collectors that begin at different ones are not in each other's way.
func (f *FS) TrashFrom(ctx context.Context, day, hh string) iter.Seq2[TrashRef, error] {
	return func(yield func(TrashRef, error) bool) {
		f.eachFanFrom(ctx, trashName+"/"+day, hh, func(name string, err error) bool {
			return yield(TrashRef{Day: day, Name: name}, err)
		})
	}
}

// TrashOf lists the records of one file: its removals, and its versions.
func (f *FS) TrashOf(ctx context.Context, file objfmt.ID) ([]TrashRef, error) {
	days, err := f.TrashDays(ctx)
	if err != nil {
		return nil, err
	}
	var refs []TrashRef
	for _, day := range days {
		names, err := f.names(trashName+"/"+day+"/"+file.Fan(), file.String()+"-")
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			refs = append(refs, TrashRef{Day: day, Name: n})
		}
	}
	return refs, ctx.Err()
}

// PruneDay removes the directories of a day that has no records left; those of
// PurgedDay stay.
func (f *FS) PruneDay(ctx context.Context, day string) error {
	if !validDay(day) {
		return fmt.Errorf("day %q: %w", day, syscall.EINVAL)
	}
	if day == PurgedDay {
		return ctx.Err()
	}
	top := trashName + "/" + day
	fans, err := f.names(top, "")
	if err != nil {
		return err
	}
	for _, fan := range fans {
		err := f.in(top, func(d mdfs.Dir) error { return removeDir(stepDrop, d, fan) })
		if err := ignore(err, syscall.ENOTEMPTY, syscall.EEXIST, syscall.ENOENT); err != nil {
			return err
		}
	}
	err = f.in(trashName, func(d mdfs.Dir) error { return removeDir(stepDrop, d, day) })
	return errors.Join(ctx.Err(), ignore(err, syscall.ENOTEMPTY, syscall.EEXIST, syscall.ENOENT))
}

// ReadTrash reads a record. A version's tells where the content was when it was
// replaced; [FS.Version] where it is now.
func (f *FS) ReadTrash(ctx context.Context, ref TrashRef) (r objfmt.Record, err error) {
	if err := errors.Join(ctx.Err(), ref.Valid()); err != nil {
		return r, err
	}
	err = f.in(ref.dir(), func(d mdfs.Dir) (err error) {
		r, err = readRecord(d, ref.Name)
		return err
	})
	return r, err
}

// StatID describes the inode of the file with this id, raw: Nlink counts the home.
// ENOENT: it is deleted for good, or about to be.
func (f *FS) StatID(ctx context.Context, id objfmt.ID) (st mdfs.Stat, err error) {
	if err := ctx.Err(); err != nil {
		return st, err
	}
	for _, place := range homePlaces {
		dir, name := homePath(place, id)
		err = f.in(dir, func(d mdfs.Dir) (err error) {
			st, err = d.Lstat(name)
			return err
		})
		if !errors.Is(err, syscall.ENOENT) {
			return st, err
		}
	}
	return st, err
}

// Purge moves a record to PurgedDay, so that it need not wait for the keep time; one
// that is there stays. It returns where it is now. ENOENT: somebody else has it.
//
// An unlink whose record is purged before it has come to its end makes another,
// that waits its time; gc drops whichever of the two it meets last.
func (f *FS) Purge(ctx context.Context, ref TrashRef) (TrashRef, error) {
	to := TrashRef{Day: PurgedDay, Name: ref.Name}
	if err := errors.Join(ctx.Err(), ref.Valid()); err != nil {
		return to, err
	}
	if ref == to {
		return to, f.in(ref.dir(), func(d mdfs.Dir) error { _, err := d.Lstat(ref.Name); return err })
	}
	return to, f.in(ref.dir(), func(d mdfs.Dir) error {
		return f.inMade(to.dir(), func(purged mdfs.Dir) error {
			return rename(stepPurge, d, ref.Name, purged, to.Name, 0)
		})
	})
}

// Version reads the record of an old content. ENOENT: it has expired, or is
// being restored.
func (f *FS) Version(ctx context.Context, content objfmt.ID) (r objfmt.Record, err error) {
	if err := ctx.Err(); err != nil {
		return r, err
	}
	err = f.in(fanned(versionName, content), func(d mdfs.Dir) (err error) {
		r, err = readRecord(d, content.String())
		return err
	})
	return r, err
}

// TableOf reads the chunk table of a slot whose source is one. ENOENT: it is destroyed.
func (f *FS) TableOf(ctx context.Context, s objfmt.Slot) (*objfmt.ChunkTable, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return f.readTable(s.File, s.Content, s.Source)
}

// Hints lists the packs with dead bytes, and how many contents in them are dead.
func (f *FS) Hints(ctx context.Context) (map[objfmt.ObjectID]int, error) {
	packs, err := f.names(repackName, "")
	if err != nil {
		return nil, err
	}
	hints := make(map[objfmt.ObjectID]int, len(packs))
	for _, p := range packs {
		id, err := objfmt.ParseObjectID(p)
		if err != nil {
			continue
		}
		dead, err := f.hintsOf(p)
		if err != nil {
			return nil, err
		}
		hints[id] = dead
	}
	return hints, ctx.Err()
}

// hintsOf counts without keeping the directory open: there may be many.
func (f *FS) hintsOf(pack string) (n int, err error) {
	d, err := mdfs.Walk(f.md.Root(), repackName+"/"+pack)
	if err != nil {
		return 0, ignore(err, syscall.ENOENT)
	}
	defer d.Close()
	err = eachEntry(d, "", func(string) (bool, error) { n++; return false, nil })
	return n, err
}

// HintsOf lists the contents in a pack that are known to be dead. It is a hint:
// more of them may be.
func (f *FS) HintsOf(ctx context.Context, pack objfmt.ObjectID) (dead []objfmt.ID, err error) {
	names, err := f.names(repackName+"/"+pack.String(), "")
	if err := ignore(err, syscall.ENOENT); err != nil {
		return nil, err
	}
	for _, n := range names {
		if id, err := objfmt.ParseID(n); err == nil {
			dead = append(dead, id)
		}
	}
	return dead, ctx.Err()
}

// Members reads the member table of a finished pack.
func (f *FS) Members(ctx context.Context, pack objfmt.ObjectID) (*objfmt.MemberTable, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return f.readMembers(packsName, pack.String())
}

// fileInstance reads the instance in the name of an open pack or a taken record;
// of another name it is one that nobody has.
func fileInstance(s string) []byte {
	s = strings.TrimSuffix(s, takenPurged)
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 {
		return make([]byte, 4)
	}
	return b
}
