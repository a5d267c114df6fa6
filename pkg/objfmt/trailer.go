package objfmt

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Trailer is the recovery information at the end of every object: with the key, it is
// enough to make the metadata of the object's files again, as they were when the
// object was written. Later changes of names, owners and modes are not in it.
type Trailer struct {
	Namespace string
	Object    ObjectID
	Chunk     uint32 // as in ObjectRef: 0 for the first object of a content
	Chunks    uint32 // how many objects hold the content; 0: not known when this one ended
	Stored    int64  // bytes of the object before the trailer
	Files     []TrailerFile
}

// TrailerFile is a file, or a chunk of one, in an object. A pack has several, by
// rising At.
type TrailerFile struct {
	File    ID
	Content ID
	Path    string // relative to the namespace's root, any bytes
	Mode    uint32 // with S_IFMT
	UID     uint32
	GID     uint32
	MTime   time.Time
	Size    int64             // of the whole file; -1: not known when the object ended
	Offset  int64             // in the file
	At      int64             // in the object
	Length  int64             // bytes
	Sum     uint64            // CRC-64/NVME of the Length bytes
	Xattrs  map[string][]byte // user xattrs and ACLs
}

// TrailerFooterSize is how many bytes at the end of an object tell how long its
// trailer is.
const TrailerFooterSize = 8 + 8 + 8

// MaxTrailer bounds a trailer in bytes, footer included: a reader holds it in memory.
const MaxTrailer = 256 << 20

const (
	trailerMagic   = "MarFSrec"
	trailerVersion = 1
	footerMagic    = "MarFSfin"
	trailerBytes   = 2*16 + 4 + 3*4 + 8 + 4 + 5*8 + 4 // of one file without path and xattrs
)

// Encode returns the trailer and its footer. It refuses trailers that ParseTrailer would refuse.
func (t *Trailer) Encode() ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("trailer: %w", err)
	}
	w := newBinary(trailerMagic, trailerVersion)
	w.string(t.Namespace)
	w.bytes(t.Object[:])
	w.uint32(t.Chunk)
	w.uint32(t.Chunks)
	w.int64(t.Stored)
	w.uint32(uint32(len(t.Files)))
	for i := range t.Files {
		w.trailerFile(&t.Files[i])
	}
	b := w.close()
	b = appendFooter(b, len(b)+TrailerFooterSize)
	if len(b) > MaxTrailer {
		return nil, fmt.Errorf("trailer: %w: %d bytes, want at most %d", ErrFormat, len(b), MaxTrailer)
	}
	return b, nil
}

func (w *binaryWriter) trailerFile(f *TrailerFile) {
	w.id(f.File)
	w.id(f.Content)
	w.string(f.Path)
	w.uint32(f.Mode)
	w.uint32(f.UID)
	w.uint32(f.GID)
	w.int64(f.MTime.Unix())
	w.uint32(uint32(f.MTime.Nanosecond()))
	w.int64(f.Size)
	w.int64(f.Offset)
	w.int64(f.At)
	w.int64(f.Length)
	w.uint64(f.Sum)
	w.uint32(uint32(len(f.Xattrs)))
	for _, name := range slices.Sorted(maps.Keys(f.Xattrs)) {
		w.string(name)
		w.string(string(f.Xattrs[name]))
	}
}

func appendFooter(b []byte, size int) []byte {
	footer := binary.BigEndian.AppendUint64([]byte(footerMagic), uint64(size))
	b = append(b, footer...)
	return binary.BigEndian.AppendUint64(b, Checksum(footer))
}

// ParseTrailerFooter reads the last TrailerFooterSize bytes of an object and returns
// how many of its last bytes are the trailer, footer included. Content cannot be
// taken for a footer: a writer always ends with one.
func ParseTrailerFooter(b []byte) (size int64, err error) {
	if len(b) != TrailerFooterSize || string(b[:8]) != footerMagic {
		return 0, fmt.Errorf("trailer: %w: no footer", ErrFormat)
	}
	if binary.BigEndian.Uint64(b[16:]) != Checksum(b[:16]) {
		return 0, fmt.Errorf("trailer footer: %w", ErrChecksum)
	}
	n := binary.BigEndian.Uint64(b[8:])
	if n < TrailerFooterSize+binaryHead+binarySum || n > MaxTrailer {
		return 0, fmt.Errorf("trailer: %w: footer says %d bytes", ErrFormat, n)
	}
	return int64(n), nil
}

// ParseTrailer reads a trailer, footer included: as many of the object's last
// bytes as ParseTrailerFooter says. Times are UTC.
func ParseTrailer(b []byte) (*Trailer, error) {
	start := max(0, len(b)-TrailerFooterSize)
	size, err := ParseTrailerFooter(b[start:])
	if err != nil {
		return nil, err
	}
	if size != int64(len(b)) {
		return nil, fmt.Errorf("trailer: %w: %d bytes, footer says %d", ErrFormat, len(b), size)
	}
	t, err := parseTrailer(b[:start])
	if err == nil {
		err = canonical(t, b)
	}
	if err != nil {
		return nil, fmt.Errorf("trailer: %w", err)
	}
	return t, nil
}

func parseTrailer(b []byte) (*Trailer, error) {
	r, err := openBinary(trailerMagic, trailerVersion, b)
	if err != nil {
		return nil, err
	}
	t := &Trailer{
		Namespace: r.string(),
		Object:    ObjectID(r.id()),
		Chunk:     r.uint32(),
		Chunks:    r.uint32(),
		Stored:    r.int64(),
	}
	count := r.uint32()
	t.Files = make([]TrailerFile, 0, min(int(count), r.room(trailerBytes)))
	for range count {
		f := r.trailerFile()
		if r.err != nil {
			return nil, r.err
		}
		t.Files = append(t.Files, f)
	}
	return t, r.end()
}

func (r *binaryReader) trailerFile() TrailerFile {
	f := TrailerFile{
		File:    r.id(),
		Content: r.id(),
		Path:    r.string(),
		Mode:    r.uint32(),
		UID:     r.uint32(),
		GID:     r.uint32(),
	}
	sec, nsec := r.int64(), r.uint32()
	f.MTime = time.Unix(sec, int64(nsec)).UTC()
	f.Size, f.Offset, f.At, f.Length, f.Sum = r.int64(), r.int64(), r.int64(), r.int64(), r.uint64()
	for range r.uint32() {
		name, value := r.string(), r.string()
		if r.err != nil {
			break
		}
		if f.Xattrs == nil {
			f.Xattrs = make(map[string][]byte)
		}
		f.Xattrs[name] = []byte(value)
	}
	return f
}

func (t *Trailer) check() error {
	if err := CheckName("namespace", t.Namespace); err != nil {
		return err
	}
	if t.Object.IsZero() {
		return fmt.Errorf("%w: object id is zero", ErrFormat)
	}
	if len(t.Files) < 1 || len(t.Files) > MaxMembers {
		return fmt.Errorf("%w: %d files, want 1 to %d", ErrFormat, len(t.Files), MaxMembers)
	}
	if len(t.Files) > 1 && (t.Chunk != 0 || t.Chunks > 1) {
		return fmt.Errorf("%w: a pack that is a chunk", ErrFormat)
	}
	var end int64
	for i := range t.Files {
		f := &t.Files[i]
		if err := f.check(end, t.Stored); err != nil {
			return fmt.Errorf("file %d: %w", i, err)
		}
		end = f.At + f.Length
	}
	return nil
}

// check refuses a file that is not whole between end and stored.
func (f *TrailerFile) check(end, stored int64) error {
	switch {
	case f.File.IsZero() || f.Content.IsZero():
		return fmt.Errorf("%w: file or content id is zero", ErrFormat)
	case len(f.Path) > MaxPath:
		return fmt.Errorf("%w: path of %d bytes, want at most %d", ErrFormat, len(f.Path), MaxPath)
	case f.At < end || f.At > stored || f.Length < 1 || f.Length > stored-f.At:
		return fmt.Errorf("%w: %d bytes at %d, after %d and within %d", ErrFormat, f.Length, f.At, end, stored)
	case f.Size < -1 || f.Offset < 0 || f.Offset > math.MaxInt64-f.Length:
		return fmt.Errorf("%w: bytes from %d of a file of %d", ErrFormat, f.Offset, f.Size)
	}
	return checkXattrs(f.Xattrs)
}
