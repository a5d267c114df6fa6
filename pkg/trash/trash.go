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
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
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

// errGone says that a record stands for nothing that could be restored: the file
// has another name, or the version is the newest content again.
var errGone = errors.New("not in trash any more")

// entry reads what a record stands for. An entry of a file that has a name
// still, or is gone for good, is errGone.
func (t *Trash) entry(ctx context.Context, ref metadata.TrashRef) (Entry, error) {
	r, err := t.Meta.ReadTrash(ctx, ref)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{ID: ID(ref), Record: r, Mode: r.Mode, UID: r.UID, GID: r.GID, MTime: r.MTime, Purged: ref.Day == metadata.PurgedDay}
	switch r.Kind {
	case objfmt.RecordFile:
		return e, t.ofFile(ctx, &e, true)
	case objfmt.RecordVersion:
		v, err := t.Meta.Version(ctx, r.Content)
		if errors.Is(err, syscall.ENOENT) {
			return e, errGone
		}
		if err != nil {
			return e, err
		}
		if err := t.ofFile(ctx, &e, false); err != nil {
			return e, err
		}
		e.Record.Slot = v.Slot // where the content is now
		e.Size, e.MTime = v.Slot.Size, v.Slot.MTime
	case objfmt.RecordDir:
		e.Mode |= syscall.S_IFDIR
	case objfmt.RecordSymlink:
		e.Mode |= syscall.S_IFLNK
	}
	return e, nil
}

// ofFile fills in what the inode of the entry's file says now.
func (t *Trash) ofFile(ctx context.Context, e *Entry, deleted bool) error {
	st, err := t.Meta.StatID(ctx, e.Record.File)
	if errors.Is(err, syscall.ENOENT) || err == nil && deleted && st.Nlink > 1 {
		return errGone
	}
	if err != nil {
		return err
	}
	metadata.StatOf(&st)
	e.Mode, e.UID, e.GID, e.Size, e.MTime = st.Mode, st.Uid, st.Gid, st.Size, time.Unix(st.Mtim.Unix())
	return nil
}

// Filter selects entries. Its zero value is every removal that was not purged.
type Filter struct {
	Under    string    // path in the namespace: itself and everything below; "": all
	Match    string    // pattern of doublestar for the path in the namespace; without a slash for its last name; "": all
	Owner    *uint32   // of what was removed
	By       *uint32   // who removed it
	Since    time.Time // removed at or after; zero: no limit
	Until    time.Time // removed before; zero: no limit
	MinSize  int64     // bytes
	MaxSize  int64     // bytes; 0: no limit
	Versions bool      // earlier contents too
	Purged   bool      // also what was purged and is not destroyed yet
}

// List yields the entries of who (of everybody, for root) that pass the filter, day by
// day from the oldest, otherwise in no order, in bounded memory. An error of one
// entry does not end it.
func (t *Trash) List(ctx context.Context, who mdfs.Cred, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) { yield(Entry{}, syscall.ENOSYS) }
}

// Get reads one entry of who's. ENOENT: there is none, or it is another's.
func (t *Trash) Get(ctx context.Context, who mdfs.Cred, id ID) (Entry, error) {
	return Entry{}, syscall.ENOSYS
}

// Versions lists the earlier contents of a file that are in trash, newest first.
func (t *Trash) Versions(ctx context.Context, who mdfs.Cred, file objfmt.ID) ([]Entry, error) {
	return nil, syscall.ENOSYS
}

// Purge lets entries go before their time: gc destroys them once Grace has passed
// since they were removed. It yields each entry that it has marked.
func (t *Trash) Purge(ctx context.Context, who mdfs.Cred, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) { yield(Entry{}, syscall.ENOSYS) }
}

// Restoration says what to restore, and where.
type Restoration struct {
	IDs    []ID // these; else what Filter selects: Under is what was there, a tree included
	Filter Filter
	To     string // directory of the namespace that it goes to, under its last name; "": where it was
	Force  bool   // what is there now goes to trash, instead of a numbered name for what comes
	DryRun bool
}

// Restored is what became of one entry.
type Restored struct {
	Entry
	Path string // in the namespace, where it is now
}

// Restore puts removals back, as who, and yields each.
func (t *Trash) Restore(ctx context.Context, who mdfs.Cred, r Restoration) iter.Seq2[Restored, error] {
	return func(yield func(Restored, error) bool) { yield(Restored{}, syscall.ENOSYS) }
}
