package objstoretest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"golang.org/x/sync/errgroup"
)

// sizes: what was put comes back, with and without its size known before.
func (s *suite) sizes() {
	sizes := []int64{0, 1, 4095, s.PartSize - 1, s.PartSize, s.PartSize + 1}
	if !testing.Short() {
		sizes = append(sizes, 2*s.PartSize, 3*s.PartSize+17)
	}
	for _, n := range sizes {
		want := content(byte(n), n)
		key := fmt.Sprintf("sizes/known-%d", n)
		s.mustPut(key, want)
		s.wantContent(key, want)
		key = fmt.Sprintf("sizes/unknown-%d", n)
		if err := s.store.Put(s.ctx(), key, onlyReader{bytes.NewReader(want)}, -1); err != nil {
			s.Fatalf("put %s: %v", key, err)
		}
		s.wantContent(key, want)
	}
}

// onlyReader hides every other method of a reader.
type onlyReader struct{ io.Reader }

// writerTo hands its bytes over in pieces and must not be read from.
type writerTo struct {
	pieces [][]byte
	t      interface{ Error(...any) }
}

func (w *writerTo) Read([]byte) (int, error) {
	w.t.Error("Put called Read of an io.WriterTo")
	return 0, io.ErrNoProgress
}

func (w *writerTo) WriteTo(dst io.Writer) (n int64, err error) {
	for _, p := range w.pieces {
		// The store must not keep p: it is a scratch buffer of the writer.
		scratch := slices.Clone(p)
		m, err := dst.Write(scratch)
		n += int64(m)
		if err != nil {
			return n, err
		}
		clear(scratch)
	}
	return n, nil
}

// readers: any shape of reader gives the same object.
func (s *suite) readers() {
	want := content(1, s.PartSize+4321)
	shapes := []struct {
		name string
		r    io.Reader
		size int64
	}{
		{"half", iotest.HalfReader(bytes.NewReader(want)), -1},
		{"data-with-eof", iotest.DataErrReader(bytes.NewReader(want)), int64(len(want))},
		{"data-with-eof-unknown", iotest.DataErrReader(bytes.NewReader(want)), -1},
		{"writer-to", s.writerTo(want, 70_000), int64(len(want))},
		{"writer-to-unknown", s.writerTo(want, 70_000), -1},
		{"writer-to-whole", s.writerTo(want, len(want)), -1},
		{"writer-to-small-pieces", s.writerTo(want, 999), -1},
	}
	for _, shape := range shapes {
		key := "readers/" + shape.name
		if err := s.store.Put(s.ctx(), key, shape.r, shape.size); err != nil {
			s.Errorf("put %s: %v", key, err)
			continue
		}
		s.wantContent(key, want)
	}
	empty := s.writerTo(nil, 1)
	if err := s.store.Put(s.ctx(), "readers/empty", empty, -1); err != nil {
		s.Fatal(err)
	}
	s.wantContent("readers/empty", nil)
}

func (s *suite) writerTo(data []byte, piece int) *writerTo {
	return &writerTo{slices.Collect(slices.Chunk(data, piece)), s}
}

// failingReader: an error of the reader comes back, and nothing of the object
// stays, before the first part, in it and after it; an older object is unharmed.
func (s *suite) failingReader() {
	broken := errors.New("broken source")
	old := content(2, 1000)
	s.mustPut("failing/old", old)
	for _, n := range []int64{0, 100, s.PartSize + 100} {
		for _, size := range []int64{-1, n + 50} {
			r := func() io.Reader {
				return io.MultiReader(bytes.NewReader(content(3, n)), iotest.ErrReader(broken))
			}
			what := fmt.Sprintf("put of a reader that fails after %d bytes (size %d)", n, size)
			s.wantErr(what, s.store.Put(s.ctx(), "failing/new", r(), size), broken)
			s.wantAbsent("failing/new")
			s.wantErr(what, s.store.Put(s.ctx(), "failing/old", r(), size), broken)
			s.wantContent("failing/old", old)
		}
	}
}

// wrongSize: a reader of another length than announced stores nothing.
func (s *suite) wrongSize() {
	for _, n := range []int64{0, 10, s.PartSize, s.PartSize + 10} {
		for _, size := range []int64{n - 1, n + 1} {
			if size < 0 {
				continue
			}
			err := s.store.Put(s.ctx(), "wrong/size", onlyReader{bytes.NewReader(content(4, n))}, size)
			s.wantErr(fmt.Sprintf("put of %d bytes as %d", n, size), err, fs.ErrInvalid)
			s.wantAbsent("wrong/size")
		}
	}
}

// replace: a second Put wins, whatever the sizes.
func (s *suite) replace() {
	for i, n := range []int64{10, 0, s.PartSize + 5, 20, s.PartSize} {
		want := content(byte(i), n)
		s.mustPut("replace/me", want)
		s.wantContent("replace/me", want)
	}
}

// concurrentPuts: of Puts of one key one wins as a whole, and a reader never
// sees a part or a mixture; Puts of other keys in the same place do not disturb.
func (s *suite) concurrentPuts() {
	if s.SkipConcurrentReplace {
		s.Skip("one winner is not promised")
	}
	const writers = 6
	var wants [writers][]byte
	for i := range wants {
		wants[i] = content(byte(i), 50_000+int64(i)*10_000)
	}
	s.mustPut("race/same", wants[0])
	isOne := func(got []byte) bool {
		return slices.ContainsFunc(wants[:], func(w []byte) bool { return bytes.Equal(w, got) })
	}
	var g errgroup.Group
	for i := range writers {
		g.Go(func() error {
			return s.store.Put(s.ctx(), "race/same", bytes.NewReader(wants[i]), int64(len(wants[i])))
		})
		g.Go(func() error {
			return s.store.Put(s.ctx(), fmt.Sprintf("race/new/%d/x", i%2*10+i), bytes.NewReader(wants[i]), -1)
		})
		g.Go(func() error {
			got, err := s.get(s.ctx(), "race/same", 0, -1)
			if err == nil && !isOne(got) {
				err = fmt.Errorf("get in the race: %d bytes that nobody put", len(got))
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		s.Fatal(err)
	}
	if got, err := s.get(s.ctx(), "race/same", 0, -1); err != nil || !isOne(got) {
		s.Fatalf("get after the race: %d bytes that nobody put, %v", len(got), err)
	}
	for i := range writers {
		s.wantContent(fmt.Sprintf("race/new/%d/x", i%2*10+i), wants[i])
	}
}

// endless gives zeros for ever and calls then after n bytes.
type endless struct {
	n    int64
	then func()
	once sync.Once
}

func (e *endless) Read(p []byte) (int, error) {
	if e.n -= int64(len(p)); e.n <= 0 {
		e.once.Do(e.then)
	}
	clear(p)
	return len(p), nil
}
