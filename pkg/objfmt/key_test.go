package objfmt

import (
	"encoding/json"
	"errors"
	"hash/crc64"
	"math"
	"strings"
	"testing"
	"time"
)

func TestCheckName(t *testing.T) {
	for _, s := range []string{"a", "0", "project-a_1.b", strings.Repeat("x", 63)} {
		if err := CheckName("repo", s); err != nil {
			t.Errorf("%q refused: %v", s, err)
		}
	}
	for _, s := range []string{"", "A", "-a", ".a", "_a", "..", "a/b", "a b", "a|b", "é", "a\x00", "a=b", strings.Repeat("x", 64)} {
		if err := CheckName("repo", s); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: error %v, want ErrFormat", s, err)
		}
	}
}

func TestObjectKey(t *testing.T) {
	tests := []struct {
		chunk uint32
		key   string
	}{
		{0, "projecta/5f/01kgg00001n80000000000002z"},
		{1, "projecta/5f/01kgg00001n80000000000002z.1"},
		{math.MaxUint32, "projecta/5f/01kgg00001n80000000000002z.4294967295"},
	}
	for _, tt := range tests {
		if got := ObjectKey("projecta", sampleObject, tt.chunk); got != tt.key {
			t.Errorf("chunk %d: key %q, want %q", tt.chunk, got, tt.key)
		}
		ns, id, chunk, err := ParseObjectKey(tt.key)
		if err != nil || ns != "projecta" || id != sampleObject || chunk != tt.chunk {
			t.Errorf("%q: got %q %v %d, %v", tt.key, ns, id, chunk, err)
		}
	}
}

func TestObjectKeyRefused(t *testing.T) {
	for _, key := range []string{
		"", "/", "//", StoreIdentityKey,
		"projecta/5f/01kgg00001n80000000000002z.0",
		"projecta/5f/01kgg00001n80000000000002z.01",
		"projecta/5f/01kgg00001n80000000000002z.",
		"projecta/5f/01kgg00001n80000000000002z.4294967296",
		"projecta/5f/01kgg00001n80000000000002z/x",
		"projecta/5F/01kgg00001n80000000000002z",
		"projecta/60/01kgg00001n80000000000002z",
		"projecta/5f/01KGG00001N80000000000002Z",
		"projecta/5f/81kgg00001n80000000000002z",
		"projecta/5f/01kgg00001n80000000000002",
		"Projecta/5f/01kgg00001n80000000000002z",
		"/5f/01kgg00001n80000000000002z",
		"../5f/01kgg00001n80000000000002z",
	} {
		if ns, id, chunk, err := ParseObjectKey(key); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: got %q %v %d, error %v", key, ns, id, chunk, err)
		}
	}
}

func TestSlotName(t *testing.T) {
	for gen, name := range map[uint64]string{
		1: "user.marfs.v1", 10: "user.marfs.v10", math.MaxUint64: "user.marfs.v18446744073709551615",
	} {
		if got := SlotName(UserPrefix, gen); got != name {
			t.Errorf("SlotName(%d) = %q, want %q", gen, got, name)
		}
		if got, ok := ParseSlotName(UserPrefix, name); !ok || got != gen {
			t.Errorf("ParseSlotName(%q) = %d, %v", name, got, ok)
		}
	}
	for _, name := range []string{
		"", "user.marfs.", "user.marfs.v", "user.marfs.v0", "user.marfs.v01", "user.marfs.v+1", "user.marfs.v-1",
		"user.marfs.v1 ", "user.marfs.v1x", "user.marfs.v18446744073709551616", "user.marfs.punch", "trusted.marfs.v1", "v1",
	} {
		if gen, ok := ParseSlotName(UserPrefix, name); ok {
			t.Errorf("%q taken for slot %d", name, gen)
		}
	}
}

func TestIDText(t *testing.T) {
	id := sampleID(0xfe)
	if got, want := id.String(), "feab00000000000000000000000000fe"; got != want {
		t.Errorf("id %s, want %s", got, want)
	}
	if got, want := id.Fan(), "fe"; got != want {
		t.Errorf("fan %s, want %s", got, want)
	}
	for _, s := range []string{"", "fe", "FEAB00000000000000000000000000FE", "xyab00000000000000000000000000fe", id.String() + "00"} {
		if got, err := ParseID(s); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: got %v, error %v", s, got, err)
		}
	}
	if a, b := NewID(), NewID(); a == b {
		t.Error("two new ids are the same")
	}
}

func TestIDJSON(t *testing.T) {
	type ids struct {
		ID     ID
		Object ObjectID
	}
	want := ids{sampleID(1), sampleObject}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(b); got != `{"ID":"01ab0000000000000000000000000001","Object":"01kgg00001n80000000000002z"}` {
		t.Errorf("JSON %s", got)
	}
	var got ids
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := json.Unmarshal([]byte(`{"Object":"x"}`), &got); !errors.Is(err, ErrFormat) {
		t.Errorf("bad object id: error %v", err)
	}
}

// TestObjectIDOrder: keys of one fan-out directory sort by time, and ids by chance do not collide.
func TestObjectIDOrder(t *testing.T) {
	early, late := NewObjectID(sampleTime), NewObjectID(sampleTime.Add(time.Millisecond))
	if early.String() >= late.String() {
		t.Errorf("%s is not before %s", early, late)
	}
	if got, want := early.Time().UTC(), sampleTime.Truncate(time.Millisecond); !got.Equal(want) {
		t.Errorf("made at %s, want %s", got, want)
	}
	if early == NewObjectID(sampleTime) {
		t.Error("two new object ids are the same")
	}
}

// TestChecksum pins the polynomial, here against the standard library, and the
// check value that the NVM Express specification gives for "123456789".
func TestChecksum(t *testing.T) {
	if got, want := Checksum([]byte("123456789")), uint64(0xae8b14860a799888); got != want {
		t.Errorf("Checksum = %#x, want %#x", got, want)
	}
	table := crc64.MakeTable(0x9a6c9329ac4bc9b5)
	b := []byte(strings.Repeat("marfs", 1000))
	if got, want := Checksum(b), crc64.Checksum(b, table); got != want {
		t.Errorf("Checksum = %#x, want %#x", got, want)
	}
	if got, want := Update(Checksum(b[:777]), b[777:]), Checksum(b); got != want {
		t.Errorf("in two parts %#x, want %#x", got, want)
	}
	if got := Checksum(nil); got != 0 {
		t.Errorf("of nothing %#x, want 0", got)
	}
}
