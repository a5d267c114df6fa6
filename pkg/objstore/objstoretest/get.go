package objstoretest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strings"
	"testing/iotest"
	"time"

	"marfs/pkg/objstore"
)

// ranges: any range, within the object, over its end and beyond it.
func (s *suite) ranges() {
	size := s.PartSize + 1000
	want := content(5, size)
	s.mustPut("ranges/big", want)
	s.mustPut("ranges/empty", nil)
	p := s.PartSize
	for _, c := range []struct{ off, n int64 }{
		{0, 0}, {0, 1}, {0, size}, {0, size + 1}, {0, -1},
		{1, 4096}, {4095, 2}, {p - 1, 2}, {p, 1}, {p, -1}, {size - 1, 1}, {size - 1, 2}, {size - 1, -1},
		{size, 1}, {size, 0}, {size, -1}, {size + 1, 1}, {size + 1, -1}, {5, 0},
		{3, math.MaxInt64}, {math.MaxInt64, 1}, {math.MaxInt64, math.MaxInt64},
	} {
		lo := min(c.off, size)
		hi := size
		if c.n >= 0 && c.n < size-lo {
			hi = lo + c.n
		}
		got, err := s.get(s.ctx(), "ranges/big", c.off, c.n)
		if err != nil {
			s.Errorf("get off %d n %d: %v", c.off, c.n, err)
		} else if d := diff(got, want[lo:hi]); d != "" {
			s.Errorf("get off %d n %d: %s", c.off, c.n, d)
		}
		if got, err := s.get(s.ctx(), "ranges/empty", c.off, c.n); len(got) != 0 || err != nil {
			s.Errorf("get off %d n %d of an empty object: %d bytes, %v", c.off, c.n, len(got), err)
		}
	}
}

// peek: where a reader is a Peeker, what it lends is what it would have read.
func (s *suite) peek() {
	want := content(7, s.PartSize+1000)
	s.mustPut("peek/one", want)
	r, err := s.store.Get(s.ctx(), "peek/one", 100, -1)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	p, ok := r.(objstore.Peeker)
	if !ok {
		return
	}
	var got []byte
	for step := 0; ; step++ {
		b, err := p.Peek(65_544)
		if err == io.EOF {
			break
		}
		if err != nil || len(b) == 0 || len(b) > 65_544 {
			s.Fatalf("peek lends %d bytes, %v", len(b), err)
		}
		if step%3 == 2 { // or does not take it, and reads
			one := make([]byte, 1)
			if _, err := io.ReadFull(r, one); err != nil {
				s.Fatal(err)
			}
			got = append(got, one...)
			continue
		}
		got = append(got, b...)
		if n, err := p.Discard(len(b)); n != len(b) || err != nil {
			s.Fatalf("discard of %d: %d, %v", len(b), n, err)
		}
	}
	if d := diff(got, want[100:]); d != "" {
		s.Error(d)
	}
}

// manyReaders: readers are independent, keep io.Reader's contract, and what
// they opened can be closed early and twice.
func (s *suite) manyReaders() {
	want := content(6, 300_000)
	s.mustPut("readers/one", want)
	early, err := s.store.Get(s.ctx(), "readers/one", 0, -1)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := io.ReadFull(early, make([]byte, 100)); err != nil {
		s.Fatal(err)
	}
	r, err := s.store.Get(s.ctx(), "readers/one", 1000, 200_000)
	if err != nil {
		s.Fatal(err)
	}
	if err := iotest.TestReader(onlyReader{r}, want[1000:201_000]); err != nil {
		s.Error(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			s.Errorf("close at the end: %v", err)
		}
		if err := early.Close(); err != nil {
			s.Errorf("close before the end: %v", err)
		}
	}
	w, err := s.store.Get(s.ctx(), "readers/one", 1, -1)
	if err != nil {
		s.Fatal(err)
	}
	defer w.Close()
	var buf bytes.Buffer
	if n, err := io.Copy(&buf, w); n != int64(len(want)-1) || err != nil {
		s.Errorf("copy: %d, %v", n, err)
	}
	if d := diff(buf.Bytes(), want[1:]); d != "" {
		s.Errorf("copy: %s", d)
	}
}

func (s *suite) stat() {
	before := time.Now()
	s.mustPut("stat/me", content(7, 12345))
	info, err := s.store.Stat(s.ctx(), "stat/me")
	if err != nil || info.Key != "stat/me" || info.Size != 12345 {
		s.Errorf("stat: %+v, %v", info, err)
	}
	if d := info.ModTime.Sub(before).Abs(); d > time.Minute {
		s.Errorf("stat: modified at %v, put at %v", info.ModTime, before)
	}
	// What is between keys is no object.
	_, err = s.store.Stat(s.ctx(), "stat")
	s.wantErr("stat of a prefix", err, fs.ErrNotExist)
	_, err = s.get(s.ctx(), "stat", 0, -1)
	s.wantErr("get of a prefix", err, fs.ErrNotExist)
}

func (s *suite) delete() {
	s.mustPut("delete/a", []byte("a"))
	s.mustPut("delete/ab", []byte("ab"))
	if err := s.store.Delete(s.ctx(), "delete/a"); err != nil {
		s.Fatal(err)
	}
	s.wantAbsent("delete/a")
	s.wantContent("delete/ab", []byte("ab"))
	for _, key := range []string{"delete/a", "delete/never", "never/was"} {
		if err := s.store.Delete(s.ctx(), key); err != nil {
			s.Errorf("delete of missing %s: %v", key, err)
		}
	}
	if err := s.store.Delete(s.ctx(), "delete/ab"); err != nil {
		s.Fatal(err)
	}
	s.mustPut("delete/a", []byte("again"))
	s.wantContent("delete/a", []byte("again"))
}

// missing: Get says so itself, whatever the range.
func (s *suite) missing() {
	s.mustPut("missing/there", []byte("x"))
	for _, key := range []string{"missing", "missing/not", "missing/not/deep/down", "other"} {
		s.wantAbsent(key)
		for _, r := range [][2]int64{{0, -1}, {0, 0}, {0, 1}, {100, 0}, {100, 5}, {100, -1}} {
			rc, err := s.store.Get(s.ctx(), key, r[0], r[1])
			s.wantErr(fmt.Sprintf("get %s %v", key, r), err, fs.ErrNotExist)
			if rc != nil {
				rc.Close()
			}
		}
	}
}

// badCalls: what can never work is refused, before anything is read.
func (s *suite) badCalls() {
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "A", "a b", "a\x00b", "a\\b", "é", "a#", "~a", "%2e",
		strings.Repeat("a", 300), strings.Repeat("aaaa/", 300) + "a",
	} {
		what := fmt.Sprintf("key %.20q", key)
		s.wantErr("put "+what, s.store.Put(s.ctx(), key, strings.NewReader("x"), 1), fs.ErrInvalid)
		_, err := s.store.Get(s.ctx(), key, 0, -1)
		s.wantErr("get "+what, err, fs.ErrInvalid)
		_, err = s.store.Stat(s.ctx(), key)
		s.wantErr("stat "+what, err, fs.ErrInvalid)
		s.wantErr("delete "+what, s.store.Delete(s.ctx(), key), fs.ErrInvalid)
	}
	s.mustPut("bad/offset", []byte("x"))
	_, err := s.store.Get(s.ctx(), "bad/offset", -1, 1)
	s.wantErr("get at -1", err, fs.ErrInvalid)
}

// canceled: a call whose context ended before does nothing.
func (s *suite) canceled() {
	s.mustPut("canceled/there", []byte("x"))
	ctx, cancel := context.WithCancel(s.ctx())
	cancel()
	s.wantErr("put", s.store.Put(ctx, "canceled/new", strings.NewReader("x"), 1), context.Canceled)
	_, err := s.get(ctx, "canceled/there", 0, -1)
	s.wantErr("get", err, context.Canceled)
	_, err = s.store.Stat(ctx, "canceled/there")
	s.wantErr("stat", err, context.Canceled)
	s.wantErr("delete", s.store.Delete(ctx, "canceled/there"), context.Canceled)
	var last error
	for _, last = range s.store.List(ctx, "", "") {
	}
	s.wantErr("list", last, context.Canceled)
	s.wantContent("canceled/there", []byte("x"))
	s.wantAbsent("canceled/new")
}

// cancelInPut: a Put whose context ends on the way stops reading and leaves nothing.
func (s *suite) cancelInPut() {
	for _, n := range []int64{1, s.PartSize / 2, s.PartSize + s.PartSize/2} {
		ctx, cancel := context.WithCancel(s.ctx())
		err := s.store.Put(ctx, "cancel/put", &endless{n: n, then: cancel}, -1)
		s.wantErr(fmt.Sprintf("put cancelled after %d bytes", n), err, context.Canceled)
		s.wantAbsent("cancel/put")
	}
}

// cancelInGet: a reader whose context ends fails soon, and is no short object.
func (s *suite) cancelInGet() {
	s.mustPut("cancel/get", content(8, 3*s.PartSize))
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	r, err := s.store.Get(ctx, "cancel/get", 0, -1)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(onlyReader{r}, make([]byte, 1000)); err != nil {
		s.Fatal(err)
	}
	cancel()
	_, err = io.ReadAll(onlyReader{r})
	s.wantErr("read after cancel", err, context.Canceled)
}
