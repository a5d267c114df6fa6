package packer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore/faultstore"
)

// newItem makes a file whose first content goes into a pack.
func (w *world) newItem(p, text string) Item {
	w.t.Helper()
	it := Item{File: objfmt.TrailerFile{Path: p, Mode: 0o100640}, Content: strings.NewReader(text)}
	w.must(in(w.FS, p, func(d mdfs.Dir, name string) error {
		fl, err := w.Create(ctx, who(p), d, name, 0o640)
		if err != nil {
			return err
		}
		defer fl.Close()
		it.Member, err = fl.NewMember(ctx, int64(len(text)), objfmt.Checksum([]byte(text)), time.Unix(1e9, 0))
		return err
	}))
	return it
}

func TestWriteNew(t *testing.T) {
	w := newWorld(t, policy)
	texts := map[string]string{}
	var items []Item
	for i := range 10 {
		p := fmt.Sprint("d/", i)
		texts[p] = text(700, i)
		items = append(items, w.newItem(p, texts[p]))
	}
	w.must(w.Write(ctx, w.repo, items))
	for i := range items {
		if items[i].Err != nil {
			t.Errorf("item %d: %v", i, items[i].Err)
		}
	}
	w.wantPacked(all(texts)...)
	w.wantText(texts)
	if f := w.trailer(w.slot("d/3").Source.Object).Files[3]; f.Path != "d/3" || f.Size != 700 || !f.MTime.Equal(time.Unix(1e9, 0)) {
		t.Errorf("trailer %+v", f)
	}
	w.recover()
	w.wantText(texts)
}

// Contents that end early, are others, or cannot be read keep no other from being written.
func TestWriteBad(t *testing.T) {
	w := newWorld(t, policy)
	broken := errors.New("broken")
	items := []Item{w.newItem("good", "good"), w.newItem("short", "text"), w.newItem("wrong", "text"),
		w.newItem("broken", "text"), w.newItem("refused", "text"), w.newItem("last", "last")}
	items[1].Content = strings.NewReader("tex")
	items[2].Content = strings.NewReader("TEXT")
	items[3].Content = failing{broken}
	items[4].Err = broken
	w.must(w.Write(ctx, w.repo, items))
	for i, want := range []error{nil, io.ErrUnexpectedEOF, objfmt.ErrChecksum, broken, broken, nil} {
		if !errors.Is(items[i].Err, want) {
			t.Errorf("item %d: %v, want %v", i, items[i].Err, want)
		}
	}
	w.wantText(map[string]string{"good": "good", "last": "last", "short": "", "wrong": ""})
	if n := len(w.trailer(w.slot("good").Source.Object).Files); n != 2 {
		t.Errorf("the trailer names %d files", n)
	}
	bad := []Item{w.newItem("bad", "text")}
	bad[0].Content = failing{broken}
	w.must(w.Write(ctx, w.repo, bad))
	if bad[0].Err == nil || len(w.objectIDs()) != 1 || len(w.names("packs/open")) != 0 {
		t.Errorf("a pack of nothing: %v, %d objects", bad[0].Err, len(w.objectIDs()))
	}
	w.must(w.Write(ctx, w.repo, nil))
}

type failing struct{ error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.error }

// A store that one content is in does not answer: that says nothing about the content.
func TestWriteUnavailable(t *testing.T) {
	w := newWorld(t, policy)
	items := []Item{w.newItem("a", "text"), w.newItem("b", "text")}
	items[1].Content = failing{fmt.Errorf("read: %w", context.DeadlineExceeded)}
	if err := w.Write(ctx, w.repo, items); err == nil {
		t.Error("written without it")
	}
	w.wantNoOrphans()
	if n := len(w.names("packs/open")); n != 0 {
		t.Errorf("%d open packs", n)
	}
}

// Contents are closed, also when nothing comes of the pack, and few are open at once.
func TestWriteCloses(t *testing.T) {
	w := newWorld(t, policy)
	for _, fails := range []bool{false, true} {
		open := 0
		var items []Item
		for i := range 20 {
			it := w.newItem(fmt.Sprint(fails, i), "text")
			it.Content = &closing{Reader: bytes.NewReader([]byte("text")), open: &open, t: t}
			items = append(items, it)
		}
		if fails {
			for _, s := range w.stores {
				s.Inject(faultstore.Fault{Op: faultstore.Put, Do: faultstore.NoSpace()})
			}
		}
		if err := w.Write(ctx, w.repo, items); (err != nil) != fails {
			t.Error(err)
		}
		if open != 0 {
			t.Errorf("%d contents are open", open)
		}
	}
}

type closing struct {
	*bytes.Reader
	opened bool
	open   *int
	t      *testing.T
}

func (c *closing) ReadAt(b []byte, off int64) (int, error) {
	if !c.opened {
		c.opened = true
		if *c.open++; *c.open > 2 {
			c.t.Errorf("%d contents are open at once", *c.open)
		}
	}
	return c.Reader.ReadAt(b, off)
}

func (c *closing) Close() error {
	if c.opened {
		c.opened = false
		*c.open--
	}
	return nil
}

// A file that is written to while its batch is written keeps what was written.
func TestWriteRaced(t *testing.T) {
	w := newWorld(t, policy)
	items := []Item{w.newItem("a", "text"), w.newItem("b", "text")}
	other := w.open("node2")
	items[1].Content = readerFunc(func(b []byte, _ int64) (int, error) {
		if err := opened(other, "a", func(fl *metadata.File) error { return other.Truncate(ctx, fl, who("a"), 0) }); err != nil {
			t.Error(err)
		}
		if err := rewrite(other, "a", "another's"); err != nil {
			t.Error(err)
		}
		return copy(b, "text"), nil
	})
	w.must(w.Write(ctx, w.repo, items))
	if !errors.Is(items[0].Err, errChanged) || items[1].Err != nil {
		t.Errorf("errors %v, %v", items[0].Err, items[1].Err)
	}
	w.wantText(map[string]string{"a": "another's", "b": "text"})
}

type readerFunc func([]byte, int64) (int, error)

func (f readerFunc) ReadAt(b []byte, off int64) (int, error) { return f(b, off) }
