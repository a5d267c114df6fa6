// Package namespace is what MarFS does, as a library: a tree of namespaces, each
// a near-POSIX file tree whose metadata is in a metadata filesystem and whose
// data is in repos. The FUSE mount and the batch tools both call it.
//
// Errors are *fs.PathError or *os.LinkError around a syscall.Errno.
package namespace

import (
	"context"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/repo"
)

// Perm is a set of the six permissions of a namespace.
type Perm uint8

// The permissions, as the configuration writes them.
const (
	RM Perm = 1 << iota // read metadata
	WM                  // write metadata
	RD                  // read data
	WD                  // write data
	UD                  // unlink data
	TD                  // truncate data
)

// Placement sends files of up to MaxSize bytes (0: any) to a repo.
type Placement struct {
	MaxSize   int64
	Repo      *repo.Repo
	RepoName  string
	ChunkSize int64
}

// Config of one namespace; pkg/config makes it.
type Config struct {
	Name          string
	Path          string // where users see it, below the mount: "/projecta"
	Meta          *metadata.FS
	Repos         map[string]*repo.Repo // by name: every repo that objects of it may be in
	Placement     []Placement
	Perms         Perm // of this front end: interactive or batch
	UpdateInPlace bool
}

// Options of New.
type Options struct {
	Namespaces []Config
	// ReadAhead bounds the bytes of read-ahead of all open files. 0: 256 MiB.
	ReadAhead int64
	// Log gets one line per refusal, failed commit and degraded object.
	Log Logger
}

// Logger is the part of *slog.Logger that is used.
type Logger interface {
	Warn(msg string, args ...any)
	Error(msg string, args ...any)
}

// FS is every namespace of a configuration, as one tree. Safe for concurrent use.
type FS struct{}

// New checks that paths do not overlap wrongly; it starts nothing.
func New(o Options) (*FS, error) { panic("todo") }

// Close waits for open sessions to end (files still open are committed).
func (f *FS) Close(ctx context.Context) error { panic("todo") }

// Root is the directory that the mount shows: directories that lead to
// namespaces, which are directories of their metadata filesystems from there on.
func (f *FS) Root(ctx context.Context) (*Dir, error) { panic("todo") }

// Caller is whose operation it is.
type Caller struct {
	mdfs.Cred
	PID uint32
}

// Attr is what stat(2) shows: st_nlink without the home link, st_size with what
// this mount's writers have written, st_blocks from the size, st_ino unique in the FS.
type Attr = syscall.Stat_t

// Dir is an open directory, cheap to open (its descriptor is cached). Methods that
// take a name act on that entry, never on what a symlink points at.
type Dir struct{}

func (d *Dir) Close() {}

// Stat describes the directory.
func (d *Dir) Stat(ctx context.Context, c Caller) (Attr, error) { panic("todo") }

// OpenDir opens the directory name with the daemon's rights: the kernel, or the
// walk of the batch tool, has checked the caller's search rights.
func (d *Dir) OpenDir(ctx context.Context, name string) (*Dir, error) { panic("todo") }

// Lookup describes name.
func (d *Dir) Lookup(ctx context.Context, c Caller, name string) (Attr, error) { panic("todo") }

// Entry is one directory entry with its attributes if asked for.
type Entry struct {
	Name string
	Ino  uint64
	Type uint32 // S_IFMT bits
	Next int64  // position after this entry
}

// Entries is a stream of entries, "." and ".." not among them.
type Entries struct{}

func (d *Dir) Entries(ctx context.Context, c Caller) (*Entries, error) { panic("todo") }
func (e *Entries) Next() (Entry, error)                                { panic("todo") } // io.EOF at the end
func (e *Entries) SeekTo(pos int64) error                              { panic("todo") }
func (e *Entries) Close() error                                        { panic("todo") }

func (d *Dir) Mkdir(ctx context.Context, c Caller, name string, mode uint32) (Attr, error) {
	panic("todo")
}
func (d *Dir) Mknod(ctx context.Context, c Caller, name string, mode uint32, dev uint64) (Attr, error) {
	panic("todo")
}
func (d *Dir) Symlink(ctx context.Context, c Caller, target, name string) (Attr, error) {
	panic("todo")
}
func (d *Dir) Readlink(ctx context.Context, c Caller, name string) (string, error) { panic("todo") }
func (d *Dir) Link(ctx context.Context, c Caller, name string, to *Dir, newname string) (Attr, error) {
	panic("todo")
}
func (d *Dir) Unlink(ctx context.Context, c Caller, name string) error { panic("todo") }
func (d *Dir) Rmdir(ctx context.Context, c Caller, name string) error  { panic("todo") }
func (d *Dir) Rename(ctx context.Context, c Caller, name string, to *Dir, newname string, flags uint32) error {
	panic("todo")
}

// SetAttr says which attributes to change; nil is unchanged.
type SetAttr struct {
	Mode         *uint32
	UID, GID     *uint32
	Size         *int64
	Atime, Mtime mdfs.TimeSet // Omit: unchanged
}

// Setattr changes attributes of name. File.Setattr is for open files.
func (d *Dir) Setattr(ctx context.Context, c Caller, name string, s SetAttr) (Attr, error) {
	panic("todo")
}

func (d *Dir) Getxattr(ctx context.Context, c Caller, name, attr string) ([]byte, error) {
	panic("todo")
}
func (d *Dir) Setxattr(ctx context.Context, c Caller, name, attr string, v []byte, flags int) error {
	panic("todo")
}
func (d *Dir) Listxattr(ctx context.Context, c Caller, name string) ([]string, error) { panic("todo") }
func (d *Dir) Removexattr(ctx context.Context, c Caller, name, attr string) error     { panic("todo") }

// The empty name "" in Setattr and the xattr calls means the directory itself.

// Statfs describes the namespace's room.
func (d *Dir) Statfs(ctx context.Context) (syscall.Statfs_t, error) { panic("todo") }

// Create makes and opens a new file (EEXIST if it is there). flags are open(2)'s.
func (d *Dir) Create(ctx context.Context, c Caller, name string, flags, mode uint32) (*File, Attr, error) {
	panic("todo")
}

// Open opens the regular file name. O_TRUNC starts a new content.
func (d *Dir) Open(ctx context.Context, c Caller, name string, flags uint32) (*File, error) {
	panic("todo")
}

// File is an open file. Safe for concurrent use.
type File struct{}

// ReadAt reads; io.EOF at the end as io.ReaderAt does.
func (f *File) ReadAt(ctx context.Context, c Caller, p []byte, off int64) (int, error) {
	panic("todo")
}

// WriteAt writes. What cannot be done in this namespace is EOPNOTSUPP.
func (f *File) WriteAt(ctx context.Context, c Caller, p []byte, off int64) (int, error) {
	panic("todo")
}

// Commit makes everything written durable and visible to others: flush and fsync.
func (f *File) Commit(ctx context.Context) error { panic("todo") }

// Close releases the file; the last handle of a session ends it.
func (f *File) Close() error { panic("todo") }

// Stat and Setattr work also when the name is gone.
func (f *File) Stat(ctx context.Context) (Attr, error) { panic("todo") }
func (f *File) Setattr(ctx context.Context, c Caller, s SetAttr) (Attr, error) {
	panic("todo")
}

// Allocate is fallocate(2), Seek lseek(2) with SEEK_DATA or SEEK_HOLE.
func (f *File) Allocate(ctx context.Context, c Caller, mode uint32, off, n int64) error {
	panic("todo")
}
func (f *File) Seek(ctx context.Context, off int64, whence int) (int64, error) { panic("todo") }

// Content is the id of the content the file was opened with: pages cached for
// it stay true as long as it is the same. Zero while this mount is writing the file.
func (f *File) Content() objfmt.ID { panic("todo") }

// Streaming says that a write handle streams, so direct I/O is best.
func (f *File) Streaming() bool { panic("todo") }

// Layout is what `marfsctl stat` shows.
type Layout struct {
	Path      string
	Namespace string
	Attr      Attr
	Slot      objfmt.Slot
	Type      string // empty, own, body, uni, multi, packed, or directory, symlink ...
	Objects   []LayoutObject
}

// LayoutObject is one object of a file and where its shards are.
type LayoutObject struct {
	Key    string
	Ref    objfmt.ObjectRef
	Offset int64 // in the file
	Length int64
	Shards []repo.Shard
}

// Layout describes where the bytes of name are; deep verifies every shard.
func (d *Dir) Layout(ctx context.Context, c Caller, name string, deep bool) (Layout, error) {
	panic("todo")
}

// Walk resolves a path below the mount to its directory and last name with the
// caller's rights, for front ends without a kernel in front of them.
func (f *FS) Walk(ctx context.Context, c Caller, path string) (*Dir, string, error) {
	panic("todo")
}

var _ = time.Now
