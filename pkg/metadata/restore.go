package metadata

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// Restore undoes a removal: name in dir, which is not there (EEXIST), becomes
// what the record says, made as the caller. The caller has checked that it is
// who's to restore. ENOENT: somebody else has the record.
func (f *FS) Restore(ctx context.Context, who Who, ref TrashRef, dir mdfs.Dir, name string) error {
	if err := errors.Join(ctx.Err(), ref.Valid()); err != nil {
		return err
	}
	// Taken into this node's work records: recovery puts it back from there.
	taken := workOf(ref, f.instanceName())
	err := f.in(ref.dir(), func(d mdfs.Dir) error {
		return f.inMade(workName+"/"+f.o.Node, func(work mdfs.Dir) error {
			return rename(stepTake, d, ref.Name, work, taken, 0)
		})
	})
	if err != nil {
		return err
	}
	if err := f.remake(who, taken, dir, name); err != nil {
		return errors.Join(err, f.returnRef(f.o.Node, taken, ref))
	}
	if err := syncDir(stepRestore, dir); err != nil { // [D]: the record goes now
		return err
	}
	return f.in(workName+"/"+f.o.Node, func(d mdfs.Dir) error { return remove(stepWorkGone, d, taken) })
}

// workOf is the name in work/ of a removal's record that a process is restoring.
func workOf(ref TrashRef, instance string) string {
	_, purged, _ := strings.Cut(ref.taken(), ref.Name)
	return ref.Name + "." + instance + purged
}

// returnRef puts a record back that was taken for a restore which made nothing:
// whatever names the file has now, an unlink that is going on may need the record.
func (f *FS) returnRef(node, taken string, ref TrashRef) error {
	err := f.in(workName+"/"+node, func(work mdfs.Dir) error {
		return f.inMade(ref.dir(), func(d mdfs.Dir) error {
			return rename(stepPutBack, work, taken, d, ref.Name, 0)
		})
	})
	return ignore(err, syscall.ENOENT) // a fencer has it
}

func (f *FS) remake(who Who, taken string, dir mdfs.Dir, name string) error {
	var r objfmt.Record
	err := f.in(workName+"/"+f.o.Node, func(d mdfs.Dir) (err error) {
		r, err = readRecord(d, taken)
		return err
	})
	if err != nil {
		return err
	}
	switch r.Kind {
	case objfmt.RecordFile:
		return f.relink(who, r.File, dir, name)
	case objfmt.RecordDir, objfmt.RecordSymlink, objfmt.RecordSpecial:
		return f.remakeOther(who, r, dir, name)
	}
	return fmt.Errorf("a record of kind %q is not of a removal: %w", r.Kind, syscall.EINVAL)
}

// relink gives a deleted file a name again. A gc that has the home in dead/ by
// then makes it ENOENT; one that takes it later sees the second link.
func (f *FS) relink(who Who, id objfmt.ID, dir mdfs.Dir, name string) error {
	var err error
	for _, place := range homePlaces {
		from, home := homePath(place, id)
		err = f.in(from, func(d mdfs.Dir) error {
			return f.md.As(who.Cred, func() error { return link(stepRestore, d, home, dir, name) })
		})
		if !errors.Is(err, syscall.ENOENT) {
			return err
		}
	}
	return err
}

// remakeOther makes a directory, symlink or special file as it was. All of it is
// done with the caller's rights: by name, anybody who may write to dir can put
// something else in between. For root, who may give it to its owner again, it is
// made where nobody can, and moved to its place complete.
func (f *FS) remakeOther(who Who, r objfmt.Record, dir mdfs.Dir, name string) error {
	if who.UID != 0 || !isRoot() {
		return f.md.As(who.Cred, func() error {
			if err := remakeAt(r, dir, name); err != nil {
				return err
			}
			return restoreAttrs(r, dir, name, -1)
		})
	}
	tmp := deadTemp + f.suffix()
	return f.in(deadName, func(d mdfs.Dir) error {
		err := remakeAt(r, d, tmp)
		if err == nil {
			err = restoreAttrs(r, d, tmp, int(r.UID))
		}
		if err == nil {
			err = moveFree(d, tmp, dir, name)
		}
		if err != nil {
			return errors.Join(err, removeAny(stepDrop, d, tmp))
		}
		return nil
	})
}

// moveFree renames to a name that is not there (EEXIST).
func moveFree(d mdfs.Dir, name string, to mdfs.Dir, newname string) error {
	err := rename(stepRestore, d, name, to, newname, unix.RENAME_NOREPLACE)
	if !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOSYS) {
		return err
	}
	if found, err := exists(to, newname); err != nil { // the filesystem has no such flag
		return err
	} else if found {
		return &os.LinkError{Op: "rename", Old: name, New: newname, Err: syscall.EEXIST}
	}
	return rename(stepRestore, d, name, to, newname, 0)
}

// removeAny removes a name, also of an empty directory.
func removeAny(p *fault.Step, d mdfs.Dir, name string) error {
	err := remove(p, d, name)
	if errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.EPERM) {
		err = removeDir(p, d, name)
	}
	return ignore(err, syscall.ENOENT)
}

func remakeAt(r objfmt.Record, dir mdfs.Dir, name string) error {
	return stepRestore.Do(func() error {
		switch r.Kind {
		case objfmt.RecordDir:
			return dir.Mkdir(name, r.Mode&0o1777)
		case objfmt.RecordSymlink:
			return dir.Symlink(r.Target, name)
		}
		return dir.Mknod(name, r.Mode, r.Rdev)
	})
}

// restoreAttrs sets what making it has left out. Users (owner -1) get the group
// back if they are in it.
func restoreAttrs(r objfmt.Record, dir mdfs.Dir, name string, owner int) error {
	return stepRestore.Do(func() error {
		err := dir.Lchown(name, owner, int(r.GID))
		if err != nil && (owner >= 0 || !errors.Is(err, syscall.EPERM)) {
			return err
		}
		if r.Kind != objfmt.RecordSymlink {
			if err := dir.Chmod(name, r.Mode&0o7777); err != nil {
				return err
			}
		}
		for _, attr := range slices.Sorted(maps.Keys(r.Xattrs)) {
			if err := dir.Setxattr(name, attr, r.Xattrs[attr], 0); err != nil {
				return err
			}
		}
		return dir.Lchtimes(name, mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Time: r.MTime})
	})
}

// recoverRestore ends a restore of a removal that did not come to its end: the
// record is dropped when the file has a name again, and else goes back to where it
// was taken from, by one rename, so that at no moment it is where no user and no
// gc would find it. It never waits in dead/: nothing of a restore can arrive late.
// A name that is removed after the look has a record of its own, and one that is
// made then keeps gc from acting by this one.
func (f *FS) recoverRestore(ctx context.Context, node, name, ref string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	work := workName + "/" + node
	r, err := f.recordAt(work, name, ref)
	if err != nil {
		return ignore(err, syscall.ENOENT) // the restore ended, or somebody else has it
	}
	if strings.HasSuffix(name, takenPurged) {
		ref += takenPurged
	}
	back, err := takenRef(ref, r)
	if err != nil {
		return err
	}
	if r.Kind == objfmt.RecordFile {
		named, err := f.hasNames(r.File)
		if err != nil {
			return err
		}
		if named {
			return f.in(work, func(d mdfs.Dir) error { return remove(stepDrop, d, name) })
		}
	}
	return f.returnRef(node, name, back)
}

// hasNames tells whether a file has a name beside its home.
func (f *FS) hasNames(id objfmt.ID) (bool, error) {
	fl, err := f.openHome(id, everywhere)
	if err != nil {
		return false, ignore(err, syscall.ENOENT)
	}
	defer fl.Close()
	st, err := fl.inode.Stat()
	return st.Nlink > 1, err
}

// backToTrash gives back a record of trash/ that a gc has taken into dead/, under
// the name it had: its maker may be about to look for it.
func (f *FS) backToTrash(name string, r objfmt.Record) error {
	ref, err := takenRef(strings.TrimPrefix(name, deadTrash), r)
	if err != nil {
		return err
	}
	return f.in(deadName, func(d mdfs.Dir) error {
		return f.inMade(ref.dir(), func(to mdfs.Dir) error { return rename(stepPutBack, d, name, to, ref.Name, 0) })
	})
}

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
