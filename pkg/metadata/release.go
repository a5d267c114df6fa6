package metadata

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// Punching an own body sets the inode's mtime to now, and rsync would copy
// everything again. So the old mtime is kept in a note (an xattr, created
// exclusively: one releaser at a time) until it is put back. A user's touch in
// between changes note and inode, and looks afterwards whether it took.

// Release frees the blocks of an own body whose content is archived, and keeps
// the mtime. An own body is punched at most once and never filled again (R3).
// It reports whether there was something to free. EBUSY: another releaser is at it.
func (fl *File) Release(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	freed, err := fl.release(objfmt.ObjectID{})
	return freed, fileError("release", fl.id, err)
}

// release: pack is one that is in packs/resident, or none.
func (fl *File) release(pack objfmt.ObjectID) (bool, error) {
	if held, err := fl.holdsData(); err != nil || !held {
		return false, err
	}
	st, err := fl.inode.Stat()
	if err != nil {
		return false, err
	}
	s, noted, err := fl.newest()
	if err != nil || !archived(s) {
		return false, err
	}
	if noted.path {
		if err := fl.dropPath(); err != nil {
			return false, err
		}
	}
	if noted.punch {
		return false, fl.endPunch(mtimeOf(&st))
	}
	if err := fl.note(mtimeOf(&st)); err != nil {
		return false, err
	}
	err = fl.punchArchived(st.Size, pack)
	if errors.Is(err, errNoNote) {
		return false, err // the mtime is whose it was
	}
	return err == nil, errors.Join(err, fl.endPunch(mtimeOf(&st)), fl.replaced(s, mtimeOf(&st)))
}

// replaced looks whether the file has got another content meanwhile, whose time has
// been overwritten by that of the old one.
func (fl *File) replaced(old objfmt.Slot, mtime time.Time) error {
	top, _, err := fl.newest()
	if err != nil || top.Content == old.Content || top.State == objfmt.Open && empty(top) {
		return err
	}
	if st, err := fl.inode.Stat(); err != nil || !mtimeOf(&st).Equal(mtime) {
		return err
	}
	return fl.settle(top, true)
}

// holdsData tells whether the own body has any bytes: blocks of xattrs do not count.
func (fl *File) holdsData() (bool, error) {
	_, err := fl.inode.Seek(0, unix.SEEK_DATA)
	if errors.Is(err, syscall.ENXIO) {
		return false, nil
	}
	return err == nil, err
}

// note keeps the mtime, and looks again: a touch since it was read is kept too.
func (fl *File) note(mtime time.Time) error {
	attr := fl.f.noteAttr()
	err := setxattr(stepNote, fl.inode, attr, encodeTime(mtime), unix.XATTR_CREATE)
	if errors.Is(err, syscall.EEXIST) {
		return syscall.EBUSY
	}
	for range maxRaces {
		if err != nil {
			return err
		}
		st, err := fl.inode.Stat()
		now := mtimeOf(&st)
		if err != nil || now.Equal(mtime) {
			return err
		}
		mtime = now
		if err := setxattr(stepNote, fl.inode, attr, encodeTime(mtime), unix.XATTR_REPLACE); err != nil {
			return err
		}
	}
	return err
}

// errNoNote means that somebody has opened the file, taken the release for that of a
// dead releaser, and ended it.
var errNoNote = fmt.Errorf("the file was opened: %w", syscall.EBUSY)

// punchArchived punches when the slot still says archived. The slot is made
// durable first: the punch may reach the disk before it otherwise [F]. That it
// names a pack is durable already.
func (fl *File) punchArchived(size int64, pack objfmt.ObjectID) error {
	s, noted, err := fl.newest()
	switch {
	case err == nil && !archived(s):
		err = errLost
	case err == nil && !noted.punch:
		err = errNoNote
	}
	if err != nil {
		return err
	}
	if !inPack(s, pack) && !fl.f.o.Omit.Has(omit.SyncBeforePunch) {
		if err := syncFile(stepPunch, fl.inode); err != nil {
			return err
		}
	}
	return punch(stepPunch, fl.inode, (size|(punchUnit-1))+1)
}

// punchUnit is a multiple of every block size: what is punched in part is zeroed
// and stays allocated.
const punchUnit = 16 << 20

// endPunch puts the noted mtime back and removes the note. One that is gone was
// ended by somebody who opened the file meanwhile: before the punch perhaps, so
// the mtime is set all the same.
func (fl *File) endPunch(mtime time.Time) error {
	attr := fl.f.noteAttr()
	for range maxRaces {
		t, err := fl.noted(mtime)
		if err != nil {
			return err
		}
		if err := chtimes(stepNoteGone, fl.inode, mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Time: t}); err != nil {
			return err
		}
		again, err := fl.noted(t)
		if err != nil {
			return err
		}
		if again.Equal(t) {
			break
		}
	}
	return removexattr(stepNoteGone, fl.inode, attr)
}

// noted reads the note; without one it is t.
func (fl *File) noted(t time.Time) (time.Time, error) {
	b, err := fl.inode.Getxattr(fl.f.noteAttr())
	if errors.Is(err, syscall.ENODATA) {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	return decodeTime(b)
}

func encodeTime(t time.Time) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(t.Unix()))
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
}

func decodeTime(b []byte) (time.Time, error) {
	if len(b) != 12 {
		return time.Time{}, fmt.Errorf("note of a punch: %w: %d bytes, want 12", objfmt.ErrFormat, len(b))
	}
	return time.Unix(int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint32(b[8:]))), nil
}

// SetTimes sets the inode's times as a user's utimensat does: a release that is
// going on puts back what it noted, so the note is changed too, and the result
// looked at once more.
func (fl *File) SetTimes(atime, mtime mdfs.TimeSet) error {
	return fl.setTimes(atime, mtime, func(a, m mdfs.TimeSet) error { return chtimes(stepTouch, fl.inode, a, m) })
}

// SetTimesAs is SetTimes with the rights of a user.
func (fl *File) SetTimesAs(cred mdfs.Cred, atime, mtime mdfs.TimeSet) error {
	return fl.setTimes(atime, mtime, func(a, m mdfs.TimeSet) error {
		return fl.f.md.As(cred, func() error { return chtimes(stepTouch, fl.inode, a, m) })
	})
}

func (fl *File) setTimes(atime, mtime mdfs.TimeSet, touch func(atime, mtime mdfs.TimeSet) error) error {
	var before time.Time
	for range maxRaces {
		if err := touch(atime, mtime); err != nil || mtime.Omit {
			return err
		}
		st, err := fl.inode.Stat()
		if err != nil {
			return err
		}
		if mtime.Now {
			mtime = mdfs.TimeSet{Time: mtimeOf(&st)}
		}
		if _, err := fl.inode.Getxattr(fl.f.noteAttr()); err == nil {
			err = setxattr(stepTouch, fl.inode, fl.f.noteAttr(), encodeTime(mtime.Time), unix.XATTR_REPLACE)
			if err := ignore(err, syscall.ENODATA); err != nil {
				return err
			}
		}
		if st, err = fl.inode.Stat(); err != nil { // after the note was looked at
			return err
		}
		set := mtimeOf(&st)
		if set.Equal(mtime.Time) || set.Equal(before) { // the second: the filesystem keeps no such fine times
			return nil
		}
		before, atime = set, mdfs.TimeSet{Omit: true}
	}
	return nil
}

// Touched is called when a user has set the mtime of name by its name: a release that
// is going on would put back the one before.
func (f *FS) Touched(cred mdfs.Cred, dir mdfs.Dir, name string, mtime mdfs.TimeSet) error {
	if mtime.Omit {
		return nil
	}
	if _, err := dir.Getxattr(name, f.noteAttr()); err != nil {
		return nil // no release, or nothing that is released
	}
	in, err := openInode(dir, name)
	if err != nil {
		return ignore(err, syscall.ENOENT)
	}
	defer in.Close()
	fl := &File{f: f, inode: in}
	return fl.SetTimesAs(cred, mdfs.TimeSet{Omit: true}, mtime)
}

// DropBody removes bodies/<content id> of an archived content: it is a cache of
// what is in objects. Nothing is done when the newest slot needs the body. Open
// readers keep it.
func (fl *File) DropBody(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, _, err := fl.newest()
	if err != nil || !archived(s) || s.Content.IsZero() {
		return fileError("drop body", fl.id, err)
	}
	// The slot that says "archived" must not be lost after the body [F].
	if err := syncFile(stepDropBody, fl.inode); err != nil {
		return fileError("drop body", fl.id, err)
	}
	return fileError("drop body", fl.id, fl.f.removeBody(s.Content))
}
