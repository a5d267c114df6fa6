package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// Session is one unfinished write of one file. Its methods are called by one
// goroutine at a time.
type Session struct {
	ID     objfmt.ID
	Object objfmt.ObjectID // every object of the session is <Object>[.<n>]

	f         *FS
	fl        *File
	who       Who
	why       string
	last      objfmt.Slot // what the next publish goes on top of
	published bool
	kept      uint64 // nonce of the slot that the base's version record was made from
	count     uint32 // content ids given out
	bodies    []sessionBody
	tables    []objfmt.ID
	dropped   bool      // some of them are gone already
	restore   objfmt.ID // the version being restored: its record is taken, and goes with the session
}

// sessionBody is a private body the session makes.
type sessionBody struct {
	id   objfmt.ID
	file mdfs.File
	done bool // it goes when no slot names it any more
}

// errEnded is a call after End or Abort.
var errEnded = fmt.Errorf("session has ended: %w", syscall.EBADF)

// Begin starts a session that replaces the content of fl: its work record is
// durable when Begin returns. base is the slot the session starts from; if it is
// open by another session the file is busy (EBUSY), unless base is fl's own first slot.
// ESTALE: the file has names and no home.
func (f *FS) Begin(ctx context.Context, fl *File, who Who, base objfmt.Slot) (*Session, error) {
	return f.begin(ctx, fl, who, fl.created, base)
}

// begin: own is the session that the caller may take over from its open slot.
func (f *FS) begin(ctx context.Context, fl *File, who Who, own objfmt.ID, base objfmt.Slot) (*Session, error) {
	s, err := f.newSessionOf(ctx, fl, who, own, base, "write")
	if err == nil {
		if err = s.record(objfmt.ID{}); err != nil {
			f.setLive(s.ID, false)
		}
	}
	if err != nil {
		return nil, fileError("begin", fl.id, err)
	}
	return s, nil
}

// setLive notes that a session of this process has begun or ended, so that
// recovery leaves it alone, or does not.
func (f *FS) setLive(session objfmt.ID, live bool) {
	f.liveMu.Lock()
	defer f.liveMu.Unlock()
	if live {
		f.live[session] = true
	} else {
		delete(f.live, session)
	}
}

func (f *FS) isLive(session objfmt.ID) bool {
	f.liveMu.Lock()
	defer f.liveMu.Unlock()
	return f.live[session]
}

func (f *FS) newSessionOf(ctx context.Context, fl *File, who Who, own objfmt.ID, base objfmt.Slot, why string) (*Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &Session{ID: f.newSession(), Object: f.newObjectID(), f: f, fl: fl, who: who, why: why, last: base}
	switch {
	case base.State == objfmt.Open && base.Session == own:
		s.ID, s.count = own, ownContents // it goes on, with a record from now
	case Busy(base):
		return nil, fmt.Errorf("open by session %s: %w", base.Session, syscall.EBUSY)
	}
	if err := fl.mayHaveHome(); err != nil {
		return nil, err
	}
	fl.used.Store(true)
	f.setLive(s.ID, true)
	return s, nil
}

// record writes work/<node>/<session> [F][D]: from here on recovery knows what to
// undo. It names no content of its own: their ids follow from the session's.
func (s *Session) record(restored objfmt.ID) error {
	r := objfmt.Record{Kind: objfmt.RecordWork, File: s.fl.id, Content: restored, Session: s.ID, Node: s.f.o.Node,
		When: s.f.now(), Path: clip(s.who.Path), Why: s.why, By: s.who.UID, Object: s.Object}
	b, err := r.Encode()
	if err != nil {
		return err
	}
	if err := s.fl.syncHome(s.last); err != nil {
		return err
	}
	// Moved to its place complete, so that recovery never takes half a record.
	durable := !s.f.o.Omit.Has(omit.SyncWork)
	tmp, err := s.f.putTemp(stepWork, durable, func(fl mdfs.File) error { return writeAt(stepWork, fl, b, 0) })
	if err != nil {
		return err
	}
	return s.f.moveTemp(stepWork, tmp, workName+"/"+s.f.o.Node, s.ID.String(), durable)
}

// NewContent returns the id of another content that this session makes.
func (s *Session) NewContent() objfmt.ID {
	s.count++
	return numbered(s.ID, s.count)
}

// NewBody creates bodies/<id> to be written by this session only. Publish makes
// what it names durable. The file belongs to the session: End and Abort close it.
func (s *Session) NewBody(ctx context.Context) (objfmt.ID, mdfs.File, error) {
	if err := ctx.Err(); err != nil {
		return objfmt.ID{}, nil, err
	}
	id := s.NewContent()
	var in mdfs.File
	err := s.f.inMade(fanned(bodiesName, id), func(d mdfs.Dir) (err error) {
		in, err = create(stepBody, d, id.String(), 0o600)
		return err
	})
	if err != nil {
		return objfmt.ID{}, nil, fileError("make body", s.fl.id, err)
	}
	s.bodies = append(s.bodies, sessionBody{id: id, file: in})
	return id, in, nil
}

// PutTable writes an immutable chunk table, durably, and returns the content id
// to publish and the source that names the table (without tail). It sets File and
// Content of t. Stored is the chunks' length: the caller adds a tail's.
func (s *Session) PutTable(ctx context.Context, t *objfmt.ChunkTable) (objfmt.ID, objfmt.Source, error) {
	if err := ctx.Err(); err != nil {
		return objfmt.ID{}, objfmt.Source{}, err
	}
	t.File, t.Content = s.fl.id, s.NewContent()
	src, err := s.f.writeTable(t)
	if err != nil {
		return objfmt.ID{}, objfmt.Source{}, fileError("write chunk table", s.fl.id, err)
	}
	s.tables = append(s.tables, t.Content)
	return t.Content, src, nil
}

// writeTable: the slot that names a table must not be durable before it [F][D].
func (f *FS) writeTable(t *objfmt.ChunkTable) (objfmt.Source, error) {
	b, err := t.Encode()
	if err != nil {
		return objfmt.Source{}, err
	}
	err = f.inMade(fanned(chunksName, t.File), func(fan mdfs.Dir) error {
		for range maxRaces {
			err := f.writeTableIn(fan, t, b)
			if !errors.Is(err, syscall.ENOENT) { // ENOENT: the directory was empty, and was removed
				return err
			}
		}
		return syscall.ENOENT
	})
	last := t.Chunks[len(t.Chunks)-1]
	return objfmt.Source{Kind: objfmt.SourceTable, Stored: last.Offset + last.Length,
		Sum: objfmt.Checksum(b), Chunks: len(t.Chunks)}, err
}

func (f *FS) writeTableIn(fan mdfs.Dir, t *objfmt.ChunkTable, b []byte) error {
	d, err := openHere(fan, t.File.String())
	if err != nil {
		return err
	}
	defer d.Close()
	name, durable := f.tableName(t.File, t.Content), !f.o.Omit.Has(omit.SyncTable)
	if f.o.Omit.Has(omit.TableIDs) {
		if err := remove(stepTable, d, name); err != nil {
			return err
		}
	}
	if err := writeFile(stepTable, d, name, b, durable); err != nil || !durable {
		return err
	}
	if err := syncDir(stepTable, d); err != nil {
		return err
	}
	// The directory's own name: another session may have made it a moment ago.
	return syncDir(stepTable, fan)
}

// Publish commits content as the file's: version record of the base first, the
// exclusive setxattr, fsync, then the inode's size and times. On return the
// content is durable. content is an id that the session has given out (NewBody,
// PutTable, NewContent), the newest slot's content, or zero for a new one. State
// Open keeps the session's right to publish again, and to write the body.
//
// After every write to a body that a published slot names, the bytes are
// committed only by another Publish: fsync of the body alone would not notice
// that the session has been fenced.
//
// ESTALE: the session lost to another writer or was fenced.
func (s *Session) Publish(ctx context.Context, content objfmt.ID, src objfmt.Source, size int64, mtime time.Time, state objfmt.State) (objfmt.Slot, error) {
	if err := ctx.Err(); err != nil {
		return objfmt.Slot{}, err
	}
	slot, err := s.publish(ctx, content, src, size, mtime, state)
	return slot, fileError("publish", s.fl.id, err)
}

func (s *Session) publish(ctx context.Context, content objfmt.ID, src objfmt.Source, size int64, mtime time.Time, state objfmt.State) (objfmt.Slot, error) {
	if s.fl == nil {
		return objfmt.Slot{}, errEnded
	}
	if content.IsZero() {
		content = s.NewContent()
	}
	if sessionOf(content) != s.ID && content != s.last.Content && content != s.restore {
		return objfmt.Slot{}, fmt.Errorf("content %s is not of session %s: %w", content, s.ID, syscall.EINVAL)
	}
	next := objfmt.Slot{Content: content, State: state, Session: s.ID, Size: size, MTime: mtime, Source: src}
	if err := s.syncBodies(next); err != nil {
		return objfmt.Slot{}, err
	}
	if !archived(next) {
		if err := s.fl.stage(); err != nil {
			return objfmt.Slot{}, err
		}
	}
	if staged(next) {
		s.fl.notePath(s.who.Path)
	}
	slot, err := s.commit(ctx, next)
	if err != nil {
		return objfmt.Slot{}, err
	}
	s.last, s.published = slot, true
	return slot, s.committed(slot)
}

// syncBodies makes what the slot will name durable before it: the body's bytes
// [F], and its name [D].
func (s *Session) syncBodies(next objfmt.Slot) error {
	for _, b := range s.bodies {
		named := next.Source.Kind == objfmt.SourceBody && b.id == next.Content
		if !named && b.id != next.Source.Tail {
			continue
		}
		if err := syncFile(stepBodySync, b.file); err != nil {
			return err
		}
		err := s.f.in(fanned(bodiesName, b.id), func(d mdfs.Dir) error { return syncDir(stepBodySync, d) })
		if err != nil {
			return err
		}
	}
	return nil
}

// commit publishes next by R1: on the slot the session knows; when somebody
// published meanwhile, on theirs, if that only moved the content.
func (s *Session) commit(ctx context.Context, next objfmt.Slot) (objfmt.Slot, error) {
	top, err := s.last, s.keepBase(s.last)
	for range maxRaces {
		var slot objfmt.Slot
		if err == nil {
			slot, err = s.fl.publish(stepPublish, top, next)
		}
		if errors.Is(err, errRaced) {
			slot, err = s.fl.landed(next, err)
		}
		if err == nil || !errors.Is(err, errRaced) {
			return slot, err
		}
		if err := ctx.Err(); err != nil {
			return objfmt.Slot{}, err
		}
		top, err = s.retry()
	}
	return objfmt.Slot{}, errLost
}

// retry finds the slot to go on top of after EEXIST, in exactly this order (R1):
// reread the top; rewrite the version record from it, since the old one may name
// a place that is about to be punched; then look for the work record. A fencer
// takes the record first and publishes after, so whoever finds the record there
// after rereading the top has a top that no fencer will pass over.
func (s *Session) retry() (objfmt.Slot, error) {
	m := s.f.o.Omit
	if m.Has(omit.RereadBeforeRecord) {
		if err := s.alive(); err != nil {
			return objfmt.Slot{}, err
		}
	}
	top, _, err := s.fl.newest()
	if err != nil {
		return objfmt.Slot{}, err
	}
	if !sameContent(top, s.last) && !m.Has(omit.SameContent) {
		return objfmt.Slot{}, errLost
	}
	if top.State == objfmt.Open && top.Session != s.ID {
		return objfmt.Slot{}, errLost
	}
	if !m.Has(omit.RewriteVersion) {
		if err := s.keepBase(top); err != nil {
			return objfmt.Slot{}, err
		}
	}
	if m.Has(omit.RereadBeforeRecord) {
		return top, nil
	}
	return top, s.alive()
}

// alive: errLost when the work record was taken, which means fenced.
func (s *Session) alive() error {
	found := false
	err := s.f.in(workName+"/"+s.f.o.Node, func(d mdfs.Dir) (err error) {
		found, err = exists(d, s.ID.String())
		return err
	})
	if err == nil && !found {
		return errLost
	}
	return err
}

// keepBase makes the content that the session replaces a version, from the slot
// that is about to be replaced. Contents of the session itself are none: versions
// are kept of what existed when it began.
func (s *Session) keepBase(replaced objfmt.Slot) error {
	if empty(replaced) || sessionOf(replaced.Content) == s.ID || replaced.Nonce == s.kept || replaced.Content == s.restore {
		return nil
	}
	if s.f.o.Omit.Has(omit.VersionRecord) {
		return nil
	}
	if err := s.fl.keepVersion(replaced, s.who, s.why); err != nil {
		return err
	}
	s.kept = replaced.Nonce
	return nil
}

// committed follows every publish: the slot durable [F] (acknowledged is
// durable), the inode's size and times, and the slots below away, so that a
// database's many fsyncs do not fill the inode with slots.
func (s *Session) committed(slot objfmt.Slot) error {
	if !s.f.o.Omit.Has(omit.SyncPublish) {
		if err := syncFile(stepSync, s.fl.inode); err != nil {
			return err
		}
		if err := s.fl.syncNames(); err != nil {
			return err
		}
	}
	if err := s.fl.settle(slot, true); err != nil {
		return err
	}
	if slot.State != objfmt.Open {
		return nil
	}
	if clean, err := s.fl.dropLower(s.who, s.why, s.last.Nonce); err != nil || !clean {
		return err
	}
	if err := s.dropTables(); err != nil {
		return err
	}
	return s.dropBodies()
}

// dropTables removes tables of earlier publishes: a session that syncs a million
// times must not leave a million tables until it ends. The last but one stays: a
// reader may be about to open it, and it is only by the next publish's fsync that
// the removal of the slot that names it is durable. Recovery reads lower slots'
// tables, should a power failure bring such a slot back.
func (s *Session) dropTables() error {
	for len(s.tables) > 2 {
		if t := s.tables[0]; t != s.last.Content {
			s.dropped = true
			if err := s.f.removeTable(s.fl.id, t); err != nil {
				return err
			}
		}
		s.tables = s.tables[1:]
	}
	return nil
}

// Discard says that the bytes of a body are in objects by now: the body goes as
// soon as the newest slot does not name it.
func (s *Session) Discard(id objfmt.ID) error {
	for i := range s.bodies {
		s.bodies[i].done = s.bodies[i].done || s.bodies[i].id == id
	}
	return fileError("discard body", s.fl.id, s.dropBodies())
}

func (s *Session) dropBodies() error {
	for i := 0; i < len(s.bodies); {
		b := s.bodies[i]
		if !b.done || b.id == s.last.Content || b.id == s.last.Source.Tail {
			i++
			continue
		}
		if err := s.f.removeBody(b.id); err != nil {
			return err
		}
		b.file.Close()
		s.bodies, s.dropped = append(s.bodies[:i], s.bodies[i+1:]...), true
	}
	return nil
}

// End finishes after the last Publish: home to its place, lower slots, bodies and
// tables that nothing names, and the work record away. A content that is still
// open becomes final first; a session that published nothing is aborted. When the home is gone, the record stays for recovery.
func (s *Session) End(ctx context.Context) error {
	if s.fl == nil {
		return errEnded
	}
	fl := s.fl
	if !s.published {
		return s.Abort(ctx)
	}
	if s.last.State == objfmt.Open {
		if _, err := s.Publish(ctx, s.last.Content, s.last.Source, s.last.Size, s.last.MTime, objfmt.Final); err != nil {
			s.close() // nobody goes on with it: its record is recovery's
			return err
		}
	}
	return fileError("end", fl.id, s.end())
}

func (s *Session) end() error {
	defer s.close()
	// Without a home there is nothing that a later gc would find the objects by.
	// Who finds it here, after his publish, has a slot that every gc will see: a
	// gc moves the home away first and reads the slots after.
	if err := s.fl.placeHome(omit.HomeAfterSession); errors.Is(err, errNoHome) && !s.f.o.Omit.Has(omit.HomeCheck) {
		return nil
	} else if err != nil && !errors.Is(err, errNoHome) {
		return err
	}
	clean, err := s.fl.dropLower(s.who, s.why, s.last.Nonce)
	if err != nil || !clean {
		return err
	}
	if err := s.dropLeftovers(); err != nil {
		return err
	}
	if !s.restore.IsZero() {
		if err := s.f.dropTaken(s.restore, s.ID); err != nil {
			return err
		}
	}
	return s.f.in(workName+"/"+s.f.o.Node, func(d mdfs.Dir) error {
		return remove(stepWorkGone, d, s.ID.String())
	})
}

// dropLeftovers removes what earlier publishes of the session named and the last
// one does not: tables and tails. Their chunks are in the last table.
func (s *Session) dropLeftovers() error {
	keep := []objfmt.ID{s.last.Content, s.last.Source.Tail}
	dropped := s.dropped
	for _, b := range s.bodies {
		if !slices.Contains(keep, b.id) {
			if err := s.f.removeBody(b.id); err != nil {
				return err
			}
			dropped = true
		}
	}
	for _, t := range s.tables {
		if !slices.Contains(keep, t) {
			if err := s.f.removeTable(s.fl.id, t); err != nil {
				return err
			}
			dropped = true
		}
	}
	if !dropped || s.f.covers {
		return nil
	}
	// Where directories reach the disk apart, the work record may go before what
	// it alone leads to [D]. Rare: only sessions that synced in mid-stream.
	return syncAll(stepLeftover, s.f.md)
}

func (s *Session) close() {
	for _, b := range s.bodies {
		b.file.Close()
	}
	s.bodies, s.fl = nil, nil
	s.f.setLive(s.ID, false)
}

// Abort undoes a session that published nothing: objects, bodies, tables, work
// record. What a session did publish stays, as its last Publish left it. The
// record stays in dead/ for the grace time, because an upload that was given up
// may still arrive.
func (s *Session) Abort(ctx context.Context) error {
	if s.fl == nil {
		return errEnded
	}
	id := s.fl.id
	s.close()
	return fileError("abort", id, s.f.RecoverWork(ctx, s.f.o.Node, s.ID.String()))
}
