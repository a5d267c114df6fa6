package metadata

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// Bounds of a ledger. Inodes can have 65000 links at least (ext4), and no record
// is shorter than 64 bytes. While one grows, its age is what the time of a record
// whose bytes a power failure took can be late by. Its ctime means nothing: each link,
// rename and removal of any record sets it.
const (
	ledgerBytes = 2 << 20
	ledgerAge   = time.Hour
	maxIdle     = 16 // ledgers kept for the next removals
)

// ledger is a file to which one removal after another adds its record. The name
// in trash/ is a hard link of it that says where the record is. A link costs half
// of what a file does, and rm -rf leaves a few hundred bytes for each file, instead
// of an inode and a block. The room comes back with the last of the names.
type ledger struct {
	name string // in dead/, like any temporary file: a sweep removes what is not used
	file mdfs.File
	end  int64
	made time.Time
}

// ledgers are those of this process that no removal is using: each has one to
// itself, so that removals do not wait for each other.
type ledgers struct {
	mu   sync.Mutex // guards idle; never held across a call of mdfs
	idle []*ledger
}

func (ls *ledgers) take() *ledger {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	n := len(ls.idle) - 1
	if n < 0 {
		return nil
	}
	l := ls.idle[n]
	ls.idle = ls.idle[:n]
	return l
}

// keep reports whether there was room for l.
func (ls *ledgers) keep(l *ledger) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if len(ls.idle) >= maxIdle {
		return false
	}
	ls.idle = append(ls.idle, l)
	return true
}

// putShared puts a record into a ledger, and gives it its name in trash/. When the
// ledger has been swept, or has all the links it can have, another one is begun.
func (f *FS) putShared(ref TrashRef, b []byte) (TrashRef, error) {
	if l := f.ledgers.take(); l != nil {
		at, err := f.addRecord(l, ref, b)
		if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.EMLINK) {
			return at, err
		}
	}
	l, err := f.newLedger()
	if err != nil {
		return ref, err
	}
	return f.addRecord(l, ref, b)
}

func (f *FS) newLedger() (*ledger, error) {
	l := &ledger{name: deadTemp + f.suffix(), made: f.now()}
	return l, f.in(deadName, func(d mdfs.Dir) (err error) {
		l.file, err = create(stepLedger, d, l.name, 0o600)
		return err
	})
}

// addRecord writes first, so that whoever sees the name can read the record. The
// ledger is kept for more, if it can take more.
func (f *FS) addRecord(l *ledger, ref TrashRef, b []byte) (TrashRef, error) {
	err := writeAt(stepRecord, l.file, b, l.end)
	if err == nil {
		ref.Name = objfmt.RecordPart{Off: l.end, Len: len(b)}.Name(ref.Name)
		l.end += int64(len(b))
		err = f.in(deadName, func(dead mdfs.Dir) error {
			return f.inUnsynced(ref.dir(), func(d mdfs.Dir) error { return link(stepRecord, dead, l.name, d, ref.Name) })
		})
	}
	full := l.end >= ledgerBytes || f.now().Sub(l.made) >= ledgerAge
	if err == nil && !full && f.ledgers.keep(l) {
		return ref, nil
	}
	if e := f.endLedger(l); err != nil { // else a sweep does it
		err = errors.Join(err, e)
	}
	return ref, err
}

// endLedger takes away the name by which it grows.
func (f *FS) endLedger(l *ledger) error {
	err := f.in(deadName, func(d mdfs.Dir) error { return remove(stepLedger, d, l.name) })
	return errors.Join(err, l.file.Close())
}

func (f *FS) endLedgers() (err error) {
	for l := f.ledgers.take(); l != nil; l = f.ledgers.take() {
		err = errors.Join(err, f.endLedger(l))
	}
	return err
}
