package metadata

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

func (w *world) wantPath(fl *File, want string) {
	w.t.Helper()
	have, err := fl.CreationPath(ctx)
	if w.must(err); have != want {
		w.t.Errorf("creation path %q, want %q", have, want)
	}
}

// A staged content knows where it was made, until it is archived.
func TestPathNote(t *testing.T) {
	w := newWorld(t)
	w.must(w.Tree().Mkdir("d", 0o755))
	fl := w.fileAt("d/a", "a", "text")
	w.wantPath(fl, "d/a")
	w.must(w.Rename(ctx, me("a"), w.Tree(), "a", w.Tree(), "b", "b", 0))
	w.wantPath(fl, "d/a") // of a creation there is one
	w.pack(fl)
	w.wantPath(fl, "")
	w.must(w.replace(w.FS, fl, "staged again"))
	w.wantPath(fl, "replaced")
	_, err := w.stream(w.FS, fl, 7)
	w.must(err)
	w.wantPath(fl, "")
	other := w.file("c", "text")
	w.must(w.Truncate(ctx, other, me("c"), 0))
	w.wantPath(other, "")
}

// fileAt makes a staged file that is told to be at a path.
func (w *world) fileAt(path, name, text string) *File {
	w.t.Helper()
	fl, err := w.Create(ctx, me(path), w.Tree(), name, 0o644)
	w.must(err)
	w.t.Cleanup(func() { fl.Close() })
	own, err := fl.Own(ctx, me(path))
	w.must(err)
	_, err = own.Body().WriteAt([]byte(text), 0)
	w.must(err)
	_, err = own.Commit(ctx, int64(len(text)), objfmt.Checksum([]byte(text)), true)
	w.must(err)
	return fl
}

// Whatever is in the xattr, what it gives is a path below the namespace's root.
func TestCreationPathOfHostileNote(t *testing.T) {
	w := newWorld(t)
	fl := w.file("f", "text")
	for _, note := range []string{"", "/etc/passwd", "..", "a/../../b", "a/..", "./a", "a//b", "a/", "a\x00b", strings.Repeat("x", maxPathNote+1)} {
		w.must(fl.inode.Setxattr(w.pathAttr(), []byte(note), 0))
		w.wantPath(fl, "")
	}
	for _, note := range []string{"a", "a/..b/...", "\xff\n/b", strings.Repeat("x", maxPathNote)} {
		w.must(fl.inode.Setxattr(w.pathAttr(), []byte(note), 0))
		w.wantPath(fl, note)
	}
	if !Reserved(w.pathAttr()) {
		t.Error("users can see the note")
	}
}

// Paths that are no notes are left out, and the file is committed all the same.
func TestPathNotMade(t *testing.T) {
	w := newWorld(t)
	w.wantPath(w.fileAt(strings.Repeat("d/", maxPathNote), "long", "text"), "")
	disarm, err := fault.Arm("metadata.path.before=error")
	w.must(err)
	w.wantPath(w.fileAt("refused", "refused", "text"), "")
	disarm()
	fl, err := w.Create(ctx, me("empty"), w.Tree(), "empty", 0o644)
	w.must(err)
	w.must(w.commitOwn(fl, ""))
	w.wantPath(fl, "")
	w.must(fl.Close())
}

// A note gives way to the slot that has no room beside it.
func TestPathNoteGivesWay(t *testing.T) {
	w := newWorldIn(t, ext4Dir(t))
	fl := w.fileAt(strings.Repeat("p", maxPathNote), "f", "text")
	fill(t, fl)
	w.must(fl.inode.Removexattr("user.fill1"))
	base, err := fl.Newest(ctx)
	w.must(err)
	for n := 0; ; n++ { // leave less room than a slot takes, and more with the note
		if err := fl.inode.Setxattr(fmt.Sprintf("user.more%d", n), make([]byte, 100), unix.XATTR_CREATE); err != nil {
			break
		}
	}
	_, err = w.Append(ctx, fl, me("f"), base)
	w.must(err)
	w.wantPath(fl, "")
}

// ext4Dir is a directory on ext4, which gives an inode 4 KiB for xattrs.
func ext4Dir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil || st.Type != typeExt {
		t.Skip("the directory for temporary files is not on ext4")
	}
	return dir
}

// What users may take, both notes and three slots of the largest size fit an inode.
func TestXattrRoom(t *testing.T) {
	w := newWorldIn(t, ext4Dir(t))
	fl := w.file("f", "text")
	for g := range uint64(2) {
		w.must(fl.removeSlot(g + 1))
	}
	set := func(attr string, size int) {
		t.Helper()
		if err := fl.inode.Setxattr(attr, bytes.Repeat([]byte("x"), size), 0); err != nil {
			t.Errorf("%s of %d bytes: %v", attr, size, err)
		}
	}
	const each = 16 // users' attributes have overhead too: more and smaller ones may cost the path note
	for n := range each {
		name := fmt.Sprintf("user.attribute%02d", n)
		set(name, maxUserXattrs/each-len(name))
	}
	set(w.pathAttr(), maxPathNote)
	set(w.noteAttr(), len(encodeTime(mtimeOf(&mdfs.Stat{}))))
	for g := range uint64(3) {
		set(objfmt.SlotName(w.prefix, 998+g), objfmt.MaxSlot)
	}
}
