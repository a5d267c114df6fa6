package objfmt

import (
	"fmt"
	"math"
)

// ChunkTable is the immutable list of a multi file's chunks, in order of offset,
// without gaps or overlaps, from 0.
type ChunkTable struct {
	File    ID
	Content ID
	Chunks  []Chunk // 1 to MaxChunks
}

// Chunk is one object of a multi file: Length bytes of it are content, from the
// object's start, for the file's bytes from Offset.
type Chunk struct {
	Offset int64
	Length int64
	Object ObjectRef
	Sum    uint64 // CRC-64/NVME of the Length bytes
}

// MemberTable lists what a pack holds, by rising offset: whose object it may be.
// Gaps are allowed, overlaps are not. It is written before the pack is: the
// object's layout is zero then.
type MemberTable struct {
	Object  ObjectRef
	Members []Member // 1 to MaxMembers
}

// Member is one content in a pack.
type Member struct {
	File    ID
	Content ID
	Offset  int64 // in the pack
	Length  int64
	Sum     uint64 // CRC-64/NVME of the Length bytes
}

// MaxMembers bounds the files of one pack: 256 MiB of 1 KiB files. A member table
// of that many is 14 MiB.
const MaxMembers = 1 << 18

const (
	tableVersion = 1
	chunkMagic   = "MarFSchk"
	memberMagic  = "MarFSmem"
	chunkBytes   = 72 // one chunk's record
	memberBytes  = 56 // one member's record
)

// Encode returns the table's file. It refuses tables that ParseChunkTable would refuse.
func (t *ChunkTable) Encode() ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("chunk table: %w", err)
	}
	places, index := indexPlaces(t.Chunks)
	w := newBinary(chunkMagic, tableVersion)
	w.id(t.File)
	w.id(t.Content)
	w.uint32(uint32(len(t.Chunks)))
	w.uint32(uint32(len(places)))
	for _, p := range places {
		w.place(p)
	}
	for i, c := range t.Chunks {
		w.int64(c.Offset)
		w.int64(c.Length)
		w.uint64(c.Sum)
		w.bytes(c.Object.Object[:])
		w.id(c.Object.WriteID)
		w.int64(c.Object.Size)
		w.uint32(c.Object.Chunk)
		w.uint32(index[i])
	}
	return w.close(), nil
}

// indexPlaces returns the placements of chunks in order of first use, and which
// of them each chunk has.
func indexPlaces(chunks []Chunk) (places []place, index []uint32) {
	known := make(map[place]uint32)
	index = make([]uint32, len(chunks))
	for i, c := range chunks {
		p := placeOf(c.Object.Layout)
		n, ok := known[p]
		if !ok {
			n = uint32(len(places))
			known[p] = n
			places = append(places, p)
		}
		index[i] = n
	}
	return places, index
}

// ParseChunkTable reads a table's file.
func ParseChunkTable(b []byte) (*ChunkTable, error) {
	t, err := parseChunkTable(b)
	if err != nil {
		return nil, fmt.Errorf("chunk table: %w", err)
	}
	return t, nil
}

func parseChunkTable(b []byte) (*ChunkTable, error) {
	r, err := openBinary(chunkMagic, tableVersion, b)
	if err != nil {
		return nil, err
	}
	t := &ChunkTable{File: r.id(), Content: r.id()}
	count, placeCount := r.uint32(), r.uint32()
	places := make([]place, 0, min(int(placeCount), r.room(minPlaceBytes)))
	for range placeCount {
		if r.err != nil {
			return nil, r.err
		}
		places = append(places, r.place())
	}
	t.Chunks = make([]Chunk, 0, min(int(count), r.room(chunkBytes)))
	for range count {
		c := r.chunk(places)
		if r.err != nil {
			return nil, r.err
		}
		t.Chunks = append(t.Chunks, c)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, canonical(t, b)
}

func (r *binaryReader) chunk(places []place) (c Chunk) {
	c = Chunk{Offset: r.int64(), Length: r.int64(), Sum: r.uint64()}
	c.Object.Object = ObjectID(r.id())
	writeID, size := r.id(), r.int64()
	c.Object.Chunk = r.uint32()
	i := r.uint32()
	if r.err == nil && int64(i) >= int64(len(places)) {
		r.fail("placement %d of %d", i, len(places))
	}
	if r.err == nil {
		c.Object.Layout = places[i].layout(writeID, size)
	}
	return c
}

// check refuses anything but a sequence without gaps, overlaps or empty chunks.
func (t *ChunkTable) check() error {
	if t.File.IsZero() || t.Content.IsZero() {
		return fmt.Errorf("%w: file or content id is zero", ErrFormat)
	}
	if len(t.Chunks) < 1 || len(t.Chunks) > MaxChunks {
		return fmt.Errorf("%w: %d chunks, want 1 to %d", ErrFormat, len(t.Chunks), MaxChunks)
	}
	var end int64
	for i, c := range t.Chunks {
		if c.Offset != end || c.Length < 1 || c.Length > math.MaxInt64-c.Offset {
			return fmt.Errorf("%w: chunk %d is %d bytes from %d, want it from %d", ErrFormat, i, c.Length, c.Offset, end)
		}
		if err := checkRef(c.Object); err != nil {
			return fmt.Errorf("chunk %d: %w", i, err)
		}
		if c.Length > c.Object.Size {
			return fmt.Errorf("%w: chunk %d is %d bytes of an object of %d", ErrFormat, i, c.Length, c.Object.Size)
		}
		end += c.Length
	}
	return nil
}

// Encode returns the table's file. It refuses tables that ParseMemberTable would refuse.
func (t *MemberTable) Encode() ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("member table: %w", err)
	}
	w := newBinary(memberMagic, tableVersion)
	w.bytes(t.Object.Object[:])
	w.id(t.Object.WriteID)
	w.int64(t.Object.Size)
	w.uint32(uint32(len(t.Members)))
	w.place(placeOf(t.Object.Layout))
	for _, m := range t.Members {
		w.id(m.File)
		w.id(m.Content)
		w.int64(m.Offset)
		w.int64(m.Length)
		w.uint64(m.Sum)
	}
	return w.close(), nil
}

// MemberTableSize is how many bytes the table of a pack with so many members takes, as
// it is written before the pack is: without a layout.
func MemberTableSize(members int) int64 {
	const head, placement, sum = 8 + 4 + 16 + 16 + 8 + 4, 4 + 4 + 3*4, 8
	return head + placement + int64(members)*memberBytes + sum
}

// ParseMemberTable reads a table's file.
func ParseMemberTable(b []byte) (*MemberTable, error) {
	t, err := parseMemberTable(b)
	if err != nil {
		return nil, fmt.Errorf("member table: %w", err)
	}
	return t, nil
}

func parseMemberTable(b []byte) (*MemberTable, error) {
	r, err := openBinary(memberMagic, tableVersion, b)
	if err != nil {
		return nil, err
	}
	t := &MemberTable{}
	t.Object.Object = ObjectID(r.id())
	writeID, size := r.id(), r.int64()
	count := r.uint32()
	t.Object.Layout = r.place().layout(writeID, size)
	t.Members = make([]Member, 0, min(int(count), r.room(memberBytes)))
	for range count {
		m := Member{File: r.id(), Content: r.id(), Offset: r.int64(), Length: r.int64(), Sum: r.uint64()}
		if r.err != nil {
			return nil, r.err
		}
		t.Members = append(t.Members, m)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, canonical(t, b)
}

func (t *MemberTable) check() error {
	room := int64(math.MaxInt64)
	if t.Object.Layout != (Layout{}) {
		if err := checkRef(t.Object); err != nil {
			return err
		}
		room = t.Object.Size
	}
	if t.Object.Object.IsZero() || t.Object.Chunk != 0 {
		return fmt.Errorf("%w: not a pack's object", ErrFormat)
	}
	if len(t.Members) < 1 || len(t.Members) > MaxMembers {
		return fmt.Errorf("%w: %d members, want 1 to %d", ErrFormat, len(t.Members), MaxMembers)
	}
	return checkMembers(t.Members, room)
}

func checkMembers(members []Member, room int64) error {
	var end int64
	for i, m := range members {
		if m.File.IsZero() || m.Content.IsZero() {
			return fmt.Errorf("%w: member %d without an id", ErrFormat, i)
		}
		if m.Offset < end || m.Offset > room || m.Length < 1 || m.Length > room-m.Offset {
			return fmt.Errorf("%w: member %d is %d bytes from %d, after %d and within %d",
				ErrFormat, i, m.Length, m.Offset, end, room)
		}
		end = m.Offset + m.Length
	}
	return nil
}
