package metadata

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// deletion is a file without names, its home and its record in dead/.
type deletion struct {
	name   string // of the record, in dead/; "": it is lost
	record objfmt.Record
	file   objfmt.ID
}

// lookFirst is how it must not be done: looking before the record is taken.
func (f *FS) lookFirst(r objfmt.Record) (dead bool, err error) {
	if !f.o.Omit.Has(omit.TakeDeletion) || r.Kind != objfmt.RecordFile {
		return false, nil
	}
	named, err := f.hasNames(r.File)
	return !named, err
}

// doom decides about a file whose record is in dead/; also for sweeps. The record
// may be older than the removal that made the file dead: of another of its names,
// or of an unlink that was refused or killed. Whatever removes a name sets the
// inode's ctime, so a file whose ctime is not older than before keeps the record
// (anything else that sets it only delays). Link count and ctime are from one look,
// before the home is taken, to leave files with names alone; the count is looked at
// again after, since a restore may have linked the home in between.
//
// The file is locked from the first look to the last, so whoever holds it is seen,
// and whoever comes later sees that it has no name.
func (f *FS) doom(record string, r objfmt.Record, before time.Time, looked bool, done *Expired) (doomed, error) {
	fl, place, err := f.findHome(r.File)
	if errors.Is(err, syscall.ENOENT) {
		done.Dropped++
		return nil, f.dropDead(record)
	}
	if err != nil {
		return nil, err
	}
	defer fl.Close()
	d := &deletion{name: record, record: r, file: r.File}
	if place == begunPlace {
		return d, nil // by one who was killed, or is at it
	}
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
	if free, err := d.lock(fl, done); err != nil || !free {
		return nil, err
	}
	if place != deadName {
		if err := f.moveHome(stepDeadHome, fl.id, place, deadName); err != nil {
			return nil, ignore(err, syscall.ENOENT) // moved by another: the record waits in dead/
		}
	}
	if !f.o.Omit.Has(omit.RawAgain) && !looked {
		if named, err := fl.named(); err != nil || named {
			return nil, errors.Join(err, f.spare(fl, deadName, record, done))
		}
	}
	return d, nil
}

// lock locks the file until fl is closed. A file that somebody holds is given back,
// whole; of one that another gc is at, the record is.
func (d *deletion) lock(fl *File, done *Expired) (free bool, err error) {
	h, err := fl.seize()
	if err != nil || h == holderNone {
		return err == nil, err
	}
	done.Kept++
	if h == holderReader {
		if err := fl.homeBack(deadName); err != nil {
			return false, err
		}
	}
	return false, d.recordBack(fl.f)
}

func (d *deletion) recordBack(f *FS) error {
	if d.name == "" {
		return nil
	}
	return f.backToTrash(d.name, d.record)
}

// holder is who has the lock of a file.
type holder int

const (
	holderNone   holder = iota // the caller has it, or the filesystem has none
	holderReader               // open handles of a mount: the caller is one of them now
	holderGC
)

// errNoLocks are what filesystems without flock say.
var errNoLocks = []error{syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.ENOLCK}

// seize locks the file against those that would hold it, until fl is closed. When
// others hold it so does the caller then: no gc goes on with the file while it is
// given back. Readers that come a moment too late are taken for holders; it only delays.
func (fl *File) seize() (holder, error) {
	if fl.f.o.Omit.Has(omit.Hold) {
		return holderNone, nil
	}
	err := fl.inode.Flock(unix.LOCK_EX)
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return holderNone, fileError("lock", fl.id, ignore(err, errNoLocks...))
	}
	err = fl.inode.Flock(unix.LOCK_SH)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return holderGC, nil
	}
	return holderReader, fileError("lock", fl.id, err)
}

// homeBack puts a home back that is in a place of dead/; where it is elsewhere, it stays.
func (fl *File) homeBack(place string) error {
	s, _, err := fl.newest()
	if err != nil {
		return err
	}
	want, _ := homeFor(s)
	if err := fl.f.moveHome(stepDeadHome, fl.id, place, want); err != nil {
		return ignore(err, syscall.ENOENT)
	}
	return fl.placeHome(0)
}

// named tells whether the inode has a name beside its home: raw > 1.
func (fl *File) named() (bool, error) {
	st, err := fl.inode.Stat()
	return st.Nlink > 1, err
}

// spare puts the home of a file that has a name back, and drops the record.
func (f *FS) spare(fl *File, place, record string, done *Expired) error {
	if place == deadName || place == begunPlace {
		if err := fl.homeBack(place); err != nil {
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

func (d *deletion) of() objfmt.ID { return d.file }

func (d *deletion) doom(ctx context.Context, f *FS) (Doom, error) {
	doom := Doom{Record: d.record}
	fl, err := f.openHome(d.file, takenPlaces)
	if err != nil {
		return doom, err
	}
	defer fl.Close()
	st, err := fl.inode.Stat()
	if err != nil {
		return doom, err
	}
	doom.UID, doom.GID = st.Uid, st.Gid
	chain, err := fl.orphaned()
	for _, s := range chain {
		doom.Slots = append(doom.Slots, s)
		doom.Size += s.Size
	}
	return doom, err
}

// orphaned lists the slots whose contents go with the file: those that are no
// versions, which have an expiry of their own.
func (fl *File) orphaned() (slots []objfmt.Slot, err error) {
	chain, _, err := fl.history()
	if err != nil {
		return nil, err
	}
	for _, s := range chain {
		kept, taken, err := fl.f.keptAsVersion(s.Content)
		if err != nil {
			return nil, err
		}
		if taken {
			return nil, fmt.Errorf("a version of file %s is in somebody's hands: %w", fl.id, syscall.EAGAIN)
		}
		if !kept {
			slots = append(slots, s)
		}
	}
	return slots, nil
}

// takenPlaces are where a gc finds what it has taken, or another has begun with.
var takenPlaces = []string{deadName, begunPlace}

// destroy deletes the contents that go with the file, then the inode, and last the
// record. Before all that the home gets another name, by which everybody knows that
// the file cannot be given back any more. When somebody holds a version of the file
// and has not decided, everything stays as it is, and the next sweep comes back.
func (d *deletion) destroy(ctx context.Context, b *batch) error {
	fl, err := b.f.openHome(d.file, takenPlaces)
	if errors.Is(err, syscall.ENOENT) {
		return d.lost(b)
	}
	if err != nil {
		return err
	}
	defer fl.Close()
	if free, err := d.lock(fl, b.done); err != nil || !free {
		b.spare(d)
		return err
	}
	chain, err := fl.orphaned()
	if err != nil {
		return err
	}
	if mine, err := d.begin(b, fl); err != nil || !mine {
		return err
	}
	for _, s := range chain {
		if err := b.destroyContent(ctx, s); err != nil {
			return err
		}
	}
	if err := b.f.destroyFile(d); err != nil {
		return err
	}
	b.done.Destroyed++
	return nil
}

// lost: the home is in dead/ no more. Another gc has finished with it, or given it
// back; then the record goes back, too.
func (d *deletion) lost(b *batch) error {
	back, err := b.f.hasHome(d.file)
	switch {
	case err != nil:
		return err
	case back:
		b.done.Kept++
		b.spare(d)
		return d.recordBack(b.f)
	}
	b.done.Dropped++
	return b.f.dropDead(d.name)
}

// begin gives the home the name that says so, if it has not got it. Another gc may
// have moved it before the file was locked. Then it looks for names once more: since
// this one was taken, another may have given it back, and somebody restored it, while
// a third one took it. From here on nobody can.
func (d *deletion) begin(b *batch, fl *File) (mine bool, err error) {
	if b.f.o.Omit.Has(omit.BegunName) {
		return true, nil
	}
	err = b.f.moveHome(stepDeadHome, d.file, deadName, begunPlace)
	if errors.Is(err, syscall.ENOENT) {
		if mine, err = b.f.homeIn(begunPlace, d.file); err == nil && !mine {
			return false, d.lost(b)
		}
	}
	if err != nil {
		return false, err
	}
	if b.f.o.Omit.Has(omit.RawAgain) || b.f.o.Omit.Has(omit.TakeDeletion) {
		return true, nil
	}
	if named, err := fl.named(); err != nil || !named {
		return err == nil, err
	}
	b.spare(d)
	return false, b.f.spare(fl, begunPlace, d.name, b.done)
}

func (f *FS) destroyFile(d *deletion) error {
	place := begunPlace
	if f.o.Omit.Has(omit.BegunName) {
		place = deadName
	}
	dir, name := homePath(place, d.file)
	if err := f.in(dir, func(dead mdfs.Dir) error { return remove(stepFile, dead, name) }); err != nil {
		return err
	}
	if err := f.pruneTables(d.file); err != nil {
		return err
	}
	return f.dropDead(d.name)
}

// giveBack gives file and record back: the file first, which a sweep would
// otherwise go on to destroy. With one that somebody has begun with the record stays.
func (d *deletion) giveBack(f *FS) error {
	fl, err := f.openHome(d.file, takenPlaces)
	if err == nil {
		defer fl.Close()
		err = d.homeBack(fl)
	}
	if errors.Is(err, errBegun) {
		return nil
	}
	if err := ignore(err, syscall.ENOENT, errNoHome); err != nil {
		return err
	}
	return d.recordBack(f)
}

// errBegun means that a file is being destroyed, and that is to be finished.
var errBegun = errors.New("being destroyed")

// homeBack puts the home back, unless another gc is at the file.
func (d *deletion) homeBack(fl *File) error {
	h, err := fl.seize()
	if err != nil || h == holderGC {
		return err
	}
	if begun, err := fl.f.homeIn(begunPlace, d.file); err != nil || begun {
		return errors.Join(err, errBegun)
	}
	return fl.homeBack(deadName)
}
