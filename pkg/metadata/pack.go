package metadata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// PackMember is a content on its way into a pack: the slot it was read by, or what
// [File.NewMember] gives, and where its bytes are in the pack. Sum is that of the
// bytes read.
type PackMember struct {
	Slot   objfmt.Slot
	Offset int64
	Sum    uint64
	Bad    bool // the bytes in the pack are not the content: it is not published

	first *objfmt.Slot // the open slot that a new file's content goes on top of
	won   bool
	nonce uint64 // of the slot published
}

// base is the slot that the member is published on, exactly.
func (m *PackMember) base() objfmt.Slot {
	if m.first != nil {
		return *m.first
	}
	return m.Slot
}

// Pack is one pack being written. Its calls are made in order by one goroutine:
// BeginPack, upload of Object, Publish, Finish; or Abort.
type Pack struct {
	Object objfmt.ObjectID
	// Between, if not nil, is called by Publish and Finish before each member: for
	// whoever wants to give way to others.
	Between func()

	f       *FS
	name    string // in packs/open
	members []PackMember
	shown   bool // Publish has begun: slots may name the pack
}

// NewMember is the first content of a file that this File has just made with
// Create, in a pack: size bytes (at least one) with this checksum. Nothing is
// published yet. The caller sets Offset, and may close the File: the content is the
// file's once [Pack.Publish] has published it, and until then the file is being
// written. ESTALE: somebody else has published.
func (fl *File) NewMember(ctx context.Context, size int64, sum uint64, mtime time.Time) (PackMember, error) {
	if err := ctx.Err(); err != nil {
		return PackMember{}, err
	}
	if size <= 0 {
		return PackMember{}, fileError("pack", fl.id, fmt.Errorf("a content of %d bytes: %w", size, syscall.EINVAL))
	}
	first, err := fl.firstSlot()
	if err != nil {
		return PackMember{}, fileError("pack", fl.id, err)
	}
	fl.used.Store(true)
	s := objfmt.Slot{File: fl.id, State: objfmt.Final, Content: numbered(fl.created, ownContents), Size: size, MTime: mtime,
		Source: objfmt.Source{Kind: objfmt.SourceObj, Stored: size, Sum: sum, Packed: true}}
	return PackMember{Slot: s, Sum: sum, first: &first}, nil
}

// Won tells whether Publish has published the member.
func (m *PackMember) Won() bool { return m.won }

// CopyContent writes the archived-to-be bytes of a slot (own or body) to w and
// returns their checksum, which it has compared with the slot's: a body that
// somebody is writing, or that was punched, is not packed. The caller has read
// the slot before, and publishes on exactly that slot.
func (fl *File) CopyContent(ctx context.Context, s objfmt.Slot, w io.Writer) (sum uint64, err error) {
	var from io.ReaderAt = fl.inode
	switch s.Source.Kind {
	case objfmt.SourceOwn:
	case objfmt.SourceBody:
		body, err := fl.Body(ctx, s.Content)
		if err != nil {
			return 0, err
		}
		defer body.Close()
		from = body
	default:
		return 0, fileError("read", fl.id, fmt.Errorf("source %s is no body: %w", s.Source.Kind, syscall.EINVAL))
	}
	sum, err = copyChecked(ctx, from, w, s.Source.Stored)
	if err == nil && sum != s.Source.Sum && s.Source.Sum != 0 && !fl.f.o.Omit.Has(omit.PackSum) {
		err = fmt.Errorf("%w: have %016x, want %016x", objfmt.ErrChecksum, sum, s.Source.Sum)
	}
	return sum, fileError("read", fl.id, err)
}

func copyChecked(ctx context.Context, from io.ReaderAt, w io.Writer, n int64) (sum uint64, err error) {
	buf := make([]byte, min(n, copyBuffer))
	for off := int64(0); off < n; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		b := buf[:min(n-off, copyBuffer)]
		if got, err := from.ReadAt(b, off); got < len(b) {
			return 0, fmt.Errorf("body ends after %d of %d bytes: %w", off+int64(got), n, errors.Join(io.ErrUnexpectedEOF, err))
		}
		if _, err := w.Write(b); err != nil {
			return 0, err
		}
		sum = objfmt.Update(sum, b)
		off += int64(len(b))
	}
	return sum, nil
}

// BeginPack writes the member table of a new pack to packs/open, durably, before
// the pack is uploaded [F][D]: recovery finds by it whom to ask about the object.
// Offsets rise, nothing overlaps. The caller's PackMembers are the Pack's from now.
func (f *FS) BeginPack(ctx context.Context, members []PackMember) (*Pack, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &Pack{Object: f.newObjectID(), f: f, members: members}
	p.name = p.Object.String() + "." + f.instanceName()
	t := &objfmt.MemberTable{Object: objfmt.ObjectRef{Object: p.Object}}
	for _, m := range members {
		t.Members = append(t.Members, objfmt.Member{File: m.Slot.File, Content: m.Slot.Content,
			Offset: m.Offset, Length: m.Slot.Source.Stored, Sum: m.Sum})
	}
	b, err := t.Encode()
	if err == nil {
		err = p.syncHomes()
	}
	if err != nil {
		return nil, err
	}
	// Moved to its place complete, so that recovery never takes half a table.
	tmp, err := f.putTemp(stepPack, true, func(fl mdfs.File) error { return writeAt(stepPack, fl, b, 0) })
	if err != nil {
		return nil, err
	}
	return p, f.moveTemp(stepPack, tmp, openPacks, p.name, true)
}

// syncHomes makes the homes of new files durable before the table is, as a session
// does ([File.syncHome]), but all by one sync.
func (p *Pack) syncHomes() error {
	isNew := func(m PackMember) bool { return m.first != nil }
	if p.f.covers || !slices.ContainsFunc(p.members, isNew) || p.f.o.Omit.Has(omit.SyncHome) {
		return nil
	}
	return syncAll(stepSyncAll, p.f.md)
}

// Publish makes each member's content the range of the object, on exactly the
// slot it was read by. A member that changed meanwhile is left as it is, and is
// never retried: that is what lets a bump alone fence a packer. Nor is one whose
// inode has no room for another slot: it must not hold up the others. ref is the
// object's, complete and durable. It returns how many were published; they are
// durable when [Pack.Finish] returns.
func (p *Pack) Publish(ctx context.Context, ref objfmt.ObjectRef) (won int, err error) {
	p.shown = true
	for i := range p.members {
		if err := ctx.Err(); err != nil {
			return won, err
		}
		p.between()
		m := &p.members[i]
		if err := p.publish(m, ref); err != nil {
			return won, fileError("pack", m.Slot.File, err)
		}
		if m.won {
			won++
		}
	}
	return won, nil
}

func (p *Pack) between() {
	if p.Between != nil {
		p.Between()
	}
}

func (p *Pack) publish(m *PackMember, ref objfmt.ObjectRef) error {
	if m.Bad {
		return nil
	}
	fl, err := p.f.openHome(m.Slot.File, homePlaces)
	if err != nil {
		return ignore(err, syscall.ENOENT)
	}
	defer fl.Close()
	next := m.Slot
	next.State = objfmt.Final
	next.Source = objfmt.Source{Kind: objfmt.SourceObj, Stored: m.Slot.Source.Stored, Sum: m.Sum,
		Object: ref, Packed: true, Offset: m.Offset}
	s, err := fl.publish(stepPackSlot, m.base(), next)
	if errors.Is(err, errRaced) {
		s, err = fl.landed(next, err)
	}
	if full(err) || errors.Is(err, errLost) {
		return nil
	}
	if err != nil {
		return err
	}
	m.won, m.nonce = true, s.Nonce
	if m.first == nil {
		return nil // its size and times are in the inode
	}
	return fl.settle(s, true)
}

// Finish makes the published slots durable by one sync, moves homes to files/ and
// drops the slots below, leaves hints for the members that lost, and files the
// member table under packs/. Own bodies and bodies/ are released later.
func (p *Pack) Finish(ctx context.Context) error {
	if !p.f.o.Omit.Has(omit.SyncPublish) {
		if err := syncAll(stepSyncAll, p.f.md); err != nil {
			return err
		}
	}
	live := 0
	for i := range p.members {
		if err := ctx.Err(); err != nil {
			return err
		}
		p.between()
		m := &p.members[i]
		alive, err := p.finish(m)
		if err == nil && !alive {
			err = p.f.packHint(p.Object, m.Slot.Content)
		}
		if err != nil {
			return fileError("pack", m.Slot.File, err)
		}
		if alive {
			live++
		}
	}
	bodies := slices.ContainsFunc(p.members, func(m PackMember) bool { return m.first == nil })
	return p.f.filePack(openPacks, p.name, p.Object, live, bodies)
}

// finish puts a member that was published in order. One without a home is not
// alive: a new file that was removed while it was still empty has left no record,
// and no gc will come for its bytes in the pack.
func (p *Pack) finish(m *PackMember) (alive bool, err error) {
	if !m.won {
		return false, nil
	}
	fl, err := p.f.openHome(m.Slot.File, homePlaces)
	if err != nil {
		return false, ignore(err, syscall.ENOENT)
	}
	defer fl.Close()
	if err := fl.placeHome(omit.HomeAfterPack); err != nil {
		return false, ignore(err, errNoHome)
	}
	_, err = fl.dropLower(Who{}, "pack", m.nonce)
	return true, err
}

// filePack moves a member table from a directory to packs/. A pack without live
// members is on its way out at once; one with bodies waits for their release.
func (f *FS) filePack(from, name string, object objfmt.ObjectID, live int, bodies bool) error {
	if live == 0 && !f.o.Omit.Has(omit.PackHints) {
		if err := f.Retire(object, "pack"); err != nil {
			return err
		}
	}
	return f.in(from, func(d mdfs.Dir) error {
		if live > 0 && bodies {
			if err := f.enterResident(d, name, object); err != nil {
				return err
			}
		}
		return f.in(packsName, func(packs mdfs.Dir) error {
			if err := rename(stepPacked, d, name, packs, object.String(), 0); err != nil {
				return ignore(err, syscall.ENOENT) // a fencer has it, and finishes it
			}
			return syncDir(stepPacked, packs)
		})
	})
}

// Abort gives a pack up: its record is taken like that of a dead packer. Where
// Publish was not called there is nobody to fence, and members stay as they are:
// while stores are away, attempts cost staged files no slot, and they age.
func (p *Pack) Abort(ctx context.Context) error {
	isNew := func(m PackMember) bool { return m.first != nil }
	if p.shown || slices.ContainsFunc(p.members, isNew) { // new files wait for their first content
		return p.f.RecoverPack(ctx, p.name)
	}
	if taken, err := p.f.takePack(p.name); err != nil || !taken {
		return err
	}
	return p.f.deletePrefix(ctx, p.Object, nil)
}

// Retire puts a pack into the queue of expiry, durably: before a repack moves its
// first member, so that the old pack is never forgotten. gc deletes it once
// nothing names it any more.
func (f *FS) Retire(object objfmt.ObjectID, why string) error {
	r := objfmt.Record{Kind: objfmt.RecordPack, Object: object, Node: f.o.Node, When: f.now(), Why: why}
	if why == "repack" && f.o.Omit.Has(omit.RepackRecordFirst) {
		return nil
	}
	_, err := f.putTrash(r, true)
	return err
}

func (f *FS) packHint(object objfmt.ObjectID, content objfmt.ID) error {
	if f.o.Omit.Has(omit.PackHints) {
		return nil
	}
	return f.hint(object, content)
}

// hint notes in repack/<object>/ that the bytes of a content in a pack are dead.
// It is a hint, never proof, and counted by readdir.
func (f *FS) hint(object objfmt.ObjectID, content objfmt.ID) error {
	return f.in(repackName, func(all mdfs.Dir) error {
		for range maxRaces {
			d, err := openHere(all, object.String())
			if err != nil {
				return err
			}
			err = writeFile(stepHint, d, content.String(), nil, false)
			if err == nil && !f.covers { // what it is about may be gone from the disk before it [D]
				err = errors.Join(syncDir(stepHint, d), syncDir(stepHint, all))
			}
			d.Close()
			if !errors.Is(err, syscall.ENOENT) { // ENOENT: the pack's gc removed the directory
				return ignore(err, syscall.EEXIST)
			}
		}
		return nil
	})
}

// openHere opens the directory name in parent, making it when it is not there.
func openHere(parent mdfs.Dir, name string) (mdfs.Dir, error) {
	d, err := parent.OpenDir(name)
	if !errors.Is(err, syscall.ENOENT) {
		return d, err
	}
	if err := ignore(mkdir(stepFan, parent, name, 0o700), syscall.EEXIST); err != nil {
		return nil, err
	}
	return parent.OpenDir(name)
}

// RecoverPack abandons or finishes the pack whose record is packs/open/<name>
// (R4), as RecoverWork does for sessions: take, bump every member that does not
// name the pack, then look.
func (f *FS) RecoverPack(ctx context.Context, name string) error {
	if taken, err := f.takePack(name); err != nil || !taken {
		return err
	}
	return f.settlePack(ctx, deadPack+name, f.o.Omit.Has(omit.KeepTakenRecord))
}

// takePack moves the record of an open pack to dead/; not taken: somebody else has.
func (f *FS) takePack(name string) (taken bool, err error) {
	err = f.in(openPacks, func(d mdfs.Dir) error {
		return f.in(deadName, func(dead mdfs.Dir) error {
			return rename(stepTake, d, name, dead, deadPack+name, 0)
		})
	})
	return err == nil, ignore(err, syscall.ENOENT)
}

func (f *FS) settlePack(ctx context.Context, name string, last bool) error {
	t, err := f.readMembers(deadName, name)
	if err != nil {
		return err
	}
	object := t.Object.Object
	var stuck error
	for _, m := range t.Members {
		err := fileError("fence", m.File, f.fenceMember(ctx, m, object))
		if full(err) {
			stuck = errors.Join(stuck, err)
		} else if err != nil {
			return err
		}
	}
	// The bumps durable before the pack goes.
	if err := syncAll(stepSyncAll, f.md); err != nil {
		return err
	}
	lost, err := f.finishMembers(ctx, t)
	if err != nil {
		return err
	}
	if live := len(t.Members) - len(lost); live > 0 {
		// One that could not be fenced may be published late: the pack is there.
		for _, content := range lost {
			if err := f.packHint(object, content); err != nil {
				return err
			}
		}
		return f.filePack(deadName, name, object, live, true)
	}
	if stuck != nil {
		return stuck
	}
	if err := f.deletePrefix(ctx, object, nil); err != nil {
		return err
	}
	if err := f.leaveResident(object); err != nil || !last {
		return err
	}
	return f.dropDead(name)
}

// fenceMember bumps a member that a packer might still publish: its newest slot
// is a complete one of the content that was packed, and does not name the pack; or
// it is open by the session that made the content, which was to be the first of a
// new file: that one stays empty.
func (f *FS) fenceMember(ctx context.Context, m objfmt.Member, object objfmt.ObjectID) error {
	fl, err := f.openHome(m.File, everywhere)
	if err != nil {
		return ignore(err, syscall.ENOENT)
	}
	defer fl.Close()
	for range maxRaces {
		if err := ctx.Err(); err != nil {
			return err
		}
		top, _, err := fl.newest()
		if err != nil || top.Source.Object.Object == object || f.o.Omit.Has(omit.FenceBump) {
			return err
		}
		next := top
		switch {
		case fl.unwritten(top, m):
			next.State = objfmt.Final
		case top.Content != m.Content || top.State == objfmt.Open: // an appender's: no packer goes on top of it
			return nil
		}
		if _, err = fl.publishAnyway(stepFence, top, next); !errors.Is(err, errLost) {
			return err
		}
	}
	return errLost
}

// unwritten tells whether a slot is the first of a new file, and the member to be
// its content.
func (fl *File) unwritten(top objfmt.Slot, m objfmt.Member) bool {
	return top.State == objfmt.Open && empty(top) && top.Session == sessionOf(m.Content) && !fl.f.o.Omit.Has(omit.FenceBatch)
}

// finishMembers puts homes where their slots say, and returns the contents of
// members that do not name the pack, in slots or versions.
func (f *FS) finishMembers(ctx context.Context, t *objfmt.MemberTable) (lost []objfmt.ID, err error) {
	for _, m := range t.Members {
		names, err := f.memberNames(ctx, m, t.Object.Object)
		if err != nil {
			return lost, err
		}
		if !names {
			lost = append(lost, m.Content)
		}
		if f.o.Omit.Has(omit.HomeAfterRecovery) {
			continue
		}
		if err := f.tidyMember(m); err != nil {
			return lost, fileError("recover", m.File, err)
		}
	}
	return lost, nil
}

func (f *FS) tidyMember(m objfmt.Member) error {
	fl, err := f.openHome(m.File, homePlaces)
	if err != nil {
		return ignore(err, syscall.ENOENT)
	}
	defer fl.Close()
	if err := fl.placeHome(0); err != nil {
		return ignore(err, errNoHome)
	}
	_, err = fl.dropLower(Who{}, "pack", 0)
	return err
}

// memberNames tells whether a slot or a version of a member names the pack.
// Versions are looked at before and after the slots, since they move into them.
func (f *FS) memberNames(ctx context.Context, m objfmt.Member, object objfmt.ObjectID) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	found, err := f.versionNames(m.Content, object)
	if found || err != nil {
		return found, err
	}
	if found, err = f.slotNames(m.File, object); found || err != nil {
		return found, err
	}
	return f.versionNames(m.Content, object)
}

func (f *FS) slotNames(file objfmt.ID, object objfmt.ObjectID) (bool, error) {
	fl, err := f.openHome(file, everywhere)
	if err != nil {
		return false, ignore(err, syscall.ENOENT)
	}
	defer fl.Close()
	chain, _, err := fl.history()
	for _, s := range chain {
		if s.Source.Object.Object == object {
			return true, nil
		}
	}
	return false, err
}

// versionNames looks at the version's record, and at one that somebody has taken.
func (f *FS) versionNames(content objfmt.ID, object objfmt.ObjectID) (found bool, err error) {
	look := func(d mdfs.Dir, name string) error {
		r, err := readRecord(d, name)
		found = err == nil && r.Slot != nil && r.Slot.Source.Object.Object == object
		return ignore(err, syscall.ENOENT)
	}
	err = f.in(fanned(versionName, content), func(d mdfs.Dir) error { return look(d, content.String()) })
	if err := ignore(err, syscall.ENOENT); found || err != nil {
		return found, err
	}
	err = f.in(fanned(takenName, content), func(d mdfs.Dir) error {
		return eachEntry(d, content.String()+".", func(name string) (bool, error) { err := look(d, name); return found, err })
	})
	return found, ignore(err, syscall.ENOENT)
}

// maxMembers bounds what is read as a member table.
const maxMembers = 64*objfmt.MaxMembers + 1<<16

func (f *FS) readMembers(dir, name string) (t *objfmt.MemberTable, err error) {
	err = f.in(dir, func(d mdfs.Dir) error {
		b, err := readFile(d, name, maxMembers)
		if err != nil {
			return err
		}
		t, err = objfmt.ParseMemberTable(b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", dir, name, err)
	}
	return t, nil
}
