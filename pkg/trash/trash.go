// Package trash is what can be done with what was removed from a namespace or
// replaced in it: list it, restore it, read it, let it go before its time, and
// destroy it when its time has come (gc).
//
// An entry is a record of trash/ (docs/format.md): the removal of a name, or a
// version, which is an earlier content of a file. Everything here streams: a day
// may have millions of entries.
//
// # Whose it is
//
// An entry belongs to the owner of what was removed, whoever removed it. A caller
// other than root sees and handles only entries of its own; restoring runs with
// the caller's rights on the place where it goes.
package trash

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// Trash is the trash of one namespace.
type Trash struct {
	Namespace string
	Meta      *metadata.FS
	Policy    Policy
}

// Policy says when entries are destroyed.
type Policy struct {
	Keep     time.Duration // entries live at least this long, unless purged or pressed out
	Grace    time.Duration // nothing younger is ever destroyed
	MaxBytes int64         // the oldest go before Keep when there is more; 0: no limit
}

// Expires is the time from which on gc destroys an entry of its own accord. It may be
// later: a file counts from its last change; and earlier, when MaxBytes asks for it.
func (p Policy) Expires(e *Entry) time.Time {
	if e.Purged {
		return e.Record.When.Add(p.Grace)
	}
	return e.Record.When.Add(max(p.Keep, p.Grace))
}

// ID names an entry: <day>/<name of its record>.
type ID metadata.TrashRef

func (id ID) String() string { return id.Day + "/" + id.Name }

// ParseID reads what ID.String writes.
func ParseID(s string) (ID, error) {
	day, name, ok := strings.Cut(s, "/")
	id := ID{Day: day, Name: name}
	if !ok || metadata.TrashRef(id).Valid() != nil {
		return ID{}, fmt.Errorf("trash id %.100q: %w", s, syscall.EINVAL)
	}
	return id, nil
}

// Entry is one thing in trash.
type Entry struct {
	ID     ID
	Record objfmt.Record
	Size   int64     // bytes of content; of a version that of the old content
	MTime  time.Time // of the content
	Mode   uint32    // with type; of a version that of the file now
	UID    uint32    // owner
	GID    uint32
	Purged bool // its owner has let it go: it is destroyed once Grace has passed
}

// Version reports whether the entry is an earlier content of a file.
func (e *Entry) Version() bool { return e.Record.Kind == objfmt.RecordVersion }

// Filter selects entries. Its zero value is every removal that was not purged.
type Filter struct {
	Under    string    // path in the namespace: itself and everything below; "": all
	Match    string    // pattern of doublestar for the path in the namespace; without a slash for its last name; "": all. See MaxPattern
	Owner    *uint32   // of what was removed
	By       *uint32   // who removed it
	Since    time.Time // removed at or after; zero: no limit
	Until    time.Time // removed before; zero: no limit
	MinSize  int64     // bytes
	MaxSize  int64     // bytes; 0: no limit
	Versions bool      // earlier contents too
	Purged   bool      // also what was purged and is not destroyed yet
}

// Restoration says what to restore, and where.
type Restoration struct {
	IDs    []ID // these; else what Filter selects: Under is what was there, a tree included
	Filter Filter
	To     string // directory of the namespace that it goes to, under its last name; ".": its root; "": where it was
	Force  bool   // what is there now goes to trash, instead of a numbered name for what comes
	DryRun bool
	// Refuse, if not nil, tells why nothing may be made at a path of the namespace.
	Refuse func(path string) error
}
