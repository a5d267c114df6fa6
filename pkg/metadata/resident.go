package metadata

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// ResidentPack is a pack of which members may still have their bytes in the
// metadata filesystem.
type ResidentPack struct {
	Object objfmt.ObjectID
	Since  time.Time // when it was packed, by the filesystem's clock
}

// enterResident puts a pack whose table is from/name into the queue: a hard link
// of it, made after the published slots are durable and before the record that
// recovery knows the pack by goes. Its ctime is when it was filed: nothing changes
// a table later.
func (f *FS) enterResident(from mdfs.Dir, name string, object objfmt.ObjectID) error {
	return f.inMade(residentName, func(queue mdfs.Dir) error {
		err := link(stepResident, from, name, queue, object.String())
		if err := ignore(err, syscall.EEXIST, syscall.ENOENT); err != nil || f.covers {
			return err // ENOENT: a fencer has the table, and finishes
		}
		return syncDir(stepResident, queue)
	})
}

func (f *FS) leaveResident(object objfmt.ObjectID) error {
	err := f.in(residentName, func(queue mdfs.Dir) error { return remove(stepReleased, queue, object.String()) })
	return ignore(err, syscall.ENOENT)
}

// Resident lists the packs whose members' bodies were not released yet, oldest first.
func (f *FS) Resident(ctx context.Context) (packs []ResidentPack, err error) {
	names, err := f.names(residentName, "")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		object, err := objfmt.ParseObjectID(name)
		if err != nil {
			continue // not ours
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var st mdfs.Stat
		err = f.in(residentName, func(queue mdfs.Dir) (err error) {
			st, err = queue.Lstat(name)
			return err
		})
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		packs = append(packs, ResidentPack{Object: object, Since: time.Unix(st.Ctim.Unix())})
	}
	slices.SortFunc(packs, func(a, b ResidentPack) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Object.String(), b.Object.String()))
	})
	return packs, nil
}

// ResidentMembers reads the member table of a pack that [FS.Resident] lists: at
// most the bytes of its members are what [FS.ReleasePack] frees.
func (f *FS) ResidentMembers(ctx context.Context, object objfmt.ObjectID) (*objfmt.MemberTable, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return f.readMembers(residentName, object.String())
}

// ReleasePack frees the bodies of a pack's members, and takes it off the list. It
// returns how many bytes of content were freed: those of members that had a body
// until now. A member that somebody else is releasing, or that cannot be released,
// does not hold up the others, and keeps the pack on the list.
func (f *FS) ReleasePack(ctx context.Context, object objfmt.ObjectID) (freed int64, err error) {
	t, err := f.ResidentMembers(ctx, object)
	if err != nil {
		return 0, ignore(err, syscall.ENOENT)
	}
	var errs []error
	busy := false
	for _, m := range t.Members {
		if err := ctx.Err(); err != nil {
			return freed, errors.Join(append(errs, err)...)
		}
		n, err := f.releaseMember(m, object)
		freed += n
		if errors.Is(err, syscall.EBUSY) {
			busy = true
		} else if err != nil {
			errs = append(errs, fileError("release", m.File, err))
		}
	}
	if busy || len(errs) > 0 {
		return freed, errors.Join(errs...)
	}
	return freed, f.leaveResident(object)
}

// releaseMember releases what the newest slot of a member's file does not need.
func (f *FS) releaseMember(m objfmt.Member, object objfmt.ObjectID) (freed int64, err error) {
	fl, err := f.openHome(m.File, homePlaces)
	if err != nil {
		return 0, ignore(err, syscall.ENOENT)
	}
	defer fl.Close()
	for range 2 { // the first may only have ended what a dead releaser had begun
		punched, err := fl.release(object)
		if err != nil {
			return 0, err
		}
		if punched {
			freed = m.Length
			break
		}
	}
	dropped, err := fl.dropPacked(m, object)
	return max(freed, dropped), err // both: the own body held what had been replaced
}

// dropPacked removes the private body of a member whose newest slot names the
// pack: it is a cache by now.
func (fl *File) dropPacked(m objfmt.Member, object objfmt.ObjectID) (freed int64, err error) {
	s, _, err := fl.newest()
	if err != nil || s.Content != m.Content || !inPack(s, object) {
		return 0, err
	}
	err = fl.f.in(fanned(bodiesName, m.Content), func(d mdfs.Dir) error {
		st, err := d.Lstat(m.Content.String())
		if err == nil {
			freed = st.Size
			err = remove(stepDropBody, d, m.Content.String())
		}
		return err
	})
	return freed, ignore(err, syscall.ENOENT)
}

// inPack: a slot that names a pack which is in the queue has been durable since
// before the pack got there, or was published on top of one that was.
func inPack(s objfmt.Slot, object objfmt.ObjectID) bool {
	return s.Source.Kind == objfmt.SourceObj && s.Source.Packed && s.Source.Object.Object == object && s.State != objfmt.Open
}
