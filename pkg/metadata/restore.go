package metadata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// Removal is the record of a removal in the hands of a restore, which nobody else
// finds until it goes back: it is among this node's work records. One of [Removal.Put],
// [Removal.MakeDir] and [Removal.Made] makes what it tells of; then [FS.Restored]
// ends it, or Back gives it back. Used by one goroutine at a time.
type Removal struct {
	Record objfmt.Record // without a path when a power failure has taken its bytes

	f       *FS
	ref     TrashRef
	name    string   // in work/<node>
	was     string   // inode number of what an earlier restore by this record has made; "": nothing
	scratch mdfs.Dir // where it is made; nil: not yet
	ready   bool     // it is in scratch, complete
}

// Restore undoes a removal: name in dir, which is not there (EEXIST), becomes
// what the record says, made as the caller, durably. The caller has checked that it
// is who's to restore. ENOENT: somebody else has the record.
func (f *FS) Restore(ctx context.Context, who Who, ref TrashRef, dir mdfs.Dir, name string) error {
	r, err := f.TakeRemoval(ctx, ref)
	if err != nil {
		return err
	}
	if err := r.remake(ctx, who, dir, name); err != nil {
		return errors.Join(err, r.Back())
	}
	return f.Restored(dir, r)
}

func (r *Removal) remake(ctx context.Context, who Who, dir mdfs.Dir, name string) error {
	if r.Record.Kind != objfmt.RecordDir {
		return r.Put(ctx, who, dir, name)
	}
	d, err := r.MakeDir(who, dir, name)
	if err != nil {
		return err
	}
	defer d.Close()
	return r.FinishDir(who, d)
}

// TakeRemoval takes the record of a removal. ENOENT: there is none, or somebody
// else has it. A record of anything but a removal is EINVAL.
func (f *FS) TakeRemoval(ctx context.Context, ref TrashRef) (*Removal, error) {
	if err := errors.Join(ctx.Err(), ref.Valid()); err != nil {
		return nil, err
	}
	r := &Removal{f: f, ref: ref, name: workOf(ref, f.instanceName())}
	err := f.in(ref.dir(), func(d mdfs.Dir) error {
		return f.inMade(r.place(), func(work mdfs.Dir) error { return rename(stepTake, d, ref.Name, work, r.name, 0) })
	})
	if err != nil {
		return nil, err
	}
	if r.Record, err = f.recordAt(r.place(), r.name, ref.Name); err == nil && !removed(r.Record.Kind) {
		err = fmt.Errorf("a record of kind %q is not of a removal: %w", r.Record.Kind, syscall.EINVAL)
	}
	if err == nil {
		r.was, err = r.marked()
	}
	if err != nil {
		return nil, errors.Join(err, r.Back())
	}
	return r, nil
}

// workOf is the name in work/ of a removal's record that a process is restoring.
func workOf(ref TrashRef, instance string) string {
	_, purged, _ := strings.Cut(ref.taken(), ref.Name)
	return ref.Name + "." + instance + purged
}

func removed(k objfmt.RecordKind) bool {
	switch k {
	case objfmt.RecordFile, objfmt.RecordDir, objfmt.RecordSymlink, objfmt.RecordSpecial:
		return true
	}
	return false
}

// ReadRemoval is [FS.ReadTrash] that stands in for the record of a removal whose
// bytes a power failure has taken: its name tells the file, its inode the time.
func (f *FS) ReadRemoval(ctx context.Context, ref TrashRef) (objfmt.Record, error) {
	if err := errors.Join(ctx.Err(), ref.Valid()); err != nil {
		return objfmt.Record{}, err
	}
	return f.recordAt(ref.dir(), ref.Name, ref.Name)
}

// ReadOwned is [FS.ReadTrash] for who looks for the records of one owner among many:
// of a removal of another's it says so after a glance at the bytes, unchecked.
func (f *FS) ReadOwned(ctx context.Context, ref TrashRef, uid uint32) (r objfmt.Record, others bool, err error) {
	if err := errors.Join(ctx.Err(), ref.Valid()); err != nil {
		return r, false, err
	}
	var b []byte
	err = f.in(ref.dir(), func(d mdfs.Dir) (err error) {
		b, err = readRecordText(d, ref.Name)
		return err
	})
	if err != nil {
		return r, false, err
	}
	_, line, found := bytes.Cut(b, []byte("\nowner=")) // values hold no newline
	owner, _, _ := bytes.Cut(line, []byte(":"))
	if found && string(owner) != strconv.FormatUint(uint64(uid), 10) {
		return r, true, nil
	}
	r, err = parseRecord(ref.Name, b)
	return r, false, err
}

// place is the directory where the record is while it is taken.
func (r *Removal) place() string { return workName + "/" + r.f.o.Node }

// Restored ends restores into one directory: what they made becomes durable [D],
// and the records go.
func (f *FS) Restored(dir mdfs.Dir, rs ...*Removal) error {
	if len(rs) == 0 {
		return nil
	}
	if err := f.syncRestored(dir); err != nil {
		return err // what it made is known by its mark, or by its links: recovery ends it
	}
	return f.in(workName+"/"+f.o.Node, func(d mdfs.Dir) error {
		for _, r := range rs {
			if err := remove(stepWorkGone, d, r.name); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *FS) syncRestored(dir mdfs.Dir) error {
	err := syncDir(stepRestore, dir)
	if errors.Is(err, syscall.EACCES) { // fsync needs to read it, and the daemon is nobody special
		err = syncAll(stepRestore, f.md)
	}
	return err
}

// syncMade makes the name of a directory durable where the fsync of what is in it
// does not [d]: what will be restored in it loses its record.
func (f *FS) syncMade(dir mdfs.Dir) error {
	if f.covers {
		return nil
	}
	return f.syncRestored(dir)
}

// Back gives up: the record goes back to where it was taken from, for another
// restore, which completes a directory that was made.
func (r *Removal) Back() error {
	return errors.Join(r.endScratch(), r.f.returnRef(r.f.o.Node, r.name, r.ref))
}

// returnRef puts a record back that was taken for a restore which did not come to
// its end: whatever names the file has now, an unlink that is going on may need it.
func (f *FS) returnRef(node, taken string, ref TrashRef) error {
	err := f.in(workName+"/"+node, func(work mdfs.Dir) error {
		return f.inMade(ref.dir(), func(d mdfs.Dir) error {
			return rename(stepPutBack, work, taken, d, ref.Name, 0)
		})
	})
	return ignore(err, syscall.ENOENT) // a fencer has it
}

// scratchName is where things are made in the scratch directory.
const scratchName = "x"

// Put makes name in dir, which is not there (EEXIST), a name of the removed file
// again, or the symlink or special file that was removed.
func (r *Removal) Put(ctx context.Context, who Who, dir mdfs.Dir, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.Record.Kind == objfmt.RecordFile {
		return r.f.relink(who, r.Record.File, dir, name)
	}
	if err := r.make(who); err != nil {
		return err
	}
	if err := r.f.moveFree(who, r.scratch, scratchName, dir, name); err != nil {
		return err
	}
	return r.endScratch()
}

// Replace is Put for a name that is taken: what is there gets a record of its own,
// with path as its path. One that is a directory is EISDIR.
func (r *Removal) Replace(ctx context.Context, who Who, dir mdfs.Dir, name, path string) error {
	if err := r.make(who); err != nil {
		return err
	}
	if err := r.f.replace(ctx, who, r.scratch, scratchName, dir, name, path); err != nil {
		return err
	}
	return r.endScratch()
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

// make makes it in the scratch directory, as the caller, and complete but for a
// directory.
func (r *Removal) make(who Who) error {
	if r.ready {
		return nil
	}
	if err := r.openScratch(who); err != nil {
		return err
	}
	if r.Record.Kind == objfmt.RecordFile {
		err := r.f.relink(who, r.Record.File, r.scratch, scratchName)
		r.ready = err == nil
		return err
	}
	err := r.f.md.As(who.Cred, func() error {
		if err := remakeAt(r.Record, r.scratch, scratchName); err != nil || r.Record.Kind == objfmt.RecordDir {
			return err
		}
		return restoreAttrs(r.Record, r.scratch, scratchName, r.owner(who))
	})
	if err == nil {
		err = r.mark()
	}
	r.ready = err == nil
	return err
}

// owner is whom it is given to: users (-1) keep what they make, and get the group
// back if they are in it.
func (r *Removal) owner(who Who) int {
	if who.UID != 0 || !isRoot() {
		return -1
	}
	return int(r.Record.UID)
}

// openScratch makes a directory in dead/ that is the caller's, and that nobody can
// reach: what is made there gets its attributes before anybody can put something
// else under its name, and appears in the tree by one rename, which needs the
// caller's rights there. A sweep removes it when it stays.
func (r *Removal) openScratch(who Who) error {
	if r.scratch != nil {
		return nil
	}
	name := deadTemp + r.name
	return r.f.in(deadName, func(dead mdfs.Dir) error {
		err := mkdir(stepScratch, dead, name, 0o700)
		if errors.Is(err, syscall.EEXIST) { // of an earlier attempt
			if err = removeAny(stepScratch, dead, name); err == nil {
				err = mkdir(stepScratch, dead, name, 0o700)
			}
		}
		if err != nil {
			return err
		}
		d, err := dead.OpenDir(name)
		if err == nil && isRoot() {
			err = stepScratch.Do(func() error { return d.Lchown(".", int(who.UID), int(who.GID)) })
		}
		if err != nil {
			return err
		}
		r.scratch = d
		return nil
	})
}

func (r *Removal) endScratch() error {
	if r.scratch == nil {
		return nil
	}
	r.scratch.Close()
	r.scratch, r.ready = nil, false
	return r.f.in(deadName, func(dead mdfs.Dir) error { return removeAny(stepScratch, dead, deadTemp+r.name) })
}

// moveFree renames to a name that is not there (EEXIST), as the caller.
func (f *FS) moveFree(who Who, d mdfs.Dir, name string, to mdfs.Dir, newname string) error {
	return f.md.As(who.Cred, func() error {
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
	})
}

// MakeDir makes name in dir, which is not there (EEXIST), the removed directory,
// empty, and for its maker only until [Removal.FinishDir]. The Dir is to be closed.
func (r *Removal) MakeDir(who Who, dir mdfs.Dir, name string) (mdfs.Dir, error) {
	if err := r.make(who); err != nil {
		return nil, err
	}
	d, err := r.scratch.OpenDir(scratchName)
	if err != nil {
		return nil, err
	}
	if err := r.f.moveFree(who, r.scratch, scratchName, dir, name); err != nil {
		d.Close()
		return nil, err
	}
	if err := errors.Join(r.f.syncMade(dir), r.endScratch()); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Merged is for a directory that is not made after all, since one is there.
func (r *Removal) Merged() error { return r.endScratch() }

// FinishDir gives the directory that MakeDir or Made returned the attributes that
// it had, once its contents are there. By its handle: a name may stand for
// something else by then.
func (r *Removal) FinishDir(who Who, d mdfs.Dir) error {
	return r.f.md.As(who.Cred, func() error { return restoreAttrs(r.Record, d, ".", r.owner(who)) })
}

// MakeParent makes name in dir, a directory above something that is restored and of
// which there is no record. EEXIST: it is there.
func (f *FS) MakeParent(who Who, dir mdfs.Dir, name string) error {
	if err := f.md.As(who.Cred, func() error { return mkdir(stepRestore, dir, name, 0o700) }); err != nil {
		return err
	}
	return f.syncMade(dir)
}

// A record is marked with the inode that was made by it, before that appears in the
// tree: a restore that is killed then, and done again, knows it. The mark is on the
// record, since there no user sees it, and it needs no right to write in the tree.

func (f *FS) restoredAttr() string { return f.prefix + "restored" }

func (r *Removal) mark() error {
	st, err := r.scratch.Lstat(scratchName)
	if err != nil {
		return err
	}
	ino := []byte(strconv.FormatUint(st.Ino, 10))
	return r.f.in(r.place(), func(d mdfs.Dir) error {
		return stepMark.Do(func() error { return d.Setxattr(r.name, r.f.restoredAttr(), ino, 0) })
	})
}

// marked reads the mark. A file has none: it is known by its inode.
func (r *Removal) marked() (ino string, err error) {
	if r.Record.Kind == objfmt.RecordFile {
		return "", nil
	}
	err = r.f.in(r.place(), func(d mdfs.Dir) error {
		v, err := d.Getxattr(r.name, r.f.restoredAttr())
		ino = string(v)
		return err
	})
	return ino, ignore(err, syscall.ENODATA)
}

// Made reports whether name in dir is what an earlier restore by this record has
// made, which did not come to its end; or, of a file, one of its names already. A directory is returned open, to be filled,
// finished and closed. It must still look as it did when it was made: an inode
// number alone may be another's by now.
func (r *Removal) Made(who Who, dir mdfs.Dir, name string) (d mdfs.Dir, made bool, err error) {
	if r.Record.Kind == objfmt.RecordFile {
		made, err = r.linked(who, dir, name)
		return nil, made, err
	}
	if r.was == "" {
		return nil, false, nil
	}
	err = r.f.md.As(who.Cred, func() error {
		st, err := dir.Lstat(name)
		if err != nil || strconv.FormatUint(st.Ino, 10) != r.was || !r.madeBy(who, &st) {
			return ignore(err, syscall.ENOENT)
		}
		made = true
		if r.Record.Kind == objfmt.RecordDir {
			d, err = r.reopen(dir, name, st.Ino)
		}
		return err
	})
	return d, made && err == nil, err
}

// linked tells whether name is one of the removed file.
func (r *Removal) linked(who Who, dir mdfs.Dir, name string) (bool, error) {
	var st mdfs.Stat
	err := r.f.md.As(who.Cred, func() (err error) {
		st, err = dir.Lstat(name)
		return err
	})
	if err != nil {
		return false, ignore(err, syscall.ENOENT)
	}
	home, err := r.f.StatID(context.Background(), r.Record.File)
	return err == nil && home.Ino == st.Ino && home.Dev == st.Dev, ignore(err, syscall.ENOENT)
}

// reopen opens a directory that is to be filled further, as the caller.
func (r *Removal) reopen(dir mdfs.Dir, name string, ino uint64) (mdfs.Dir, error) {
	d, err := dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	st, err := d.Stat()
	if err == nil && st.Ino != ino {
		err = &os.PathError{Op: "restore", Path: name, Err: syscall.ESTALE}
	}
	if err == nil {
		err = stepRestore.Do(func() error { return d.Chmod(".", 0o700) })
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// madeBy: it is of the type, owner and mode that a restore as who may have left it with.
func (r *Removal) madeBy(who Who, st *mdfs.Stat) bool {
	rec := &r.Record
	if st.Uid != who.UID && (who.UID != 0 || st.Uid != rec.UID) {
		return false
	}
	switch rec.Kind {
	case objfmt.RecordDir:
		perm := st.Mode & 0o7777
		return st.Mode&unix.S_IFMT == unix.S_IFDIR && (perm == 0o700 || perm == rec.Mode&0o7777 || perm == strangeGroup(rec.Mode&0o7777))
	case objfmt.RecordSymlink:
		return st.Mode&unix.S_IFMT == unix.S_IFLNK
	}
	return st.Mode&unix.S_IFMT == rec.Mode&unix.S_IFMT && st.Rdev == rec.Rdev
}

// recoverRestore ends a restore of a removal that did not come to its end: the
// record goes back to where it was taken from, by one rename, so that at no moment
// it is where no user and no gc would find it. It never waits in dead/: nothing of
// a restore can arrive late. Whether the file has a name again does not matter: that
// may be another of its names, and this one is still to come; gc drops the record of
// a file that has one. What is in the scratch directory goes first: a name there is
// none, and a restorer that sleeps finds nothing to move.
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
	err = f.in(deadName, func(dead mdfs.Dir) error { return removeAny(stepScratch, dead, deadTemp+name) })
	if err != nil {
		return err
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
// the name it had: its maker may be about to look for it. Another, to whom it was left
// for too long, may have done so, or something else with it: that is no error.
func (f *FS) backToTrash(name string, r objfmt.Record) error {
	ref, err := takenRef(strings.TrimPrefix(name, deadTrash), r)
	if err != nil {
		return err
	}
	err = f.in(deadName, func(d mdfs.Dir) error {
		return f.inMade(ref.dir(), func(to mdfs.Dir) error { return rename(stepPutBack, d, name, to, ref.Name, 0) })
	})
	return ignore(err, syscall.ENOENT)
}
