package s3store

import (
	"bytes"
	"testing"
)

// A Put of unknown length holds about what it was given, up to a part.
func TestBufferGrows(t *testing.T) {
	const part = 8 << 20
	s, err := New(Config{Endpoint: "http://127.0.0.1:1", Bucket: "bucket", Credentials: Static("key", "secret"), PartSize: part})
	if err != nil {
		t.Fatal(err)
	}
	if have := s.cfg.PutMemory(); have != part {
		t.Errorf("PutMemory is %d", have)
	}
	data := make([]byte, part)
	for _, piece := range []int{1000, 64 << 10, 1 << 20, 3 << 20, part} {
		u := &upload{s: s, caller: t.Context(), size: -1}
		for len(u.buf) < part { // the last byte of a part sends nothing yet
			n := min(piece, part-len(u.buf))
			if _, err := u.Write(data[:n]); err != nil {
				t.Fatal(err)
			}
			if have, most := cap(u.buf), max(smallBuffer, 2*len(u.buf)); have > most || have > part {
				t.Fatalf("in pieces of %d: a buffer of %d for %d bytes", piece, have, len(u.buf))
			}
		}
		s.giveBack(u.buf)
	}
	for _, n := range []int{0, 1000, smallBuffer, smallBuffer + 1, 1 << 20} {
		u := &upload{s: s, caller: t.Context(), size: -1}
		if _, err := u.ReadFrom(bytes.NewReader(data[:n])); err != nil || len(u.buf) != n || cap(u.buf) > max(smallBuffer, 2*n) {
			t.Errorf("%d bytes: %d in a buffer of %d, %v", n, len(u.buf), cap(u.buf), err)
		}
	}
}
