package metadata

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// keepVersion makes the content of a slot a version: versions/<hh>/<content id>,
// linked into the queue of expiry in trash/, both durable before anything is
// published over it [F][D]. A record of an older slot is replaced: the new one tells
// the place where the content is now. The link's name in trash/ is new each time;
// gc drops those that are the last link of a replaced record.
func (fl *File) keepVersion(s objfmt.Slot, who Who, why string) error {
	st, err := fl.inode.Stat()
	if err != nil {
		return err
	}
	own := s
	s.State, s.Session = objfmt.Final, objfmt.ID{}
	body := func() error { return nil }
	if s.Source.Kind == objfmt.SourceOwn && !fl.f.o.Omit.Has(omit.CopyOwnVersion) {
		s.Source.Kind = objfmt.SourceBody
		body = func() error { return fl.copyOwn(own) }
	}
	r := objfmt.Record{Kind: objfmt.RecordVersion, File: fl.id, Content: s.Content, Node: fl.f.o.Node,
		When: fl.f.now(), Path: clip(who.Path), Why: why, By: who.UID, Slot: &s,
		Mode: st.Mode & modeBits, UID: st.Uid, GID: st.Gid} // whose it was: the file may be given away
	return fl.f.putVersion(r, body)
}

// putVersion makes the record of a version, whose content body provides. The queue
// first: a version that is in no queue would never expire, nor would the copy of
// an own body for a record that never came to be.
func (f *FS) putVersion(r objfmt.Record, body func() error) error {
	b, err := r.Encode()
	if err != nil {
		return err
	}
	durable := !f.o.Omit.Has(omit.SyncVersion)
	tmp, err := f.putTemp(stepVersion, durable, func(fl mdfs.File) error { return writeAt(stepVersion, fl, b, 0) })
	if err != nil {
		return err
	}
	ref, err := f.enqueue(stepVersion, deadName, tmp, r, durable)
	if err == nil {
		if err = body(); err != nil {
			err = errors.Join(err, f.dropTrash(stepVersion, ref))
		} else {
			err = f.placeVersion(stepVersion, deadName, tmp, r, true, durable)
		}
	}
	return errors.Join(err, f.dropTemp(tmp))
}

// placeVersion makes place/name the version's record, unless the one that is there
// was made from a higher slot: a session that began long ago does not know that its
// base has moved, and been replaced since, and must not make the record name the
// old place. again: one of the same slot is replaced too. place/name may remain.
func (f *FS) placeVersion(p *fault.Step, place, name string, r objfmt.Record, again, durable bool) error {
	at := r.Content.String()
	return f.in(place, func(from mdfs.Dir) error {
		return f.inMade(fanned(versionName, r.Content), func(d mdfs.Dir) error {
			for range maxRaces {
				err := link(p, from, name, d, at)
				if errors.Is(err, syscall.EEXIST) {
					var keep bool
					if keep, err = outlives(d, at, r, again); errors.Is(err, syscall.ENOENT) {
						continue // taken meanwhile
					}
					if err == nil && !keep {
						err = rename(p, from, name, d, at, 0)
					}
				}
				if err != nil || !durable {
					return err
				}
				return syncDir(p, d) // of a record that stays too: its maker's [D] may be to come
			}
			return errRaced
		})
	})
}

// outlives tells whether a version's record stays when r comes, because it was made
// from a higher slot, or the same and not again. A damaged one does not.
func outlives(d mdfs.Dir, at string, r objfmt.Record, again bool) (bool, error) {
	old, err := readRecord(d, at)
	if err != nil || old.Slot == nil {
		return false, ignore(err, objfmt.ErrFormat, objfmt.ErrChecksum)
	}
	return old.Slot.Gen > r.Slot.Gen || old.Slot.Gen == r.Slot.Gen && !again, nil
}

// enqueue links the record at place/name into the queue of expiry.
func (f *FS) enqueue(p *fault.Step, place, name string, r objfmt.Record, durable bool) (TrashRef, error) {
	ref := f.trashRef(r)
	return ref, f.in(place, func(from mdfs.Dir) error {
		return f.inMade(ref.dir(), func(d mdfs.Dir) error {
			if err := link(p, from, name, d, ref.Name); err != nil || !durable {
				return err
			}
			return syncDir(p, d)
		})
	})
}

// copyOwn copies the own body of a slot to bodies/<content id>: own bodies are
// appended to and punched, so a version may not name one (R3). The copy is
// checked against the slot: a mismatch means that the body was released, which
// only happens when the content is in objects by now; then the caller's slot is old.
// When it is not, the body is damaged.
func (fl *File) copyOwn(s objfmt.Slot) error {
	place, name := fanned(bodiesName, s.Content), s.Content.String()
	found := false
	err := fl.f.inMade(place, func(d mdfs.Dir) (err error) {
		if found, err = exists(d, name); found && err == nil {
			return syncDir(stepVersionOwn, d) // made, complete, by somebody whose [D] may be to come
		}
		return err
	})
	if found || err != nil {
		return err
	}
	var sum uint64
	tmp, err := fl.f.putTemp(stepVersionOwn, true, func(to mdfs.File) (err error) {
		sum, err = copyBytes(stepVersionOwn, fl.inode, to, s.Source.Stored)
		return err
	})
	if err == nil && sum != s.Source.Sum {
		// Damaged, it is kept as it is: reading the version tells. Else nobody could
		// give the file another content.
		if err = fl.mismatch(s, sum); errors.Is(err, objfmt.ErrChecksum) {
			err = nil
		}
	}
	if err != nil {
		return errors.Join(err, fl.f.dropTemp(tmp))
	}
	return fl.f.moveTemp(stepVersionOwn, tmp, place, name, true)
}

// mismatch tells why the own body is not what the slot says.
func (fl *File) mismatch(s objfmt.Slot, sum uint64) error {
	top, _, err := fl.newest()
	if err != nil {
		return err
	}
	if top.Nonce != s.Nonce {
		return errRaced
	}
	return fmt.Errorf("own body: %w: have %016x, want %016x", objfmt.ErrChecksum, sum, s.Source.Sum)
}

func (f *FS) dropTemp(tmp string) error {
	return f.in(deadName, func(d mdfs.Dir) error { return remove(stepVersionOwn, d, tmp) })
}

// copyBuffer is how much of a body is in memory while it is copied.
const copyBuffer = 1 << 20

// copyBytes copies the first n bytes of a body and returns their checksum. A body
// that is shorter is filled with zeros, and will not have the right checksum.
func copyBytes(p *fault.Step, from io.ReaderAt, to mdfs.File, n int64) (sum uint64, err error) {
	buf := make([]byte, min(n, copyBuffer))
	for off := int64(0); off < n; {
		b := buf[:min(n-off, copyBuffer)]
		got, err := from.ReadAt(b, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		clear(b[got:])
		if err := writeAt(p, to, b, off); err != nil {
			return 0, err
		}
		sum = objfmt.Update(sum, b)
		off += int64(len(b))
	}
	return sum, nil
}

// checksumOf returns the checksum of the first n bytes of a body.
func checksumOf(from io.ReaderAt, n int64) (sum uint64, err error) {
	buf := make([]byte, min(n, copyBuffer))
	for off := int64(0); off < n; {
		b := buf[:min(n-off, copyBuffer)]
		if got, err := from.ReadAt(b, off); got < len(b) {
			return 0, fmt.Errorf("body ends after %d of %d bytes: %w", off+int64(got), n, err)
		}
		sum = objfmt.Update(sum, b)
		off += int64(len(b))
	}
	return sum, nil
}

// hasVersion tells whether a content is a version.
func (f *FS) hasVersion(content objfmt.ID) (found bool, err error) {
	err = f.in(fanned(versionName, content), func(d mdfs.Dir) (err error) {
		found, err = exists(d, content.String())
		return err
	})
	return found, ignore(err, syscall.ENOENT)
}

// isTaken tells whether somebody has taken a content's version record, to destroy
// or to restore it, and has not decided yet. The directory is all but empty.
func (f *FS) isTaken(content objfmt.ID) (bool, error) {
	return f.anyName(fanned(takenName, content), content.String()+".")
}

// dropLower removes the slots below the top that nobody needs any more (R2),
// lowest first, so that the chain never has a hole but at its end. clean is false
// when one had to stay: its version record is being destroyed by somebody who has
// taken it; then the caller leaves its work record, and recovery comes back.
//
// durable is the nonce of a slot that the caller has synced: when it is the top,
// the fsync that has to come before is done. With the slots goes the path note of a
// content that is archived.
func (fl *File) dropLower(who Who, why string, durable uint64) (clean bool, err error) {
	chain, junk, noted, err := fl.historyNoted()
	if err != nil || len(chain) == 0 {
		return err == nil, err
	}
	if noted.path && archived(chain[0]) {
		if err := fl.dropPath(); err != nil {
			return false, err
		}
	}
	if len(chain)+len(junk) < 2 {
		return true, nil
	}
	if len(chain) > 1 && chain[0].Nonce != durable {
		// The top is another writer's, perhaps not durable yet [F].
		if err := syncFile(stepLower, fl.inode); err != nil {
			return false, err
		}
	}
	for i := len(junk) - 1; i >= 0; i-- {
		if err := fl.removeSlot(junk[i]); err != nil {
			return false, err
		}
	}
	for i := len(chain) - 1; i > 0; i-- {
		ok, err := fl.droppable(chain[i], chain[:i], who, why)
		if err != nil || !ok {
			return false, err
		}
		if err := fl.removeSlot(chain[i].Gen); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (fl *File) removeSlot(gen uint64) error {
	return removexattr(stepLower, fl.inode, objfmt.SlotName(fl.f.prefix, gen))
}

// droppable tells whether a slot may go from below the higher ones, and makes a
// version record that is missing.
func (fl *File) droppable(s objfmt.Slot, higher []objfmt.Slot, who Who, why string) (bool, error) {
	if empty(s) {
		return true, nil
	}
	for _, h := range higher {
		if fl.covered(s, h) {
			if s.Source.Packed && h.Content != s.Content { // no version, so no gc tells
				if err := fl.f.packHint(s.Source.Object.Object, s.Content); err != nil {
					return false, ignore(err, syscall.ENOSPC, syscall.EDQUOT) // recovery comes back
				}
			}
			return true, fl.dropCopy(s, h)
		}
	}
	found, err := fl.f.hasVersion(s.Content)
	if err != nil {
		return false, err
	}
	if !found && !fl.f.o.Omit.Has(omit.MakeMissingVersion) {
		if taken, err := fl.f.isTaken(s.Content); taken || err != nil {
			return false, err
		}
		if err := fl.keepVersion(s, who, why); err != nil {
			return false, err
		}
	}
	taken, err := fl.f.isTaken(s.Content)
	return !taken, err
}

// dropCopy removes the copy of an own body that was made for a version which
// never came to be: once the slot is gone, as the prefix of an append, nothing
// leads to the copy any more.
func (fl *File) dropCopy(s, h objfmt.Slot) error {
	if s.Source.Kind != objfmt.SourceOwn || h.Content == s.Content {
		return nil
	}
	kept, taken, err := fl.f.keptAsVersion(s.Content)
	if kept || taken || err != nil {
		return err
	}
	return fl.f.removeBody(s.Content)
}

// covered: slot h holds all of s: the same content; an own body that s's was
// appended to; or a later content of the same session, whose earlier ones are no
// versions.
func (fl *File) covered(s, h objfmt.Slot) bool {
	appended := s.Source.Kind == objfmt.SourceOwn && h.Source.Kind == objfmt.SourceOwn && h.Source.Stored >= s.Source.Stored
	return h.Content == s.Content || sessionOf(h.Content) == sessionOf(s.Content) ||
		appended && !fl.f.o.Omit.Has(omit.AppendPrefix)
}

func (f *FS) removeBody(content objfmt.ID) error {
	err := f.in(fanned(bodiesName, content), func(d mdfs.Dir) error {
		return remove(stepLeftover, d, content.String())
	})
	return ignore(err, syscall.ENOENT)
}

func (f *FS) removeTable(file, content objfmt.ID) error {
	err := f.inTables(file, func(d mdfs.Dir) error { return remove(stepLeftover, d, f.tableName(file, content)) })
	if err != nil {
		return err
	}
	return f.pruneTables(file)
}

// tableName: one name per content, for the table of a content that is being
// replaced is still read.
func (f *FS) tableName(file, content objfmt.ID) string {
	if f.o.Omit.Has(omit.TableIDs) {
		return file.String()
	}
	return content.String()
}

// inTables runs fn with the directory of a file's chunk tables, if there is one.
// It comes and goes, so it is not kept open.
func (f *FS) inTables(file objfmt.ID, fn func(d mdfs.Dir) error) error {
	var d mdfs.Dir
	err := f.in(fanned(chunksName, file), func(fan mdfs.Dir) (err error) {
		d, err = fan.OpenDir(file.String())
		return err
	})
	if err != nil {
		return ignore(err, syscall.ENOENT)
	}
	defer d.Close()
	return fn(d)
}

// pruneTables removes the directory of a file's tables when it is empty.
func (f *FS) pruneTables(file objfmt.ID) error {
	err := f.in(fanned(chunksName, file), func(fan mdfs.Dir) error {
		return removeDir(stepLeftover, fan, file.String())
	})
	return ignore(err, syscall.ENOENT, syscall.ENOTEMPTY, syscall.EEXIST)
}
