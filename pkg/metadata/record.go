package metadata

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// Names in dead/: what was taken, by what it is.
const (
	deadHome  = "h." // + file id: the home of a deleted file
	deadBegun = "x." // + file id: one whose contents are being destroyed: it never goes back
	deadWork  = "w." // + session: a work record whose session was fenced or gave up
	deadPack  = "p." // + object: the member table of a pack that was fenced or gave up
	deadTrash = "d." // + name in trash/: a record of a deletion
	deadMove  = "m." // + file id + random: a home that is being moved
	deadTemp  = "t." // + random: a file on its way to its place
)

// dayFormat names the directories of trash/ by the UTC day their records were made.
const dayFormat = "2006-01-02"

// TrashRef names a record in trash/: trash/<Day>/<hh>/<Name>, hh being Name's
// first two digits. Name is the file's id (or the content's, for a version; else
// random), a dash and 16 random digits, so that each attempt has a record of its
// own; and where in the file it is, for those that share one.
type TrashRef struct {
	Day  string
	Name string
}

func (r TrashRef) dir() string { return trashName + "/" + r.Day + "/" + r.Name[:2] }

// PurgedDay is where records go that were let go before their time ([FS.Purge]),
// beside the days.
const PurgedDay = "purged"

func validDay(day string) bool {
	_, err := time.Parse(dayFormat, day)
	return err == nil || day == PurgedDay
}

// Valid keeps what is not a record's name away from paths.
func (r TrashRef) Valid() error {
	if !validDay(r.Day) || len(r.Name) < 3 || strings.ContainsAny(r.Name, "/\x00") {
		return fmt.Errorf("trash record %q of %q: %w", r.Name, r.Day, syscall.EINVAL)
	}
	return nil
}

// trashRef makes the name of a record: a file's deletions and versions are found
// by its id in one directory per day.
func (f *FS) trashRef(r objfmt.Record) TrashRef {
	id := r.File
	switch {
	case !r.Object.IsZero():
		id = objfmt.ID(r.Object)
	case id.IsZero():
		id = f.newID()
	}
	return TrashRef{Day: r.When.UTC().Format(dayFormat), Name: id.String() + "-" + f.suffix()}
}

// suffix returns 16 random hex digits.
func (f *FS) suffix() string {
	var b [8]byte
	f.random(b[:])
	return hex.EncodeToString(b[:])
}

// putTrash records a removal before it happens. Names are removed without sync:
// this is the hot path of rm -rf, and what a power failure can do without fsync is harmless
// or found. The record's name is made before the name in tree/ goes, and where
// one journal orders both, the removal is never durable without it; the name
// holds the file id, so even a record whose bytes were lost leads gc to the home
// (invariant 4). A record without its removal is dropped by gc, which looks at
// the link count. On filesystems that order the two directories differently, a
// removal may survive without its record: fsck finds the home (raw = 1).
func (f *FS) putTrash(r objfmt.Record, sync bool) (TrashRef, error) {
	ref := f.trashRef(r)
	b, err := r.Encode()
	if err != nil {
		return ref, err
	}
	if !sync && r.Kind == objfmt.RecordFile { // the others are marked while they are restored
		return f.putShared(ref, b)
	}
	return ref, f.inMade(ref.dir(), func(d mdfs.Dir) error {
		if err := writeFile(stepRecord, d, ref.Name, b, sync); err != nil || !sync {
			return err
		}
		return syncDir(stepRecord, d)
	})
}

// dropTrash removes exactly this record.
func (f *FS) dropTrash(p *fault.Step, ref TrashRef) error {
	err := f.in(ref.dir(), func(d mdfs.Dir) error { return remove(p, d, ref.Name) })
	return ignore(err, syscall.ENOENT)
}

func (f *FS) hasTrash(ref TrashRef) (found bool, err error) {
	err = f.in(ref.dir(), func(d mdfs.Dir) (err error) {
		found, err = exists(d, ref.Name)
		return err
	})
	return found, ignore(err, syscall.ENOENT)
}

// readRecord reads and checks a record.
func readRecord(d mdfs.Dir, name string) (objfmt.Record, error) {
	b, err := readRecordText(d, name)
	if err != nil {
		return objfmt.Record{}, err
	}
	return parseRecord(name, b)
}

func parseRecord(name string, b []byte) (objfmt.Record, error) {
	r, err := objfmt.ParseRecord(b)
	if err != nil {
		return objfmt.Record{}, fmt.Errorf("%s: %w", name, err)
	}
	_, shared, _ := objfmt.ParseRecordPart(name)
	if shared && !strings.Contains(name, r.File.String()+"-") { // a power failure may leave old blocks in the file
		return objfmt.Record{}, fmt.Errorf("%s: the record of file %s: %w", name, r.File, objfmt.ErrFormat)
	}
	return r, nil
}

// readRecordText reads what is a record, whole, or part of a file.
func readRecordText(d mdfs.Dir, name string) ([]byte, error) {
	part, shared, err := objfmt.ParseRecordPart(name)
	if err != nil {
		return nil, err
	}
	if shared {
		return readPart(d, name, part)
	}
	return readFile(d, name, objfmt.MaxRecord)
}

// readPart reads a record that shares its file; less than that, if a power failure
// took the end of the file.
func readPart(d mdfs.Dir, name string, p objfmt.RecordPart) ([]byte, error) {
	fl, err := d.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer fl.Close()
	b := make([]byte, p.Len)
	n, err := fl.ReadAt(b, p.Off)
	return b[:n], ignore(err, io.EOF)
}

// eachEntry calls fn with every name in d that begins with prefix, until fn says
// stop or fails. Names that appear or go while it runs may be missed or met.
func eachEntry(d mdfs.Dir, prefix string, fn func(name string) (stop bool, err error)) error {
	e, err := d.Entries()
	if err != nil {
		return err
	}
	defer e.Close()
	for {
		ent, err := e.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !strings.HasPrefix(ent.Name, prefix) {
			continue
		}
		if stop, err := fn(ent.Name); stop || err != nil {
			return err
		}
	}
}

// names lists the names in the private directory p that begin with prefix; none
// when it is not there.
func (f *FS) names(p, prefix string) (list []string, err error) {
	err = f.in(p, func(d mdfs.Dir) error {
		return eachEntry(d, prefix, func(name string) (bool, error) {
			list = append(list, name)
			return false, nil
		})
	})
	return list, ignore(err, syscall.ENOENT)
}

// anyName tells whether there is a name in p that begins with prefix.
func (f *FS) anyName(p, prefix string) (found bool, err error) {
	err = f.in(p, func(d mdfs.Dir) error {
		return eachEntry(d, prefix, func(string) (bool, error) { found = true; return true, nil })
	})
	return found, ignore(err, syscall.ENOENT)
}

// putTemp makes a file in dead/, durable, to be moved to its place: a sweep finds
// it when it stays. The caller removes or renames it.
func (f *FS) putTemp(p *fault.Step, sync bool, fill func(fl mdfs.File) error) (name string, err error) {
	name = deadTemp + f.suffix()
	err = f.in(deadName, func(d mdfs.Dir) error {
		fl, err := create(p, d, name, 0o600)
		if err != nil {
			return err
		}
		defer fl.Close()
		if err := fill(fl); err != nil || !sync {
			return err
		}
		return syncFile(p, fl)
	})
	return name, err
}

// moveTemp renames a file of putTemp over name in the directory to, and makes the
// name durable [D].
func (f *FS) moveTemp(p *fault.Step, tmp, to, name string, sync bool) error {
	return f.in(deadName, func(dead mdfs.Dir) error {
		return f.inMade(to, func(d mdfs.Dir) error {
			if err := rename(p, dead, tmp, d, name, 0); err != nil || !sync {
				return err
			}
			return syncDir(p, d)
		})
	})
}

// clip keeps the end of a path that is too long for a record: the trees that
// have such paths are made on purpose, and must be removable.
func clip(path string) string { return path[max(0, len(path)-objfmt.MaxPath):] }

// maxKept bounds the xattrs kept of one directory.
const maxKept = 256 << 10

// userXattrs reads the xattrs of a directory that make it what it was: those of
// users, and ACLs. What is more than maxKept is left out.
func userXattrs(d mdfs.Dir, name string) (map[string][]byte, error) {
	attrs, err := d.Listxattr(name)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		return nil, nil
	}
	var m map[string][]byte
	room := maxKept
	for _, a := range attrs {
		if Reserved(a) || !strings.HasPrefix(a, "user.") && !strings.HasPrefix(a, aclPrefix) {
			continue
		}
		v, err := d.Getxattr(name, a)
		if errors.Is(err, syscall.ENODATA) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if room -= len(a) + len(v); room < 0 {
			break
		}
		if m == nil {
			m = map[string][]byte{}
		}
		m[a] = v
	}
	return m, err
}

const modeBits = unix.S_IFMT | 0o7777
