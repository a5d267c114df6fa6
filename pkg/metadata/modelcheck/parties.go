package modelcheck

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"

	"golang.org/x/sys/unix"
)

// The calls below do what the namespace does for a user's calls. They end at the
// first error, as it does.

func (p *Party) as(path string) metadata.Who {
	w := p.who
	w.Path = path
	return w
}

// try records an attempt to change a file, and its answer.
func (p *Party) try(fl *metadata.File, c change, f func() error) error {
	o := p.w.history.start(fl.ID(), p.name, c)
	if _, known := p.w.history.files[fl.ID()]; !known && p.actor == nil {
		p.w.history.files[fl.ID()] = ""
	}
	err := f()
	p.w.history.answer(o, err)
	return err
}

// must is for setups, where nothing may fail.
func (p *Party) must(err error) {
	if err != nil {
		panic(fmt.Sprintf("%s: %v", p.name, err))
	}
}

// create makes a small file with an own body.
func (p *Party) create(name, cells string) error {
	fl, err := p.md.Create(p.ctx, p.as(name), p.md.Tree(), name, 0o644)
	if err != nil {
		return err
	}
	defer fl.Close()
	return p.fill(fl, name, cells)
}

// fill writes the own body of a file just created.
func (p *Party) fill(fl *metadata.File, name, cells string) error {
	return p.try(fl, replaceBy(cells), func() error {
		own, err := fl.Own(p.ctx, p.as(name))
		if err != nil {
			return err
		}
		b := bytesOf(cells)
		if _, err := own.Body().WriteAt(b, 0); err != nil {
			return err
		}
		if _, err = own.Commit(p.ctx, int64(len(b)), objfmt.Checksum(b)); err != nil {
			return err
		}
		return p.syncTree()
	})
}

// batch makes a file whose content is in a pack from the beginning.
func (p *Party) batch(name, cells string) error {
	fl, err := p.md.Create(p.ctx, p.as(name), p.md.Tree(), name, 0o644)
	if err != nil {
		return err
	}
	b := bytesOf(cells)
	m, err := fl.NewMember(p.ctx, int64(len(b)), objfmt.Checksum(b), time.Unix(0, epoch+1))
	if err := errors.Join(err, fl.Close()); err != nil {
		return err
	}
	return p.try(fl, replaceBy(cells), func() error {
		members := []metadata.PackMember{m}
		var pack packing
		pack.members = members
		pack.bytes.Write(b)
		err := p.write(&pack)
		if err == nil && !members[0].Won() {
			err = syscall.ESTALE
		}
		return err
	})
}

// syncTree makes names of users durable where fsync of an inode does not.
func (p *Party) syncTree() error {
	if p.w.base.disk.OneJournal || !p.w.base.disk.Journal {
		return nil
	}
	return p.md.Tree().Sync()
}

func (p *Party) open(name string) (*metadata.File, objfmt.Slot, error) {
	fl, err := p.md.Open(p.ctx, p.md.Tree(), name)
	if err != nil {
		return nil, objfmt.Slot{}, err
	}
	s, err := fl.Newest(p.ctx)
	if err != nil {
		fl.Close()
		return nil, s, err
	}
	return fl, s, nil
}

// createStream makes a new file and streams it to objects.
func (p *Party) createStream(name, cells string, chunks int) error {
	fl, err := p.md.Create(p.ctx, p.as(name), p.md.Tree(), name, 0o644)
	if err != nil {
		return err
	}
	defer fl.Close()
	base, err := fl.Newest(p.ctx)
	if err != nil {
		return err
	}
	return p.streamTo(fl, base, name, cells, chunks)
}

// stream replaces a file's content by objects: O_TRUNC, writes, close.
func (p *Party) stream(name, cells string, chunks int) error {
	fl, base, err := p.open(name)
	if err != nil {
		return err
	}
	defer fl.Close()
	return p.streamTo(fl, base, name, cells, chunks)
}

func (p *Party) streamTo(fl *metadata.File, base objfmt.Slot, name, cells string, chunks int) error {
	s, err := p.md.Begin(p.ctx, fl, p.as(name), base)
	if err != nil {
		return err
	}
	err = p.try(fl, replaceBy(cells), func() error {
		content, src, err := p.upload(s, cells, chunks)
		if err != nil {
			return err
		}
		return p.publish(s, content, src, cells, objfmt.Final)
	})
	if err != nil {
		return errors.Join(err, s.Abort(p.ctx))
	}
	return s.End(p.ctx)
}

func (p *Party) publish(s *metadata.Session, content objfmt.ID, src objfmt.Source, cells string, state objfmt.State) error {
	_, err := s.Publish(p.ctx, content, src, int64(len(cells))*cellSize, time.Unix(0, epoch+1), state)
	if err != nil {
		return err
	}
	return p.syncTree()
}

// ref names an object as a store would have written it.
func ref(id objfmt.ObjectID, chunk uint32, size int) objfmt.ObjectRef {
	return objfmt.ObjectRef{Object: id, Chunk: chunk, Layout: objfmt.Layout{Repo: "r", Pod: "p",
		Geometry: objfmt.Geometry{Data: 1, Block: 4096}, WriteID: objfmt.ID(id), Size: int64(size)}}
}

// upload puts a content into one object (chunks 0), or one per chunk and a table.
func (p *Party) upload(s *metadata.Session, cells string, chunks int) (content objfmt.ID, src objfmt.Source, err error) {
	b := bytesOf(cells)
	if chunks == 0 {
		err := p.obj.Put(s.Object, 0, b)
		return content, objfmt.Source{Kind: objfmt.SourceObj, Stored: int64(len(b)), Sum: objfmt.Checksum(b), Object: ref(s.Object, 0, len(b))}, err
	}
	t, err := p.putChunks(s, b, chunks)
	if err != nil {
		return content, src, err
	}
	return s.PutTable(p.ctx, t)
}

func (p *Party) putChunks(s *metadata.Session, b []byte, chunks int) (*objfmt.ChunkTable, error) {
	t := &objfmt.ChunkTable{}
	size := len(b) / chunks
	for i := range chunks {
		part := b[i*size : (i+1)*size]
		if err := p.obj.Put(s.Object, uint32(i), part); err != nil {
			return nil, err
		}
		t.Chunks = append(t.Chunks, objfmt.Chunk{Offset: int64(i * size), Length: int64(size),
			Object: ref(s.Object, uint32(i), size), Sum: objfmt.Checksum(part)})
	}
	return t, nil
}

// streamSync streams two cells with an fsync after the first and one after the
// second: short object; then a tail in bodies/; then the whole in objects.
func (p *Party) streamSync(name, cells string) error {
	fl, base, err := p.open(name)
	if err != nil {
		return err
	}
	defer fl.Close()
	s, err := p.md.Begin(p.ctx, fl, p.as(name), base)
	if err != nil {
		return err
	}
	if err := p.syncParts(fl, s, cells); err != nil {
		return errors.Join(err, s.Abort(p.ctx))
	}
	return s.End(p.ctx)
}

func (p *Party) syncParts(fl *metadata.File, s *metadata.Session, cells string) error {
	var content objfmt.ID
	var src objfmt.Source
	b := bytesOf(cells)
	err := p.try(fl, replaceBy(cells[:1]), func() error {
		t, err := p.putChunks(s, b[:cellSize], 1)
		if err != nil {
			return err
		}
		if content, src, err = s.PutTable(p.ctx, t); err != nil {
			return err
		}
		return p.publish(s, content, src, cells[:1], objfmt.Open)
	})
	if err != nil {
		return err
	}
	err = p.try(fl, replaceBy(cells), func() error {
		tail, body, err := s.NewBody(p.ctx)
		if err != nil {
			return err
		}
		if _, err := body.WriteAt(b[cellSize:], 0); err != nil {
			return err
		}
		src.Tail, src.Stored = tail, int64(len(b))
		return p.publish(s, content, src, cells, objfmt.Open)
	})
	if err != nil {
		return err
	}
	return p.try(fl, replaceBy(cells), func() error {
		t, err := p.putChunks(s, b, 2)
		if err != nil {
			return err
		}
		if content, src, err = s.PutTable(p.ctx, t); err != nil {
			return err
		}
		return p.publish(s, content, src, cells, objfmt.Final)
	})
}

// change sets one cell in place: the body is filled from the base.
func (p *Party) change(name string, cell int, c byte, sync bool) error {
	fl, base, err := p.open(name)
	if err != nil {
		return err
	}
	defer fl.Close()
	return p.changeOf(fl, base, name, setCell(cell, c), sync)
}

func (p *Party) changeOf(fl *metadata.File, base objfmt.Slot, name string, c change, sync bool) error {
	s, err := p.md.Begin(p.ctx, fl, p.as(name), base)
	if err != nil {
		return err
	}
	if err := p.changeBody(fl, base, s, c, sync); err != nil {
		return errors.Join(err, s.Abort(p.ctx))
	}
	return s.End(p.ctx)
}

func (p *Party) changeBody(fl *metadata.File, base objfmt.Slot, s *metadata.Session, c change, sync bool) error {
	old, err := p.bytes(fl, base)
	if err != nil {
		return err
	}
	cells := c.apply(cellsOf(old))
	b := bytesOf(cells)
	content, body, err := s.NewBody(p.ctx)
	if err != nil {
		return err
	}
	src := objfmt.Source{Kind: objfmt.SourceBody, Stored: int64(len(b)), Sum: objfmt.Checksum(b)}
	state := objfmt.Final
	if sync { // fsync first, then close: each is an answer
		state = objfmt.Open
	}
	err = p.try(fl, c, func() error {
		if _, err := body.WriteAt(b, 0); err != nil {
			return err
		}
		return p.publish(s, content, src, cells, state)
	})
	if err != nil || !sync {
		return err
	}
	return p.try(fl, c, func() error { return p.publish(s, content, src, cells, objfmt.Final) })
}

// append writes a cell behind a small own body, or as a change.
func (p *Party) append(name string, c byte) error {
	fl, base, err := p.open(name)
	if err != nil {
		return err
	}
	defer fl.Close()
	own, err := p.md.Append(p.ctx, fl, p.as(name), base)
	if errors.Is(err, metadata.ErrNotAppendable) {
		if base, err = fl.Newest(p.ctx); err != nil {
			return err
		}
		return p.changeOf(fl, base, name, appendCell(c), false)
	}
	if err != nil {
		return err
	}
	return p.try(fl, appendCell(c), func() error {
		at := own.Base().Size
		if _, err := own.Body().WriteAt(bytesOf(string(c)), at); err != nil {
			return err
		}
		b := make([]byte, at+cellSize)
		if _, err := own.Body().ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		_, err := own.Commit(p.ctx, int64(len(b)), objfmt.Checksum(b))
		return err
	})
}

func (p *Party) truncate(name string, cells int) error {
	fl, _, err := p.open(name)
	if err != nil {
		return err
	}
	defer fl.Close()
	return p.try(fl, cutTo(cells), func() error {
		return p.md.Truncate(p.ctx, fl, p.as(name), int64(cells)*cellSize)
	})
}

func (p *Party) unlink(name string) error { return p.md.Unlink(p.ctx, p.as(name), p.md.Tree(), name) }

func (p *Party) rename(name, newname string) error {
	return p.md.Rename(p.ctx, p.as(name), p.md.Tree(), name, p.md.Tree(), newname, newname, 0)
}

// mknod leaves what a creator does who is killed at once: a name and no more.
func (p *Party) mknod(name string) error {
	f, err := p.md.Tree().OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// link gives a file another name, as a user.
func (p *Party) link(name, newname string) error {
	return p.md.Link(p.ctx, p.as(name), p.md.Tree(), name, p.md.Tree(), newname)
}

func (p *Party) mkdir(name string) error {
	return p.disk.As(p.who.Cred, func() error { return p.md.Tree().Mkdir(name, 0o755) })
}

func (p *Party) rmdir(name string) error { return p.md.Rmdir(p.ctx, p.as(name), p.md.Tree(), name) }

// createIn makes a small file in a directory.
func (p *Party) createIn(dir, name, cells string) error {
	d, err := p.md.Tree().OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	fl, err := p.md.Create(p.ctx, p.as(dir+"/"+name), d, name, 0o644)
	if err != nil {
		return err
	}
	defer fl.Close()
	return p.fill(fl, dir+"/"+name, cells)
}

// touched is a time that nothing else sets.
var touched = time.Unix(0, epoch-1e15)

// touch sets a file's mtime, which must then stay.
func (p *Party) touch(name string) error {
	fl, _, err := p.open(name)
	if err != nil {
		return err
	}
	defer fl.Close()
	if err := fl.SetTimes(mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Time: touched}); err != nil {
		return err
	}
	p.w.touched = true
	return nil
}

// read reads a file as a user does and checks that its content is one it had.
func (p *Party) read(name string) error {
	fl, s, err := p.open(name)
	if err != nil {
		return err
	}
	defer fl.Close()
	b, err := p.bytes(fl, s)
	if errors.Is(err, syscall.ESTALE) {
		return err
	}
	if err != nil {
		p.wrong("unreadable", fl, err.Error())
		return err
	}
	if s.State == objfmt.Open {
		return nil // a session of another node may be writing its body
	}
	if got := cellsOf(b); !p.w.history.outcomes(fl.ID()).ever[got] {
		p.wrong("read what was never written", fl, fmt.Sprintf("%q", got))
	}
	return nil
}

func (p *Party) wrong(kind string, fl *metadata.File, what string) {
	if p.w.wrong == nil {
		p.w.wrong = &Violation{kind, fmt.Sprintf("%s reads file %s: %s; history %s", p.name, fl.ID(), what, p.w.history.tell(fl.ID()))}
	}
}

// bytes reads the content of a slot as the namespace does: a zero block of an own
// body, or an object not found, is believed only if the slot is still the newest.
func (p *Party) bytes(fl *metadata.File, s objfmt.Slot) ([]byte, error) {
	for range 8 {
		b, err := p.bytesOnce(fl, s)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		suspect := err != nil || s.Source.Kind == objfmt.SourceOwn && hasZeroCell(b)
		if !suspect || err == nil && p.w.base.omit.Has(omit.ReadRecheck) {
			return b, nil
		}
		top, e := fl.Newest(p.ctx)
		switch {
		case e != nil:
			return nil, e
		case top.Nonce == s.Nonce && err == nil:
			return b, nil
		case top.Nonce == s.Nonce || top.Content != s.Content:
			return nil, fmt.Errorf("content %s is gone: %w", s.Content, syscall.ESTALE)
		}
		s = top
	}
	return nil, syscall.ESTALE
}

func hasZeroCell(b []byte) bool {
	for _, c := range []byte(cellsOf(b)) {
		if c == '0' || c == '?' {
			return true
		}
	}
	return false
}

func (p *Party) bytesOnce(fl *metadata.File, s objfmt.Slot) ([]byte, error) {
	b := make([]byte, s.Size)
	stored := b[:min(s.Source.Stored, s.Size)]
	switch s.Source.Kind {
	case objfmt.SourceOwn:
		return b, readFull(fl.Inode(), stored, 0)
	case objfmt.SourceBody:
		return b, p.readBody(fl, s.Content, stored, 0)
	case objfmt.SourceObj:
		return b, p.readObject(s.Source.Object, stored, s.Source.Offset)
	case objfmt.SourceTable:
		return b, p.readTable(fl, s, stored)
	}
	return b, nil
}

func (p *Party) readTable(fl *metadata.File, s objfmt.Slot, b []byte) error {
	t, err := fl.Table(p.ctx, s)
	if err != nil {
		return err
	}
	end := int64(0)
	for _, c := range t.Chunks {
		if c.Offset < int64(len(b)) {
			if err := p.readObject(c.Object, b[c.Offset:min(c.Offset+c.Length, int64(len(b)))], 0); err != nil {
				return err
			}
		}
		end = c.Offset + c.Length
	}
	if end < int64(len(b)) {
		return p.readBody(fl, s.Source.Tail, b[end:], 0)
	}
	return nil
}

func (p *Party) readBody(fl *metadata.File, content objfmt.ID, b []byte, off int64) error {
	f, err := fl.Body(p.ctx, content)
	if err != nil {
		return err
	}
	defer f.Close()
	return readFull(f, b, off)
}

func (p *Party) readObject(r objfmt.ObjectRef, b []byte, off int64) error {
	o, err := p.obj.Get(r)
	if err != nil {
		return err
	}
	if off+int64(len(b)) > int64(len(o)) {
		return fmt.Errorf("object %s has %d bytes: %w", r.Object, len(o), io.ErrUnexpectedEOF)
	}
	copy(b, o[off:])
	return nil
}

func readFull(f mdfs.File, b []byte, off int64) error {
	if len(b) == 0 {
		return nil
	}
	n, err := f.ReadAt(b, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil && n < len(b) {
		clear(b[n:])
	}
	return err
}
