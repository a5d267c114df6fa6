package metadata

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// destroyContent deletes objects, table and bodies of a content that nothing
// names: objects first, so that the metadata that leads to them goes last. Of a
// pack only a hint is left that some of its bytes are dead. The body goes wherever
// the record says the content is: it may be there beside, as a cache.
func (b *batch) destroyContent(ctx context.Context, s objfmt.Slot) error {
	if err := b.destroySource(ctx, s); err != nil {
		return err
	}
	b.done.Bytes += s.Size
	if s.Content.IsZero() || b.f.o.Omit.Has(omit.VersionBody) && s.Source.Kind != objfmt.SourceBody {
		return nil
	}
	return b.f.removeBody(s.Content)
}

func (b *batch) destroySource(ctx context.Context, s objfmt.Slot) error {
	switch src := s.Source; {
	case src.Kind == objfmt.SourceTable:
		return b.destroyTable(ctx, s)
	case src.Kind == objfmt.SourceObj && src.Packed:
		return b.f.hint(src.Object.Object, s.Content)
	case src.Kind == objfmt.SourceObj:
		return b.deleteObject(ctx, s, src.Object)
	}
	return nil
}

func (b *batch) destroyTable(ctx context.Context, s objfmt.Slot) error {
	t, err := b.f.readTable(s.File, s.Content, s.Source)
	if err != nil && !errors.Is(err, syscall.ENOENT) { // ENOENT: destroyed up to here already
		return err
	}
	if err == nil {
		for _, c := range t.Chunks {
			if err := b.deleteObject(ctx, s, c.Object); err != nil {
				return err
			}
		}
	}
	if !s.Source.Tail.IsZero() {
		if err := b.f.removeBody(s.Source.Tail); err != nil {
			return err
		}
	}
	if err := b.f.removeTable(s.File, s.Content); err != nil {
		return err
	}
	b.tables.destroyed(b.f.tableName(s.File, s.Content), t)
	return nil
}

// chunkName is an object's name.
type chunkName struct {
	object objfmt.ObjectID
	chunk  uint32
}

// deleteObject deletes an object of s that no other table of the file names: a
// table may go on with the chunks of an older one.
func (b *batch) deleteObject(ctx context.Context, s objfmt.Slot, ref objfmt.ObjectRef) error {
	shared, err := b.tables.shares(b.f, s, chunkName{ref.Object, ref.Chunk})
	if shared || err != nil {
		return err
	}
	return stepObject.Do(func() error { return b.f.o.Objects.Delete(ctx, ref) })
}

// tables is what the chunk tables of one file name, read once for all its contents
// that are destroyed behind one sync. What they do not name no table names that is
// made later: it would go on with one of them, or with a content that was taken.
type tables struct {
	file  objfmt.ID
	but   string            // the table that was left out
	read  map[string]bool   // tables that are counted
	count map[chunkName]int // of those that name an object
}

func (t *tables) forget() { *t = tables{} }

// shares tells whether other tables than that of s name an object of it. Before
// that is believed they are read again, once for s: another gc may have destroyed
// them meanwhile, which leaves the object to this one.
func (t *tables) shares(f *FS, s objfmt.Slot, c chunkName) (bool, error) {
	own := f.tableName(s.File, s.Content)
	if t.read == nil || t.file != s.File {
		if err := t.load(f, s.File, own); err != nil {
			return false, err
		}
	}
	if !t.others(own, c) || t.but == own {
		return t.others(own, c), nil
	}
	err := t.load(f, s.File, own)
	return t.others(own, c), err
}

func (t *tables) others(own string, c chunkName) bool {
	if t.read[own] {
		return t.count[c] > 1
	}
	return t.count[c] > 0
}

// load reads the tables of a file but for one, which is about to go.
func (t *tables) load(f *FS, file objfmt.ID, but string) error {
	*t = tables{file: file, but: but, read: map[string]bool{}, count: map[chunkName]int{}}
	err := f.inTables(file, func(d mdfs.Dir) error {
		return eachEntry(d, "", func(name string) (bool, error) {
			if name == but {
				return false, nil
			}
			return false, t.add(d, name)
		})
	})
	if err != nil {
		t.forget()
		return fmt.Errorf("chunk tables of file %s: %w", file, err) // better a leak than a guess
	}
	return nil
}

func (t *tables) add(d mdfs.Dir, name string) error {
	b, err := readFile(d, name, maxTable(objfmt.MaxChunks))
	if err != nil {
		return ignore(err, syscall.ENOENT)
	}
	table, err := objfmt.ParseChunkTable(b)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	t.read[name] = true
	for _, c := range table.Chunks {
		t.count[chunkName{c.Object.Object, c.Object.Chunk}]++
	}
	return nil
}

// destroyed takes a table out.
func (t *tables) destroyed(name string, table *objfmt.ChunkTable) {
	if table == nil || !t.read[name] {
		return
	}
	delete(t.read, name)
	for _, c := range table.Chunks {
		t.count[chunkName{c.Object.Object, c.Object.Chunk}]--
	}
}
