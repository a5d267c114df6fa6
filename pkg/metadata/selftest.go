package metadata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// maxUserXattrs is what users' xattrs may take on a filesystem that gives an
// inode little room: ext4 has 4 KiB for all, and three slots and two notes must fit.
const maxUserXattrs = 2 << 10

// selfTest tries, in scratch files, everything that the protocol takes for
// granted of the filesystem (P0), before any data depends on it.
func (f *FS) selfTest(ctx context.Context) error {
	tests := []struct {
		name string
		run  func(d mdfs.Dir, name string) error
	}{
		{"exclusive setxattr", f.testCreate},
		{"room for xattrs", f.testRoom},
		{"punching holes", f.testPunch},
		{"links and renames to the private directories", f.testPlaces},
	}
	for _, t := range tests {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := f.scratch(t.run)
		if full(err) {
			// Who has it mounted now wants to read and to delete. What could not be
			// tried was tried at earlier starts; the limit is the safe one.
			f.room = maxUserXattrs
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return syncAll(stepInit, f.md)
}

// full reports whether err says that the filesystem, or an inode, has no room left.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.E2BIG)
}

// scratch runs fn with a file in a directory in tree/, as the users' are.
func (f *FS) scratch(fn func(d mdfs.Dir, name string) error) (err error) {
	dir := ".marfs-test-" + f.suffix()
	if err := mkdir(stepInit, f.tree, dir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeDir(stepInit, f.tree, dir)) }()
	d, err := f.tree.OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	fl, err := create(stepInit, d, "file", 0o600)
	if err != nil {
		return err
	}
	fl.Close()
	defer func() { err = errors.Join(err, remove(stepInit, d, "file")) }()
	return fn(d, "file")
}

func (f *FS) withScratch(d mdfs.Dir, name string, fn func(fl mdfs.File) error) error {
	fl, err := d.OpenFile(name, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer fl.Close()
	return fn(fl)
}

func (f *FS) testCreate(d mdfs.Dir, name string) error {
	attr := objfmt.SlotName(f.prefix, 1)
	return f.withScratch(d, name, func(fl mdfs.File) error {
		if err := setxattr(stepInit, fl, attr, []byte("1"), unix.XATTR_CREATE); err != nil {
			return err
		}
		if err := setxattr(stepInit, fl, attr, []byte("2"), unix.XATTR_CREATE); !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("a second XATTR_CREATE gave %w, want EEXIST", err)
		}
		b, err := fl.Getxattr(attr)
		if err == nil && string(b) != "1" {
			err = fmt.Errorf("a refused XATTR_CREATE changed the value")
		}
		return err
	})
}

// testRoom measures whether user xattrs have to be limited.
func (f *FS) testRoom(d mdfs.Dir, name string) error {
	return f.withScratch(d, name, func(fl mdfs.File) error {
		slot := bytes.Repeat([]byte("x"), objfmt.MaxSlot)
		for g := range uint64(3) {
			if err := setxattr(stepInit, fl, objfmt.SlotName(f.prefix, g+1), slot, 0); err != nil {
				return err
			}
		}
		if err := setxattr(stepInit, fl, f.noteAttr(), slot[:32], 0); err != nil {
			return err
		}
		if err := setxattr(stepInit, fl, f.pathAttr(), slot[:maxPathNote], 0); err != nil {
			return err
		}
		if err := setxattr(stepInit, fl, "user.test", bytes.Repeat([]byte("x"), 16<<10), 0); err == nil {
			return nil
		}
		f.room = maxUserXattrs
		return setxattr(stepInit, fl, "user.test", bytes.Repeat([]byte("x"), maxUserXattrs-len("user.test")), 0)
	})
}

func (f *FS) testPunch(d mdfs.Dir, name string) error {
	return f.withScratch(d, name, func(fl mdfs.File) error {
		if err := writeAt(stepInit, fl, []byte("to be punched"), 0); err != nil {
			return err
		}
		if err := punch(stepInit, fl, 13); err != nil {
			return err
		}
		b := make([]byte, 13)
		if _, err := fl.ReadAt(b, 0); err != nil {
			return err
		}
		if !bytes.Equal(b, make([]byte, 13)) {
			return errors.New("the bytes are still there")
		}
		return nil
	})
}

// testPlaces: project quotas and filesets can make the private directories
// another link domain (EXDEV).
func (f *FS) testPlaces(d mdfs.Dir, name string) error {
	at := deadTemp + f.suffix()
	for _, place := range []string{stagedName, filesName, deadName, bodiesName, versionName, trashName, workName} {
		err := f.in(place, func(p mdfs.Dir) error {
			if err := link(stepInit, d, name, p, at); err != nil {
				return err
			}
			if err := rename(stepInit, p, at, d, "moved", 0); err != nil {
				return errors.Join(err, remove(stepInit, p, at))
			}
			return remove(stepInit, d, "moved")
		})
		if err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
	}
	return nil
}
