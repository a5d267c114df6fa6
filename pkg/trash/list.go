package trash

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

var (
	// errGone says that a record stands for nothing that could be restored: the
	// file has another name, or the version is the newest content again.
	errGone = fmt.Errorf("not in trash any more: %w", syscall.ENOENT)
	// errNamed is errGone of a removal whose file has another name.
	errNamed = fmt.Errorf("the file has another name: %w", errGone)
)

// List yields the entries of who (of everybody, for root) that pass the filter, day by
// day from the oldest, otherwise in no order, in bounded memory. An error of one
// entry does not end it. Records come without their xattrs. A pattern that is wrong
// is EINVAL before all else.
func (t *Trash) List(ctx context.Context, who mdfs.Cred, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := f.Check(); err != nil {
			yield(Entry{}, err)
			return
		}
		s := &scan{t: t, who: who, day: f.day, record: f.record, entry: f.entry}
		s.run(ctx, func(x found) bool { return yield(x.Entry, x.err) })
	}
}

// scan reads the records of trash and yields what they stand for. The functions run
// in several goroutines at once.
type scan struct {
	t      *Trash
	who    mdfs.Cred
	day    func(day string) bool
	record func(r *objfmt.Record) bool // before the inode is looked at
	entry  func(e *Entry) bool
	named  bool                   // also removals whose file has another name
	see    func(r *objfmt.Record) // every record, whoever's it is; nil: nothing
}

// found is what one record gave.
type found struct {
	Entry
	err   error
	named bool // the file has another name
	ok    bool // there is something to yield
}

// usersAtOnce holds one for each record that is being looked at for users other than
// root. They can ask for the whole trash, as often as they like: half of the
// processors is left for what else the process does. Taken for one record at a time, so
// that all who ask get on.
var usersAtOnce = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// enter waits for the scan's turn; leave ends it. Not so when ctx ends before.
func (s *scan) enter(ctx context.Context) bool {
	if s.who.UID == 0 {
		return true
	}
	select {
	case usersAtOnce <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *scan) leave() {
	if s.who.UID != 0 {
		<-usersAtOnce
	}
}

// scanAtOnce is how many records are read together: the memory of a scan.
const scanAtOnce = 256

func (s *scan) run(ctx context.Context, yield func(found) bool) {
	days, err := s.t.Meta.TrashDays(ctx)
	if err != nil {
		yield(found{err: err})
		return
	}
	for _, day := range days {
		if s.day(day) && !s.runDay(ctx, day, yield) {
			return
		}
	}
}

// runDay yields one day; more is false when the consumer, or the context, ended it.
func (s *scan) runDay(ctx context.Context, day string, yield func(found) bool) (more bool) {
	refs := make([]metadata.TrashRef, 0, scanAtOnce)
	for ref, err := range s.t.Meta.Trash(ctx, day) {
		if err != nil {
			if !yield(found{err: err}) || ctx.Err() != nil {
				return false
			}
			continue
		}
		if refs = append(refs, ref); len(refs) < scanAtOnce {
			continue
		}
		if !s.readAll(ctx, refs, yield) {
			return false
		}
		refs = refs[:0]
	}
	return s.readAll(ctx, refs, yield)
}

// readAll reads records in a few goroutines and yields in the order of refs.
func (s *scan) readAll(ctx context.Context, refs []metadata.TrashRef, yield func(found) bool) bool {
	out := make([]found, len(refs))
	workers := min(runtime.GOMAXPROCS(0), 8, len(refs))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(refs) && ctx.Err() == nil && s.enter(ctx); i += workers {
				out[i] = s.read(ctx, refs[i])
				s.leave()
			}
		})
	}
	wg.Wait()
	for _, x := range out {
		if x.ok && !yield(x) {
			return false
		}
	}
	if err := ctx.Err(); err != nil {
		yield(found{err: err})
		return false
	}
	return true
}

// read looks at one record, cheapest first: most are another's.
func (s *scan) read(ctx context.Context, ref metadata.TrashRef) (x found) {
	r, others, err := s.readRecord(ctx, ref)
	switch {
	case others:
		return x
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EINVAL): // taken meanwhile; no record's name
		return x
	case err != nil:
		x.ID, x.err, x.ok = ID(ref), err, all(s.who) // whose it is nobody knows
		return x
	}
	if s.see != nil {
		s.see(&r.Record)
	}
	if !r.mayBe(s.who) || !s.record(&r.Record) {
		return x
	}
	x.Entry, err = s.t.entry(ctx, ref, r, s.who)
	x.named = errors.Is(err, errNamed)
	switch {
	case x.named && s.named:
	case errors.Is(err, syscall.ENOENT):
		return x
	case err != nil:
		x.err = err
	}
	x.ok = x.err != nil || s.entry(&x.Entry)
	return x
}

// readRecord reads a record; others: it is not worth more, being another's.
func (s *scan) readRecord(ctx context.Context, ref metadata.TrashRef) (r record, others bool, err error) {
	if s.who.UID != 0 && s.see == nil {
		r.Record, others, err = s.t.Meta.ReadOwned(ctx, ref, s.who.UID)
		if !torn(err) {
			return r, others, err
		}
	}
	r, err = s.t.record(ctx, ref)
	return r, false, err
}

func torn(err error) bool {
	return errors.Is(err, objfmt.ErrFormat) || errors.Is(err, objfmt.ErrChecksum)
}

// all: root sees everything, and so does the user of an unprivileged daemon, to whom
// everything belongs.
func all(who mdfs.Cred) bool { return who.UID == 0 || who.UID == uint32(os.Geteuid()) }

// owned tells whether what belongs to uid is who's to see and handle.
func owned(who mdfs.Cred, uid uint32) bool { return who.UID == 0 || who.UID == uid }

// record is a record, and whether it is only stood in for: its bytes were lost with
// the power, its name tells the file.
type record struct {
	objfmt.Record
	torn bool
}

func (t *Trash) record(ctx context.Context, ref metadata.TrashRef) (r record, err error) {
	r.Record, err = t.Meta.ReadTrash(ctx, ref)
	if torn(err) {
		r.torn = true
		r.Record, err = t.Meta.ReadRemoval(ctx, ref)
	}
	return r, err
}

// mayBe tells whether the entry may be who's, as far as the record says: the inode
// of a file has the last word. A version is only of who had the file when it was
// replaced: who is given a file is not given what was taken out of it before.
func (r *record) mayBe(who mdfs.Cred) bool { return r.torn || owned(who, r.UID) }

// entry makes the entry of a record. What is another's, or not in trash any more,
// is ENOENT.
func (t *Trash) entry(ctx context.Context, ref metadata.TrashRef, r record, who mdfs.Cred) (Entry, error) {
	r.Xattrs = nil
	e := Entry{ID: ID(ref), Record: r.Record, Mode: r.Mode, UID: r.UID, GID: r.GID, MTime: r.MTime, Purged: ref.Day == metadata.PurgedDay}
	if !r.mayBe(who) {
		return Entry{}, errGone
	}
	switch r.Kind {
	case objfmt.RecordFile:
		return e, t.ofFile(ctx, &e, who)
	case objfmt.RecordVersion:
		return e, t.ofVersion(ctx, &e, who)
	case objfmt.RecordDir:
		e.Mode |= syscall.S_IFDIR
	case objfmt.RecordSymlink:
		e.Mode |= syscall.S_IFLNK
		e.Size = int64(len(r.Target))
	case objfmt.RecordSpecial:
	default:
		return Entry{}, errGone // a pack is nobody's
	}
	return e, nil
}

// ofFile fills in what the inode of the entry's file says now.
func (t *Trash) ofFile(ctx context.Context, e *Entry, who mdfs.Cred) error {
	st, err := t.Meta.StatID(ctx, e.Record.File)
	if err == nil && !owned(who, st.Uid) {
		err = errGone
	}
	if err != nil {
		return err
	}
	named := st.Nlink > 1
	metadata.StatOf(&st)
	e.Mode, e.UID, e.GID, e.Size, e.MTime = st.Mode, st.Uid, st.Gid, st.Size, time.Unix(st.Mtim.Unix())
	if named && e.Record.Kind == objfmt.RecordFile {
		return errNamed
	}
	return nil
}

// ofVersion fills in where a version's content is now. A record that another one of
// the same content has replaced, or whose content is the newest again, is none.
func (t *Trash) ofVersion(ctx context.Context, e *Entry, who mdfs.Cred) error {
	if err := t.ofFile(ctx, e, who); err != nil {
		return err
	}
	v, err := t.Meta.Version(ctx, e.Record.Content)
	if err == nil && (!v.When.Equal(e.Record.When) || v.Slot == nil) {
		err = errGone
	}
	if err != nil {
		return err
	}
	newest, err := t.newest(ctx, e.Record.File)
	if err == nil && newest == e.Record.Content {
		err = errGone
	}
	e.Record.Slot = v.Slot
	e.Size, e.MTime = v.Slot.Size, v.Slot.MTime
	return err
}

// newest is the id of a file's newest content.
func (t *Trash) newest(ctx context.Context, file objfmt.ID) (objfmt.ID, error) {
	fl, err := t.Meta.OpenID(ctx, file)
	if err != nil {
		return objfmt.ID{}, err
	}
	defer fl.Close()
	s, err := fl.Newest(ctx)
	return s.Content, err
}

// Get reads one entry of who's. ENOENT: there is none, or it is another's.
func (t *Trash) Get(ctx context.Context, who mdfs.Cred, id ID) (Entry, error) {
	e, err := t.get(ctx, who, id)
	if errors.Is(err, errGone) {
		err = fmt.Errorf("trash entry %s: %w", id, err)
	}
	return e, err
}

// get is Get that tells errNamed from errGone, with the entry.
func (t *Trash) get(ctx context.Context, who mdfs.Cred, id ID) (Entry, error) {
	r, err := t.record(ctx, metadata.TrashRef(id))
	if err != nil {
		if !all(who) && ctx.Err() == nil {
			err = errGone // or it would tell whether there is something of another's
		}
		return Entry{}, err
	}
	return t.entry(ctx, metadata.TrashRef(id), r, who)
}
