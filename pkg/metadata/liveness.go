package metadata

import (
	"context"
	"errors"
	"syscall"

	"marfs/pkg/objfmt"
)

// use is what the slots of a file say of a content.
type use int

const (
	usedNot    use = iota
	usedLower      // only a lower slot names it
	usedNewest     // the newest slot names it
)

// usedBy tells what the slots of a file say of a content. The slots of a file
// without names whose home is in dead/ say nothing any more: its gc leaves the
// contents that are versions to the versions' gc.
func (f *FS) usedBy(ctx context.Context, file, content objfmt.ID) (use, error) {
	if err := ctx.Err(); err != nil {
		return usedNot, err
	}
	fl, place, err := f.findHome(file)
	if errors.Is(err, syscall.ENOENT) {
		return usedNot, nil
	}
	if err != nil {
		return usedNot, err
	}
	defer fl.Close()
	if place == deadName || place == begunPlace {
		st, err := fl.inode.Stat()
		if err != nil || st.Nlink == 1 {
			return usedNot, err
		}
	}
	return fl.uses(content)
}

func (fl *File) uses(content objfmt.ID) (use, error) {
	chain, _, err := fl.history()
	if err != nil {
		return usedNot, err
	}
	for i, s := range chain {
		switch {
		case s.Content != content:
		case i == 0:
			return usedNewest, nil
		default:
			return usedLower, nil
		}
	}
	return usedNot, nil
}

// findHome opens the home of a file wherever it is, also in the hands of gc.
func (f *FS) findHome(id objfmt.ID) (fl *File, place string, err error) {
	for _, place = range everywhere {
		fl, err = f.openHome(id, []string{place})
		if !errors.Is(err, syscall.ENOENT) {
			return fl, place, err
		}
	}
	return nil, "", err
}

// keptAsVersion tells whether a content is a version, or busy when somebody has
// taken its record and not decided. It looks at versions/ twice because a record
// that is given back moves behind the first look.
func (f *FS) keptAsVersion(content objfmt.ID) (kept, taken bool, err error) {
	if kept, err = f.hasVersion(content); kept || err != nil {
		return kept, false, err
	}
	if taken, err = f.isTaken(content); taken || err != nil {
		return false, taken, err
	}
	kept, err = f.hasVersion(content)
	return kept, false, err
}
