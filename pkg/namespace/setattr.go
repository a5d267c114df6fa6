package namespace

import (
	"context"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// SetAttr says which attributes to change; nil is unchanged.
type SetAttr struct {
	Mode         *uint32
	UID, GID     *uint32
	Size         *int64
	Atime, Mtime mdfs.TimeSet // Omit: unchanged
}

func (s SetAttr) times() bool { return !s.Atime.Omit || !s.Mtime.Omit }

// needs is what the change needs of the namespace.
func (s SetAttr) needs() Perm {
	if s.Size != nil {
		return WM | TD
	}
	return WM
}

// owner gives the arguments of chown(2): -1 is unchanged.
func (s SetAttr) owner() (uid, gid int, any bool) {
	uid, gid = -1, -1
	if s.UID != nil {
		uid = int(*s.UID)
	}
	if s.GID != nil {
		gid = int(*s.GID)
	}
	return uid, gid, uid >= 0 || gid >= 0
}

// Setattr changes attributes of name; the empty name is the directory itself.
// File.Setattr is for open files.
func (d *Dir) Setattr(ctx context.Context, c Caller, name string, s SetAttr) (a Attr, err error) {
	if s.Size != nil {
		f, err := d.Open(ctx, c, name, syscall.O_WRONLY)
		if err != nil {
			return Attr{}, err
		}
		defer f.Close()
		if err := f.truncate(ctx, c, *s.Size); err != nil {
			return Attr{}, err
		}
		s.Size = nil
	}
	err = d.enterAttr(c, RM|s.needs(), "setattr", name, func() error {
		x := d.named(name)
		if err := d.space.change(x, s); err != nil {
			return err
		}
		st, err := x.Stat()
		a = d.space.show(&st)
		return err
	})
	if err == nil && s.times() {
		d.space.inodes.setMTime(a.Ino^d.space.inoKey, s.Mtime)
		if name != "" {
			err = d.space.cfg.Meta.Touched(c.Cred, d.md, name, s.Mtime)
		}
	}
	return a, err
}

// setMTime keeps a user's time for a file that is being written.
func (t *inodeTable) setMTime(ino uint64, m mdfs.TimeSet) {
	if m.Omit {
		return
	}
	t.mu.Lock()
	n := t.byIno[ino]
	t.mu.Unlock()
	if n == nil {
		return
	}
	if w := n.writing.Load(); w != nil {
		w.setMTime(m)
	}
}

// Stat describes the open file, also when its name is gone.
func (f *File) Stat(ctx context.Context) (Attr, error) {
	st, err := f.inode.meta.Inode().Stat()
	if err != nil {
		return Attr{}, err
	}
	deleted := st.Nlink == 1 // only its home is left: a pinned file has one
	a := f.space.show(&st)
	if deleted {
		a.Nlink = 0
	}
	if size, ok := f.opened(); ok {
		a.Size, a.Blocks = size, (size+511)/512
	}
	return a, nil
}

// opened returns the size of the content that reads of f get, when that is not
// being written here. The inode's own size follows a commit a moment later, and
// that of a content which another node has put in its place is not f's: readers
// that believed it would be cut short.
func (f *File) opened() (size int64, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.view == nil || f.seen != f.inode.commits.Load() || f.inode.live() != nil {
		return 0, false
	}
	return f.view.size, true
}

// Setattr changes attributes of the open file, also when its name is gone.
func (f *File) Setattr(ctx context.Context, c Caller, s SetAttr) (Attr, error) {
	if err := f.space.allow(c, s.needs(), "setattr", f.who.Path); err != nil {
		return Attr{}, err
	}
	if s.Size != nil {
		if err := f.truncate(ctx, c, *s.Size); err != nil {
			return Attr{}, err
		}
	}
	times := s
	s.Atime, s.Mtime = mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Omit: true}
	err := f.space.cfg.Meta.MD().As(c.Cred, func() error { return f.space.change(f.inode.meta.Inode(), s) })
	if s = times; err == nil && s.times() {
		err = f.inode.meta.SetTimesAs(c.Cred, s.Atime, s.Mtime)
	}
	if err != nil {
		return Attr{}, err
	}
	if s.times() {
		f.space.inodes.setMTime(f.inode.ino, s.Mtime)
	}
	return f.Stat(ctx)
}

// truncate sets the size: of a file that is being written in order only up, of
// another by publishing the same content with another size.
func (f *File) truncate(ctx context.Context, c Caller, n int64) error {
	if err := f.space.allow(c, TD, "truncate", f.who.Path); err != nil {
		return err
	}
	if n < 0 {
		return pathError("truncate", f.who.Path, syscall.EINVAL)
	}
	return f.space.dataError("truncate", f.who, f.resize(ctx, n))
}

func (f *File) resize(ctx context.Context, n int64) error {
	for {
		done, err := f.cut(ctx, n)
		if done || err != nil {
			return err
		}
		w := f.inode.writing.Load()
		if w == nil {
			continue
		}
		if err := w.extend(ctx, f, n); !errors.Is(err, errOver) {
			return err
		}
	}
}

// cut truncates where nobody is writing, or to nothing, or to less than what is
// written and committed: its writer may have closed the file a moment ago, which
// the kernel tells later. Not done and no error: somebody is writing.
func (f *File) cut(ctx context.Context, n int64) (done bool, err error) {
	f.inode.begin.Lock()
	defer f.inode.begin.Unlock()
	w := f.inode.writing.Load()
	switch {
	case w != nil && n > 0 && (n >= w.pos() || w.bytes() == Bytes{}):
		return false, nil
	case w != nil && n > 0:
		if err := w.finish(); err != nil {
			return false, err
		}
	case w != nil && w.pos() > 0:
		if err := f.restart(ctx); err != nil {
			return false, err
		}
		return true, f.part.Load().commit(commitSync)
	case w != nil:
		return true, nil
	}
	if err := f.space.cfg.Meta.Truncate(ctx, f.inode.meta, f.who, n); err != nil {
		return false, err
	}
	f.inode.commits.Add(1)
	return true, nil
}

// Allocate is fallocate(2). Room cannot be reserved in object stores, and holes
// are a change of existing content: all modes are EOPNOTSUPP.
func (f *File) Allocate(ctx context.Context, c Caller, mode uint32, off, n int64) error {
	return pathError("fallocate", f.who.Path, syscall.EOPNOTSUPP)
}

// Seek is lseek(2) with SEEK_DATA or SEEK_HOLE: all bytes but those beyond what
// is stored are data.
func (f *File) Seek(ctx context.Context, off int64, whence int) (int64, error) {
	a, err := f.Stat(ctx)
	if err != nil {
		return 0, err
	}
	if off < 0 || off >= a.Size {
		return 0, pathError("lseek", f.who.Path, syscall.ENXIO)
	}
	data, err := f.stored(ctx, a.Size)
	if err != nil {
		return 0, f.space.dataError("lseek", f.who, err)
	}
	switch {
	case whence == unix.SEEK_DATA && off >= data:
		return 0, pathError("lseek", f.who.Path, syscall.ENXIO)
	case whence == unix.SEEK_DATA:
		return off, nil
	case whence == unix.SEEK_HOLE:
		return max(off, data), nil
	}
	return 0, pathError("lseek", f.who.Path, syscall.EINVAL)
}

// stored is how many of size bytes are stored; the rest reads as zeros.
func (f *File) stored(ctx context.Context, size int64) (int64, error) {
	if f.inode.live() != nil {
		return size, nil
	}
	if err := f.look(ctx); err != nil {
		return 0, err
	}
	defer f.mu.RUnlock()
	return f.view.end(), nil
}

// Bytes names the bytes that a file's readers get: a content, of which the first
// Stored bytes count and the rest is zeros. Cutting a file changes the second.
type Bytes struct {
	Content objfmt.ID
	Stored  int64
}

func bytesOf(s objfmt.Slot) Bytes { return Bytes{s.Content, s.Source.Stored} }

// Bytes names what readers of the file get: pages cached for it stay true as long
// as it is the same. Zero when that is not known: while this mount has written
// what it has not published, or when the slot cannot be read.
func (f *File) Bytes() Bytes {
	if w := f.inode.live(); w != nil {
		return w.bytes()
	}
	if err := f.look(context.Background()); err != nil {
		return Bytes{}
	}
	defer f.mu.RUnlock()
	return bytesOf(f.slot)
}
