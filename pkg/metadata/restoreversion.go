package metadata

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// RestoreVersion makes an old content of fl the newest: a session whose content
// is the old slot. Its work record names the content before the version's record
// is taken, so that at no moment gc could see a version that is in nobody's hands
// and named by nothing. ENOENT: the version has expired, or somebody else has it.
func (f *FS) RestoreVersion(ctx context.Context, fl *File, who Who, content objfmt.ID) (objfmt.Slot, error) {
	base, err := fl.Newest(ctx)
	if err != nil || base.Content == content {
		return base, err
	}
	s, err := f.newSessionOf(ctx, fl, who, fl.created, base, "restore")
	if err != nil {
		return objfmt.Slot{}, fileError("restore", fl.id, err)
	}
	s.restore = content
	v, err := s.takeVersion(content)
	if err != nil {
		return objfmt.Slot{}, errors.Join(fileError("restore", fl.id, err), s.Abort(ctx))
	}
	slot, err := s.Publish(ctx, content, v.Source, v.Size, f.now(), objfmt.Final)
	if err != nil {
		return objfmt.Slot{}, errors.Join(err, s.Abort(ctx))
	}
	return slot, s.End(ctx)
}

// takeVersion writes the work record, then takes the version's.
func (s *Session) takeVersion(content objfmt.ID) (v objfmt.Slot, err error) {
	early := s.f.o.Omit.Has(omit.RestoreRecordFirst)
	if !early {
		if err := s.record(content); err != nil {
			return v, err
		}
	}
	r, err := s.f.takeVersion(stepTake, content, restorer(s.ID))
	if err == nil && early {
		err = s.record(content)
	}
	if err != nil {
		return v, err
	}
	if r.File != s.fl.id || r.Slot == nil {
		return v, fmt.Errorf("version %s is of file %s: %w", content, r.File, syscall.EINVAL)
	}
	return *r.Slot, nil
}

// takenVersion is the name of a version's record in the hands of token.
func takenVersion(content objfmt.ID, token string) string { return content.String() + "." + token }

// takeVersion takes a version's record by renaming it, and reads it.
func (f *FS) takeVersion(p *fault.Step, content objfmt.ID, token string) (r objfmt.Record, err error) {
	name := takenVersion(content, token)
	err = f.in(fanned(versionName, content), func(d mdfs.Dir) error {
		return f.inMade(fanned(takenName, content), func(taken mdfs.Dir) error {
			if err := rename(p, d, content.String(), taken, name, 0); err != nil {
				return err
			}
			r, err = readRecord(taken, name)
			return err
		})
	})
	return r, err
}

// returnVersion ends a restore that did not come to its end: the record goes
// when the content is the newest now, else back.
func (f *FS) returnVersion(ctx context.Context, content objfmt.ID, token string) error {
	name := takenVersion(content, token)
	var r objfmt.Record
	err := f.in(fanned(takenName, content), func(d mdfs.Dir) (err error) {
		r, err = readRecord(d, name)
		return err
	})
	if err != nil {
		return ignore(err, syscall.ENOENT)
	}
	use, err := f.usedBy(ctx, r.File, content)
	if err != nil {
		return err
	}
	if use == usedNewest {
		return f.dropTakenAs(content, token)
	}
	return f.putVersionBack(r, token)
}

// putVersionBack gives a taken record back. The queue first, should it have lost
// the entry; a second entry would keep the first from ever being the last link.
// A record that was made meanwhile is newer.
func (f *FS) putVersionBack(r objfmt.Record, token string) error {
	name, place := takenVersion(r.Content, token), fanned(takenName, r.Content)
	var st mdfs.Stat
	err := f.in(place, func(taken mdfs.Dir) (err error) {
		st, err = taken.Lstat(name)
		return err
	})
	if err == nil && st.Nlink == 1 {
		_, err = f.enqueue(stepPutBack, place, name, r, true)
	}
	if err == nil {
		err = f.placeVersion(stepPutBack, place, name, r, false, true)
	}
	if err != nil {
		return ignore(err, syscall.ENOENT) // somebody took it over
	}
	return f.dropTakenAs(r.Content, token)
}

func (f *FS) dropTaken(content, session objfmt.ID) error {
	return f.dropTakenAs(content, restorer(session))
}

func (f *FS) dropTakenAs(content objfmt.ID, token string) error {
	err := f.in(fanned(takenName, content), func(d mdfs.Dir) error { return remove(stepDrop, d, takenVersion(content, token)) })
	return ignore(err, syscall.ENOENT)
}
