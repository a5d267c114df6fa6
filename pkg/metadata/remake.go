package metadata

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"syscall"

	"marfs/internal/fault"
	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// remakeAt makes what a record tells of, with its first attributes only: those that
// a directory needs for being filled are its maker's.
func remakeAt(r objfmt.Record, dir mdfs.Dir, name string) error {
	return stepRestore.Do(func() error {
		switch r.Kind {
		case objfmt.RecordDir:
			return dir.Mkdir(name, 0o700)
		case objfmt.RecordSymlink:
			return dir.Symlink(r.Target, name)
		}
		return dir.Mknod(name, r.Mode, r.Rdev)
	})
}

// restoreAttrs sets what making it has left out. Owner first, for chown clears the
// set-id bits; the mode after the xattrs, which may need the right to write, and
// after the ACLs, which hold it too; times last.
func restoreAttrs(r objfmt.Record, dir mdfs.Dir, name string, owner int) error {
	mode := r.Mode & 0o7777
	if err := stepAttrs.Do(func() error {
		err := dir.Lchown(name, owner, int(r.GID))
		if owner < 0 && errors.Is(err, syscall.EPERM) { // not in the group any more
			mode, err = strangeGroup(mode), nil
		}
		return err
	}); err != nil {
		return err
	}
	if r.Kind != objfmt.RecordSymlink {
		if err := restoreXattrs(r, dir, name); err != nil {
			return err
		}
		if err := stepAttrs.Do(func() error { return dir.Chmod(name, mode) }); err != nil {
			return err
		}
	}
	return stepAttrs.Do(func() error {
		return dir.Lchtimes(name, mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Time: r.MTime})
	})
}

// strangeGroup is the mode of what could not get its group back: that of its maker
// gets no more of it than everybody does. With an ACL, nor do those it names.
func strangeGroup(mode uint32) uint32 {
	const setID, group, others = 0o6000, 0o070, 0o007
	return mode&^(setID|group) | mode&group&(mode&others<<3)
}

// restoreXattrs makes xattrs and ACLs those of the record: an ACL that came with the
// directory above goes.
func restoreXattrs(r objfmt.Record, dir mdfs.Dir, name string) error {
	attrs, err := dir.Listxattr(name)
	if err := ignore(err, syscall.EOPNOTSUPP); err != nil {
		return err
	}
	for _, a := range attrs {
		if _, kept := r.Xattrs[a]; kept || !strings.HasPrefix(a, aclPrefix) {
			continue
		}
		if err := ignore(stepAttrs.Do(func() error { return dir.Removexattr(name, a) }), syscall.ENODATA); err != nil {
			return err
		}
	}
	for _, a := range slices.Sorted(maps.Keys(r.Xattrs)) {
		if err := stepAttrs.Do(func() error { return dir.Setxattr(name, a, r.Xattrs[a], 0) }); err != nil {
			return err
		}
	}
	return nil
}

// aclPrefix begins the names of POSIX ACLs.
const aclPrefix = "system.posix_acl_"

// removeAny removes a name, also of a directory and what is in it: a scratch
// directory holds one thing.
func removeAny(p *fault.Step, d mdfs.Dir, name string) error {
	err := remove(p, d, name)
	if !errors.Is(err, syscall.EISDIR) && !errors.Is(err, syscall.EPERM) {
		return err
	}
	if err = removeDir(p, d, name); errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		if err = emptyOut(p, d, name); err == nil {
			err = removeDir(p, d, name)
		}
	}
	return ignore(err, syscall.ENOENT)
}

// emptyOut removes what is in the directory name, of which nothing is a directory
// that holds something.
func emptyOut(p *fault.Step, d mdfs.Dir, name string) error {
	sub, err := d.OpenDir(name)
	if err != nil {
		return ignore(err, syscall.ENOENT)
	}
	defer sub.Close()
	return eachEntry(sub, "", func(n string) (bool, error) {
		err := remove(p, sub, n)
		if errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.EPERM) {
			err = ignore(removeDir(p, sub, n), syscall.ENOENT)
		}
		return false, err
	})
}
