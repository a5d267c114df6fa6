// Package namespace is what MarFS does, as a library: a tree of namespaces, each
// a near-POSIX file tree whose metadata is in a metadata filesystem and whose
// data is in repos. The FUSE mount and the batch tools both call it.
//
// Errors are *fs.PathError or *os.LinkError around a syscall.Errno. Every call
// made for a user runs with that user's identity (mdfs.FS.As) and inside the
// permissions of the namespace.
package namespace

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/packer"
	"marfs/pkg/repo"
	"marfs/pkg/trash"
)

// Placement sends files of up to MaxSize bytes (0: any) to a repo.
type Placement struct {
	MaxSize   int64
	Repo      *repo.Repo
	RepoName  string
	ChunkSize int64 // bytes of content in one object at most
}

// Config of one namespace; pkg/config makes it.
type Config struct {
	Name      string
	Path      string // where users see it, below the mount: "/projecta"
	Meta      *metadata.FS
	Repos     map[string]*repo.Repo // by name: every repo that objects of it may be in
	Placement []Placement           // ascending MaxSize, the last without
	Perms     Perm                  // of this front end: interactive or batch
	Trash     trash.Policy
	Packer    *packer.Packer // packs what is staged; nil: nothing is staged
	LazySync  bool           // leave it to the application to fsync staged files; otherwise close does
}

// Options of New.
type Options struct {
	Namespaces []Config
	// ReadAhead bounds the bytes of read-ahead of all open files. 0: 256 MiB.
	ReadAhead int64
	// Uploads bounds the objects that streams write to at once: stores and repos hold
	// memory for each as long as its file is open. Further streams spool. 0: 64.
	Uploads int
	// Log gets one line per refusal, failed commit and degraded object.
	Log Logger
}

// Logger is the part of *slog.Logger that is used.
type Logger interface {
	Warn(msg string, args ...any)
	Error(msg string, args ...any)
}

// Caller is whose operation it is.
type Caller struct {
	mdfs.Cred
	PID uint32
}

const (
	defaultReadAhead = 256 << 20
	defaultUploads   = 64
	// maxArchives bounds the spools that become objects at once, also to a share of
	// the uploads. That is always soon over, so the wait for one is short.
	maxArchives = 8
	// smallBudget bounds what all streams hold back while their size, and so
	// their placement, is unknown.
	smallBudget = 128 << 20
)

// FS is every namespace of a configuration, as one tree. Safe for concurrent use.
type FS struct {
	tree   *treeNode
	spaces []*space
	dirs   *dirCache
	log    Logger
	ahead  *aheadBudget
	small  *semaphore.Weighted // bytes held back by streams

	uploads  *semaphore.Weighted // objects that streams write to
	archives *semaphore.Weighted // spools that become objects
}

// space is one namespace in use.
type space struct {
	cfg    Config
	perms  atomic.Uint32 // Perm: swapped on reload, so open handles follow
	root   uint64        // inode number of the users' tree
	inoKey uint64        // XORed into inode numbers: unique in the whole FS
	inodes inodeTable
	fs     *FS
	node   *treeNode // of its root
	quota  quota
}

// New checks that the namespaces form a tree; it starts nothing.
func New(o Options) (*FS, error) {
	if o.ReadAhead == 0 {
		o.ReadAhead = defaultReadAhead
	}
	if o.Uploads == 0 {
		o.Uploads = defaultUploads
	}
	f := &FS{
		tree:  newTree(),
		dirs:  newDirCache(1024, time.Second),
		log:   o.Log,
		ahead: newAheadBudget(o.ReadAhead),
		small: semaphore.NewWeighted(smallBudget),

		uploads:  semaphore.NewWeighted(int64(o.Uploads)),
		archives: semaphore.NewWeighted(int64(min(max(o.Uploads/2, 1), maxArchives))),
	}
	for i, c := range o.Namespaces {
		if len(c.Placement) == 0 {
			return nil, fmt.Errorf("namespace %s: no placement", c.Name)
		}
		st, err := c.Meta.Tree().Stat()
		if err != nil {
			return nil, fmt.Errorf("namespace %s: %w", c.Name, err)
		}
		s := &space{cfg: c, fs: f, root: st.Ino, inoKey: uint64(i) * 0x9E3779B97F4A7C15}
		s.perms.Store(uint32(c.Perms))
		s.inodes.init()
		if err := f.tree.add(c.Path, s); err != nil {
			return nil, fmt.Errorf("namespace %s: %w", c.Name, err)
		}
		f.spaces = append(f.spaces, s)
	}
	f.tree.number(syntheticIno)
	return f, nil
}

// Close commits and ends every file still open, then forgets cached directories.
func (f *FS) Close() error {
	var errs []error
	for _, s := range f.spaces {
		errs = append(errs, s.inodes.closeAll())
	}
	f.ahead.packs.close()
	f.dirs.purge()
	return errors.Join(errs...)
}

// SetPerms changes the permissions of a namespace at once, also for open files.
// It reports whether there is such a namespace.
func (f *FS) SetPerms(name string, p Perm) bool {
	i := slices.IndexFunc(f.spaces, func(s *space) bool { return s.cfg.Name == name })
	if i < 0 {
		return false
	}
	f.spaces[i].perms.Store(uint32(p))
	return true
}

// Root is the directory that the mount shows: directories that lead to
// namespaces, which are directories of their metadata filesystems from there on.
func (f *FS) Root(ctx context.Context) (*Dir, error) { return f.openNode(f.tree, nil) }

// Walk resolves a path below the mount to its directory and last name with the
// caller's rights, for front ends without a kernel in front of them. The root
// itself has the name "". Symbolic links are not followed.
func (f *FS) Walk(ctx context.Context, c Caller, p string) (*Dir, string, error) {
	d, err := f.Root(ctx)
	if err != nil {
		return nil, "", err
	}
	p = strings.Trim(path.Clean("/"+p), "/")
	if p == "" {
		return d, "", nil
	}
	parts := strings.Split(p, "/")
	for _, name := range parts[:len(parts)-1] {
		if _, err := d.Lookup(ctx, c, name); err != nil {
			d.Close()
			return nil, "", err
		}
		next, err := d.OpenDir(ctx, name)
		d.Close()
		if err != nil {
			return nil, "", err
		}
		d = next
	}
	return d, parts[len(parts)-1], nil
}
