package namespace

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// File is an open file. Safe for concurrent use.
type File struct {
	space *space
	inode *inode
	who   metadata.Who
	flags int

	emptied uint64                 // inode.emptied when it was opened
	part    atomic.Pointer[stream] // the write that it took part in last

	mu    sync.RWMutex // guards what is read from; held shared while reading
	view  *view
	ahead *readAhead
	seen  uint64 // inode.commits when view was made
	slot  objfmt.Slot

	once sync.Once // of Close
}

func (f *File) writable() bool { return f.flags&syscall.O_ACCMODE != syscall.O_RDONLY }
func (f *File) readable() bool { return f.flags&syscall.O_ACCMODE != syscall.O_WRONLY }

// changes: O_TRUNC changes the content also of a file opened for reading.
func (f *File) changes() bool { return f.writable() || f.flags&syscall.O_TRUNC != 0 }

// Create makes and opens a new file. One that is there is opened instead, unless
// flags hold O_EXCL.
func (d *Dir) Create(ctx context.Context, c Caller, name string, flags, mode uint32) (*File, Attr, error) {
	if err := d.real("create", name); err != nil {
		return nil, Attr{}, err
	}
	if err := d.space.allow(c, RM|WM|needs(flags), "create", d.join(name)); err != nil {
		return nil, Attr{}, err
	}
	var meta *metadata.File
	err := d.space.withRoom(ctx, func() (err error) {
		meta, err = d.space.cfg.Meta.Create(ctx, d.who(c, name), d.md, name, mode)
		return err
	})
	if errors.Is(err, syscall.EEXIST) && flags&syscall.O_EXCL == 0 {
		f, err := d.Open(ctx, c, name, flags)
		if err != nil {
			return nil, Attr{}, err
		}
		a, err := f.Stat(ctx)
		return f, a, err
	}
	if err != nil {
		return nil, Attr{}, err
	}
	return d.created(ctx, c, name, flags, meta)
}

func (d *Dir) created(ctx context.Context, c Caller, name string, flags uint32, meta *metadata.File) (*File, Attr, error) {
	st, err := meta.Inode().Stat()
	if err != nil {
		meta.Close()
		return nil, Attr{}, err
	}
	used := false
	n, err := d.space.inodes.acquire(d.space, st.Ino, true, func() (*metadata.File, error) { used = true; return meta, nil })
	if !used {
		meta.Close()
	}
	if err != nil {
		return nil, Attr{}, err
	}
	return d.file(c, name, int(flags), n), d.space.show(&st), nil
}

func (d *Dir) file(c Caller, name string, flags int, n *inode) *File {
	f := &File{space: d.space, inode: n, who: d.who(c, name), flags: flags}
	n.opened(f)
	return f
}

// needs is what opening with these flags needs beside RM.
func needs(flags uint32) Perm {
	switch flags & syscall.O_ACCMODE {
	case syscall.O_WRONLY:
		return WD
	case syscall.O_RDWR:
		return RD | WD
	}
	return RD
}

// Open opens the regular file name. O_TRUNC starts a new content; others, and a
// crash, see the old one until the commit.
func (d *Dir) Open(ctx context.Context, c Caller, name string, flags uint32) (*File, error) {
	if err := d.real("open", name); err != nil {
		return nil, err
	}
	need := RM | needs(flags)
	if flags&syscall.O_TRUNC != 0 {
		need |= TD
	}
	if err := d.space.allow(c, need, "open", d.join(name)); err != nil {
		return nil, err
	}
	n, err := d.openInode(ctx, c, name, flags)
	if err != nil {
		return nil, err
	}
	f := d.file(c, name, int(flags), n)
	if flags&syscall.O_TRUNC != 0 {
		err = f.empty(ctx)
	} else if f.readable() && n.live() == nil {
		err = f.refresh(ctx)
	}
	if err != nil {
		f.Close()
		return nil, d.space.dataError("open", f.who, err)
	}
	return f, nil
}

// openInode checks the caller's rights by opening the metadata file as the
// caller, then pins the same inode as the daemon.
func (d *Dir) openInode(ctx context.Context, c Caller, name string, flags uint32) (*inode, error) {
	meta := d.space.cfg.Meta
	mode := int(flags & syscall.O_ACCMODE)
	if flags&syscall.O_TRUNC != 0 && mode == syscall.O_RDONLY {
		mode = syscall.O_RDWR // truncating needs the right to write
	}
	for try := 0; ; try++ {
		var st mdfs.Stat
		err := meta.MD().As(c.Cred, func() error {
			fl, err := d.md.OpenFile(name, mode, 0)
			if err != nil {
				return err
			}
			defer fl.Close()
			st, err = fl.Stat()
			return err
		})
		if err != nil {
			return nil, err
		}
		if t := st.Mode & syscall.S_IFMT; t != syscall.S_IFREG {
			return nil, pathError("open", name, syscall.EINVAL)
		}
		n, err := d.space.inodes.acquire(d.space, st.Ino, false, func() (*metadata.File, error) { return meta.Open(ctx, d.md, name) })
		if errors.Is(err, syscall.ESTALE) && try < 3 {
			continue // renamed over between the two opens
		}
		return n, err
	}
}

// empty is O_TRUNC: it begins a new content that handles opened before have no
// part in.
func (f *File) empty(ctx context.Context) error {
	n := f.inode
	n.begin.Lock()
	defer n.begin.Unlock()
	n.emptied++
	f.emptied = n.emptied
	return f.restart(ctx)
}

// restart begins a new, empty content in place of whatever is there or being
// written. inode.begin is held.
func (f *File) restart(ctx context.Context) error {
	n := f.inode
	if w := n.writing.Load(); w != nil {
		if err := w.abandon(); err != nil {
			return err
		}
	}
	base, own, err := n.newest(ctx, f.who)
	if err == nil && metadata.Busy(base) {
		err = errElsewhere
	}
	if err != nil {
		return err
	}
	f.part.Store(n.newStream(f.who, base, own, base.Size > 0))
	return nil
}

// newest is what a stream starts from, with the right to write the own body of a
// file that was made here and that nothing was committed to. inode.begin is held.
func (n *inode) newest(ctx context.Context, who metadata.Who) (objfmt.Slot, *metadata.Own, error) {
	if n.made {
		own, err := n.meta.Own(ctx, who)
		if err == nil {
			return own.Base(), own, nil
		}
		if !errors.Is(err, syscall.ESTALE) {
			return objfmt.Slot{}, nil, err
		}
		n.made = false
	}
	base, err := n.meta.Newest(ctx)
	return base, nil, err
}

// stream returns the write in progress, beginning one on an empty file.
func (f *File) stream(ctx context.Context) (*stream, error) {
	n := f.inode
	if w := n.writing.Load(); w != nil {
		return w, nil
	}
	n.begin.Lock()
	defer n.begin.Unlock()
	if w := n.writing.Load(); w != nil {
		return w, nil
	}
	base, own, err := n.newest(ctx, f.who)
	if err != nil {
		return nil, err
	}
	if base.Size > 0 {
		return nil, errInPlace
	}
	return n.newStream(f.who, base, own, false), nil
}

// WriteAt writes at off, which must be the end of what is written or a little
// beyond it: EOPNOTSUPP otherwise. ESTALE: another open has emptied the file.
func (f *File) WriteAt(ctx context.Context, c Caller, p []byte, off int64) (int, error) {
	if err := f.space.allow(c, WD, "write", f.who.Path); err != nil {
		return 0, err
	}
	if !f.writable() {
		return 0, pathError("write", f.who.Path, syscall.EBADF)
	}
	for {
		w, err := f.stream(ctx)
		if err != nil {
			return 0, f.space.dataError("write", f.who, err)
		}
		n, err := w.write(ctx, f, p, off)
		if !errors.Is(err, errOver) {
			return n, f.space.dataError("write", f.who, err)
		}
	}
}

// Commit makes everything written durable and visible to others: fsync of any
// handle of the file.
func (f *File) Commit(ctx context.Context) error {
	err := f.commit(f.inode.writing.Load(), commitSync)
	if err == nil && f.space.cfg.LazySync {
		// What an earlier close has left to this call.
		err = f.space.dataError("commit", f.who, f.inode.meta.Sync(ctx))
	}
	return err
}

// Flush is Commit of what f took part in, for close(2) of one of its descriptors,
// perhaps the last.
func (f *File) Flush(ctx context.Context) error { return f.commit(f.part.Load(), commitFlush) }

func (f *File) commit(w *stream, kind commitKind) error {
	if w == nil {
		return nil
	}
	err := w.commit(kind)
	if errors.Is(err, errOver) {
		return nil // it was committed, or begun anew since
	}
	return f.space.dataError("commit", f.who, err)
}

// Close releases the file; the last handle that may write ends the stream.
func (f *File) Close() (err error) {
	f.once.Do(func() {
		n := f.inode
		err = f.space.dataError("close", f.who, n.writerGone(f))
		f.mu.Lock()
		f.drop()
		f.mu.Unlock()
		err = errors.Join(err, f.space.inodes.release(n))
	})
	return err
}

// ReadAt reads; io.EOF at the end as io.ReaderAt does.
func (f *File) ReadAt(ctx context.Context, c Caller, p []byte, off int64) (int, error) {
	got, done, err := f.Borrow(ctx, c, p, off)
	defer done()
	return copy(p, got), err // got is p where nothing was lent
}

// Borrow reads as ReadAt does into p, or lends what read-ahead holds already, which
// saves a copy. got must not be changed, nor used after done was called.
func (f *File) Borrow(ctx context.Context, c Caller, p []byte, off int64) (got []byte, done func(), err error) {
	if err := f.space.allow(c, RD, "read", f.who.Path); err != nil {
		return nil, keep, err
	}
	if !f.readable() {
		return nil, keep, pathError("read", f.who.Path, syscall.EBADF)
	}
	got, done, err = f.read(ctx, p, off)
	if lost(err) { // moved or replaced on another node: look once more
		done()
		got, done, err = f.reread(ctx, p, off)
	}
	if errors.Is(err, io.EOF) {
		return got, done, io.EOF
	}
	return got, done, f.space.dataError("read", f.who, err)
}

// keep is done for what was not lent.
func keep() {}

func (f *File) read(ctx context.Context, p []byte, off int64) (got []byte, done func(), err error) {
	for w := f.inode.live(); w != nil; w = f.inode.live() {
		moved := w.moved.Load()
		n, err := w.readAt(ctx, p, off)
		if err != nil && w.over.Load() || w.moved.Load() != moved {
			continue // it has failed or ended meanwhile, or its bytes have moved
		}
		return p[:n], keep, err
	}
	if err := f.look(ctx); err != nil {
		return nil, keep, err
	}
	defer f.mu.RUnlock()
	return f.ahead.borrow(ctx, p, off)
}

// look makes the view of the newest content, unless it is there. On success
// f.mu is held shared.
func (f *File) look(ctx context.Context) error {
	for {
		f.mu.RLock()
		if f.view != nil && f.seen == f.inode.commits.Load() {
			return nil
		}
		f.mu.RUnlock()
		if err := f.refresh(ctx); err != nil {
			return err
		}
	}
}

// maxMoves bounds how often a content is followed at once.
const maxMoves = 4

// refresh replaces the view by one of the newest slot.
func (f *File) refresh(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.inode.commits.Load()
	if f.view != nil && f.seen == seen {
		return nil
	}
	f.drop()
	var slot objfmt.Slot
	var v *view
	var err error
	for try := 0; try == 0 || lost(err) && try < maxMoves; try++ { // lost: it moved between the two
		if slot, err = f.inode.meta.Newest(ctx); err == nil {
			v, err = f.inode.open(ctx, slot)
		}
	}
	if err != nil {
		return err
	}
	f.view, f.slot, f.seen = v, slot, seen
	f.ahead = newReadAhead(v, f.space.fs.ahead)
	return nil
}

// drop forgets the view; f.mu is held.
func (f *File) drop() {
	if f.view != nil {
		f.ahead.stop()
		f.view.close()
		f.view, f.ahead = nil, nil
	}
}

// reread reads the same content at its new place; ESTALE when it has none.
func (f *File) reread(ctx context.Context, p []byte, off int64) (got []byte, done func(), err error) {
	f.mu.Lock()
	old := f.slot
	f.drop()
	f.mu.Unlock()
	got, done, err = f.read(ctx, p, off)
	f.mu.RLock()
	defer f.mu.RUnlock()
	if lost(err) && f.slot.Content != old.Content {
		err = syscall.ESTALE
	}
	return got, done, err
}
