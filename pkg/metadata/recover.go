package metadata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// RecoverWork abandons or finishes the session whose record is work/<node>/<name>
// (R4). It is safe at any time, also while the session is alive: that session
// then fails. First the record is taken by renaming it into dead/; ENOENT means
// that the session ended or somebody else has it, which is no error. Then the
// file's current content is published again, so that no publish of the session
// can succeed, and only then what nothing names is deleted. The record stays in
// dead/, and [FS.Sweep] deletes again what an upload on its way may bring.
func (f *FS) RecoverWork(ctx context.Context, node, name string) error {
	if ref, _, ok := strings.Cut(name, "."); ok {
		return f.recoverRestore(ctx, node, name, ref)
	}
	err := f.in(workName+"/"+node, func(d mdfs.Dir) error {
		return f.in(deadName, func(dead mdfs.Dir) error {
			return rename(stepTake, d, name, dead, deadWork+name, 0)
		})
	})
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.settleWork(ctx, deadWork+name, f.o.Omit.Has(omit.KeepTakenRecord))
}

// settleWork does what a record in dead/ asks for; with last, the record goes.
func (f *FS) settleWork(ctx context.Context, name string, last bool) error {
	var r objfmt.Record
	err := f.in(deadName, func(d mdfs.Dir) (err error) {
		r, err = readRecord(d, name)
		return err
	})
	if err != nil {
		return err
	}
	switch r.Kind {
	case objfmt.RecordWork:
		err = f.settleSession(ctx, r)
	default:
		err = fmt.Errorf("%s: a record of kind %q: %w", name, r.Kind, objfmt.ErrFormat)
	}
	if err != nil || !last {
		return err
	}
	return f.in(deadName, func(d mdfs.Dir) error { return remove(stepDrop, d, name) })
}

// settleSession fences a session, puts its file in order, and deletes what the
// session made and nothing names. A version that it was restoring is given back
// before slots are dropped, since those wait for whoever holds a version.
func (f *FS) settleSession(ctx context.Context, r objfmt.Record) error {
	fl, err := f.openHome(r.File, everywhere)
	if err == nil {
		defer fl.Close()
		if !f.o.Omit.Has(omit.FenceBump) {
			err = fl.fence(ctx, r.Session)
		}
	} else if errors.Is(err, syscall.ENOENT) {
		fl, err = nil, nil // deleted for good: no slot names anything
	}
	if err != nil {
		return err
	}
	if !r.Content.IsZero() {
		if err := f.returnVersion(ctx, r.Content, restorer(r.Session)); err != nil {
			return err
		}
	}
	if fl != nil {
		if err := fl.settleAfter(r); err != nil {
			return err
		}
	}
	return f.deleteUnnamed(ctx, r)
}

// settleAfter finishes for a session that is fenced.
func (fl *File) settleAfter(r objfmt.Record) error {
	if !fl.f.o.Omit.Has(omit.HomeAfterRecovery) {
		if err := fl.placeHome(0); errors.Is(err, errNoHome) {
			return nil // in dead/: its gc puts it back, or deletes it
		} else if err != nil {
			return err
		}
	}
	who := Who{Cred: mdfs.Cred{UID: r.By}, Path: r.Path}
	clean, err := fl.dropLower(who, r.Why, 0)
	if err == nil && !clean {
		err = fmt.Errorf("a version of file %s is being destroyed: %w", fl.id, syscall.EAGAIN)
	}
	return err
}

// fence publishes the current content again, so that whatever session wants to
// publish on the slot it knows gets EEXIST, and finds its record gone. A content
// that the fenced session left open becomes final. It is done also when the
// newest slot is the session's own final content: a session that was stopped
// after one flush may be about to publish the next.
func (fl *File) fence(ctx context.Context, session objfmt.ID) error {
	for range maxRaces {
		if err := ctx.Err(); err != nil {
			return err
		}
		top, _, err := fl.newest()
		if err != nil {
			return err
		}
		next, err := fl.bumped(ctx, top, session)
		if err != nil {
			return err
		}
		s, err := fl.publishAnyway(stepFence, top, next)
		if (errors.Is(err, errLost) || full(err)) && next.Content != top.Content { // copied for nothing
			err = errors.Join(err, fl.f.removeBody(next.Content))
		}
		if errors.Is(err, errLost) {
			continue
		}
		if err != nil {
			return err
		}
		if err := syncFile(stepFence, fl.inode); err != nil { // durable before anything is deleted [F]
			return err
		}
		return fl.settle(s, false)
	}
	return errLost
}

// publishAnyway is publish for a fencer: when the inode has no room for another
// slot, the lower ones go first, which are of nobody's any more.
func (fl *File) publishAnyway(p *fault.Step, prev, next objfmt.Slot) (objfmt.Slot, error) {
	s, err := fl.publish(p, prev, next)
	if !full(err) {
		return s, err
	}
	if _, e := fl.dropLower(Who{}, "fence", 0); e != nil {
		return s, errors.Join(err, e)
	}
	return fl.publish(p, prev, next)
}

// bumped is the slot that fences: the same content with a new nonce. A slot open
// by another session that has a work record stays that session's, which goes on
// top of it (R1). One without a record, an appender's or creator's, is fenced by
// the bump alone, so it is closed: nobody else would.
func (fl *File) bumped(ctx context.Context, top objfmt.Slot, session objfmt.ID) (objfmt.Slot, error) {
	if top.State != objfmt.Open {
		return top, nil
	}
	if top.Session != session {
		alive, err := fl.f.hasWork(top.Session)
		if alive || err != nil {
			return top, err
		}
	}
	return fl.closed(ctx, top, session)
}

// closed is the final form of a slot left open.
func (fl *File) closed(ctx context.Context, top objfmt.Slot, fenced objfmt.ID) (objfmt.Slot, error) {
	next := top
	next.State = objfmt.Final
	switch top.Source.Kind {
	case objfmt.SourceOwn:
		// An appender who wakes up still writes behind these bytes: nobody may
		// ever append here again.
		if next.State = objfmt.Sealed; fl.f.o.Omit.Has(omit.Seal) {
			next.State = objfmt.Final
		}
		return next, nil
	case objfmt.SourceBody:
		return fl.copied(ctx, next, fenced)
	}
	return next, nil
}

// copied names a copy of the body as a new content: a session that wakes up
// writes to the old one. (A tail needs none: it is only ever appended to.) The
// copy bears the id of the session being fenced, whosever the body was: it is by
// that one's record that it is found should it stay unnamed.
func (fl *File) copied(ctx context.Context, s objfmt.Slot, fenced objfmt.ID) (objfmt.Slot, error) {
	from, err := fl.Body(ctx, s.Content)
	if err != nil {
		return s, err
	}
	defer from.Close()
	tmp, err := fl.f.putTemp(stepFenceBody, true, func(to mdfs.File) (err error) {
		s.Source.Sum, err = copyBytes(stepFenceBody, readerWithin{ctx, from}, to, s.Source.Stored)
		return err
	})
	if err != nil {
		return s, errors.Join(err, fl.f.dropTemp(tmp))
	}
	s.Content = fl.f.another(fenced)
	return s, fl.f.moveTemp(stepFenceBody, tmp, fanned(bodiesName, s.Content), s.Content.String(), true)
}

// readerWithin reads while its context lives: bodies can be large.
type readerWithin struct {
	ctx context.Context
	io.ReaderAt
}

func (r readerWithin) ReadAt(p []byte, off int64) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.ReaderAt.ReadAt(p, off)
}

// hasWork tells whether a session has a work record on any node.
func (f *FS) hasWork(session objfmt.ID) (bool, error) {
	nodes, err := f.names(workName, "")
	if err != nil {
		return false, err
	}
	for _, n := range nodes {
		found := false
		err := f.in(workName+"/"+n, func(d mdfs.Dir) (err error) {
			found, err = exists(d, session.String())
			return err
		})
		if err := ignore(err, syscall.ENOENT); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// sessionPrefix is how the names of all that a session makes begin.
func sessionPrefix(session objfmt.ID) string { return session.String()[:2*sessionBytes] }

// named is what slots and versions name of a session's making.
type named struct {
	content map[objfmt.ID]bool // contents, and bodies that are tails
	chunk   map[uint32]bool    // of the session's object
	object  objfmt.ObjectID
}

// deleteUnnamed deletes objects, bodies and tables of a session that no slot and
// no version names.
func (f *FS) deleteUnnamed(ctx context.Context, r objfmt.Record) error {
	n := &named{content: map[objfmt.ID]bool{}, chunk: map[uint32]bool{}, object: r.Object}
	if err := f.collect(ctx, n, r); err != nil {
		return err
	}
	if err := f.deletePrefix(ctx, r.Object, func(chunk uint32) bool { return n.chunk[chunk] }); err != nil {
		return err
	}
	if err := f.deleteListed(fanned(bodiesName, r.Session), r.Session, n.content, f.removeBody); err != nil {
		return err
	}
	err := f.inTables(r.File, func(d mdfs.Dir) error {
		return deleteNames(d, r.Session, n.content, func(id objfmt.ID) error { return remove(stepLeftover, d, id.String()) })
	})
	if err != nil {
		return err
	}
	return f.pruneTables(r.File)
}

func (f *FS) deletePrefix(ctx context.Context, id objfmt.ObjectID, keep func(uint32) bool) error {
	if id.IsZero() {
		return nil
	}
	if f.copied {
		return ErrCopied
	}
	return stepObject.Do(func() error { return f.o.Objects.DeletePrefix(ctx, id, keep) })
}

func (f *FS) deleteListed(dir string, session objfmt.ID, keep map[objfmt.ID]bool, del func(objfmt.ID) error) error {
	err := f.in(dir, func(d mdfs.Dir) error { return deleteNames(d, session, keep, del) })
	return ignore(err, syscall.ENOENT)
}

// deleteNames calls del for the contents of a session that are in d and not kept.
func deleteNames(d mdfs.Dir, session objfmt.ID, keep map[objfmt.ID]bool, del func(objfmt.ID) error) error {
	return eachEntry(d, sessionPrefix(session), func(name string) (bool, error) {
		id, err := objfmt.ParseID(name)
		if err != nil || keep[id] {
			return false, nil // not a content's name: none of ours
		}
		return false, del(id)
	})
}

// collect finds what is named. A version moves from versions/ to dead/versions,
// and from there back or, restored, into a slot; so versions are read, then what
// is taken, then the slots, then the first two once more.
func (f *FS) collect(ctx context.Context, n *named, r objfmt.Record) error {
	if err := f.collectVersions(n, r); err != nil {
		return err
	}
	if err := f.collectSlots(ctx, n, r.File); err != nil {
		return err
	}
	return f.collectVersions(n, r)
}

func (f *FS) collectSlots(ctx context.Context, n *named, file objfmt.ID) error {
	fl, err := f.openHome(file, everywhere)
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer fl.Close()
	chain, _, err := fl.history()
	if err != nil {
		return err
	}
	for _, s := range chain {
		if err := f.collectSlot(n, s); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (f *FS) collectVersions(n *named, r objfmt.Record) error {
	prefix := sessionPrefix(r.Session)
	for _, place := range []string{fanned(versionName, r.Session), fanned(takenName, r.Session)} {
		err := f.in(place, func(d mdfs.Dir) error {
			return eachEntry(d, prefix, func(name string) (bool, error) {
				v, err := readRecord(d, name)
				if errors.Is(err, syscall.ENOENT) {
					return false, nil // moved on: met at the next place
				}
				if err == nil && v.Slot != nil {
					err = f.collectSlot(n, *v.Slot)
				}
				return false, err
			})
		})
		if err := ignore(err, syscall.ENOENT); err != nil {
			return err
		}
	}
	return nil
}

// collectSlot notes what one slot names.
func (f *FS) collectSlot(n *named, s objfmt.Slot) error {
	n.content[s.Content] = true
	if !s.Source.Tail.IsZero() {
		n.content[s.Source.Tail] = true
	}
	switch s.Source.Kind {
	case objfmt.SourceObj:
		if s.Source.Object.Object == n.object {
			n.chunk[s.Source.Object.Chunk] = true
		}
	case objfmt.SourceTable:
		t, err := f.readTable(s.File, s.Content, s.Source)
		if err != nil {
			return err // better a leak than a guess
		}
		for _, c := range t.Chunks {
			if c.Object.Object == n.object {
				n.chunk[c.Object.Chunk] = true
			}
		}
	}
	return nil
}

// restorer is the token of a session that has taken a version's record.
func restorer(session objfmt.ID) string { return "r" + strings.ToLower(session.String()) }
