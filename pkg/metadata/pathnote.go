package metadata

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"

	"marfs/pkg/objfmt"
)

// The path note is an xattr beside the slots, from the moment that a small content
// is staged until it is archived: where the file was then. It is made best effort,
// and gives way to slots where an inode has no room for both.

// maxPathNote bounds a note in bytes: with it, three slots and the note of a punch
// an inode of ext4 still has what users may take (maxUserXattrs). A longer path is
// not noted.
const maxPathNote = 256

// pathAttr names the xattr.
func (f *FS) pathAttr() string { return f.prefix + "path" }

// notePath makes the note, or does not: nothing rests on it.
func (fl *File) notePath(path string) {
	if path == "" || !notable(path) {
		return
	}
	_ = setxattr(stepPath, fl.inode, fl.f.pathAttr(), []byte(path), 0)
}

// dropPath removes the note.
func (fl *File) dropPath() error { return removexattr(stepPath, fl.inode, fl.f.pathAttr()) }

// notable tells whether a path is one that leads down from the namespace's root.
func notable(path string) bool {
	if len(path) > maxPathNote || strings.ContainsRune(path, 0) {
		return false
	}
	return !slices.ContainsFunc(strings.Split(path, "/"), func(name string) bool {
		return name == "" || name == "." || name == ".."
	})
}

// CreationPath is where the file was when its staged content was written, from the
// namespace's root; "": not known. It is a hint, for the packs' recovery trailers.
func (fl *File) CreationPath(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	b, err := fl.inode.Getxattr(fl.f.pathAttr())
	if errors.Is(err, syscall.ENODATA) || err == nil && !notable(string(b)) {
		return "", nil
	}
	return string(b), fileError("read path", fl.id, err)
}

// staged tells whether a slot's content waits for the packer, in one body.
func staged(s objfmt.Slot) bool {
	return s.State == objfmt.Final && !empty(s) && (s.Source.Kind == objfmt.SourceOwn || s.Source.Kind == objfmt.SourceBody)
}
