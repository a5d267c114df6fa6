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

// Expired counts what Expire did with records.
type Expired struct {
	Destroyed int // what they stood for is gone for good
	Kept      int // not old enough, still needed, or in somebody's hands
	Dropped   int // the record alone went: what it stood for lives, or was gone
}

// Doom is something that is about to be destroyed.
type Doom struct {
	Record objfmt.Record // of the removal, the version or the pack
	Size   int64         // bytes of content that go with it
	UID    uint32        // owner
	GID    uint32
	Slots  []objfmt.Slot // the contents that go with it
}

// Expire destroys what the records in trash/ stand for that were made before the
// given time (R5). Each record is taken first, by renaming it, so that nobody can
// restore what is being looked at; what turns out to be alive is put back or left
// alone. What is doomed becomes durable by one sync, then objects go, then
// metadata. An error of one record does not stop the others.
//
// doomed, if not nil, is told what is about to go, in the words of an audit log,
// before the sync and before anything goes; when it fails, nothing does.
//
// before must lie at least Options.Grace back: open readers on other nodes may
// still be reading what was deleted or replaced, and sessions may be about to
// publish what they started from. It is lowered to that if it does not.
func (f *FS) Expire(ctx context.Context, refs []TrashRef, before time.Time, doomed func([]Doom) error) (Expired, error) {
	var done Expired
	if f.copied {
		return done, ErrCopied
	}
	if floor := f.now().Add(-f.o.Grace); before.After(floor) {
		before = floor
	}
	var errs []error
	for chunk := range slices.Chunk(refs, expireAtOnce) {
		if errs = append(errs, f.expire(ctx, chunk, before, &done)); ctx.Err() != nil {
			break
		}
	}
	return done, errors.Join(errs...)
}

// expireAtOnce bounds what is in dead/ at a time, which is searched for each
// version, and the work that a gc which dies leaves to sweeps.
const expireAtOnce = 1000

func (f *FS) expire(ctx context.Context, refs []TrashRef, before time.Time, done *Expired) error {
	var doomed []doomed
	var errs []error
	for _, ref := range refs {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		d, err := f.take(ctx, ref, before, done)
		if err != nil {
			errs = append(errs, fmt.Errorf("expire %s: %w", ref.Name, err))
		} else if d != nil {
			doomed = append(doomed, d)
		}
	}
	errs = append(errs, f.destroyAll(ctx, doomed, done))
	return errors.Join(errs...)
}

// doomed is something that nobody can reach any more.
type doomed interface {
	destroy(ctx context.Context, f *FS) error
}

// destroyAll makes durable what the decisions were based on, then destroys. A
// removal in tree/ was never synced, and must not come back after its objects went.
func (f *FS) destroyAll(ctx context.Context, list []doomed, done *Expired) error {
	if len(list) == 0 {
		return nil
	}
	if !f.o.Omit.Has(omit.SyncBeforePunch) {
		if err := syncAll(stepSyncAll, f.md); err != nil {
			return err
		}
	}
	var errs []error
	for _, d := range list {
		err := d.destroy(ctx, f)
		if err == nil {
			done.Destroyed++
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// take takes one record, and what it stands for, if it is old enough and dead.
func (f *FS) take(ctx context.Context, ref TrashRef, before time.Time, done *Expired) (doomed, error) {
	if err := ref.Valid(); err != nil {
		return nil, err
	}
	r, err := f.recordAt(ref.dir(), ref.Name, ref.Name)
	if err != nil {
		return nil, ignore(err, syscall.ENOENT)
	}
	if !r.When.Before(before) {
		done.Kept++
		return nil, nil
	}
	switch r.Kind {
	case objfmt.RecordFile:
		return f.takeDeletion(ctx, ref, r, before, done)
	case objfmt.RecordVersion:
		return f.takeExpired(ctx, ref, r, before, done)
	case objfmt.RecordPack:
		return f.takePack(ctx, ref, r, done)
	}
	done.Dropped++ // directories, symlinks and specials are nothing but their record
	return nil, f.dropTrash(stepDrop, ref)
}

// recordAt reads the record at place/name that was made in trash/ under the name
// made. A record of a removal whose bytes a power failure has taken is stood in
// for: the name tells the file, the inode the time. Damage of other records is an
// error, for fsck.
func (f *FS) recordAt(place, name, made string) (r objfmt.Record, err error) {
	var st mdfs.Stat
	err = f.in(place, func(d mdfs.Dir) (err error) {
		if st, err = d.Lstat(name); err == nil {
			r, err = readRecord(d, name)
		}
		return err
	})
	if err == nil || !errors.Is(err, objfmt.ErrFormat) && !errors.Is(err, objfmt.ErrChecksum) {
		return r, err
	}
	id, e := objfmt.ParseID(made[:min(32, len(made))])
	if e != nil {
		return r, err
	}
	return objfmt.Record{Kind: objfmt.RecordFile, File: id, When: mtimeOf(&st)}, nil
}

// deletion is a file without names, its home and its record in dead/.
type deletion struct {
	record string // in dead/; "": none
	file   objfmt.ID
}

// takeDeletion takes the record of a removed name, and then the home, if that was
// the last name. The link count is read before the home is taken, to leave files
// with names alone, and again after: a restore may have linked the home in between.
func (f *FS) takeDeletion(ctx context.Context, ref TrashRef, r objfmt.Record, before time.Time, done *Expired) (doomed, error) {
	looked, err := f.lookFirst(r.File)
	if err != nil {
		return nil, err
	}
	name := deadTrash + ref.Name
	err = f.in(ref.dir(), func(d mdfs.Dir) error {
		return f.in(deadName, func(dead mdfs.Dir) error { return rename(stepTake, d, ref.Name, dead, name, 0) })
	})
	if errors.Is(err, syscall.ENOENT) {
		done.Kept++
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return f.doom(ctx, name, r, before, looked, done)
}

// lookFirst is how it must not be done: looking before the record is taken.
func (f *FS) lookFirst(id objfmt.ID) (dead bool, err error) {
	if !f.o.Omit.Has(omit.TakeDeletion) {
		return false, nil
	}
	named, err := f.hasNames(id)
	return !named, err
}

// doom decides about a file whose record is in dead/; also for sweeps. The record
// may be older than the removal that made the file dead: of another of its names,
// or of an unlink that was refused or killed. Whatever removes a name sets the
// inode's ctime, so a file whose ctime is not older than before keeps the record
// (anything else that sets it only delays). Link count and ctime are from one look.
func (f *FS) doom(ctx context.Context, record string, r objfmt.Record, before time.Time, looked bool, done *Expired) (doomed, error) {
	id := r.File
	fl, place, err := f.findHome(id)
	if errors.Is(err, syscall.ENOENT) {
		done.Dropped++
		return nil, f.dropDead(record)
	}
	if err != nil {
		return nil, err
	}
	defer fl.Close()
	st, err := fl.inode.Stat()
	switch {
	case err != nil:
		return nil, err
	case st.Nlink > 1 && !looked:
		return nil, f.spare(fl, place, record, done)
	case place != deadName && !time.Unix(st.Ctim.Unix()).Before(before):
		done.Kept++
		return nil, f.backToTrash(record, r)
	}
	if place != deadName {
		if err := f.moveHome(stepDeadHome, id, place, deadName); err != nil {
			return nil, ignore(err, syscall.ENOENT) // moved by another: the record waits in dead/
		}
	}
	if !f.o.Omit.Has(omit.RawAgain) && !looked {
		if named, err := fl.named(); err != nil || named {
			return nil, errors.Join(err, f.spare(fl, deadName, record, done))
		}
	}
	return &deletion{record: record, file: id}, ctx.Err()
}

// named tells whether the inode has a name beside its home: raw > 1.
func (fl *File) named() (bool, error) {
	st, err := fl.inode.Stat()
	return st.Nlink > 1, err
}

// spare puts the home of a file that has a name back, and drops the record.
func (f *FS) spare(fl *File, place, record string, done *Expired) error {
	if place == deadName {
		s, _, err := fl.newest()
		if err != nil {
			return err
		}
		want, _ := homeFor(s)
		if err := f.moveHome(stepDeadHome, fl.id, deadName, want); err != nil {
			return ignore(err, syscall.ENOENT)
		}
		if err := fl.placeHome(0); err != nil {
			return err
		}
	}
	done.Dropped++
	return f.dropDead(record)
}

func (f *FS) dropDead(name string) error {
	if name == "" {
		return nil
	}
	return f.in(deadName, func(d mdfs.Dir) error { return remove(stepDrop, d, name) })
}

// destroy deletes the contents that the slots of a dead file name, but for those
// that are versions: they have an expiry of their own. Then the inode goes, and
// last the record. When somebody holds a version of the file and has not decided,
// everything stays as it is, and the next sweep comes back.
func (d *deletion) destroy(ctx context.Context, f *FS) error {
	fl, err := f.openHome(d.file, []string{deadName})
	if errors.Is(err, syscall.ENOENT) {
		return f.dropDead(d.record) // another has finished it
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
		kept, taken, err := f.keptAsVersion(s.Content)
		if err != nil {
			return err
		}
		if taken {
			return fmt.Errorf("a version of file %s is in somebody's hands: %w", d.file, syscall.EAGAIN)
		}
		if kept {
			continue
		}
		if err := f.destroyContent(ctx, s); err != nil {
			return err
		}
	}
	return f.destroyFile(d)
}

func (f *FS) destroyFile(d *deletion) error {
	dir, name := homePath(deadName, d.file)
	if err := f.in(dir, func(dead mdfs.Dir) error { return remove(stepFile, dead, name) }); err != nil {
		return err
	}
	if err := f.pruneTables(d.file); err != nil {
		return err
	}
	return f.dropDead(d.record)
}

// Tokens of gc in the names of taken version records: not decided, doomed.
const (
	tokenGC     = "g"
	tokenDoomed = "x"
)

// expiredVersion is a version that no slot names, in the hands of token.
type expiredVersion struct {
	record objfmt.Record
	token  string
	entry  *TrashRef // the queue entry, when known
}

// takeExpired takes the version's record that a queue entry stands for. An entry
// that is the last link of its record has no version any more.
func (f *FS) takeExpired(ctx context.Context, ref TrashRef, r objfmt.Record, before time.Time, done *Expired) (doomed, error) {
	early := f.o.Omit.Has(omit.TakeVersion)
	var looked use
	var err error
	if early {
		if looked, err = f.usedBy(ctx, r.File, r.Content); err != nil {
			return nil, err
		}
	}
	token := tokenGC + f.suffix()
	v, err := f.takeVersion(stepTake, r.Content, token)
	if errors.Is(err, syscall.ENOENT) {
		return nil, f.dropStaleEntry(ctx, ref, r, done)
	}
	if err != nil {
		return nil, err
	}
	if !v.When.Before(before) { // the entry is of an older record of the same content
		done.Kept++
		return nil, errors.Join(f.putVersionBack(v, token), f.dropStaleEntry(ctx, ref, r, &Expired{}))
	}
	if !early {
		if looked, err = f.usedBy(ctx, v.File, v.Content); err != nil {
			return nil, err
		}
	}
	return f.judge(&expiredVersion{record: v, token: token, entry: &ref}, looked, done)
}

// judge: the newest slot names it: no version (any more), drop the record; only a
// lower slot: back, whoever drops that slot needs it; none: it can go. The lower
// slot is dropped here: a truncate that died has no record that leads to it, and
// it would keep the version for ever.
func (f *FS) judge(v *expiredVersion, looked use, done *Expired) (doomed, error) {
	switch looked {
	case usedNewest:
		done.Dropped++
		if err := f.dropTakenAs(v.record.Content, v.token); err != nil {
			return nil, err
		}
		return nil, f.dropEntry(v.entry)
	case usedLower:
		done.Kept++
		return nil, errors.Join(f.putVersionBack(v.record, v.token), f.dropLowerOf(v.record))
	}
	token := tokenDoomed + f.suffix()
	err := f.in(takenName, func(d mdfs.Dir) error {
		return rename(stepTake, d, takenVersion(v.record.Content, v.token), d, takenVersion(v.record.Content, token), 0)
	})
	if err != nil {
		return nil, ignore(err, syscall.ENOENT) // a sweep took it over
	}
	v.token = token
	return v, nil
}

// dropLowerOf drops the lower slots of a version's file.
func (f *FS) dropLowerOf(v objfmt.Record) error {
	fl, err := f.openHome(v.File, homePlaces)
	if err != nil {
		return ignore(err, syscall.ENOENT)
	}
	defer fl.Close()
	_, err = fl.dropLower(Who{Cred: mdfs.Cred{UID: v.By}, Path: v.Path}, v.Why, 0)
	return err
}

func (v *expiredVersion) destroy(ctx context.Context, f *FS) error {
	if err := f.destroyContent(ctx, *v.record.Slot); err != nil {
		return err
	}
	if err := f.dropTakenAs(v.record.Content, v.token); err != nil {
		return err
	}
	return f.dropEntry(v.entry)
}

func (f *FS) dropEntry(ref *TrashRef) error {
	if ref == nil {
		return nil
	}
	return f.dropTrash(stepDrop, *ref)
}

// dropStaleEntry removes a queue entry whose record is in no other place any more,
// and the copy of an own body that a writer made for it and did not live to use.
func (f *FS) dropStaleEntry(ctx context.Context, ref TrashRef, r objfmt.Record, done *Expired) error {
	var st mdfs.Stat
	err := f.in(ref.dir(), func(d mdfs.Dir) (err error) {
		st, err = d.Lstat(ref.Name)
		return err
	})
	if err != nil {
		return ignore(err, syscall.ENOENT)
	}
	if st.Nlink > 1 {
		done.Kept++
		return nil
	}
	done.Dropped++
	if err := f.dropOrphan(ctx, r); err != nil {
		return err
	}
	return f.dropTrash(stepDrop, ref)
}

// dropOrphan removes the body of a content that no slot and no version names.
// Versions are looked at before and after the slots, since they move into them.
func (f *FS) dropOrphan(ctx context.Context, r objfmt.Record) error {
	if r.Slot == nil || r.Slot.Source.Kind != objfmt.SourceBody {
		return nil
	}
	if kept, taken, err := f.keptAsVersion(r.Content); kept || taken || err != nil {
		return err
	}
	if use, err := f.usedBy(ctx, r.File, r.Content); use != usedNot || err != nil {
		return err
	}
	if kept, taken, err := f.keptAsVersion(r.Content); kept || taken || err != nil {
		return err
	}
	return f.removeBody(r.Content)
}

// destroyContent deletes objects, table and bodies of a content that nothing
// names: objects first, so that the metadata that leads to them goes last. Of a
// pack only a hint is left that some of its bytes are dead. The body goes wherever
// the record says the content is: it may be there beside, as a cache.
func (f *FS) destroyContent(ctx context.Context, s objfmt.Slot) error {
	switch src := s.Source; {
	case src.Kind == objfmt.SourceTable:
		if err := f.destroyTable(ctx, s); err != nil {
			return err
		}
	case src.Kind == objfmt.SourceObj && src.Packed:
		if err := f.hint(src.Object.Object, s.Content); err != nil {
			return err
		}
	case src.Kind == objfmt.SourceObj:
		shared, err := f.sharedChunks(s)
		if err != nil {
			return err
		}
		if err := f.deleteObject(ctx, src.Object, shared); err != nil {
			return err
		}
	}
	if s.Content.IsZero() || f.o.Omit.Has(omit.VersionBody) && s.Source.Kind != objfmt.SourceBody {
		return nil
	}
	return f.removeBody(s.Content)
}

func (f *FS) destroyTable(ctx context.Context, s objfmt.Slot) error {
	t, err := f.readTable(s.File, s.Content, s.Source)
	if err != nil && !errors.Is(err, syscall.ENOENT) { // ENOENT: destroyed up to here already
		return err
	}
	if err == nil {
		shared, err := f.sharedChunks(s)
		if err != nil {
			return err
		}
		for _, c := range t.Chunks {
			if err := f.deleteObject(ctx, c.Object, shared); err != nil {
				return err
			}
		}
	}
	if !s.Source.Tail.IsZero() {
		if err := f.removeBody(s.Source.Tail); err != nil {
			return err
		}
	}
	return f.removeTable(s.File, s.Content)
}

// chunkName is an object's name.
type chunkName struct {
	object objfmt.ObjectID
	chunk  uint32
}

// sharedChunks lists the objects that other tables of the file name: a table may
// go on with the chunks of an older one.
func (f *FS) sharedChunks(s objfmt.Slot) (map[chunkName]bool, error) {
	shared := map[chunkName]bool{}
	err := f.inTables(s.File, func(d mdfs.Dir) error { return addChunks(shared, d, s) })
	return shared, err
}

func addChunks(shared map[chunkName]bool, d mdfs.Dir, s objfmt.Slot) error {
	return eachEntry(d, "", func(name string) (bool, error) {
		if name == s.Content.String() {
			return false, nil
		}
		b, err := readFile(d, name, maxTable(objfmt.MaxChunks))
		if err != nil {
			return false, ignore(err, syscall.ENOENT)
		}
		t, err := objfmt.ParseChunkTable(b)
		if err != nil {
			return false, fmt.Errorf("chunk table %s of file %s: %w", name, s.File, err) // better a leak than a guess
		}
		for _, c := range t.Chunks {
			shared[chunkName{c.Object.Object, c.Object.Chunk}] = true
		}
		return false, nil
	})
}

func (f *FS) deleteObject(ctx context.Context, ref objfmt.ObjectRef, shared map[chunkName]bool) error {
	if shared[chunkName{ref.Object, ref.Chunk}] {
		return nil
	}
	return stepObject.Do(func() error { return f.o.Objects.Delete(ctx, ref) })
}
