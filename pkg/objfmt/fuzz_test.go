package objfmt

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// seed adds the golden files of a format.
func seed(f *testing.F, name string) {
	f.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", name+"*"))
	if err != nil || len(names) == 0 {
		f.Fatalf("no golden files of %s (%v)", name, err)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.IsDir() {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// fuzz runs parse with the fuzzer's bytes as they are, and with their checksum made
// right by fix, without which nothing behind it would be reached. What is taken must
// be written as it was read.
func fuzz[T encoder](f *testing.F, name string, parse func([]byte) (T, error), fix func([]byte) []byte) {
	seed(f, name)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, fix(b)} {
			v, err := parse(b)
			if err != nil {
				continue
			}
			again, err := v.Encode()
			if err != nil {
				t.Fatalf("%q taken but not written: %v", b, err)
			}
			if !bytes.Equal(again, b) {
				t.Fatalf("%q written as %q", b, again)
			}
		}
	})
}

// fixText corrects the checksum of a text form.
func fixText(sep, end string) func([]byte) []byte {
	return func(b []byte) []byte {
		body, _, ok := strings.Cut(string(b), sep+"crc=")
		if !ok {
			return b
		}
		return []byte(body + sep + "crc=" + text64(Checksum([]byte(body))) + end)
	}
}

// fixBinary corrects the checksum of a binary form.
func fixBinary(b []byte) []byte {
	if len(b) < binarySum {
		return b
	}
	return resum(b, func(b []byte) []byte { return b })
}

// fixTrailer corrects checksum and footer.
func fixTrailer(b []byte) []byte {
	if len(b) < binarySum+TrailerFooterSize {
		return b
	}
	b = fixBinary(b[:len(b)-TrailerFooterSize])
	return appendFooter(b, len(b)+TrailerFooterSize)
}

func FuzzParseSlot(f *testing.F) {
	fuzz(f, "slot", func(b []byte) (Slot, error) { return ParseSlot(7, b) }, fixText(" ", ""))
}

func FuzzParseRecord(f *testing.F) { fuzz(f, "record", ParseRecord, fixText("\n", "\n")) }

func FuzzParseDamage(f *testing.F) { fuzz(f, "damage", ParseDamage, fixText("\n", "\n")) }

func FuzzParseChunkTable(f *testing.F) { fuzz(f, "chunktable", ParseChunkTable, fixBinary) }

func FuzzParseMemberTable(f *testing.F) { fuzz(f, "membertable", ParseMemberTable, fixBinary) }

func FuzzParseTrailer(f *testing.F) { fuzz(f, "trailer", ParseTrailer, fixTrailer) }

func FuzzParseTrailerFooter(f *testing.F) {
	f.Add(appendFooter(nil, 233))
	f.Fuzz(func(t *testing.T, b []byte) {
		size, err := ParseTrailerFooter(b)
		if err == nil && !bytes.Equal(appendFooter(nil, int(size)), b) {
			t.Fatalf("%q taken for %d bytes", b, size)
		}
	})
}

func FuzzParseMarker(f *testing.F) { fuzzDocument(f, "marker", markerKind, ParseMarker) }

func FuzzParseStoreIdentity(f *testing.F) { fuzzDocument(f, "store", storeKind, ParseStoreIdentity) }

// fuzzDocument also takes the fuzzer's bytes for the body of a document. White
// space is free; all else is written as it was read.
func fuzzDocument[T encoder](f *testing.F, name, kind string, parse func([]byte) (T, error)) {
	seed(f, name)
	f.Fuzz(func(t *testing.T, b []byte) {
		inputs := [][]byte{b}
		if json.Valid(b) {
			if doc, err := encodeDocument(kind, json.RawMessage(b)); err == nil {
				inputs = append(inputs, doc)
			}
		}
		for _, b := range inputs {
			v, err := parse(b)
			if err != nil {
				continue
			}
			again, err := v.Encode()
			if err != nil {
				t.Fatalf("%q taken but not written: %v", b, err)
			}
			var have, want bytes.Buffer
			if json.Compact(&have, again) != nil || json.Compact(&want, b) != nil || !bytes.Equal(have.Bytes(), want.Bytes()) {
				t.Fatalf("%q written as %q", b, again)
			}
		}
	})
}

func FuzzParseObjectKey(f *testing.F) {
	f.Add("projecta/5f/01kgg00001n80000000000002z")
	f.Add("projecta/5f/01kgg00001n80000000000002z.4294967295")
	f.Fuzz(func(t *testing.T, key string) {
		ns, id, chunk, err := ParseObjectKey(key)
		if err == nil && ObjectKey(ns, id, chunk) != key {
			t.Fatalf("%q taken for %q %v %d", key, ns, id, chunk)
		}
	})
}

func FuzzParseSlotName(f *testing.F) {
	f.Add("user.marfs.v1")
	f.Fuzz(func(t *testing.T, attr string) {
		if gen, ok := ParseSlotName(UserPrefix, attr); ok && (gen == 0 || SlotName(UserPrefix, gen) != attr) {
			t.Fatalf("%q taken for slot %d", attr, gen)
		}
	})
}

func FuzzParseID(f *testing.F) {
	f.Add("01ab0000000000000000000000000001")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && id.String() != s {
			t.Fatalf("%q taken for %v", s, id)
		}
	})
}

func FuzzParseObjectID(f *testing.F) {
	f.Add("01kgg00001n80000000000002z")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseObjectID(s); err == nil && id.String() != s {
			t.Fatalf("%q taken for %v", s, id)
		}
	})
}
