package objfmt

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files instead of checking them")

type encoder interface{ Encode() ([]byte, error) }

// format is one format for the tests that every format must pass.
type format struct {
	name  string // of its golden files: testdata/<name>*
	parse func([]byte) (encoder, error)
	// examples are pinned by golden files: a build that reads or writes them in
	// another way breaks what is stored.
	examples map[string]encoder
}

var formats = []format{
	{"slot", parser(func(b []byte) (Slot, error) { return ParseSlot(7, b) }), slotExamples()},
	{"record", parser(ParseRecord), recordExamples()},
	{"damage", parser(ParseDamage), map[string]encoder{
		"": Damage{Object: sampleRef(0), Shards: []int{0, 2, 5}, Why: "store s3: no such key\n100%"},
	}},
	{"chunktable", parser(ParseChunkTable), map[string]encoder{"": sampleChunkTable()}},
	{"membertable", parser(ParseMemberTable), map[string]encoder{
		"":      &MemberTable{Object: sampleRef(0), Members: sampleMembers()},
		".open": &MemberTable{Object: ObjectRef{Object: sampleObject}, Members: sampleMembers()},
	}},
	{"trailer", parser(ParseTrailer), trailerExamples()},
	{"marker", parser(ParseMarker), map[string]encoder{
		"": Marker{Namespace: "projecta", UUID: sampleID(9), Created: sampleTime, Tree: Inode{2049, 131}, Files: Inode{2049, 1<<64 - 1}},
	}},
	{"store", parser(ParseStoreIdentity), map[string]encoder{
		"": sampleStore,
	}},
}

func parser[T encoder](parse func([]byte) (T, error)) func([]byte) (encoder, error) {
	return func(b []byte) (encoder, error) { return parse(b) }
}

var (
	sampleTime   = time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
	sampleStore  = StoreIdentity{Repo: "campaign", Pod: "pod0", Index: 5, UUID: sampleID(9), Data: 4, Parity: 2}
	sampleObject = ObjectID{0x01, 0x9c, 0x20, 0x00, 0x00, 0x01, 6: 0xaa, 15: 0x5f}
)

func sampleID(n byte) ID { return ID{n, 1: 0xab, 15: n} }

func sampleLayout() Layout {
	return Layout{
		Repo: "campaign", Pod: "pod0",
		Geometry: Geometry{Data: 4, Parity: 2, Block: 1 << 20},
		WriteID:  sampleID(4),
		Size:     1<<30 + 321,
	}
}

func sampleRef(chunk uint32) ObjectRef {
	return ObjectRef{Object: sampleObject, Chunk: chunk, Layout: sampleLayout()}
}

func sampleSlot(src Source) Slot {
	return Slot{
		Gen: 7, File: sampleID(1), Content: sampleID(2), State: Final,
		Size: 5000, MTime: sampleTime, Nonce: 0x0123456789abcdef, Prev: 3, Source: src,
	}
}

func slotExamples() map[string]encoder {
	open := sampleSlot(Source{Kind: SourceTable, Stored: 1<<30 + 12, Sum: 77, Chunks: 1, Tail: sampleID(6)})
	open.State, open.Session, open.Size, open.MTime = Open, sampleID(3), 1<<30+12, time.Unix(-2, 5).UTC()
	sealed := sampleSlot(Source{Kind: SourceOwn, Stored: 5000, Sum: 42})
	sealed.State = Sealed
	fresh := sampleSlot(Source{Kind: SourceEmpty})
	fresh.State, fresh.Session, fresh.Size, fresh.Prev, fresh.Content = Open, sampleID(3), 0, 0, ID{}
	return map[string]encoder{
		".empty": fresh,
		".own":   sealed,
		".body":  sampleSlot(Source{Kind: SourceBody, Stored: 4000, Sum: 42}),
		".uni":   sampleSlot(Source{Kind: SourceObj, Stored: 5000, Sum: 42, Object: sampleRef(0)}),
		".pack":  sampleSlot(Source{Kind: SourceObj, Stored: 5000, Sum: 42, Object: sampleRef(0), Packed: true, Offset: 8192}),
		".table": open,
	}
}

func recordExamples() map[string]encoder {
	version := sampleSlot(Source{Kind: SourceBody, Stored: 4000, Sum: 42})
	return map[string]encoder{
		".file": Record{Kind: RecordFile, File: sampleID(1), Node: "fta1", When: sampleTime, Path: "a/b c%\n\xff", Why: "unlink", By: 1000},
		".dir": Record{Kind: RecordDir, Node: "fta1", When: sampleTime, Path: "a", Why: "rmdir", By: 1000,
			Mode: 0o42755, UID: 1000, GID: 100, MTime: time.Unix(-1, 999999999).UTC(),
			Xattrs: map[string][]byte{"user.a b": []byte("1\x00"), "user.": {}, "system.posix_acl_default": {2, 0, 0, 0}}},
		".symlink": Record{Kind: RecordSymlink, When: sampleTime, Path: "l", Why: "unlink", Mode: 0o120777, Target: "../x y"},
		".special": Record{Kind: RecordSpecial, When: sampleTime, Path: "dev", Why: "unlink", Mode: 0o020600, Rdev: 1<<64 - 1},
		".pack":    Record{Kind: RecordPack, When: sampleTime, Why: "repack", Object: sampleObject},
		".version": Record{Kind: RecordVersion, File: version.File, Content: version.Content, When: sampleTime, Path: "f", Why: "overwrite", Slot: &version},
		".work":    Record{Kind: RecordWork, File: sampleID(1), Content: sampleID(2), Session: sampleID(3), Node: "fta1", When: sampleTime, Path: "f", Object: sampleObject},
	}
}

func sampleChunkTable() *ChunkTable {
	other := sampleRef(2)
	other.Pod, other.Size = "pod1", 4096
	return &ChunkTable{File: sampleID(1), Content: sampleID(2), Chunks: []Chunk{
		{Offset: 0, Length: 1 << 30, Object: sampleRef(1), Sum: 11},
		{Offset: 1 << 30, Length: 1, Object: other, Sum: 12},
		{Offset: 1<<30 + 1, Length: 5, Object: sampleRef(3), Sum: 13},
	}}
}

func sampleMembers() []Member {
	return []Member{
		{File: sampleID(1), Content: sampleID(2), Offset: 0, Length: 5000, Sum: 1},
		{File: sampleID(3), Content: sampleID(4), Offset: 8192, Length: 1, Sum: 2},
	}
}

func trailerExamples() map[string]encoder {
	file := TrailerFile{
		File: sampleID(1), Content: sampleID(2), Path: "a/b\xff", Mode: 0o100640, UID: 1000, GID: 100,
		MTime: time.Unix(-5, 1).UTC(), Size: 5000, At: 0, Length: 5000, Sum: 42,
		Xattrs: map[string][]byte{"user.k": []byte("v"), "user.empty": {}},
	}
	second := file
	second.File, second.Path, second.At, second.Xattrs = sampleID(3), "z", 8192, nil
	chunk := file
	chunk.Size, chunk.Offset, chunk.Xattrs = -1, 1<<30, nil
	return map[string]encoder{
		".uni":   &Trailer{Namespace: "projecta", Object: sampleObject, Chunks: 1, Stored: 5000, Files: []TrailerFile{file}},
		".chunk": &Trailer{Namespace: "projecta", Object: sampleObject, Chunk: 2, Stored: 5000, Files: []TrailerFile{chunk}},
		".pack":  &Trailer{Namespace: "projecta", Object: sampleObject, Chunks: 1, Stored: 13192, Files: []TrailerFile{file, second}},
	}
}

// eachExample runs fn with every golden file.
func eachExample(t *testing.T, fn func(t *testing.T, f format, want encoder, golden []byte)) {
	for _, f := range formats {
		for variant, want := range f.examples {
			name := f.name + variant
			t.Run(name, func(t *testing.T) {
				golden, err := os.ReadFile(filepath.Join("testdata", name))
				if err != nil {
					t.Fatal(err)
				}
				fn(t, f, want, golden)
			})
		}
	}
}

func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	eachExample(t, func(t *testing.T, f format, want encoder, golden []byte) {
		b, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, golden) {
			t.Errorf("encoded\n%q\ngolden file has\n%q", b, golden)
		}
		got, err := f.parse(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("parsed\n%+v\nwant\n%+v", got, want)
		}
	})
}

func writeGolden(t *testing.T) {
	for _, f := range formats {
		for variant, v := range f.examples {
			b, err := v.Encode()
			if err != nil {
				t.Fatal(f.name+variant, err)
			}
			if err := os.WriteFile(filepath.Join("testdata", f.name+variant), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
