package namespace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/packer"
	"marfs/pkg/repo"
)

const (
	maxLoad      = 64 << 20 // bytes of files that a batch holds for one pack, and again while it is uploaded
	maxLoadFiles = 1 << 15  // files of one pack: some 1 KiB of memory each
	undoTime     = time.Minute
)

// Batch writes many small new files straight into packs. Names are made as files
// are added; a file has content, and counts as written, once its pack is durable,
// which Add's callback and Flush tell. Of a batch that is killed, empty files remain;
// those that could not be written have their names removed.
//
// A Batch holds the bytes of one pack in memory and those of another while it is
// uploaded. Safe for concurrent use.
type Batch struct {
	fs     *FS
	c      Caller
	ctx    context.Context // of uploads: they outlive the calls that start them
	cancel context.CancelFunc

	turn   chan struct{} // holds an element while somebody is at load or waits for its upload
	load   *load         // being filled; guarded by turn
	closed bool          // guarded by turn

	upload chan struct{} // holds an element while a load is uploaded
	failed error         // of the first pack that failed since the last Flush; guarded by upload
}

// BatchFile is what Batch.Add makes.
type BatchFile struct {
	Name  string
	Mode  uint32    // permission bits
	MTime time.Time // zero: now
}

// load is what goes to packs together, one for each repo.
type load struct {
	files []batched
	bytes int64
}

// batched is a file whose name is made, on its way into a pack.
type batched struct {
	space *space
	repo  *repo.Repo
	ino   uint64
	item  packer.Item
	done  func(error)
}

// Batch begins a batch of new files of a caller, which must be ended with Close.
func (f *FS) Batch(c Caller) *Batch {
	b := &Batch{fs: f, c: c, load: &load{}, turn: make(chan struct{}, 1), upload: make(chan struct{}, 1)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// Add makes the file in d with a content. It may wait for an upload. EEXIST: the name
// is there. done is called once, from any goroutine, when the file is durable or has
// failed; not when Add returns an error. It must not call the Batch. A content that is
// larger than what is packed is written before Add returns.
func (b *Batch) Add(ctx context.Context, d *Dir, file BatchFile, content []byte, done func(error)) error {
	if file.MTime.IsZero() {
		file.MTime = time.Now()
	}
	if len(content) > 0 && !d.packs(int64(len(content))) {
		if err := b.write(ctx, d, file, content); err != nil {
			return err
		}
		done(nil)
		return nil
	}
	m, err := b.make(ctx, d, file, content)
	if err != nil {
		return err
	}
	m.done = done
	if err := b.put(ctx, m); err != nil {
		b.undo(&m)
		return pathError("create", d.join(file.Name), err)
	}
	return nil
}

// packs tells whether a content of n bytes goes to a pack.
func (d *Dir) packs(n int64) bool {
	return d.space != nil && d.space.cfg.Packer != nil && n <= min(d.space.cfg.Packer.Limit(), maxLoad)
}

// write makes a file that does not go to a pack.
func (b *Batch) write(ctx context.Context, d *Dir, file BatchFile, content []byte) (err error) {
	f, a, err := d.Create(ctx, b.c, file.Name, syscall.O_WRONLY|syscall.O_EXCL, file.Mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			b.remove(d.space, f.who, a.Ino^d.space.inoKey, f.inode.meta.ID())
		}
	}()
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	if _, err := f.WriteAt(ctx, b.c, content, 0); err != nil {
		return err
	}
	if _, err := f.Setattr(ctx, b.c, SetAttr{Atime: mdfs.TimeSet{Omit: true}, Mtime: mdfs.TimeSet{Time: file.MTime}}); err != nil { // before it is durable
		return err
	}
	return f.Flush(ctx)
}

// make makes the name as the caller, and what goes to the pack.
func (b *Batch) make(ctx context.Context, d *Dir, file BatchFile, content []byte) (m batched, err error) {
	if err := d.real("create", file.Name); err != nil {
		return m, err
	}
	if err := d.space.allow(b.c, RM|WM|WD, "create", d.join(file.Name)); err != nil {
		return m, err
	}
	who := d.who(b.c, file.Name)
	fl, err := b.create(ctx, d, who, file)
	if err != nil {
		return m, err
	}
	defer fl.Close() // what NewMember gives needs it no more; one without is complete
	m, err = b.newFile(ctx, d, fl, file, content)
	m.item.File.File, m.item.File.Path = fl.ID(), who.Path
	if err != nil {
		b.undo(&m)
		err = d.space.dataError("create", who, err)
	}
	return m, err
}

// newFile describes a file that was made.
func (b *Batch) newFile(ctx context.Context, d *Dir, fl *metadata.File, file BatchFile, content []byte) (m batched, err error) {
	m.space = d.space
	st, err := fl.Inode().Stat()
	if err != nil {
		return m, err
	}
	m.ino = st.Ino
	n := int64(len(content))
	if n == 0 {
		return m, fl.SetTimes(mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Time: file.MTime})
	}
	m.repo = d.space.placement(n).Repo
	m.item.Content = bytes.NewReader(bytes.Clone(content))
	m.item.File = objfmt.TrailerFile{Mode: st.Mode, UID: st.Uid, GID: st.Gid, MTime: file.MTime,
		Size: n, Length: n, Xattrs: metadata.TrailerXattrs(fl.Inode())}
	m.item.Member, err = fl.NewMember(ctx, n, objfmt.Checksum(content), file.MTime)
	return m, err
}

// create makes the name, if need be after room was made for it.
func (b *Batch) create(ctx context.Context, d *Dir, who metadata.Who, file BatchFile) (*metadata.File, error) {
	meta := d.space.cfg.Meta
	fl, err := meta.Create(ctx, who, d.md, file.Name, file.Mode)
	if d.space.makeRoom(ctx, err) {
		fl, err = meta.Create(ctx, who, d.md, file.Name, file.Mode)
	}
	return fl, err
}

// makeRoom makes room in the metadata filesystem, if that is what an error is about.
func (s *space) makeRoom(ctx context.Context, err error) bool {
	full := noRoom(err) && !errors.Is(err, objstore.ErrNoSpace)
	return full && s.cfg.Packer != nil && s.quota.helps(err) && s.cfg.Packer.MakeRoom(ctx)
}

// placement is where a file of n bytes goes.
func (s *space) placement(n int64) *Placement {
	places := s.cfg.Placement
	i := slices.IndexFunc(places, func(p Placement) bool { return p.MaxSize == 0 || n <= p.MaxSize })
	if i < 0 {
		i = len(places) - 1
	}
	return &places[i]
}

// enter waits for the turn. It must be given back by leave.
func (b *Batch) enter(ctx context.Context) error {
	select {
	case b.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Batch) leave() { <-b.turn }

// put adds a file to the load. Whoever fills it waits, and lets all others wait, until
// the one before is uploaded.
func (b *Batch) put(ctx context.Context, m batched) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.leave()
	if b.closed {
		return os.ErrClosed
	}
	n := m.item.Member.Slot.Size
	if b.load.bytes+n > m.space.maxLoad() || len(b.load.files) == maxLoadFiles {
		if err := b.ship(ctx); err != nil {
			return err
		}
	}
	b.load.files = append(b.load.files, m)
	b.load.bytes += n
	return nil
}

// maxLoad is how many bytes of files go to packs together.
func (s *space) maxLoad() int64 {
	if s.cfg.Packer == nil {
		return maxLoad // of empty files only
	}
	return min(maxLoad, s.cfg.Packer.TargetSize())
}

// ship begins the upload of what was added. b.turn is held.
func (b *Batch) ship(ctx context.Context) error {
	if len(b.load.files) == 0 {
		return nil
	}
	select {
	case b.upload <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	l := b.load
	b.load = &load{}
	go func() {
		defer func() { <-b.upload }()
		if err := b.send(l); b.failed == nil {
			b.failed = err
		}
	}()
	return nil
}

// send makes the files of a load durable and tells each how it ended.
func (b *Batch) send(l *load) error {
	type place struct {
		space *space
		repo  *repo.Repo // nil: of empty files
	}
	places := map[place][]batched{}
	for _, m := range l.files {
		at := place{m.space, m.repo}
		places[at] = append(places[at], m)
	}
	var errs []error
	for at, files := range places {
		errs = append(errs, b.sendTo(at.space, at.repo, files))
	}
	return errors.Join(errs...)
}

// sendTo sends the files that go to one repo.
func (b *Batch) sendTo(s *space, r *repo.Repo, files []batched) (err error) {
	items := make([]packer.Item, len(files))
	for i := range files {
		items[i] = files[i].item
	}
	if r == nil {
		err = s.cfg.Meta.MD().Sync()
	} else {
		err = b.pack(s, r, items)
	}
	if err != nil {
		err = fmt.Errorf("%d new files of namespace %s: %w", len(files), s.cfg.Name, err)
		b.fs.log.Error("data path failed", "namespace", s.cfg.Name, "op", "batch", "uid", b.c.UID, "err", err)
	}
	for i := range files {
		files[i].item = items[i]
		files[i].done(b.ended(&files[i], err))
	}
	return err
}

// pack writes one pack, if need be after room was made for it.
func (b *Batch) pack(s *space, r *repo.Repo, items []packer.Item) error {
	err := s.cfg.Packer.Write(b.ctx, r, items)
	if s.makeRoom(b.ctx, err) {
		err = s.cfg.Packer.Write(b.ctx, r, items)
	}
	return err
}

// ended is how a file has ended whose pack was written, or not.
func (b *Batch) ended(m *batched, err error) error {
	who := metadata.Who{Cred: b.c.Cred, Path: m.item.File.Path}
	switch {
	case err != nil: // it is in the log, once for all
		err = pathError("write", who.Path, Reported{errno(err)})
	case m.item.Err != nil:
		err = m.space.dataError("write", who, m.item.Err)
	default:
		m.space.inodes.changed(m.ino)
		return nil
	}
	b.undo(m)
	return err
}

// changed makes the handles of a file look again for its content.
func (t *inodeTable) changed(ino uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byIno[ino]; n != nil {
		n.commits.Add(1)
	}
}

// undo removes the name of a file that got no content.
func (b *Batch) undo(m *batched) {
	b.remove(m.space, metadata.Who{Cred: b.c.Cred, Path: m.item.File.Path}, m.ino, m.item.File.File)
}

// remove removes the name that was made for a file, if it is still that file's, nobody
// has it open and nobody has written to it, as far as one can see: what is removed by
// mistake goes to the trash as always. Otherwise the file stays, empty.
func (b *Batch) remove(s *space, who metadata.Who, ino uint64, id objfmt.ID) {
	ctx, stop := context.WithTimeout(context.Background(), undoTime)
	defer stop()
	fl, err := s.cfg.Meta.OpenID(ctx, id)
	if err != nil {
		return
	}
	defer fl.Close()
	if errors.Is(fl.Inode().Flock(unix.LOCK_EX), syscall.EWOULDBLOCK) { // who has it open holds it
		return
	}
	if slot, err := fl.Newest(ctx); err != nil || slot.Size > 0 {
		return
	}
	d, name, err := b.fs.Walk(ctx, b.c, s.cfg.Path+"/"+who.Path)
	if err != nil {
		return
	}
	defer d.Close()
	if d.space != s {
		return
	}
	if st, err := d.md.Lstat(name); err == nil && st.Ino == ino {
		_ = s.cfg.Meta.Unlink(ctx, who, d.md, name)
	}
}

// Flush writes what was added and waits for it. Its error is that of the first pack that
// failed since the last Flush; those of single files were told.
func (b *Batch) Flush(ctx context.Context) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.leave()
	return b.flush(ctx)
}

func (b *Batch) flush(ctx context.Context) error {
	if err := b.ship(ctx); err != nil {
		return err
	}
	select {
	case b.upload <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-b.upload }()
	err := b.failed
	b.failed = nil
	return err
}

// Close flushes and ends the batch: nothing can be added then. If ctx ends before,
// what is not durable fails.
func (b *Batch) Close(ctx context.Context) error {
	defer b.cancel()
	if err := b.enter(ctx); err != nil {
		b.cancel() // ends what the turn waits for
		b.turn <- struct{}{}
	}
	defer b.leave()
	b.closed = true
	err := b.flush(ctx)
	if ctx.Err() == nil {
		return err
	}
	b.cancel()
	return errors.Join(err, b.flush(context.Background()))
}
