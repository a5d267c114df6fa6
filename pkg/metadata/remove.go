package metadata

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// victim is what a name stands for that is about to be removed or replaced.
type victim struct {
	f   *FS
	fl  *File         // a regular file, pinned; else nil
	st  mdfs.Stat     // of the name
	rec objfmt.Record // Kind "": nothing worth a record
	ref TrashRef      // the record, once it is made
}

// Unlink removes a name as the caller after making the record of it.
func (f *FS) Unlink(ctx context.Context, who Who, dir mdfs.Dir, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v, err := f.look(who, dir, name, "unlink")
	if err != nil {
		return err
	}
	defer v.close()
	if v.st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return &fs.PathError{Op: "unlink", Path: name, Err: syscall.EISDIR}
	}
	return v.remove(who, func() error { return removeExact(stepUnlink, dir, name) })
}

// Rmdir removes an empty directory as the caller after making the record of it.
func (f *FS) Rmdir(ctx context.Context, who Who, dir mdfs.Dir, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v, err := f.look(who, dir, name, "rmdir")
	if err != nil {
		return err
	}
	defer v.close()
	if v.st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return &fs.PathError{Op: "rmdir", Path: name, Err: syscall.ENOTDIR}
	}
	return v.remove(who, func() error { return removeDir(stepRmdir, dir, name) })
}

// Rename renames as the caller; what it replaces is recorded first. newpath is
// the replaced name's path for that record.
//
// A name that is free when it is looked at is taken with RENAME_NOREPLACE, so
// that what appears there meanwhile is not replaced without a record.
func (f *FS) Rename(ctx context.Context, who Who, dir mdfs.Dir, name string, to mdfs.Dir, newname, newpath string, flags uint) error {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return &os.LinkError{Op: "rename", Old: name, New: newname, Err: syscall.EINVAL}
	}
	if flags != 0 { // nothing goes away
		return f.renameAs(who, dir, name, to, newname, flags)
	}
	return f.replace(ctx, who, dir, name, to, newname, newpath)
}

// replace is a rename that may replace something.
func (f *FS) replace(ctx context.Context, who Who, dir mdfs.Dir, name string, to mdfs.Dir, newname, newpath string) error {
	for range maxRaces {
		if err := ctx.Err(); err != nil {
			return err
		}
		done, err := f.renameOver(who, dir, name, to, newname, newpath)
		if done || err != nil {
			return err
		}
	}
	return &os.LinkError{Op: "rename", Old: name, New: newname, Err: syscall.EBUSY}
}

func (f *FS) renameAs(who Who, dir mdfs.Dir, name string, to mdfs.Dir, newname string, flags uint) error {
	return f.md.As(who.Cred, func() error { return rename(stepRename, dir, name, to, newname, flags) })
}

// renameOver is one attempt; not done and no error: the name was taken meanwhile.
func (f *FS) renameOver(who Who, dir mdfs.Dir, name string, to mdfs.Dir, newname, newpath string) (done bool, err error) {
	src, err := dir.Lstat(name)
	if err != nil {
		return false, err
	}
	who.Path = newpath
	v, err := f.look(who, to, newname, "rename")
	if errors.Is(err, syscall.ENOENT) {
		return f.renameFree(who, dir, name, to, newname)
	}
	if err != nil {
		return false, err
	}
	defer v.close()
	if v.st.Ino == src.Ino && v.st.Dev == src.Dev && !f.o.Omit.Has(omit.SameInodeRename) {
		return true, f.renameAs(who, dir, name, to, newname, 0) // two names of one inode: it does nothing
	}
	return true, v.remove(who, func() error { return rename(stepRename, dir, name, to, newname, 0) })
}

// renameFree renames to a name that was free a moment ago.
func (f *FS) renameFree(who Who, dir mdfs.Dir, name string, to mdfs.Dir, newname string) (done bool, err error) {
	err = f.renameAs(who, dir, name, to, newname, unix.RENAME_NOREPLACE)
	if errors.Is(err, syscall.EEXIST) {
		return false, nil
	}
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) {
		// The filesystem has no such flag, or it is really a wrong rename.
		return true, f.renameAs(who, dir, name, to, newname, 0)
	}
	return true, err
}

// look finds out what name is and prepares the record of it, with everything
// needed to make it again.
func (f *FS) look(who Who, dir mdfs.Dir, name, why string) (*victim, error) {
	st, err := dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	v := &victim{f: f, st: st, rec: objfmt.Record{Node: f.o.Node, When: f.now(), Path: clip(who.Path), Why: why, By: who.UID,
		Mode: st.Mode & modeBits, UID: st.Uid, GID: st.Gid, MTime: mtimeOf(&st)}}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		err = v.pin(dir, name)
	case syscall.S_IFDIR:
		v.rec.Kind = objfmt.RecordDir
		v.rec.Xattrs, err = userXattrs(dir, name)
	case syscall.S_IFLNK:
		v.rec.Kind = objfmt.RecordSymlink
		v.rec.Target, err = dir.Readlink(name)
	default:
		v.rec.Kind, v.rec.Rdev = objfmt.RecordSpecial, st.Rdev
		v.rec.Xattrs, err = userXattrs(dir, name) // its ACL
	}
	if err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

// pin opens a regular file, to know its id, and to look at it again afterwards.
// One that was never committed is empty and needs no record.
func (v *victim) pin(dir mdfs.Dir, name string) error {
	in, err := dir.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	v.fl = &File{f: v.f, inode: in}
	s, _, err := v.fl.newest()
	if err == nil {
		v.st, err = in.Stat()
	}
	if err != nil {
		return err
	}
	v.fl.id, v.rec.File = s.File, s.File
	if !committed(s) {
		return nil
	}
	v.rec.Kind = objfmt.RecordFile
	if v.st.Nlink == 1 { // a crash has left it without home: with its name it would be gone
		err = v.fl.makeHome(dir, name, false)
	}
	return err
}

// committed reports whether anything was ever published for users to miss.
func committed(s objfmt.Slot) bool { return s.Gen > 0 && (s.State != objfmt.Open || !empty(s)) }

func (v *victim) close() {
	if v.fl != nil {
		v.fl.Close()
	}
}

// remove runs op, which removes or replaces the name, as the caller, between the
// record's making and its check.
func (v *victim) remove(who Who, op func() error) (err error) {
	if v.rec.Kind != "" {
		if v.ref, err = v.f.putTrash(v.rec, false); err != nil {
			return err
		}
	}
	if err := v.f.md.As(who.Cred, op); err != nil {
		return errors.Join(err, v.refused(err))
	}
	return v.removed()
}

// refused takes back the record of this attempt, and never another's. When the
// error leaves it open whether the name is gone (EIO from a server that did it),
// the record stays: gc drops it when the file has names.
func (v *victim) refused(why error) error {
	if v.rec.Kind == "" || unclear(why) {
		return nil
	}
	if only, err := v.onlyRecord(why); only || err != nil {
		return err
	}
	if v.f.o.Omit.Has(omit.OwnRecordOnly) {
		return v.dropAnyRecord()
	}
	return v.f.dropTrash(stepRecordBack, v.ref)
}

// onlyRecord: the name was not there, the file has none any more, and nobody else
// has recorded that: it was this attempt. A call that a signal interrupts is
// repeated, and finds done what a server did for the first.
func (v *victim) onlyRecord(why error) (bool, error) {
	if v.rec.Kind != objfmt.RecordFile || !errors.Is(why, syscall.ENOENT) {
		return false, nil
	}
	if named, err := v.fl.named(); named || err != nil {
		return false, err
	}
	only := true
	err := v.f.in(v.ref.dir(), func(d mdfs.Dir) error {
		return eachEntry(d, v.rec.File.String()+"-", func(name string) (bool, error) {
			if name == v.ref.Name {
				return false, nil
			}
			r, err := readRecord(d, name)
			only = only && (err != nil || r.Kind != objfmt.RecordFile)
			return !only, ignore(err, syscall.ENOENT)
		})
	})
	return only, ignore(err, syscall.ENOENT)
}

func unclear(err error) bool {
	for _, e := range []error{syscall.EIO, syscall.ETIMEDOUT, syscall.ESTALE, syscall.EINTR, fault.ErrInjected} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// dropAnyRecord is what must not be: it removes whatever record there is of the file.
func (v *victim) dropAnyRecord() error {
	names, err := v.f.names(v.ref.dir(), v.rec.File.String())
	if err != nil || len(names) == 0 {
		return err
	}
	return v.f.dropTrash(stepRecordBack, TrashRef{Day: v.ref.Day, Name: names[0]})
}

// removed looks again once the name is gone. The record may have been taken by a
// gc that still saw the name, and dropped it: make it again. A file that was
// empty may have been committed in between: then it gets its record now; else it
// is gone with its last name, and its home goes too.
func (v *victim) removed() error {
	if v.rec.Kind == objfmt.RecordFile {
		return v.recheck()
	}
	if v.rec.Kind != "" {
		return nil
	}
	s, _, err := v.fl.newest()
	if err != nil || s.Gen == 0 {
		return err
	}
	v.fl.id, v.rec.File = s.File, s.File // somebody may have given it an identity, and a home
	if committed(s) {
		v.rec.Kind = objfmt.RecordFile
		_, err = v.f.putTrash(v.rec, false)
		return err
	}
	st, err := v.fl.inode.Stat()
	if err != nil || st.Nlink != 1 {
		return err
	}
	return v.dropUnwritten()
}

// dropUnwritten removes the home of a file without names that was never committed.
// It looks at the slots again: a packer may have published meanwhile, and found the
// home; one who has not finds none (Pack.finish).
func (v *victim) dropUnwritten() error {
	if err := v.f.removeHome(stepDropHome, v.fl.id); err != nil {
		return err
	}
	s, _, err := v.fl.newest()
	if err != nil || !s.Source.Packed {
		return err
	}
	return v.f.packHint(s.Source.Object.Object, s.Content)
}

func (v *victim) recheck() error {
	if v.f.o.Omit.Has(omit.RecheckUnlink) {
		return nil
	}
	found, err := v.f.hasTrash(v.ref)
	if err == nil && !found {
		_, err = v.f.putTrash(v.rec, false)
	}
	return err
}

// removeHome removes the home of an empty file that was never committed.
func (f *FS) removeHome(p *fault.Step, id objfmt.ID) error {
	for _, place := range []string{stagedName, filesName} {
		dir, name := homePath(place, id)
		err := f.in(dir, func(d mdfs.Dir) error { return remove(p, d, name) })
		if err := ignore(err, syscall.ENOENT); err != nil {
			return err
		}
	}
	return nil
}

// Link makes newname another name of a regular file, as the caller. The file
// gets a home first, if a crash has left it without, so that its links can be counted.
func (f *FS) Link(ctx context.Context, who Who, dir mdfs.Dir, name string, to mdfs.Dir, newname string) error {
	st, err := dir.Lstat(name)
	if err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFREG && st.Nlink == 1 {
		fl, err := f.Open(ctx, dir, name)
		if err != nil {
			return err
		}
		fl.Close()
	}
	return f.md.As(who.Cred, func() error { return link(stepLink, dir, name, to, newname) })
}
