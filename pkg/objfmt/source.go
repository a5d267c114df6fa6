package objfmt

import (
	"fmt"
	"strconv"
)

// MaxChunks bounds the chunks of one file: 4 PiB of 1 GiB chunks. A chunk table
// of that many is about 300 MB.
const MaxChunks = 1 << 22

// put writes <kind>=<stored>,<sum>[,...] and, for objects, at=<layout>.
func (s Source) put(w *textWriter) {
	v := strconv.FormatInt(s.Stored, 10) + "," + text64(s.Sum)
	switch s.Kind {
	case SourceEmpty:
		w.put("empty", "0")
	case SourceOwn, SourceBody:
		w.put(string(s.Kind), v)
	case SourceTable:
		v += "," + strconv.Itoa(s.Chunks)
		if !s.Tail.IsZero() {
			v += "," + textID(s.Tail)
		}
		w.put("table", v)
	case SourceObj:
		key := "obj"
		v += "," + textObject(s.Object.Object, s.Object.Chunk)
		if s.Packed {
			key = "pack"
			v += "," + strconv.FormatInt(s.Offset, 10)
		}
		w.put(key, v)
		w.put("at", textLayout(s.Object.Layout))
	}
}

// source reads what Source.put wrote.
func (r *textReader) source() (s Source) {
	if _, ok := r.take("empty"); ok {
		return Source{Kind: SourceEmpty}
	}
	if v, ok := r.take("own"); ok {
		return r.stored(SourceOwn, r.list(v, ",", 2, 2))
	}
	if v, ok := r.take("body"); ok {
		return r.stored(SourceBody, r.list(v, ",", 2, 2))
	}
	if v, ok := r.take("table"); ok {
		p := r.list(v, ",", 3, 4)
		s = r.stored(SourceTable, p)
		s.Chunks = int(r.uint32(p[2]))
		if p[3] != "" {
			s.Tail = r.id(p[3])
		}
		return s
	}
	v, packed := r.take("pack")
	if !packed {
		v = r.need("obj")
	}
	p := r.list(v, ",", 3, 4)
	s = r.stored(SourceObj, p)
	s.Object.Object, s.Object.Chunk = r.object(p[2])
	if packed {
		s.Packed, s.Offset = true, r.int64(p[3])
	}
	s.Object.Layout = r.layout(r.need("at"))
	return s
}

func (r *textReader) stored(kind SourceKind, parts []string) Source {
	return Source{Kind: kind, Stored: r.int64(parts[0]), Sum: r.uint64(parts[1])}
}

// check refuses sources that cannot be, and fields that do not belong to the kind.
func (s Source) check() error {
	if s.Stored < 0 {
		return fmt.Errorf("%w: %d bytes stored", ErrFormat, s.Stored)
	}
	want := Source{Kind: s.Kind, Stored: s.Stored, Sum: s.Sum}
	switch s.Kind {
	case SourceEmpty:
		want.Stored, want.Sum = 0, 0
	case SourceOwn, SourceBody:
	case SourceTable:
		want.Chunks, want.Tail = s.Chunks, s.Tail
		if s.Chunks < 1 || s.Chunks > MaxChunks {
			return fmt.Errorf("%w: table of %d chunks, want 1 to %d", ErrFormat, s.Chunks, MaxChunks)
		}
	case SourceObj:
		want.Object, want.Packed, want.Offset = s.Object, s.Packed, s.Offset
		if err := s.checkObject(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: source %.40q", ErrFormat, s.Kind)
	}
	if s != want {
		return fmt.Errorf("%w: source %s with fields of another kind", ErrFormat, s.Kind)
	}
	return nil
}

func (s Source) checkObject() error {
	if err := checkRef(s.Object); err != nil {
		return err
	}
	if !s.Packed && s.Offset != 0 {
		return fmt.Errorf("%w: a whole object at offset %d", ErrFormat, s.Offset)
	}
	if s.Packed && s.Object.Chunk != 0 {
		return fmt.Errorf("%w: pack with chunk number %d", ErrFormat, s.Object.Chunk)
	}
	if s.Offset < 0 || s.Offset > s.Object.Size || s.Stored > s.Object.Size-s.Offset {
		return fmt.Errorf("%w: %d bytes at %d of an object of %d", ErrFormat, s.Stored, s.Offset, s.Object.Size)
	}
	return nil
}
