package modelcheck

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/mdfssim"
	"marfs/pkg/objfmt"

	"golang.org/x/sys/unix"
)

// view is everything on the disk and in the stores, read by code of its own and
// not by that which is checked.
type view struct {
	root    mdfs.Dir
	objects *Objects
	files   map[uint64]*fileView     // by inode: regular files of tree/ and homes
	byID    map[objfmt.ID]*fileView  // those with slots
	dirents map[string]mdfs.Dirent   // everything, by path
	below   map[string][]string      // private top directory -> paths of files in it
	records map[string]objfmt.Record // versions/, trash/, work/, dead/ by path
}

// fileView is one metadata file.
type fileView struct {
	ino   uint64
	names []string // in tree/
	homes []string // files/, staged/, dead/
	nlink uint64
	size  int64
	chain []objfmt.Slot // committed, newest first
	junk  []uint64
	body  []byte
	note  bool // of a punch that did not end
}

func (f *fileView) top() objfmt.Slot { return f.chain[0] }

func (f *fileView) String() string {
	s := fmt.Sprintf("inode %x (names %v, homes %v)", f.ino, f.names, f.homes)
	for _, c := range f.chain {
		s += fmt.Sprintf(" v%d{%s %s %s}", c.Gen, c.State, c.Source.Kind, short(c.Content))
	}
	return s
}

func short(id objfmt.ID) string { s := id.String(); return s[:4] + ".." + s[28:] }

func look(d *mdfssim.Disk, objects *Objects) (*view, error) {
	v := &view{root: d.Mount(mdfssim.MountOptions{}).Root(), objects: objects, files: map[uint64]*fileView{},
		byID: map[objfmt.ID]*fileView{}, dirents: map[string]mdfs.Dirent{}, below: map[string][]string{}, records: map[string]objfmt.Record{}}
	if err := v.walk(v.root, ""); err != nil {
		return nil, err
	}
	for _, f := range v.files {
		if len(f.chain) > 0 {
			v.byID[f.top().File] = f
		}
	}
	return v, nil
}

func (v *view) walk(d mdfs.Dir, at string) error {
	entries, err := d.Entries()
	if err != nil {
		return err
	}
	for {
		e, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p := strings.TrimPrefix(at+"/"+e.Name, "/")
		v.dirents[p] = e
		if e.Type == unix.S_IFDIR {
			sub, err := d.OpenDir(e.Name)
			if err == nil {
				err = v.walk(sub, p)
			}
			if err != nil {
				return err
			}
		} else if err := v.enter(d, e, p); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
}

// enter files a path under what it is.
func (v *view) enter(d mdfs.Dir, e mdfs.Dirent, p string) error {
	top, rest, _ := strings.Cut(p, "/")
	v.below[top] = append(v.below[top], p)
	home := top == "files" || top == "staged" || top == "dead" && (strings.HasPrefix(rest, "h.") || strings.HasPrefix(rest, "x."))
	switch {
	case (top == "tree" || home) && e.Type == unix.S_IFREG:
		f, err := v.file(d, e)
		if err != nil {
			return err
		}
		if home {
			f.homes = append(f.homes, p)
		} else {
			f.names = append(f.names, p)
		}
	case top == "versions" || top == "trash" || top == "work" || top == "dead" && (strings.HasPrefix(rest, "versions/") || strings.HasPrefix(rest, "w.") || strings.HasPrefix(rest, "d.")):
		b, err := readAll(d, e.Name)
		if err != nil {
			return err
		}
		r, err := objfmt.ParseRecord(b)
		if err != nil {
			return nil // never durable, or torn: its name tells what it was
		}
		v.records[p] = r
	}
	return nil
}

func readAll(d mdfs.Dir, name string) ([]byte, error) {
	f, err := d.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, st.Size)
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

// file reads one metadata file.
func (v *view) file(d mdfs.Dir, e mdfs.Dirent) (*fileView, error) {
	if f := v.files[e.Ino]; f != nil {
		return f, nil
	}
	st, err := d.Lstat(e.Name)
	if err != nil {
		return nil, err
	}
	f := &fileView{ino: e.Ino, nlink: st.Nlink, size: st.Size}
	if f.body, err = readAll(d, e.Name); err != nil {
		return nil, err
	}
	v.files[e.Ino] = f
	return f, f.readSlots(d, e.Name)
}

func (f *fileView) readSlots(d mdfs.Dir, name string) error {
	attrs, err := d.Listxattr(name)
	if err != nil {
		return err
	}
	var all []objfmt.Slot
	for _, a := range attrs {
		f.note = f.note || a == objfmt.UserPrefix+"punch"
		g, ok := objfmt.ParseSlotName(objfmt.UserPrefix, a)
		if !ok {
			continue
		}
		b, err := d.Getxattr(name, a)
		if err != nil {
			return err
		}
		s, err := objfmt.ParseSlot(g, b)
		if err != nil {
			return err
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b objfmt.Slot) int { return int(b.Gen) - int(a.Gen) })
	for _, s := range all {
		if n := len(f.chain); n > 0 && (f.chain[n-1].Gen != s.Gen+1 || f.chain[n-1].Prev != s.Nonce) {
			f.junk = append(f.junk, s.Gen)
			continue
		}
		f.chain = append(f.chain, s)
	}
	return nil
}

// content reads what a slot names. f is nil for a version of a file that is gone.
func (v *view) content(f *fileView, s objfmt.Slot) ([]byte, error) {
	b := make([]byte, s.Size)
	stored := b[:min(s.Source.Stored, s.Size)]
	var err error
	switch s.Source.Kind {
	case objfmt.SourceOwn:
		if f == nil || len(f.body) < len(stored) {
			return nil, errors.New("own body is too short")
		}
		copy(stored, f.body)
	case objfmt.SourceBody:
		err = v.readBody(s.Content, stored)
	case objfmt.SourceObj:
		err = v.readObject(s.Source.Object, stored, s.Source.Offset)
	case objfmt.SourceTable:
		return b, v.readTable(s, stored)
	}
	if err != nil {
		return nil, err
	}
	if s.Source.Sum != 0 && s.Source.Stored <= s.Size && objfmt.Checksum(stored) != s.Source.Sum {
		return nil, fmt.Errorf("checksum of %s %s does not match: %q", s.Source.Kind, short(s.Content), cellsOf(stored))
	}
	return b, nil
}

func (v *view) readBody(id objfmt.ID, b []byte) error {
	d, err := mdfs.Walk(v.root, "bodies/"+id.Fan())
	if err != nil {
		return fmt.Errorf("body %s: %w", short(id), err)
	}
	data, err := readAll(d, id.String())
	if err != nil {
		return err
	}
	if len(data) < len(b) {
		return fmt.Errorf("body %s has %d bytes of %d", short(id), len(data), len(b))
	}
	copy(b, data)
	return nil
}

func (v *view) readObject(r objfmt.ObjectRef, b []byte, off int64) error {
	k := objectKey{r.Object, r.Chunk}
	o, ok := v.objects.held[k]
	if !ok {
		return fmt.Errorf("object %s.%d is missing (deleted: %t)", r.Object, r.Chunk, v.objects.gone[k])
	}
	if off+int64(len(b)) > int64(len(o)) {
		return fmt.Errorf("object %s.%d is too short", r.Object, r.Chunk)
	}
	copy(b, o[off:])
	return nil
}

// table reads and checks the chunk table that a slot names.
func (v *view) table(s objfmt.Slot) (*objfmt.ChunkTable, error) {
	d, err := mdfs.Walk(v.root, "chunks/"+s.File.Fan()+"/"+s.File.String())
	if err != nil {
		return nil, fmt.Errorf("chunk table %s: %w", short(s.Content), err)
	}
	b, err := readAll(d, s.Content.String())
	if err != nil {
		return nil, err
	}
	if objfmt.Checksum(b) != s.Source.Sum {
		return nil, fmt.Errorf("chunk table %s: wrong checksum", short(s.Content))
	}
	return objfmt.ParseChunkTable(b)
}

func (v *view) readTable(s objfmt.Slot, b []byte) error {
	t, err := v.table(s)
	if err != nil {
		return err
	}
	end := int64(0)
	for _, c := range t.Chunks {
		end = c.Offset + c.Length
		if c.Offset >= int64(len(b)) {
			continue
		}
		part := b[c.Offset:min(end, int64(len(b)))]
		if err := v.readObject(c.Object, part, 0); err != nil {
			return err
		}
		if int64(len(part)) == c.Length && objfmt.Checksum(part) != c.Sum {
			return fmt.Errorf("chunk at %d: wrong checksum", c.Offset)
		}
	}
	if end < int64(len(b)) {
		return v.readBody(s.Source.Tail, b[end:])
	}
	return nil
}
