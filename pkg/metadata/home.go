package metadata

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// errNoHome means that a file's home is in neither of its places: the file was
// deleted for good while somebody still had it open.
var errNoHome = fmt.Errorf("the file has no home any more: %w", syscall.ESTALE)

// makeHome links name, which should be this inode, into staged/. No sync: the
// commit's fsync covers it, and the next opener makes a lost one again.
// made says that this File has just made the id: no home of it can be in files/.
func (fl *File) makeHome(dir mdfs.Dir, name string, made bool) error {
	return fl.f.inMade(fanned(stagedName, fl.id), func(staged mdfs.Dir) error {
		err := link(stepHome, dir, name, staged, fl.id.String())
		if errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.ENOENT) {
			return nil // made by somebody else; or the name went away: whoever opens the new one heals
		}
		if err != nil {
			return err
		}
		return fl.checkHome(staged, made)
	})
}

// checkHome takes a home back that must not be: the name stood for another inode
// by then, or the home was in files/ already. While a file has two homes renames
// between them do nothing (two links of one inode), so the second can safely go.
func (fl *File) checkHome(staged mdfs.Dir, fresh bool) error {
	st, err := fl.inode.Stat()
	if err != nil {
		return err
	}
	made, err := staged.Lstat(fl.id.String())
	if errors.Is(err, syscall.ENOENT) {
		return nil // moved on already
	}
	if err != nil {
		return err
	}
	second := made.Ino != st.Ino
	if !second && !fresh {
		if second, err = fl.f.homeIn(filesName, fl.id); err != nil {
			return err
		}
	}
	if second {
		return remove(stepDropHome, staged, fl.id.String())
	}
	return nil
}

// homeIn tells whether the home of a file is in a place.
func (f *FS) homeIn(place string, id objfmt.ID) (found bool, err error) {
	dir, name := homePath(place, id)
	err = f.in(dir, func(d mdfs.Dir) (err error) {
		found, err = exists(d, name)
		return err
	})
	return found, ignore(err, syscall.ENOENT)
}

// hasHome tells whether the file's home is in files/ or staged/.
func (f *FS) hasHome(id objfmt.ID) (bool, error) {
	for _, place := range homePlaces {
		if found, err := f.homeIn(place, id); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// mayHaveHome refuses a file that has names and no home: recovery and gc would
// take it for deleted, and destroy what a session publishes in it. One name heals
// at the next Open; two can only come to be without a home outside of [FS.Link].
// A file without names may have lost its home lawfully.
func (fl *File) mayHaveHome() error {
	for _, place := range everywhere {
		if found, err := fl.f.homeIn(place, fl.id); found || err != nil {
			return err
		}
	}
	st, err := fl.inode.Stat() // after the look: a home is removed after the last name
	if err == nil && st.Nlink > 0 {
		err = fmt.Errorf("the file has %d names and no home; with one name it gets one when it is opened: %w", st.Nlink, syscall.ESTALE)
	}
	return err
}

// moveHome renames a home from one place to another. ENOENT: it is not there.
func (f *FS) moveHome(p *fault.Step, id objfmt.ID, from, to string) error {
	fromDir, fromName := homePath(from, id)
	toDir, toName := homePath(to, id)
	return f.in(fromDir, func(src mdfs.Dir) error {
		return f.inMade(toDir, func(dst mdfs.Dir) error {
			return rename(p, src, fromName, dst, toName, 0)
		})
	})
}

// homeFor is where a slot wants the home to be.
func homeFor(s objfmt.Slot) (want, other string) {
	if archived(s) {
		return filesName, stagedName
	}
	return stagedName, filesName
}

// placeHome puts the home where the newest slot says, and rereads the slot,
// because another writer may have changed where it belongs: B publishes "not
// archived" and sees the home in staged/, A moves it to files/ by an older slot;
// without the second look it is in files/ for ever, and never packed.
func (fl *File) placeHome(look omit.Set) error {
	s, _, err := fl.newest()
	for range maxRaces {
		if err != nil {
			return err
		}
		if err := fl.moveHomeFor(s); err != nil {
			return err
		}
		if fl.f.o.Omit.Has(look) {
			return nil
		}
		placed := archived(s)
		if s, _, err = fl.newest(); err == nil && archived(s) == placed {
			return nil
		}
	}
	return err
}

func (fl *File) moveHomeFor(s objfmt.Slot) error {
	want, other := homeFor(s)
	for range maxRaces {
		found, err := fl.f.homeIn(want, fl.id)
		if found || err != nil {
			return err
		}
		if err := fl.f.moveHome(stepPlace, fl.id, other, want); !errors.Is(err, syscall.ENOENT) {
			return err
		}
		if found, err := fl.f.hasHome(fl.id); err != nil {
			return err
		} else if !found {
			return errNoHome
		}
	}
	return errNoHome
}

// stage moves the home to staged/ before content that is in no object is
// published, so that the packer finds it however this ends.
func (fl *File) stage() error {
	err := fl.f.moveHome(stepStage, fl.id, filesName, stagedName)
	if errors.Is(err, syscall.ENOENT) {
		return nil // there already, or gone: End looks
	}
	if err != nil || fl.f.covers {
		return err
	}
	return fl.f.in(fanned(stagedName, fl.id), func(d mdfs.Dir) error { return syncDir(stepStage, d) }) // [d]
}

// syncHome makes the home durable before a work record is, where fsync of the
// inode does not cover names [d]: recovery takes a file without home for deleted,
// and would delete what a session has published in one whose name survives a
// power failure. A base with bytes has had a commit, and that has made it durable.
func (fl *File) syncHome(base objfmt.Slot) error {
	if fl.f.covers || !empty(base) || fl.f.o.Omit.Has(omit.SyncHome) {
		return nil
	}
	for _, place := range []string{stagedName, filesName} {
		err := fl.f.in(fanned(place, fl.id), func(d mdfs.Dir) error { return syncDir(stepHome, d) })
		if err := ignore(err, syscall.ENOENT); err != nil {
			return err
		}
	}
	return nil
}

// settle makes st_size, and with times st_mtime, what slot s says. They are plain
// attributes, so two publishers may set them in the wrong order: reread and set
// again. A crash before it is healed by recovery and by the next Open.
func (fl *File) settle(s objfmt.Slot, times bool) error {
	for range maxRaces {
		if err := fl.setSize(stepSize, s); err != nil {
			return err
		}
		if times {
			if err := chtimes(stepTimes, fl.inode, mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Time: s.MTime}); err != nil {
				return err
			}
		}
		top, _, err := fl.newest()
		if err != nil || top.Nonce == s.Nonce {
			return err
		}
		s = top
	}
	return nil
}

// setSize makes st_size that of the slot. An own body that may be written or
// appended to is left alone: its size is right, and ftruncate by somebody who
// fell asleep here would cut bytes of a later append.
func (fl *File) setSize(p *fault.Step, s objfmt.Slot) error {
	if s.Source.Kind == objfmt.SourceOwn && s.State != objfmt.Sealed || s.State == objfmt.Open && empty(s) {
		return nil
	}
	st, err := fl.inode.Stat()
	if err != nil || st.Size == s.Size {
		return err
	}
	return truncate(p, fl.inode, s.Size)
}

// healSize corrects an st_size that a crash has left wrong. While a session is
// writing, its business is its own.
func (fl *File) healSize(s objfmt.Slot, size int64) error {
	if s.State == objfmt.Open || size == s.Size {
		return nil
	}
	if err := fl.setSize(stepHealSize, s); err != nil {
		return ignore(err, syscall.EBADF, syscall.EINVAL) // pinned for reading only
	}
	top, _, err := fl.newest()
	if err != nil || top.Nonce == s.Nonce || top.State == objfmt.Open {
		return err
	}
	return fl.settle(top, false)
}

func mtimeOf(st *mdfs.Stat) time.Time { return time.Unix(st.Mtim.Unix()) }
