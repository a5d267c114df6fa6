package objfmt

import (
	"encoding/binary"
	"fmt"
)

// Chunk and member tables, and recovery trailers, share one binary form:
//
//	magic 8 | version 4 | body ... | CRC-64/NVME of all before 8
//
// Integers are big-endian; a string is its length in 4 bytes, and its bytes.

const (
	binaryHead = 8 + 4
	binarySum  = 8
)

type binaryWriter struct{ b []byte }

func newBinary(magic string, version uint32) *binaryWriter {
	return &binaryWriter{b: binary.BigEndian.AppendUint32([]byte(magic), version)}
}

func (w *binaryWriter) bytes(b []byte)  { w.b = append(w.b, b...) }
func (w *binaryWriter) id(id ID)        { w.b = append(w.b, id[:]...) }
func (w *binaryWriter) uint32(n uint32) { w.b = binary.BigEndian.AppendUint32(w.b, n) }
func (w *binaryWriter) uint64(n uint64) { w.b = binary.BigEndian.AppendUint64(w.b, n) }
func (w *binaryWriter) int64(n int64)   { w.uint64(uint64(n)) }

func (w *binaryWriter) string(s string) {
	w.uint32(uint32(len(s)))
	w.b = append(w.b, s...)
}

// close appends the checksum and returns everything.
func (w *binaryWriter) close() []byte {
	w.uint64(Checksum(w.b))
	return w.b
}

// binaryReader takes values in order. The first error sticks; values are zero after it.
type binaryReader struct {
	b   []byte
	err error
}

// openBinary checks magic, version and checksum, in this order.
func openBinary(magic string, version uint32, b []byte) (*binaryReader, error) {
	if len(b) < binaryHead+binarySum {
		return nil, fmt.Errorf("%w: %d bytes", ErrFormat, len(b))
	}
	if string(b[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: begins with %q, want %q", ErrFormat, b[:len(magic)], magic)
	}
	if v := binary.BigEndian.Uint32(b[len(magic):]); v != version {
		return nil, fmt.Errorf("%w: %d, want %d", ErrVersion, v, version)
	}
	end := len(b) - binarySum
	have, want := Checksum(b[:end]), binary.BigEndian.Uint64(b[end:])
	if have != want {
		return nil, fmt.Errorf("%w: have %016x, want %016x", ErrChecksum, have, want)
	}
	return &binaryReader{b: b[binaryHead:end]}, nil
}

func (r *binaryReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
	}
}

// room is how many records of size bytes the rest can hold: the most that a
// count may make the reader allocate.
func (r *binaryReader) room(size int) int { return len(r.b) / size }

// take returns the next n bytes, or nil at the end.
func (r *binaryReader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b) {
		r.fail("ends early")
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *binaryReader) id() (id ID) {
	copy(id[:], r.take(len(id)))
	return id
}

func (r *binaryReader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *binaryReader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *binaryReader) int64() int64 { return int64(r.uint64()) }

func (r *binaryReader) string() string { return string(r.take(int(r.uint32()))) }

// end reports the first error, or bytes that nobody took.
func (r *binaryReader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return r.err
}

// place is the part of a layout that many objects share.
type place struct {
	repo, pod string
	Geometry
}

// minPlaceBytes is the size of a place with empty names.
const minPlaceBytes = 2*4 + 3*4

func placeOf(l Layout) place { return place{l.Repo, l.Pod, l.Geometry} }

func (p place) layout(writeID ID, size int64) Layout {
	return Layout{Repo: p.repo, Pod: p.pod, Geometry: p.Geometry, WriteID: writeID, Size: size}
}

func (w *binaryWriter) place(p place) {
	w.string(p.repo)
	w.string(p.pod)
	w.uint32(uint32(p.Data))
	w.uint32(uint32(p.Parity))
	w.uint32(uint32(p.Block))
}

func (r *binaryReader) place() place {
	return place{r.string(), r.string(), Geometry{int(r.uint32()), int(r.uint32()), int(r.uint32())}}
}
