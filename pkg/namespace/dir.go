package namespace

import (
	"context"
	"errors"
	"io"
	"math"
	"syscall"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
)

// Attr is what stat(2) shows: st_nlink without the home link, st_size with what
// this mount's writers have written, st_blocks from the size, st_ino unique in the FS.
type Attr = syscall.Stat_t

// Dir is an open directory, cheap to open: descriptors are cached for a moment.
// Methods that take a name act on that entry, never on what a symlink points at.
type Dir struct {
	fs    *FS
	space *space    // nil: a synthetic directory
	node  *treeNode // non-nil: namespaces lie below
	md    mdfs.Dir  // nil: a synthetic directory
	ino   uint64    // in the metadata filesystem
	path  string    // below the namespace's root, "" at it; for records and messages
	close func()    // gives it back to the cache; nil: nothing to do
}

// Ino is the directory's inode number, as Stat shows it.
func (d *Dir) Ino() uint64 {
	if d.md == nil {
		return d.node.ino
	}
	return d.ino ^ d.space.inoKey
}

// Close releases the directory.
func (d *Dir) Close() {
	if d.close != nil {
		d.close()
	}
}

// Namespace is the name of the namespace the directory is in; "" above them all.
func (d *Dir) Namespace() string {
	if d.space == nil {
		return ""
	}
	return d.space.cfg.Name
}

// join is the path of an entry below the namespace's root.
func (d *Dir) join(name string) string {
	switch {
	case d.path == "":
		return name
	case name == "":
		return d.path
	}
	return d.path + "/" + name
}

// real refuses to act on a synthetic directory and on names that lead to a namespace.
func (d *Dir) real(op, name string) error {
	switch {
	case d.node.child(name) != nil:
		return pathError(op, name, syscall.EBUSY)
	case d.md == nil:
		return pathError(op, name, syscall.EROFS)
	}
	return nil
}

// enter is the preamble of every operation on an entry: permissions, then identity.
func (d *Dir) enter(c Caller, need Perm, op, name string, fn func() error) error {
	if err := d.real(op, name); err != nil {
		return err
	}
	if err := d.space.allow(c, need, op, d.join(name)); err != nil {
		return err
	}
	return d.space.cfg.Meta.MD().As(c.Cred, fn)
}

// who is the caller as the records tell it.
func (d *Dir) who(c Caller, name string) metadata.Who {
	return metadata.Who{Cred: c.Cred, Path: d.join(name)}
}

// blksize is what programs are told to read and write at once: the metadata
// filesystem's own, often 4 KiB, would make each buffer of theirs a request.
const blksize = 256 << 10

// show turns a metadata filesystem's stat into what users see.
func (s *space) show(st *mdfs.Stat) Attr {
	metadata.StatOf(st)
	if st.Mode&syscall.S_IFMT == syscall.S_IFREG {
		s.inodes.overlay(st)
		st.Blksize = blksize
	}
	st.Ino ^= s.inoKey
	return *st
}

// Stat describes the directory.
func (d *Dir) Stat(ctx context.Context, c Caller) (Attr, error) {
	if d.md == nil {
		return d.node.attr(), nil
	}
	if err := d.space.allow(c, RM, "stat", d.path); err != nil {
		return Attr{}, err
	}
	st, err := d.md.Stat()
	if err != nil {
		return Attr{}, err
	}
	return d.space.show(&st), nil
}

// Lookup describes name.
func (d *Dir) Lookup(ctx context.Context, c Caller, name string) (a Attr, err error) {
	if n := d.node.child(name); n != nil {
		return d.lookupNode(ctx, c, n)
	}
	if name == "" {
		return d.Stat(ctx, c)
	}
	if d.md == nil {
		return Attr{}, pathError("lookup", name, syscall.ENOENT)
	}
	err = d.enter(c, RM, "lookup", name, func() error {
		a, err = d.lstat(name)
		return err
	})
	return a, err
}

// lstat describes name with the identity of the thread.
func (d *Dir) lstat(name string) (Attr, error) {
	st, err := d.md.Lstat(name)
	if err != nil {
		return Attr{}, err
	}
	return d.space.show(&st), nil
}

func (d *Dir) lookupNode(ctx context.Context, c Caller, n *treeNode) (Attr, error) {
	sub, err := d.fs.openNode(n, d)
	if err != nil {
		return Attr{}, err
	}
	defer sub.Close()
	return sub.Stat(ctx, c)
}

// OpenDir opens the directory name with the daemon's rights: the kernel, or the
// walk of the batch tool, has checked the caller's search rights.
func (d *Dir) OpenDir(ctx context.Context, name string) (*Dir, error) {
	if n := d.node.child(name); n != nil {
		return d.fs.openNode(n, d)
	}
	if d.md == nil {
		return nil, pathError("opendir", name, syscall.ENOENT)
	}
	return d.openReal(name)
}

// openReal opens a directory of the metadata filesystem, by the cache.
func (d *Dir) openReal(name string) (*Dir, error) {
	c, err := d.fs.dirs.open(d.key(name), func() (mdfs.Dir, error) { return d.md.OpenDir(name) })
	if err != nil {
		return nil, err
	}
	release := func() { d.fs.dirs.release(c) }
	return &Dir{fs: d.fs, space: d.space, md: c.dir, ino: c.ino, path: d.join(name), close: release}, nil
}

func (d *Dir) key(name string) dirKey { return dirKey{d.space, d.ino, name} }

// forget drops what the cache holds for a name that changed.
func (d *Dir) forget(name string) {
	d.fs.dirs.drop(d.key(name))
}

// Entry is one directory entry.
type Entry struct {
	Name string
	Ino  uint64
	Type uint32 // S_IFMT bits; 0: unknown
	Next int64  // position after this entry
}

// Entries is a stream of entries, "." and ".." not among them. Those that lead to
// namespaces come last.
type Entries struct {
	dir     *Dir
	entries mdfs.Entries // nil in a synthetic directory
	overlay int          // next child of the tree node; -1 while entries has more
}

// overlayPos is the position of the first entry that leads to a namespace. It lies
// above what metadata filesystems hand out (ext4 goes up to 1<<63 - 1<<32) but for
// the end of a directory, which some put at math.MaxInt64.
const overlayPos = math.MaxInt64 - 1<<20

// Entries opens a stream of the directory's entries.
func (d *Dir) Entries(ctx context.Context, c Caller) (*Entries, error) {
	if d.md == nil {
		return &Entries{dir: d}, nil
	}
	e := &Entries{dir: d, overlay: -1}
	if err := d.space.allow(c, RM, "readdir", d.path); err != nil {
		return nil, err
	}
	err := d.space.cfg.Meta.MD().As(c.Cred, func() (err error) {
		e.entries, err = d.md.Entries()
		return err
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Next returns io.EOF after the last entry.
func (e *Entries) Next() (Entry, error) {
	for e.overlay < 0 {
		ent, err := e.entries.Next()
		if errors.Is(err, io.EOF) {
			e.overlay = 0
			break
		}
		if err != nil {
			return Entry{}, err
		}
		if e.dir.node.child(ent.Name) == nil {
			return Entry{Name: ent.Name, Ino: ent.Ino ^ e.dir.space.inoKey, Type: ent.Type, Next: ent.Next}, nil
		}
	}
	if e.dir.node == nil || e.overlay >= len(e.dir.node.children) {
		return Entry{}, io.EOF
	}
	n := e.dir.node.children[e.overlay]
	e.overlay++
	return Entry{Name: n.name, Ino: n.shownIno(), Type: syscall.S_IFDIR, Next: overlayPos + int64(e.overlay)}, nil
}

// SeekTo continues at an Entry's Next, or at the start with 0.
func (e *Entries) SeekTo(pos int64) error {
	if i := pos - overlayPos; i >= 0 && e.dir.node != nil && i <= int64(len(e.dir.node.children)) {
		e.overlay = int(i)
		return nil
	}
	if e.entries == nil {
		e.overlay = 0
		return nil
	}
	e.overlay = -1
	return e.entries.SeekTo(pos)
}

// Close ends the stream.
func (e *Entries) Close() error {
	if e.entries == nil {
		return nil
	}
	return e.entries.Close()
}

// Statfs describes the namespace's room.
func (d *Dir) Statfs(ctx context.Context) (syscall.Statfs_t, error) {
	if d.md == nil {
		return syscall.Statfs_t{Bsize: 4096, Frsize: 4096, Namelen: 255}, nil
	}
	return d.space.cfg.Meta.MD().Statfs()
}
