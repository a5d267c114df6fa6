package metadata

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// File is an open metadata file: a pinned inode, opened by the daemon. All of its
// methods work after the name is gone, and are safe for concurrent use.
type File struct {
	f       *FS
	inode   mdfs.File
	id      objfmt.ID
	created objfmt.ID   // session of the first slot, when this File made it
	used    atomic.Bool // the right that comes with it was asked for
	seen    atomic.Pointer[seenSlot]

	mu     sync.Mutex // guards madeIn; not held across calls of mdfs
	madeIn mdfs.Dir   // where Create made the name, until that is durable; nil: nothing to do
}

// Create makes name as the caller (O_CREAT|O_EXCL; EEXIST if it is there) with a
// first slot and a home. Nothing is synced: the first commit does that for the
// inode and its names. The File has the right to write the own body ([File.Own]),
// unless somebody else was faster to give the new name its first slot.
func (f *FS) Create(ctx context.Context, who Who, dir mdfs.Dir, name string, perm uint32) (*File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var in mdfs.File
	err := f.md.As(who.Cred, func() (err error) {
		in, err = create(stepCreate, dir, name, f.DiskMode(perm))
		return err
	})
	if err != nil {
		return nil, err
	}
	fl := &File{f: f, inode: in, id: f.newID()}
	err = fl.first(dir, name)
	if err == nil && !f.covers {
		fl.madeIn, err = dir.Again()
	}
	if err != nil {
		in.Close()
		return nil, fileError("create", fl.id, err)
	}
	return fl, nil
}

// syncNames makes the names of a new file durable with its first commit, the
// user's and the home, where fsync of the inode does not [d].
func (fl *File) syncNames() error {
	fl.mu.Lock()
	dir := fl.madeIn
	fl.madeIn = nil
	fl.mu.Unlock()
	if dir == nil {
		return nil
	}
	err := fl.f.in(fanned(stagedName, fl.id), func(d mdfs.Dir) error { return syncDir(stepSync, d) })
	if err == nil {
		err = syncDir(stepSync, dir)
	}
	if err == nil {
		return dir.Close()
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.madeIn = dir // still to do
	return err
}

// first gives a new file its first slot, open, so that its creator may fill the
// own body, and its home. EEXIST: somebody who opened the name meanwhile has
// given it an identity; then it is theirs too, and the own body is nobody's (R3).
func (fl *File) first(dir mdfs.Dir, name string) error {
	session := fl.f.newSession()
	s := objfmt.Slot{State: objfmt.Open, Session: session, Content: numbered(session, 1),
		MTime: fl.f.now(), Source: objfmt.Source{Kind: objfmt.SourceEmpty}}
	_, err := fl.publish(stepFirst, objfmt.Slot{}, s)
	switch {
	case err == nil:
		fl.created = session
		return fl.makeHome(dir, name, true)
	case errors.Is(err, errLost):
		return fl.identify(dir, name)
	}
	return err
}

// Open pins the regular file name, without rights of any user (the caller checks
// them); what a crash has left undone is made good: an identity, a home, st_size.
func (f *FS) Open(ctx context.Context, dir mdfs.Dir, name string) (*File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in, err := openInode(dir, name)
	if err != nil {
		return nil, err
	}
	fl := &File{f: f, inode: in}
	if err := fl.identify(dir, name); err != nil {
		in.Close()
		return nil, fmt.Errorf("open %q: %w", name, err)
	}
	return fl, nil
}

// openInode opens a regular file for the daemon: for writing if possible, since
// slots of user xattrs need it.
func openInode(dir mdfs.Dir, name string) (mdfs.File, error) {
	in, err := dir.OpenFile(name, unix.O_RDWR, 0)
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EROFS) {
		in, err = dir.OpenFile(name, unix.O_RDONLY, 0)
	}
	return in, err
}

// identify reads who the file is, and heals it.
func (fl *File) identify(dir mdfs.Dir, name string) error {
	st, err := fl.inode.Stat()
	if err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return syscall.EINVAL
	}
	s, noted, err := fl.newest()
	if err == nil && s.Gen == 0 {
		s, err = fl.adopt()
	}
	if err != nil {
		return err
	}
	fl.id = s.File
	if st.Nlink == 1 { // a home and a name would be 2
		if err := fl.makeHome(dir, name, false); err != nil {
			return err
		}
	}
	if noted.punch && archived(s) {
		if err := fl.endPunch(mtimeOf(&st)); err != nil {
			return err
		}
	}
	if st.Size < s.Source.Stored && s.Source.Kind == objfmt.SourceOwn {
		if s, err = fl.mendTorn(s); err != nil {
			return err
		}
	}
	return fl.healSize(s, st.Size)
}

// adopt gives a file without slots an identity: its creator died between making
// the name and the slot. It is empty, and its own body stays unused.
func (fl *File) adopt() (objfmt.Slot, error) {
	fl.id = fl.f.newID()
	s := objfmt.Slot{State: objfmt.Final, Content: fl.f.newID(), MTime: fl.f.now(),
		Source: objfmt.Source{Kind: objfmt.SourceEmpty}}
	s, err := fl.publish(stepFirst, objfmt.Slot{}, s)
	if errors.Is(err, errLost) {
		s, _, err = fl.newest()
	}
	return s, err
}

// OpenID pins the file with this id through its home. ENOENT: it is deleted for
// good, or never was.
func (f *FS) OpenID(ctx context.Context, id objfmt.ID) (*File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return f.openHome(id, homePlaces)
}

// Homes move between two directories; looking in the first one again catches a
// home that moved from the second to the first between the two looks. Everywhere
// includes the homes that gc has taken and may put back.
var (
	homePlaces = []string{stagedName, filesName, stagedName}
	everywhere = []string{stagedName, filesName, deadName, begunPlace, stagedName, filesName}
)

func (f *FS) openHome(id objfmt.ID, places []string) (*File, error) {
	err := fileError("open", id, syscall.ENOENT)
	for _, place := range places {
		dir, name := homePath(place, id)
		fl, e := f.openAt(dir, name)
		if e == nil && fl.id == id {
			return fl, nil
		}
		if e == nil { // a link made for another inode in a race: not this file
			fl.Close()
		} else if !errors.Is(e, syscall.ENOENT) {
			err = e
		}
	}
	return nil, err
}

// openAt pins the inode that a private name stands for.
func (f *FS) openAt(place, name string) (*File, error) {
	fl := &File{f: f}
	err := f.in(place, func(d mdfs.Dir) (err error) {
		fl.inode, err = openInode(d, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	s, _, err := fl.newest()
	if err != nil {
		fl.inode.Close()
		return nil, fmt.Errorf("%s/%s: %w", place, name, err)
	}
	fl.id = s.File
	return fl, nil
}

// Hold keeps gc from destroying the file while this File is open, whatever its
// keep and grace times, as far as the metadata filesystem's flock reaches: an open
// reader goes on. It is a courtesy on top of the grace time, and vanishes with the
// process. named tells whether the file had a name when it was held: one without
// may be gone already, and is as good as gone: nobody should open it.
func (fl *File) Hold() (named bool, err error) {
	err = fl.inode.Flock(unix.LOCK_SH)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil // a gc is at it
	}
	if err := ignore(err, errNoLocks...); err != nil {
		return false, fileError("hold", fl.id, err)
	}
	return fl.named() // after it is held: a gc that saw no name looks for holders after that
}

// ID is the file's id, for life.
func (fl *File) ID() objfmt.ID { return fl.id }

// Inode gives stat, chmod, times and xattrs of the pinned inode, and its own body.
func (fl *File) Inode() mdfs.File { return fl.inode }

// Newest rereads the slots and returns the newest. One of a file that was never
// committed is open or final, and holds nothing.
//
// The bytes of a content can be cached under (Content, Source.Stored): a cut
// lowers Stored and keeps the content id. Those of an open slot of another node
// cannot: its session may be writing its body.
func (fl *File) Newest(ctx context.Context) (objfmt.Slot, error) {
	if err := ctx.Err(); err != nil {
		return objfmt.Slot{}, err
	}
	s, _, err := fl.newest()
	return s, fileError("read slots", fl.id, err)
}

// Table reads the chunk table a slot of this file names, and checks it.
func (fl *File) Table(ctx context.Context, s objfmt.Slot) (*objfmt.ChunkTable, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, err := fl.f.readTable(fl.id, s.Content, s.Source)
	return t, fileError("read chunk table", fl.id, err)
}

// maxTable bounds what is read as a chunk table of n chunks: 72 bytes each, 146
// for a placement if each had its own; very many share theirs.
func maxTable(n int) int64 { return min(256*int64(n), 100*objfmt.MaxChunks) + 4096 }

func (f *FS) readTable(file, content objfmt.ID, src objfmt.Source) (*objfmt.ChunkTable, error) {
	var b []byte
	err := f.inTables(file, func(d mdfs.Dir) (err error) {
		b, err = readFile(d, f.tableName(file, content), maxTable(src.Chunks))
		return err
	})
	if err == nil && b == nil {
		err = syscall.ENOENT // no directory
	}
	if err != nil {
		return nil, err
	}
	if sum := objfmt.Checksum(b); sum != src.Sum {
		return nil, fmt.Errorf("%w: have %016x, want %016x", objfmt.ErrChecksum, sum, src.Sum)
	}
	t, err := objfmt.ParseChunkTable(b)
	if err == nil && (t.File != file || t.Content != content || len(t.Chunks) != src.Chunks) {
		err = fmt.Errorf("%w: the table is of another content", objfmt.ErrFormat)
	}
	return t, err
}

// Body opens the private body of a content (also the tail of a table) for reading.
// The content of an own body that was replaced is there too, as its version.
func (fl *File) Body(ctx context.Context, content objfmt.ID) (in mdfs.File, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = fl.f.in(fanned(bodiesName, content), func(d mdfs.Dir) (err error) {
		in, err = d.OpenFile(content.String(), unix.O_RDONLY, 0)
		return err
	})
	return in, err
}

// Close unpins the inode. A new file that nobody began to write is complete: its
// first slot becomes final, or every file made by touch would look unfinished
// until the process has ended.
func (fl *File) Close() error {
	err := fl.complete()
	fl.mu.Lock()
	dir := fl.madeIn
	fl.madeIn = nil
	fl.mu.Unlock()
	if dir != nil {
		dir.Close()
	}
	return errors.Join(err, fl.inode.Close())
}

// complete needs no sync: without it recovery does the same.
func (fl *File) complete() error {
	if fl.created.IsZero() || fl.used.Swap(true) {
		return nil
	}
	s, _, err := fl.newest()
	if err != nil || s.State != objfmt.Open || s.Session != fl.created {
		return fileError("close", fl.id, err)
	}
	s.State = objfmt.Final
	_, err = fl.publish(stepFirst, s, s)
	return fileError("close", fl.id, ignore(err, errLost))
}

// Paths of private directories.

func fanned(top string, id objfmt.ID) string { return top + "/" + id.Fan() }

// begunPlace is the place in dead/ of homes whose contents are being destroyed.
const begunPlace = deadName + "/" + deadBegun

// homePath is where the home of a file is in files/, in staged/, or, taken for
// destruction, in dead/.
func homePath(place string, id objfmt.ID) (dir, name string) {
	switch place {
	case deadName:
		return deadName, deadHome + id.String()
	case begunPlace:
		return deadName, deadBegun + id.String()
	}
	return fanned(place, id), id.String()
}
