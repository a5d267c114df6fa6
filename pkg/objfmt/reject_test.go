package objfmt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// TestMutations: a stored form with any one byte replaced, cut anywhere, or with a
// byte behind it, is refused; or it means what it meant (white space of JSON).
func TestMutations(t *testing.T) {
	eachExample(t, func(t *testing.T, f format, want encoder, golden []byte) {
		try := func(what string, at int, b []byte) {
			if got, err := f.parse(b); err == nil && !reflect.DeepEqual(got, want) {
				t.Fatalf("%s %d: taken for %+v", what, at, got)
			} else if err == nil && !strings.HasPrefix(string(golden), "{") {
				t.Fatalf("%s %d: taken for the original", what, at)
			}
		}
		for i := range golden {
			try("cut at", i, golden[:i])
			b := bytes.Clone(golden)
			for x := 1; x < 256; x++ {
				b[i] = golden[i] ^ byte(x)
				try("changed byte", i, b)
			}
		}
		for x := range 256 {
			try("added byte", x, append(bytes.Clone(golden), byte(x)))
		}
	})
}

// retext returns a text form with other fields and a checksum that matches.
func retext(t *testing.T, b []byte, sep, old, new string) []byte {
	t.Helper()
	s := strings.TrimSuffix(string(b), "\n")
	end := strings.LastIndex(s, sep+"crc=")
	body := strings.Replace(s[:end], old, new, 1)
	if body == s[:end] {
		t.Fatalf("no %q in %q", old, s)
	}
	out := body + sep + "crc=" + text64(Checksum([]byte(body)))
	if sep == "\n" {
		out += "\n"
	}
	return []byte(out)
}

func mustEncode(t *testing.T, v encoder) []byte {
	t.Helper()
	b, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSlotRefused: text whose checksum matches, but that no build ever writes.
func TestSlotRefused(t *testing.T) {
	pack := mustEncode(t, slotExamples()[".pack"])
	tests := []struct {
		name, old, new string
		want           error
	}{
		{"later version", "v1 ", "v2 ", ErrVersion},
		{"version with a zero", "v1 ", "v01 ", ErrVersion},
		{"no version", "v1 ", "v ", ErrFormat},
		{"another format", "v1 ", "x1 ", ErrFormat},
		{"unknown field", " z=", " y=1 z=", ErrFormat},
		{"field behind", "/1073742145", "/1073742145 y=1", ErrFormat},
		{"doubled field", " z=5000", " z=5000 z=5000", ErrFormat},
		{"missing field", " z=5000", "", ErrFormat},
		{"other order", " s=final z=5000", " z=5000 s=final", ErrFormat},
		{"two separators", " z=", "  z=", ErrFormat},
		{"leading zero", "z=5000", "z=05000", ErrFormat},
		{"plus sign", "z=5000", "z=+5000", ErrFormat},
		{"negative", "z=5000", "z=-5000", ErrFormat},
		{"too large", "z=5000", "z=9223372036854775808", ErrFormat},
		{"not a number", "z=5000", "z=5e3", ErrFormat},
		{"short nanoseconds", ".000000007", ".7", ErrFormat},
		{"too many nanoseconds", ".000000007", ".1000000000", ErrFormat},
		{"negative nanoseconds", ".000000007", ".-00000007", ErrFormat},
		{"unknown state", "s=final", "s=done", ErrFormat},
		{"open by nobody", "s=final", "s=open", ErrFormat},
		{"final with a session", "s=final", "s=final," + textID(sampleID(3)), ErrFormat},
		{"zero file id", "f=" + textID(sampleID(1)), "f=" + textID(ID{}), ErrFormat},
		{"zero content id", "c=" + textID(sampleID(2)), "c=" + textID(ID{}), ErrFormat},
		{"zero nonce", "n=" + text64(0x0123456789abcdef), "n=" + text64(0), ErrFormat},
		{"one nonce", "," + text64(3), "", ErrFormat},
		{"base64 with spare bits", textID(sampleID(1)), textID(sampleID(1))[:21] + "R", ErrFormat},
		{"base64 with a newline", textID(sampleID(1)), textID(sampleID(1))[:21] + "\n", ErrFormat},
		{"unknown source", "pack=", "tape=", ErrFormat},
		{"two sources", "pack=", "empty=0 pack=", ErrFormat},
		{"no placement", " at=", " as=", ErrFormat},
		{"pack of a chunk", "02z,", "02z.1,", ErrFormat},
		{"pack without offset", ",8192 ", " ", ErrFormat},
		{"pack with an empty offset", ",8192 ", ", ", ErrFormat},
		{"uni with offset", "pack=", "obj=", ErrFormat},
		{"beyond the object", ",8192 ", ",1073742145 ", ErrFormat},
		{"offset that overflows", ",8192 ", ",9223372036854775807 ", ErrFormat},
		{"upper-case object", "01kgg", "01KGG", ErrFormat},
		{"repo name with a slash", "at=campaign/", "at=camp/aign/", ErrFormat},
		{"repo name in upper case", "at=campaign", "at=Campaign", ErrFormat},
		{"no data shards", "4+2x", "0+2x", ErrFormat},
		{"too many shards", "4+2x", "200+200x", ErrFormat},
		{"no blocks", "x1048576", "x0", ErrFormat},
		{"object size over the limit", "/1073742145", "/9223372036854775807", ErrFormat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseSlot(7, retext(t, pack, " ", tt.old, tt.new))
			if !errors.Is(err, tt.want) {
				t.Errorf("got %+v, error %v; want %v", got, err, tt.want)
			}
		})
	}
}

func TestSlotTooLong(t *testing.T) {
	if _, err := ParseSlot(1, bytes.Repeat([]byte("v"), MaxSlot+1)); !errors.Is(err, ErrFormat) {
		t.Errorf("error %v, want ErrFormat", err)
	}
}

// TestSlotNotEncoded: states that must never be published.
func TestSlotNotEncoded(t *testing.T) {
	own := Source{Kind: SourceOwn, Stored: 1, Sum: 1}
	tests := map[string]func(s *Slot){
		"no file":              func(s *Slot) { s.File = ID{} },
		"no content":           func(s *Slot) { s.Content = ID{} },
		"no state":             func(s *Slot) { s.State = "" },
		"open by nobody":       func(s *Slot) { s.State = Open },
		"final with a session": func(s *Slot) { s.Session = sampleID(3) },
		"negative size":        func(s *Slot) { s.Size = -1 },
		"no nonce":             func(s *Slot) { s.Nonce = 0 },
		"no source":            func(s *Slot) { s.Source = Source{} },
		"negative stored":      func(s *Slot) { s.Source.Stored = -1 },
		"own with an object":   func(s *Slot) { s.Source.Object = sampleRef(0) },
		"own with a tail":      func(s *Slot) { s.Source.Tail = sampleID(1) },
		"empty with bytes":     func(s *Slot) { s.Source = Source{Kind: SourceEmpty, Stored: 1} },
		"table of no chunks":   func(s *Slot) { s.Source = Source{Kind: SourceTable} },
		"table too large":      func(s *Slot) { s.Source = Source{Kind: SourceTable, Chunks: MaxChunks + 1} },
		"object without a layout": func(s *Slot) {
			s.Source = Source{Kind: SourceObj, Object: ObjectRef{Object: sampleObject}}
		},
		"object of no id": func(s *Slot) {
			s.Source = Source{Kind: SourceObj, Object: ObjectRef{Layout: sampleLayout()}}
		},
		"whole object at an offset": func(s *Slot) {
			s.Source = Source{Kind: SourceObj, Object: sampleRef(0), Offset: 1}
		},
	}
	for name, change := range tests {
		s := sampleSlot(own)
		change(&s)
		if b, err := s.Encode(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: encoded %q, error %v", name, b, err)
		}
	}
}

func TestRecordRefused(t *testing.T) {
	dir := recordExamples()[".dir"]
	tests := []struct {
		name     string
		v        encoder
		old, new string
		want     error
	}{
		{"later version", dir, "record v1", "record v12", ErrVersion},
		{"a slot", dir, "marfs record v1", "v1", ErrFormat},
		{"unknown kind", dir, "kind=dir", "kind=tree", ErrFormat},
		{"unknown field", dir, "path=a", "path=a\ncolour=red", ErrFormat},
		{"explicit zero", dir, "path=a", "path=a\nfile=" + ID{}.String(), ErrFormat},
		{"empty field", dir, "path=a", "path=", ErrFormat},
		{"bare escape", dir, "path=a", "path=%", ErrFormat},
		{"short escape", dir, "path=a", "path=%4", ErrFormat},
		{"lower-case escape", dir, "path=a", "path=%ff", ErrFormat},
		{"needless escape", dir, "path=a", "path=%41", ErrFormat},
		{"raw byte", dir, "path=a", "path=\xff", ErrFormat},
		{"mode not octal", dir, "mode=42755", "mode=9", ErrFormat},
		{"owner without group", dir, "owner=1000:100", "owner=1000", ErrFormat},
		{"xattr twice", dir, "xattr=user. ", "xattr=user. \nxattr=user. ", ErrFormat},
		{"xattrs out of order", dir, "xattr=user. \nxattr=user.a%20b MQA", "xattr=user.a%20b MQA\nxattr=user. ", ErrFormat},
		{"xattr without a name", dir, "xattr=user. ", "xattr= ", ErrFormat},
		{"xattr without a value", dir, "xattr=user. ", "xattr=user.", ErrFormat},
		{"blank line", dir, "path=a\n", "path=a\n\n", ErrFormat},
		{"file without an id", recordExamples()[".file"], "\nfile=" + sampleID(1).String(), "", ErrFormat},
		{"version without a slot", recordExamples()[".version"], "\nslot=7", "\nslit=7", ErrFormat},
		{"slot of another file", recordExamples()[".version"], "\nfile=" + sampleID(1).String(), "\nfile=" + sampleID(5).String(), ErrFormat},
		{"symlink to nowhere", recordExamples()[".symlink"], "\ntarget=../x y", "", ErrFormat},
		{"pack without object", recordExamples()[".pack"], "\nobject=" + sampleObject.String(), "", ErrFormat},
		{"pack with a chunk number", recordExamples()[".pack"], sampleObject.String(), sampleObject.String() + ".1", ErrFormat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseRecord(retext(t, mustEncode(t, tt.v), "\n", tt.old, tt.new))
			if !errors.Is(err, tt.want) {
				t.Errorf("got %+v, error %v; want %v", got, err, tt.want)
			}
		})
	}
}

func TestDamageRefused(t *testing.T) {
	b := mustEncode(t, Damage{Object: sampleRef(0), Shards: []int{0, 2, 5}})
	for _, shards := range []string{"", "6", "2,0", "2,2", "0,", "-1", "00", "4294967296"} {
		if d, err := ParseDamage(retext(t, b, "\n", "shards=0,2,5", "shards="+shards)); !errors.Is(err, ErrFormat) {
			t.Errorf("shards=%s: got %+v, error %v", shards, d, err)
		}
	}
	if _, err := ParseDamage(retext(t, b, "\n", "damage v1", "damage v2")); !errors.Is(err, ErrVersion) {
		t.Errorf("version 2: error %v", err)
	}
}

// Positions in the binary forms, as docs/format.md gives them.
const (
	tableCountAt     = 44 // of a chunk table: its number of chunks; of placements 4 behind
	memberCountAt    = 52
	trailerVersionAt = 8
	trailerCountAt   = 12 + 4 + len("projecta") + 16 + 4 + 4 + 8
)

// resum returns b with change made and a checksum that matches.
func resum(b []byte, change func(b []byte) []byte) []byte {
	b = change(bytes.Clone(b[:len(b)-binarySum]))
	return binary.BigEndian.AppendUint64(b, Checksum(b))
}

func set32(at int, n uint32) func([]byte) []byte {
	return func(b []byte) []byte { binary.BigEndian.PutUint32(b[at:], n); return b }
}

func TestChunkTableRefused(t *testing.T) {
	good := sampleChunkTable()
	b := mustEncode(t, good)
	records := len(b) - binarySum - len(good.Chunks)*chunkBytes
	set64 := func(chunk, at int, n int64) func([]byte) []byte {
		return func(b []byte) []byte {
			binary.BigEndian.PutUint64(b[records+chunk*chunkBytes+at:], uint64(n))
			return b
		}
	}
	tests := []struct {
		name   string
		change func([]byte) []byte
		want   error
	}{
		{"magic", func(b []byte) []byte { b[0]++; return b }, ErrFormat},
		{"version", set32(8, 2), ErrVersion},
		{"more chunks than bytes", set32(tableCountAt, math.MaxUint32), ErrFormat},
		{"fewer chunks than bytes", set32(tableCountAt, 1), ErrFormat},
		{"more placements than bytes", set32(tableCountAt+4, math.MaxUint32), ErrFormat},
		{"gap", set64(1, 0, 1<<30+1), ErrFormat},
		{"overlap", set64(1, 0, 1<<30-1), ErrFormat},
		{"negative offset", set64(0, 0, -1), ErrFormat},
		{"zero length", set64(2, 8, 0), ErrFormat},
		{"negative length", set64(2, 8, -1), ErrFormat},
		{"length that overflows", set64(2, 8, math.MaxInt64), ErrFormat},
		{"longer than its object", set64(2, 8, 1<<30+322), ErrFormat},
		{"zero write id", func(b []byte) []byte { clear(b[records+40 : records+56]); return b }, ErrFormat},
		{"placement that is not there", set32(records+chunkBytes-4, 2), ErrFormat},
		{"placement not in order of use", set32(records+chunkBytes-4, 1), ErrFormat},
		{"trailing byte", func(b []byte) []byte { return append(b, 0) }, ErrFormat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseChunkTable(resum(b, tt.change)); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
	if _, err := (&ChunkTable{File: sampleID(1), Content: sampleID(2)}).Encode(); !errors.Is(err, ErrFormat) {
		t.Errorf("a table of nothing: error %v", err)
	}
}

func TestMemberTableRefused(t *testing.T) {
	tests := map[string]func(m *MemberTable){
		"no members":        func(m *MemberTable) { m.Members = nil },
		"overlap":           func(m *MemberTable) { m.Members[1].Offset = 4999 },
		"out of order":      func(m *MemberTable) { m.Members[0].Offset = 9000 },
		"zero length":       func(m *MemberTable) { m.Members[1].Length = 0 },
		"overflow":          func(m *MemberTable) { m.Members[1].Length = math.MaxInt64 },
		"beyond the object": func(m *MemberTable) { m.Object.Size = 8192 },
		"no file id":        func(m *MemberTable) { m.Members[0].File = ID{} },
		"no object":         func(m *MemberTable) { m.Object.Object = ObjectID{} },
		"a chunk":           func(m *MemberTable) { m.Object.Chunk = 1 },
		"half a layout":     func(m *MemberTable) { m.Object.Layout = Layout{Repo: "r"} },
	}
	for name, change := range tests {
		m := &MemberTable{Object: sampleRef(0), Members: sampleMembers()}
		change(m)
		if _, err := m.Encode(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: encoded, error %v", name, err)
		}
	}
	b := mustEncode(t, &MemberTable{Object: sampleRef(0), Members: sampleMembers()})
	if _, err := ParseMemberTable(resum(b, set32(8, 9))); !errors.Is(err, ErrVersion) {
		t.Errorf("version 9: error %v", err)
	}
}

func TestTrailerRefused(t *testing.T) {
	tests := map[string]func(tr *Trailer){
		"no files":           func(tr *Trailer) { tr.Files = nil },
		"no namespace":       func(tr *Trailer) { tr.Namespace = "" },
		"no object":          func(tr *Trailer) { tr.Object = ObjectID{} },
		"pack of chunks":     func(tr *Trailer) { tr.Chunk = 1 },
		"no file id":         func(tr *Trailer) { tr.Files[0].File = ID{} },
		"overlap":            func(tr *Trailer) { tr.Files[1].At = 4999 },
		"zero length":        func(tr *Trailer) { tr.Files[1].Length = 0 },
		"into the trailer":   func(tr *Trailer) { tr.Stored-- },
		"negative offset":    func(tr *Trailer) { tr.Files[0].Offset = -1 },
		"size below unknown": func(tr *Trailer) { tr.Files[0].Size = -2 },
		"endless path":       func(tr *Trailer) { tr.Files[0].Path = strings.Repeat("x", MaxPath+1) },
		"nameless xattr":     func(tr *Trailer) { tr.Files[0].Xattrs = map[string][]byte{"": nil} },
		"xattr with NUL":     func(tr *Trailer) { tr.Files[0].Xattrs = map[string][]byte{"user.\x00": nil} },
		"large xattr":        func(tr *Trailer) { tr.Files[0].Xattrs = map[string][]byte{"user.x": make([]byte, MaxXattr+1)} },
	}
	for name, change := range tests {
		tr := *trailerExamples()[".pack"].(*Trailer)
		tr.Files = append([]TrailerFile(nil), tr.Files...)
		change(&tr)
		if _, err := tr.Encode(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: encoded, error %v", name, err)
		}
	}
}

// TestTrailerInContent: content that ends with a trailer of its own, footer and
// all, does not mislead a reader who begins at the object's end.
func TestTrailerInContent(t *testing.T) {
	forged := mustEncode(t, trailerExamples()[".pack"])
	want := trailerExamples()[".uni"].(*Trailer)
	want.Stored = int64(len(forged))
	want.Files[0].Length = want.Stored
	object := append(bytes.Clone(forged), mustEncode(t, want)...)

	size, err := ParseTrailerFooter(object[len(object)-TrailerFooterSize:])
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(object))-size != want.Stored {
		t.Errorf("content of %d bytes, want %d", int64(len(object))-size, want.Stored)
	}
	got, err := ParseTrailer(object[int64(len(object))-size:])
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := ParseTrailer(object); !errors.Is(err, ErrFormat) {
		t.Errorf("a whole object taken for a trailer: error %v", err)
	}
}

func TestTrailerVersion(t *testing.T) {
	b := mustEncode(t, trailerExamples()[".uni"])
	body := resum(b[:len(b)-TrailerFooterSize], set32(trailerVersionAt, 2))
	if _, err := ParseTrailer(append(body, b[len(b)-TrailerFooterSize:]...)); !errors.Is(err, ErrVersion) {
		t.Errorf("error %v, want ErrVersion", err)
	}
}

func TestTrailerFooterRefused(t *testing.T) {
	for _, n := range []int{0, 23, 43, MaxTrailer + 1, math.MaxInt64, -1} {
		if size, err := ParseTrailerFooter(appendFooter(nil, n)); !errors.Is(err, ErrFormat) {
			t.Errorf("length %d: got %d, error %v", n, size, err)
		}
	}
}

func TestDocumentRefused(t *testing.T) {
	good := string(mustEncode(t, sampleStore))
	body := func(s string) string { // a body with a checksum that matches
		return `{"format":1,"kind":"marfs store","body":` + s + `,"crc":"` + text64(Checksum([]byte(s))) + `"}`
	}
	const store = `{"repo":"campaign","pod":"pod0","index":5,"uuid":"09ab0000000000000000000000000009","data":4,"parity":2}`
	if _, err := ParseStoreIdentity([]byte(body(store))); err != nil {
		t.Fatalf("without white space: %v", err)
	}
	tests := []struct {
		name, text string
		want       error
	}{
		{"empty", "", ErrFormat},
		{"not JSON", "marfs", ErrFormat},
		{"later version, otherwise different", `{"format":2,"what":[]}`, ErrVersion},
		{"version of another type", `{"format":"1"}`, ErrFormat},
		{"a namespace's marker", strings.Replace(good, "marfs store", "marfs namespace", 1), ErrFormat},
		{"no body", `{"format":1,"kind":"marfs store","crc":""}`, ErrFormat},
		{"changed", strings.Replace(good, `"index": 5`, `"index": 4`, 1), ErrChecksum},
		{"unknown field outside", strings.Replace(good, `"format": 1,`, `"format": 1, "x": 1,`, 1), ErrFormat},
		{"doubled field outside", strings.Replace(good, `"format": 1,`, `"format": 1, "format": 1,`, 1), ErrFormat},
		{"field in another case", strings.Replace(good, `"format"`, `"Format"`, 1), ErrFormat},
		{"two documents", good + good, ErrFormat},
		{"unknown field", body(strings.Replace(store, `"pod"`, `"x":1,"pod"`, 1)), ErrFormat},
		{"doubled field", body(strings.Replace(store, `"data":4`, `"data":4,"data":4`, 1)), ErrFormat},
		{"missing field", body(strings.Replace(store, `"data":4,`, ``, 1)), ErrFormat},
		{"other spelling", body(strings.Replace(store, `"data":4`, `"data":4.0`, 1)), ErrFormat},
		{"null", body("null"), ErrFormat},
		{"index out of range", body(strings.Replace(store, `"index":5`, `"index":6`, 1)), ErrFormat},
		{"bad uuid", body(strings.Replace(store, `09ab`, `09aB`, 1)), ErrFormat},
		{"bad name", body(strings.Replace(store, `"pod0"`, `"../pod"`, 1)), ErrFormat},
		{"too long", good + strings.Repeat(" ", maxJSON), ErrFormat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if s, err := ParseStoreIdentity([]byte(tt.text)); !errors.Is(err, tt.want) {
				t.Errorf("got %+v, error %v; want %v", s, err, tt.want)
			}
		})
	}
}

func TestNotEncoded(t *testing.T) {
	marker := Marker{Namespace: "projecta", UUID: sampleID(9), Created: sampleTime}
	nameless, anonymous, endless := marker, marker, marker
	nameless.Namespace, anonymous.UUID = "", ID{}
	endless.Created = sampleTime.AddDate(9000, 0, 0)
	store := sampleStore
	store.Data = 0
	tests := map[string]encoder{
		"marker of no namespace":        nameless,
		"marker without uuid":           anonymous,
		"marker of a year of 5 digits":  endless,
		"store of no data shards":       store,
		"damage of no object":           Damage{Shards: []int{0}},
		"damage with an endless reason": Damage{Object: sampleRef(0), Shards: []int{0}, Why: strings.Repeat("x", MaxWhy+1)},
		"record over the limit": Record{Kind: RecordDir, Mode: 1, Path: strings.Repeat("\x00", MaxPath), Xattrs: map[string][]byte{
			"a": make([]byte, MaxXattr), "b": make([]byte, MaxXattr), "c": make([]byte, MaxXattr), "d": make([]byte, MaxXattr),
			"e": make([]byte, MaxXattr), "f": make([]byte, MaxXattr), "g": make([]byte, MaxXattr), "h": make([]byte, MaxXattr),
			"i": make([]byte, MaxXattr), "j": make([]byte, MaxXattr), "k": make([]byte, MaxXattr), "l": make([]byte, MaxXattr),
		}},
	}
	for name, v := range tests {
		if b, err := v.Encode(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: encoded in %d bytes, error %v", name, len(b), err)
		}
	}
}

// TestAllocation: a few bytes that promise billions of records cost a few bytes.
func TestAllocation(t *testing.T) {
	table := resum(mustEncode(t, sampleChunkTable()), set32(tableCountAt, math.MaxUint32))
	places := resum(mustEncode(t, sampleChunkTable()), set32(tableCountAt+4, math.MaxUint32))
	members := resum(mustEncode(t, &MemberTable{Object: sampleRef(0), Members: sampleMembers()}), set32(memberCountAt, math.MaxUint32))
	uni := mustEncode(t, trailerExamples()[".uni"])
	uni = uni[:len(uni)-TrailerFooterSize]
	trailer := resum(uni, set32(trailerCountAt, math.MaxUint32))
	trailer = appendFooter(trailer, len(trailer)+TrailerFooterSize)
	tests := map[string]func() error{
		"chunks":     func() error { _, err := ParseChunkTable(table); return err },
		"placements": func() error { _, err := ParseChunkTable(places); return err },
		"members":    func() error { _, err := ParseMemberTable(members); return err },
		"files":      func() error { _, err := ParseTrailer(trailer); return err },
	}
	for name, parse := range tests {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := parse()
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrFormat) {
			t.Errorf("%s: error %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
}

func TestEscapesAreASCII(t *testing.T) {
	var all []byte
	for i := range 256 {
		all = append(all, byte(i))
	}
	s := escape(string(all))
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			t.Fatalf("byte %#x in %q", s[i], s)
		}
	}
	r := &textReader{}
	if got := r.unescape(s); r.err != nil || got != string(all) {
		t.Errorf("got %q, %v", got, r.err)
	}
}
