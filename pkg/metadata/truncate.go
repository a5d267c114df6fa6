package metadata

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// Truncate publishes the same content with another size (n > 0), or none (n = 0,
// the old content becomes a version), without a session: nothing exists that
// would be lost with it, so it simply starts again when another writer is faster.
// EBUSY: a session has the file open.
func (f *FS) Truncate(ctx context.Context, fl *File, who Who, n int64) error {
	if n < 0 {
		return fileError("truncate", fl.id, syscall.EINVAL)
	}
	for range maxRaces {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fl.truncate(who, n); !errors.Is(err, errLost) {
			return fileError("truncate", fl.id, err)
		}
	}
	return fileError("truncate", fl.id, errLost)
}

func (fl *File) truncate(who Who, n int64) error {
	top, _, err := fl.newest()
	if err != nil {
		return err
	}
	if Busy(top) {
		return fmt.Errorf("open by session %s: %w", top.Session, syscall.EBUSY)
	}
	next, err := fl.cut(top, n)
	if err != nil {
		return err
	}
	if n == 0 && !empty(top) && !fl.f.o.Omit.Has(omit.VersionRecord) {
		if err := fl.keepVersion(top, who, "truncate"); err != nil {
			return err
		}
	}
	s, err := fl.publish(stepPublish, top, next)
	if err != nil {
		return err
	}
	return fl.truncated(s, who)
}

// cut returns the slot of n bytes of top's content. What is cut never comes back:
// Stored says how much of the source still counts, and beyond it are zeros.
func (fl *File) cut(top objfmt.Slot, n int64) (objfmt.Slot, error) {
	next := top
	next.State, next.Size, next.MTime = objfmt.Final, n, fl.f.now()
	if n == 0 || empty(top) {
		next.Content = fl.f.newID()
		next.Source = objfmt.Source{Kind: objfmt.SourceEmpty}
		return next, nil
	}
	cutting := n < top.Source.Stored
	next.Source.Stored = min(n, top.Source.Stored)
	if top.Source.Kind == objfmt.SourceOwn {
		// Its size on disk is about to be set: nobody may append meanwhile.
		next.State = objfmt.Sealed
	}
	if !cutting || top.Source.Kind == objfmt.SourceTable { // a table's checksum is that of its file
		return next, nil
	}
	if next.Source.Sum = 0; top.Source.Kind != objfmt.SourceOwn { // 0: not known; its objects have their own
		return next, nil
	}
	// All of it is checked, or bytes that are damaged would become good ones.
	sum, err := checksumOf(fl.inode, top.Source.Stored)
	if err == nil && sum != top.Source.Sum {
		err = fl.mismatch(top, sum)
	}
	if err == nil {
		next.Source.Sum, err = checksumOf(fl.inode, next.Source.Stored)
	}
	return next, err
}

// truncated follows the publish as after any other. The home stays: when nothing
// is left to archive, recovery moves it to files/. Moving it here, without a
// record, could leave it there for ever when another writer publishes a body
// meanwhile and this process dies before it can look again.
func (fl *File) truncated(s objfmt.Slot, who Who) error {
	if !fl.f.o.Omit.Has(omit.SyncPublish) {
		if err := syncFile(stepSync, fl.inode); err != nil {
			return err
		}
	}
	if err := fl.settle(s, true); err != nil {
		return err
	}
	_, err := fl.dropLower(who, "truncate", s.Nonce)
	return err
}

// Busy reports whether a slot is held by a session that must not be disturbed. A
// first slot that nothing was committed on holds nobody back: whoever publishes
// on it simply was faster than its creator.
func Busy(s objfmt.Slot) bool { return s.State == objfmt.Open && !empty(s) }
