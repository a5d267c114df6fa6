package metadata

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
)

// Every step that changes the metadata filesystem or the object stores goes
// through one of the calls below and names its fault point, so none can be
// added that a crash test does not reach: a test of this package refuses a
// changing call of mdfs in any other file.

// The steps, in the order in which the operations take them.
var (
	stepInit       = fault.New("metadata.init")
	stepFan        = fault.New("metadata.fan")
	stepNode       = fault.New("metadata.node")
	stepCreate     = fault.New("metadata.create.name")
	stepFirst      = fault.New("metadata.create.slot")
	stepHome       = fault.New("metadata.create.home")
	stepHealSize   = fault.New("metadata.heal.size")
	stepMend       = fault.New("metadata.heal.torn")
	stepWork       = fault.New("metadata.begin.record")
	stepBody       = fault.New("metadata.body")
	stepBodySync   = fault.New("metadata.body.sync")
	stepTable      = fault.New("metadata.table")
	stepStage      = fault.New("metadata.stage")
	stepVersion    = fault.New("metadata.version")
	stepVersionOwn = fault.New("metadata.version.body")
	stepPublish    = fault.New("metadata.publish.slot")
	stepJunk       = fault.New("metadata.publish.junk")
	stepSync       = fault.New("metadata.publish.sync")
	stepSize       = fault.New("metadata.publish.size")
	stepTimes      = fault.New("metadata.publish.times")
	stepPlace      = fault.New("metadata.end.home")
	stepLower      = fault.New("metadata.end.lower")
	stepLeftover   = fault.New("metadata.end.leftover")
	stepWorkGone   = fault.New("metadata.end.record")
	stepRecord     = fault.New("metadata.record")
	stepLedger     = fault.New("metadata.record.ledger")
	stepRecordBack = fault.New("metadata.record.back")
	stepUnlink     = fault.New("metadata.unlink")
	stepRename     = fault.New("metadata.rename")
	stepLink       = fault.New("metadata.link")
	stepRmdir      = fault.New("metadata.rmdir")
	stepDropHome   = fault.New("metadata.unlink.home")
	stepTouch      = fault.New("metadata.touch")
	stepNote       = fault.New("metadata.release.note")
	stepPunch      = fault.New("metadata.release.punch")
	stepNoteGone   = fault.New("metadata.release.done")
	stepDropBody   = fault.New("metadata.release.body")
	stepTake       = fault.New("metadata.take")
	stepPutBack    = fault.New("metadata.putback")
	stepPurge      = fault.New("metadata.purge")
	stepDrop       = fault.New("metadata.gc.record")
	stepDeadHome   = fault.New("metadata.gc.home")
	stepObject     = fault.New("metadata.gc.object")
	stepFile       = fault.New("metadata.gc.file")
	stepRestore    = fault.New("metadata.restore.link")
	stepScratch    = fault.New("metadata.restore.scratch")
	stepMark       = fault.New("metadata.restore.mark")
	stepAttrs      = fault.New("metadata.restore.attrs")
	stepPack       = fault.New("metadata.pack.table")
	stepPackSlot   = fault.New("metadata.pack.slot")
	stepPacked     = fault.New("metadata.pack.done")
	stepClaim      = fault.New("metadata.pack.claim")
	stepResident   = fault.New("metadata.pack.resident")
	stepReleased   = fault.New("metadata.pack.released")
	stepPath       = fault.New("metadata.path")
	stepDamage     = fault.New("metadata.degraded")
	stepHint       = fault.New("metadata.pack.hint")
	stepFence      = fault.New("metadata.fence.slot")
	stepFenceBody  = fault.New("metadata.fence.body")
	stepSyncAll    = fault.New("metadata.syncfs")
	stepLog        = fault.New("metadata.log")
)

// maxRaces bounds how often an operation starts again because another writer
// was faster. Each round means that somebody else made progress.
const maxRaces = 64

func setxattr(p *fault.Step, x mdfs.FileXattrs, attr string, v []byte, flags int) error {
	return p.Do(func() error { return x.Setxattr(attr, v, flags) })
}

// removexattr removes attr; one that is not there is no error.
func removexattr(p *fault.Step, x mdfs.FileXattrs, attr string) error {
	return p.Do(func() error { return ignore(x.Removexattr(attr), syscall.ENODATA) })
}

func link(p *fault.Step, from mdfs.Dir, name string, to mdfs.Dir, newname string) error {
	return p.Do(func() error { return from.Link(name, to, newname) })
}

func rename(p *fault.Step, from mdfs.Dir, name string, to mdfs.Dir, newname string, flags uint) error {
	return p.Do(func() error { return from.Rename(name, to, newname, flags) })
}

// remove removes name; one that is not there is no error.
func remove(p *fault.Step, d mdfs.Dir, name string) error {
	return p.Do(func() error { return ignore(d.Remove(name), syscall.ENOENT) })
}

// removeExact removes name, and says so when it is not there.
func removeExact(p *fault.Step, d mdfs.Dir, name string) error {
	return p.Do(func() error { return d.Remove(name) })
}

// removeDir removes an empty directory.
func removeDir(p *fault.Step, d mdfs.Dir, name string) error {
	return p.Do(func() error { return d.RemoveDir(name) })
}

func mkdir(p *fault.Step, d mdfs.Dir, name string, perm uint32) error {
	return p.Do(func() error { return d.Mkdir(name, perm) })
}

// create makes and opens a file that is not there.
func create(p *fault.Step, d mdfs.Dir, name string, perm uint32) (fl mdfs.File, err error) {
	err = p.Do(func() (err error) {
		fl, err = d.OpenFile(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, perm)
		return err
	})
	if err != nil && fl != nil {
		fl.Close()
		return nil, err
	}
	return fl, err
}

// writeFile makes the file name, which is not there, with the bytes b; with sync
// the bytes are durable ([F]), the name is not.
func writeFile(p *fault.Step, d mdfs.Dir, name string, b []byte, sync bool) error {
	fl, err := create(p, d, name, 0o600)
	if err != nil {
		return err
	}
	defer fl.Close()
	if err := writeAt(p, fl, b, 0); err != nil {
		return err
	}
	if sync {
		return syncFile(p, fl)
	}
	return nil
}

func writeAt(p *fault.Step, fl mdfs.File, b []byte, off int64) error {
	return p.Do(func() error {
		n, err := fl.WriteAt(b, off)
		if err == nil && n < len(b) {
			err = io.ErrShortWrite
		}
		return err
	})
}

// ErrUnsynced is an fsync of a file that has failed. Another may succeed, though
// bytes written before are lost.
var ErrUnsynced = errors.New("not durable")

func syncFile(p *fault.Step, fl mdfs.File) error {
	if err := p.Do(fl.Sync); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsynced, err)
	}
	return nil
}

func syncDir(p *fault.Step, d mdfs.Dir) error { return p.Do(d.Sync) }

func syncAll(p *fault.Step, md mdfs.FS) error { return p.Do(md.Sync) }

func truncate(p *fault.Step, fl mdfs.File, size int64) error {
	return p.Do(func() error { return fl.Truncate(size) })
}

func chtimes(p *fault.Step, fl mdfs.File, atime, mtime mdfs.TimeSet) error {
	return p.Do(func() error { return fl.Chtimes(atime, mtime) })
}

// punch frees the blocks of the first n bytes, which then read as zeros.
func punch(p *fault.Step, fl mdfs.File, n int64) error {
	return p.Do(func() error {
		return fl.Allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, n)
	})
}

// readFile reads a whole file of at most limit bytes.
func readFile(d mdfs.Dir, name string, limit int64) ([]byte, error) {
	fl, err := d.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer fl.Close()
	st, err := fl.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size > limit {
		return nil, fmt.Errorf("%s: %d bytes, want at most %d: %w", name, st.Size, limit, syscall.EFBIG)
	}
	b := make([]byte, st.Size)
	n, err := fl.ReadAt(b, 0)
	return b[:n], ignore(err, io.EOF)
}

// exists tells whether name is in d.
func exists(d mdfs.Dir, name string) (bool, error) {
	_, err := d.Lstat(name)
	if errors.Is(err, syscall.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// ignore returns err unless it is one of those.
func ignore(err error, those ...error) error {
	for _, e := range those {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}
