// Package metadata is a namespace's metadata directory: the users' tree, the
// private directories beside it, and the commit protocol that ties files to
// their objects (docs/design.md, "commit protocol"; docs/format.md for bytes).
//
// Everything it does to a metadata filesystem goes through mdfs.FS, and
// everything it does to objects through Objects, so the model checker can put a
// crash, a pause or another actor between any two steps of the real code.
package metadata

import (
	"context"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// Objects is what the protocol needs of the object stores.
type Objects interface {
	// Delete removes an object (every shard of it); a missing one is no error.
	Delete(ctx context.Context, ref objfmt.ObjectRef) error
	// DeletePrefix removes every object that a session or pack made under id,
	// in whatever pod of whatever repo of the namespace (recovery only).
	DeletePrefix(ctx context.Context, id objfmt.ObjectID) error
}

// Options of Open.
type Options struct {
	Namespace string        // checked against what Init recorded
	Node      string        // this daemon or tool: names its work records and heartbeat
	Grace     time.Duration // floor under every keep time
	Objects   Objects
}

// FS is an open metadata directory. Safe for concurrent use.
type FS struct{ md mdfs.FS }

// Init makes the private directories and marfs.json; it is idempotent and
// refuses a directory that belongs to another namespace.
func Init(md mdfs.FS, namespace string) error { panic("todo") }

// Open checks marfs.json, runs the start-up self-test and takes a node record.
func Open(ctx context.Context, md mdfs.FS, o Options) (*FS, error) { panic("todo") }

// Close ends the heartbeat and drops the node record. Sessions must have ended.
func (f *FS) Close() error { panic("todo") }

// Tree is the root of the users' tree.
func (f *FS) Tree() mdfs.Dir { panic("todo") }

// MD is the metadata filesystem, for what needs no protocol (mkdir, chmod ...).
func (f *FS) MD() mdfs.FS { return f.md }

// Reserved reports whether an xattr name belongs to MarFS.
func Reserved(attr string) bool { panic("todo") }

// Who does an operation, and on what, as the records tell it.
type Who struct {
	mdfs.Cred
	Path string // relative to the namespace's root, as the user saw it; for records
}

// File is an open metadata file: a pinned inode, opened by the daemon. All of its
// methods work after the name is gone, and are safe for concurrent use.
type File struct{}

// Create makes name as the caller (O_CREAT|O_EXCL; EEXIST if it is there) with a
// first slot and a home.
func (f *FS) Create(ctx context.Context, who Who, dir mdfs.Dir, name string, perm uint32) (*File, error) {
	panic("todo")
}

// Open pins the regular file name, without rights of any user (the caller checks
// them); a file without a home gets one.
func (f *FS) Open(ctx context.Context, dir mdfs.Dir, name string) (*File, error) { panic("todo") }

// OpenID pins the file with this id through its home.
func (f *FS) OpenID(ctx context.Context, id objfmt.ID) (*File, error) { panic("todo") }

// Inode gives stat, chmod, times and xattrs of the pinned inode.
func (fl *File) Inode() mdfs.File { panic("todo") }

// Newest rereads the slots and returns the newest committed one. A file that was
// never committed is an empty slot of generation 0.
func (fl *File) Newest(ctx context.Context) (objfmt.Slot, error) { panic("todo") }

// Table reads the chunk table a slot of this file names, and checks it.
func (fl *File) Table(ctx context.Context, s objfmt.Slot) (*objfmt.ChunkTable, error) { panic("todo") }

// Body opens the private body of a content (also the tail of a table) for reading.
func (fl *File) Body(ctx context.Context, content objfmt.ID) (mdfs.File, error) { panic("todo") }

// SetTimes sets the inode's times as a user's utimensat does (see "punch" in the design).
func (fl *File) SetTimes(atime, mtime mdfs.TimeSet) error { panic("todo") }

func (fl *File) Close() error { panic("todo") }

// Begin starts a session that replaces the content of fl: its work record is
// durable when Begin returns. base is the slot the session starts from.
func (f *FS) Begin(ctx context.Context, fl *File, who Who, base objfmt.Slot) (*Session, error) {
	panic("todo")
}

// Session is one unfinished write of one file. Its methods are called by one
// goroutine at a time.
type Session struct {
	ID     objfmt.ID
	Object objfmt.ObjectID // every object of the session is <Object>[.<n>]
}

// NewBody creates bodies/<id> to be written by this session only.
func (s *Session) NewBody(ctx context.Context) (objfmt.ID, mdfs.File, error) { panic("todo") }

// PutTable writes an immutable chunk table, durably, and returns the content id
// to publish and the source that names the table (without tail).
func (s *Session) PutTable(ctx context.Context, t *objfmt.ChunkTable) (objfmt.ID, objfmt.Source, error) {
	panic("todo")
}

// Publish commits content as the file's: version record of the base first, the
// exclusive setxattr, fsync, then the inode's size and times. On return the content is durable. content
// zero means a new id. state Open keeps the session's right to publish again.
// ESTALE: the session lost to another writer or was fenced.
func (s *Session) Publish(ctx context.Context, content objfmt.ID, src objfmt.Source, size int64, mtime time.Time, state objfmt.State) (objfmt.Slot, error) {
	panic("todo")
}

// End finishes after the last Publish: home to its place, lower slots and the
// work record away.
func (s *Session) End(ctx context.Context) error { panic("todo") }

// Abort undoes a session that published nothing: objects, bodies, tables, work record.
func (s *Session) Abort(ctx context.Context) error { panic("todo") }

// Truncate publishes the same content with another size (n > 0), or none (n = 0,
// the old content becomes a version), without a session.
func (f *FS) Truncate(ctx context.Context, fl *File, who Who, n int64) error { panic("todo") }

// Unlink removes a name as the caller after making the record of it.
func (f *FS) Unlink(ctx context.Context, who Who, dir mdfs.Dir, name string) error { panic("todo") }

// Rmdir removes an empty directory as the caller after making the record of it.
func (f *FS) Rmdir(ctx context.Context, who Who, dir mdfs.Dir, name string) error { panic("todo") }

// Rename renames as the caller; what it replaces is recorded first. newpath is
// the replaced name's path for that record.
func (f *FS) Rename(ctx context.Context, who Who, dir mdfs.Dir, name string, to mdfs.Dir, newname, newpath string, flags uint) error {
	panic("todo")
}

// Degraded records that an object needs rebuilding; cheap, repeated calls for
// one object are one record.
func (f *FS) Degraded(ctx context.Context, d objfmt.Damage) error { panic("todo") }

// StatOf turns the inode's stat into what users see: st_nlink without the home
// link, blocks from the size.
func StatOf(st *mdfs.Stat) { panic("todo") }
