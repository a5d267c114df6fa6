package metadata

import (
	"bytes"
	"errors"
	"testing"

	"marfs/internal/fault"
	"marfs/pkg/objfmt"
)

// tornFile is a new file whose slot has survived a power failure, and its bytes not:
// ext4 and XFS show the size up to which they have.
func (w *world) tornFile(name string, size int64) *File {
	w.t.Helper()
	fl := w.file(name, "some text")
	w.must(fl.inode.Truncate(size))
	return fl
}

// Who opens a torn file finds what it was, and so does recovery, which looks at all
// that is staged. Nothing of it is kept as a version, and it can be written again.
func TestTornFileIsEmpty(t *testing.T) {
	for _, size := range []int64{0, 4} {
		for name, look := range map[string]func(w *world) error{
			"open":     func(w *world) error { w.pinned("f"); return nil },
			"recovery": func(w *world) error { return w.node("node2").Recover(ctx, nil) },
		} {
			w := newWorld(t)
			fl := w.tornFile("f", size)
			w.must(look(w))
			s, err := fl.Newest(ctx)
			w.must(err)
			st, err := fl.inode.Stat()
			w.must(err)
			if !empty(s) || s.Size != 0 || st.Size != 0 || s.State != objfmt.Final {
				t.Errorf("%s, %d bytes: slot %+v, st_size %d", name, size, s, st.Size)
			}
			w.wantSlots(fl, 3)
			if refs := w.trash(); len(refs) != 0 {
				t.Errorf("%s: kept %v", name, refs)
			}
			w.must(w.Recover(ctx, nil))
			w.wantHome(fl.ID(), filesName)
			w.wantPath(fl, "")
			w.must(w.replace(w.FS, fl, "again"))
			if text, _ := w.read(w.FS, "f"); text != "again" {
				t.Errorf("%s: read %q", name, text)
			}
		}
	}
}

// A body of the right size with other bytes may have been durable once: it stays as
// it is, is not packed, and nobody gets it for the content.
func TestDamagedFileStays(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "some text")
	_, err := fl.inode.WriteAt(make([]byte, 4), 2)
	w.must(err)
	before, err := fl.Newest(ctx)
	w.must(err)
	w.pinned("f")
	w.must(w.Recover(ctx, nil))
	s, err := fl.Newest(ctx)
	w.must(err)
	if s.Nonce != before.Nonce {
		t.Errorf("slot %+v", s)
	}
	if _, err := fl.CopyContent(ctx, s, &bytes.Buffer{}); !errors.Is(err, objfmt.ErrChecksum) {
		t.Errorf("read: %v", err)
	}
}

// Whoever mends a torn file may be killed at any step.
func TestMendKilled(t *testing.T) {
	for _, point := range []string{"metadata.heal.torn.before", "metadata.heal.torn.after", "metadata.heal.torn.before:2", "metadata.end.lower.before", "metadata.end.lower.before:2", "metadata.publish.size.before"} {
		w := newWorld(t)
		fl := w.tornFile("f", 3)
		spec, n, counted := bytes.Cut([]byte(point), []byte(":"))
		fp := string(spec) + "=dead"
		if counted {
			fp += ":" + string(n)
		}
		disarm, err := fault.Arm(fp)
		w.must(err)
		if again, err := w.Open(ctx, w.Tree(), "f"); err == nil {
			again.Close()
			t.Errorf("%s: opened", point)
		}
		if !disarm() {
			t.Errorf("%s: not reached", point)
		}
		w.FS = w.node("node2")
		if text, s := w.read(w.FS, "f"); text != "" || !empty(s) {
			t.Errorf("%s: read %q, slot %+v", point, text, s)
		}
		w.must(w.Recover(ctx, nil))
		w.wantHome(fl.ID(), filesName)
		for _, problem := range w.audit() {
			t.Errorf("%s: %s", point, problem)
		}
	}
}
