package objfmt

import "time"

// RecordKind says what a record is about.
type RecordKind string

// The kinds of record.
const (
	RecordFile    RecordKind = "file"    // trash/: a name of a regular file was removed
	RecordDir     RecordKind = "dir"     // trash/: a directory was removed
	RecordSymlink RecordKind = "symlink" // trash/: a symlink was removed
	RecordSpecial RecordKind = "special" // trash/: a fifo, socket or device was removed
	RecordPack    RecordKind = "pack"    // trash/: a pack without live members
	RecordVersion RecordKind = "version" // versions/ and trash/: a replaced content
	RecordWork    RecordKind = "work"    // work/: an unfinished write
)

// Record is one small immutable file of the metadata filesystem's private
// directories. Which fields are set depends on Kind; docs/format.md lists them.
type Record struct {
	Kind    RecordKind
	File    ID        // file, version, work: the file
	Content ID        // version: the replaced content; work: the content being written
	Session ID        // work
	Node    string    // work: who writes; else who recorded
	When    time.Time // when it was made
	Path    string    // as the user saw it, any bytes; relative to the namespace's root
	Why     string    // unlink, rename, overwrite, truncate, rmdir, repack, ...
	By      uint32    // uid of the caller
	Slot    *Slot     // version: the replaced slot
	Object  ObjectID  // work: prefix of every object the session makes; pack: the pack

	// What a removed directory, symlink or special was, to make it again.
	Mode   uint32
	UID    uint32
	GID    uint32
	Rdev   uint64
	MTime  time.Time
	Target string            // symlink
	Xattrs map[string][]byte // directory: user xattrs and ACLs
}
