package objfmt

import (
	"bytes"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Generators make any value that Encode must accept.

func genID() *rapid.Generator[ID] {
	return rapid.Custom(func(t *rapid.T) (id ID) {
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		id[3] |= 1 // not zero
		return id
	})
}

func genTime() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64().Draw(t, "sec"), rapid.Int64Range(0, 999_999_999).Draw(t, "nsec")).UTC()
	})
}

func genName() *rapid.Generator[string] { return rapid.StringMatching(`[a-z0-9][a-z0-9._-]{0,62}`) }

// genBytes makes strings of any bytes, most of them short.
func genBytes(limit int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(rapid.Byte(), 0, min(limit, 200)).Draw(t, "bytes"))
	})
}

func genRef(chunk uint32) *rapid.Generator[ObjectRef] {
	return rapid.Custom(func(t *rapid.T) ObjectRef {
		data := rapid.IntRange(1, MaxShards).Draw(t, "data")
		return ObjectRef{
			Object: ObjectID(genID().Draw(t, "object")),
			Chunk:  rapid.Uint32Range(0, chunk).Draw(t, "chunk"),
			Layout: Layout{
				Repo: genName().Draw(t, "repo"),
				Pod:  genName().Draw(t, "pod"),
				Geometry: Geometry{
					Data:   data,
					Parity: rapid.IntRange(0, MaxShards-data).Draw(t, "parity"),
					Block:  CellSize * rapid.IntRange(1, MaxBlock/CellSize).Draw(t, "block"),
				},
				WriteID: genID().Draw(t, "write"),
				Size:    rapid.Int64Range(1, MaxObject).Draw(t, "object size"),
			},
		}
	})
}

func genSource() *rapid.Generator[Source] {
	return rapid.Custom(func(t *rapid.T) Source {
		s := Source{
			Stored: rapid.Int64Min(0).Draw(t, "stored"),
			Sum:    rapid.Uint64().Draw(t, "sum"),
			Kind:   rapid.SampledFrom([]SourceKind{SourceEmpty, SourceOwn, SourceBody, SourceObj, SourceTable}).Draw(t, "source"),
		}
		switch s.Kind {
		case SourceEmpty:
			return Source{Kind: SourceEmpty}
		case SourceTable:
			s.Chunks = rapid.IntRange(1, MaxChunks).Draw(t, "chunks")
			if rapid.Bool().Draw(t, "has tail") {
				s.Tail = genID().Draw(t, "tail")
			}
		case SourceObj:
			s.Packed = rapid.Bool().Draw(t, "packed")
			if s.Packed {
				s.Object = genRef(0).Draw(t, "pack")
				s.Offset = rapid.Int64Range(0, s.Object.Size).Draw(t, "offset")
			} else {
				s.Object = genRef(math.MaxUint32).Draw(t, "object")
			}
			s.Stored %= s.Object.Size - s.Offset + 1
		}
		return s
	})
}

func genSlot() *rapid.Generator[Slot] {
	return rapid.Custom(func(t *rapid.T) Slot {
		s := Slot{
			Gen: 7, File: genID().Draw(t, "file"), Content: genID().Draw(t, "content"),
			State:  rapid.SampledFrom([]State{Open, Final, Sealed}).Draw(t, "state"),
			Size:   rapid.Int64Min(0).Draw(t, "size"),
			MTime:  genTime().Draw(t, "mtime"),
			Nonce:  rapid.Uint64Min(1).Draw(t, "nonce"),
			Prev:   rapid.Uint64().Draw(t, "prev"),
			Source: genSource().Draw(t, "source"),
		}
		if s.State == Open {
			s.Session = genID().Draw(t, "session")
		}
		return s
	})
}

func genXattrs() *rapid.Generator[map[string][]byte] {
	name := rapid.StringMatching(`user\.[ -~é%=\n]{0,40}`)
	return rapid.Custom(func(t *rapid.T) map[string][]byte {
		m := rapid.MapOfN(name, rapid.SliceOfN(rapid.Byte(), 0, 100), 0, 5).Draw(t, "xattrs")
		if len(m) == 0 {
			return nil
		}
		return m
	})
}

func genRecord() *rapid.Generator[Record] {
	kinds := []RecordKind{RecordFile, RecordDir, RecordSymlink, RecordSpecial, RecordPack, RecordVersion, RecordWork}
	return rapid.Custom(func(t *rapid.T) Record {
		slot := genSlot().Draw(t, "slot")
		slot.Gen = rapid.Uint64().Draw(t, "gen")
		r := Record{
			Kind: rapid.SampledFrom(kinds).Draw(t, "kind"),
			File: slot.File, Content: slot.Content, Session: genID().Draw(t, "session"),
			Node: genBytes(maxNode).Draw(t, "node"), When: genTime().Draw(t, "when"),
			Path: genBytes(MaxPath).Draw(t, "path"), Why: genBytes(MaxWhy).Draw(t, "why"),
			By: rapid.Uint32().Draw(t, "by"), Object: ObjectID(genID().Draw(t, "object")),
			Mode: rapid.Uint32Min(1).Draw(t, "mode"), UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"),
			Rdev: rapid.Uint64().Draw(t, "rdev"), MTime: genTime().Draw(t, "mtime"),
			Target: "t" + genBytes(MaxTarget).Draw(t, "target"), Xattrs: genXattrs().Draw(t, "xattrs"),
		}
		if r.Kind == RecordVersion {
			r.Slot = &slot
		}
		return r
	})
}

func genChunkTable() *rapid.Generator[*ChunkTable] {
	return rapid.Custom(func(t *rapid.T) *ChunkTable {
		table := &ChunkTable{File: genID().Draw(t, "file"), Content: genID().Draw(t, "content")}
		refs := rapid.SliceOfN(genRef(9), 1, 3).Draw(t, "refs")
		var end int64
		for range rapid.IntRange(1, 8).Draw(t, "chunks") {
			ref := rapid.SampledFrom(refs).Draw(t, "ref")
			ref.WriteID = genID().Draw(t, "write")
			n := rapid.Int64Range(1, ref.Size).Draw(t, "length")
			table.Chunks = append(table.Chunks, Chunk{Offset: end, Length: n, Object: ref, Sum: rapid.Uint64().Draw(t, "sum")})
			end += n
		}
		return table
	})
}

func genMemberTable() *rapid.Generator[*MemberTable] {
	return rapid.Custom(func(t *rapid.T) *MemberTable {
		table := &MemberTable{Object: genRef(0).Draw(t, "object")}
		table.Object.Size = MaxObject
		if rapid.Bool().Draw(t, "not yet written") {
			table.Object.Layout = Layout{}
		}
		var end int64
		for range rapid.IntRange(1, 8).Draw(t, "members") {
			m := Member{
				File: genID().Draw(t, "file"), Content: genID().Draw(t, "content"), Sum: rapid.Uint64().Draw(t, "sum"),
				Offset: end + rapid.Int64Range(0, 9).Draw(t, "gap"), Length: rapid.Int64Range(1, 1<<40).Draw(t, "length"),
			}
			table.Members = append(table.Members, m)
			end = m.Offset + m.Length
		}
		return table
	})
}

func genTrailer() *rapid.Generator[*Trailer] {
	return rapid.Custom(func(t *rapid.T) *Trailer {
		tr := &Trailer{Namespace: genName().Draw(t, "namespace"), Object: ObjectID(genID().Draw(t, "object")), Chunks: 1}
		for range rapid.IntRange(1, 4).Draw(t, "files") {
			f := TrailerFile{
				File: genID().Draw(t, "file"), Content: genID().Draw(t, "content"),
				Path: genBytes(MaxPath).Draw(t, "path"), Mode: rapid.Uint32().Draw(t, "mode"),
				UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"), MTime: genTime().Draw(t, "mtime"),
				Size: rapid.Int64Min(-1).Draw(t, "size"), Offset: rapid.Int64Range(0, 1<<62).Draw(t, "offset"),
				At: tr.Stored, Length: rapid.Int64Range(1, 1<<40).Draw(t, "length"),
				Sum: rapid.Uint64().Draw(t, "sum"), Xattrs: genXattrs().Draw(t, "xattrs"),
			}
			tr.Stored = f.At + f.Length
			tr.Files = append(tr.Files, f)
		}
		if len(tr.Files) == 1 {
			tr.Chunk, tr.Chunks = rapid.Uint32().Draw(t, "chunk"), rapid.Uint32().Draw(t, "chunks")
		}
		return tr
	})
}

func genDamage() *rapid.Generator[Damage] {
	return rapid.Custom(func(t *rapid.T) Damage {
		d := Damage{Object: genRef(math.MaxUint32).Draw(t, "object"), Why: genBytes(MaxWhy).Draw(t, "why")}
		d.Shards = rapid.SliceOfNDistinct(rapid.IntRange(0, d.Object.Geometry.Shards()-1), 1, -1, rapid.ID).Draw(t, "shards")
		slices.Sort(d.Shards)
		return d
	})
}

// TestRoundTrip: what was encoded parses as itself, and is again encoded as it was.
func TestRoundTrip(t *testing.T) {
	t.Run("slot", roundTrip(genSlot(), func(b []byte) (Slot, error) { return ParseSlot(7, b) }))
	t.Run("record", roundTrip(genRecord(), ParseRecord))
	t.Run("damage", roundTrip(genDamage(), ParseDamage))
	t.Run("chunktable", roundTrip(genChunkTable(), ParseChunkTable))
	t.Run("membertable", roundTrip(genMemberTable(), ParseMemberTable))
	t.Run("trailer", roundTrip(genTrailer(), ParseTrailer))
}

func roundTrip[T encoder](gen *rapid.Generator[T], parse func([]byte) (T, error)) func(*testing.T) {
	return rapid.MakeCheck(func(t *rapid.T) {
		want := gen.Draw(t, "value")
		b, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := parse(b)
		if err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		again, err := got.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("again %q, want %q (%v)", again, b, err)
		}
	})
}

// TestSlotFits is the promise behind MaxSlot: no slot is ever too long to publish.
func TestSlotFits(t *testing.T) {
	name := strings.Repeat("n", maxName)
	ref := ObjectRef{Object: sampleObject, Chunk: math.MaxUint32, Layout: Layout{
		Repo: name, Pod: name, Geometry: Geometry{Data: 128, Parity: 128, Block: MaxBlock}, WriteID: sampleID(1), Size: MaxObject,
	}}
	packed := ref
	packed.Chunk = 0
	sources := map[string]Source{
		"uni":   {Kind: SourceObj, Stored: MaxObject, Sum: math.MaxUint64, Object: ref},
		"pack":  {Kind: SourceObj, Stored: MaxObject / 2, Sum: math.MaxUint64, Object: packed, Packed: true, Offset: MaxObject / 2},
		"table": {Kind: SourceTable, Stored: math.MaxInt64, Sum: math.MaxUint64, Chunks: MaxChunks, Tail: sampleID(1)},
		"body":  {Kind: SourceBody, Stored: math.MaxInt64, Sum: math.MaxUint64},
		"own":   {Kind: SourceOwn, Stored: math.MaxInt64, Sum: math.MaxUint64},
	}
	for kind, src := range sources {
		s := Slot{
			Gen: 1, File: sampleID(1), Content: sampleID(2), State: Open, Session: sampleID(3), Size: math.MaxInt64,
			MTime: time.Unix(math.MinInt64, 999_999_999).UTC(), Nonce: math.MaxUint64, Prev: math.MaxUint64, Source: src,
		}
		b, err := s.Encode()
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		t.Logf("%s: %d of %d bytes", kind, len(b), MaxSlot)
		if got, err := ParseSlot(1, b); err != nil || got != s {
			t.Errorf("%s: got %+v, %v; want %+v", kind, got, err, s)
		}
	}
}

// TestRecordLimits: a directory with the longest path and the largest xattr can be recorded.
func TestRecordLimits(t *testing.T) {
	r := Record{
		Kind: RecordDir, When: sampleTime, Mode: 0o40755, Path: strings.Repeat("\xff", MaxPath),
		Xattrs: map[string][]byte{"user." + strings.Repeat("\x01", maxAttr-5): make([]byte, MaxXattr)},
	}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRecord(b)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got another record (%v)", err)
	}
	r.Path += "x"
	if _, err := r.Encode(); err == nil {
		t.Error("a path longer than MaxPath was encoded")
	}
}
