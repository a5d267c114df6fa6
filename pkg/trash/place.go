package trash

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// maxNumber bounds the numbers of names that are taken; maxName a name.
const (
	maxNumber = 9999
	maxName   = 255
)

// numbered is the n-th name for something whose name is taken, as GNU's numbered
// backups have it; 0: the name itself. A long name loses its end.
func numbered(name string, n int) string {
	if n == 0 {
		return name
	}
	suffix := ".~" + strconv.Itoa(n) + "~"
	return name[:min(len(name), maxName-len(suffix))] + suffix
}

var errNumbers = fmt.Errorf("the name and all with numbers up to %d are taken: %w", maxNumber, syscall.EEXIST)

// put restores what is no directory into one.
func (x *restorer) put(l *level, it item, e Entry) error {
	if x.r.DryRun {
		return x.wouldPut(l, it, e)
	}
	rm, err := x.take(it)
	if err != nil {
		return err
	}
	name, err := x.putFree(l, base(it.target), rm)
	if err != nil {
		return errors.Join(pathError(join(l.path, base(it.target)), err), rm.Back())
	}
	x.linked[e.Record.File] = true
	x.done(l, done{rm, Restored{Entry: e, Path: join(l.path, name)}})
	return nil
}

// take takes the record, and looks once more whose it is: what the list has told is
// a while ago.
func (x *restorer) take(it item) (*metadata.Removal, error) {
	rm, err := x.t.Meta.TakeRemoval(x.ctx, metadata.TrashRef(it.id))
	if err != nil {
		return nil, fmt.Errorf("trash entry %s: %w", it.id, err)
	}
	owner := rm.Record.UID
	if rm.Record.Kind == objfmt.RecordFile {
		var st mdfs.Stat
		st, err = x.t.Meta.StatID(x.ctx, rm.Record.File)
		owner = st.Uid
	}
	if err == nil && !owned(x.who, owner) {
		err = errGone
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("trash entry %s: %w", it.id, err), rm.Back())
	}
	return rm, nil
}

// putFree makes it under the first name that is free, or with Force under its own.
func (x *restorer) putFree(l *level, name string, rm *metadata.Removal) (string, error) {
	for n := 0; n <= maxNumber; n++ {
		at := numbered(name, n)
		if rm.Record.Kind != objfmt.RecordFile { // before Put marks the record anew
			if _, made, err := rm.Made(x.by(""), l.dir, at); made || err != nil {
				return at, err
			}
		}
		err := rm.Put(x.ctx, x.by(join(l.path, at)), l.dir, at)
		if !errors.Is(err, syscall.EEXIST) {
			return at, err
		}
		if _, made, err := rm.Made(x.by(""), l.dir, at); made || err != nil {
			return at, err
		}
		if x.r.Force {
			return at, rm.Replace(x.ctx, x.by(""), l.dir, at, join(l.path, at))
		}
	}
	return "", errNumbers
}

// wouldPut tells where put would put it.
func (x *restorer) wouldPut(l *level, it item, e Entry) error {
	name := base(it.target)
	for n := 0; n <= maxNumber; n++ {
		path := join(l.path, numbered(name, n))
		st, err := x.there(l, numbered(name, n))
		if err != nil {
			return err
		}
		if st != nil && !x.r.Force {
			continue
		}
		if st != nil && st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
			return pathError(path, syscall.EISDIR)
		}
		x.planned[path] = true
		x.linked[e.Record.File] = true
		x.tell(Restored{Entry: e, Path: path}, nil)
		return nil
	}
	return pathError(join(l.path, name), errNumbers)
}

// there looks what a name stands for, as the caller; nil: nothing. What a dry run
// has planned is there.
func (x *restorer) there(l *level, name string) (*mdfs.Stat, error) {
	if x.planned[join(l.path, name)] {
		return &mdfs.Stat{}, nil
	}
	if l.dir == nil {
		return nil, nil
	}
	var st mdfs.Stat
	err := x.as(func() (err error) {
		st, err = l.dir.Lstat(name)
		return err
	})
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, pathError(join(l.path, name), err)
	}
	return &st, nil
}

// enterRemoved restores a directory as far as it can before its contents are there,
// and enters it. When that fails, nothing goes into it either.
func (x *restorer) enterRemoved(top *level, it item) {
	next := &level{target: it.target, path: join(top.path, base(it.target)), err: top.err}
	e, err := x.t.get(x.ctx, x.who, it.id)
	e.ID = it.id
	if next.err == nil {
		next.err = err
	}
	if next.err == nil {
		next.entry = e
		next.err = x.makeDir(top, base(it.target), it, next)
	}
	if next.err != nil {
		x.failed(e, next.err)
	}
	x.levels = append(x.levels, next)
}

// makeDir finds or makes the directory of next.
func (x *restorer) makeDir(top *level, name string, it item, next *level) error {
	if x.r.DryRun {
		return x.wouldMakeDir(top, name, next)
	}
	rm, err := x.take(it)
	if err != nil {
		return err
	}
	for n := 0; n <= maxNumber; n++ {
		next.path = join(top.path, numbered(name, n))
		found, err := x.makeDirAt(top, numbered(name, n), n, rm, next)
		if err != nil {
			return errors.Join(pathError(next.path, err), rm.Back())
		}
		if found {
			return nil
		}
	}
	return errors.Join(pathError(next.path, errNumbers), rm.Back())
}

// makeDirAt makes the directory under one name, or finds it: as an earlier restore
// has left it, or another to be merged into. Not found and no error: the name is
// something else's.
func (x *restorer) makeDirAt(top *level, name string, n int, rm *metadata.Removal, next *level) (found bool, err error) {
	who := x.by(next.path)
	if next.dir, found, err = rm.Made(who, top.dir, name); err != nil {
		return false, err
	}
	if !found {
		next.dir, err = rm.MakeDir(who, top.dir, name)
	}
	if err == nil {
		next.removal, next.back = rm, true
		return true, nil
	}
	if !errors.Is(err, syscall.EEXIST) {
		return false, err
	}
	if found, err = x.merges(top, name, n, next.entry.UID); !found || err != nil {
		return false, err
	}
	if next.dir, err = x.open(top, name); err != nil {
		return false, err
	}
	st, err := next.dir.Stat()
	if err == nil {
		err = rm.Merged()
	}
	if err == nil && !trusts(next.entry.UID, st.Uid) { // another has taken its place since
		err = syscall.ESTALE
	}
	if err != nil {
		next.dir.Close()
		next.dir = nil
		return false, err
	}
	x.done(top, done{rm, Restored{Entry: next.entry, Path: next.path}})
	return true, nil
}

// merges tells whether what has the name is a directory that is to be merged into:
// one of root's or of the owner of the removed one. Where everybody may make names,
// another one's would lay open what the removed one kept closed.
// Force does not put a directory in the place of a file: what is in it could not
// be given back by one rename.
func (x *restorer) merges(top *level, name string, n int, owner uint32) (bool, error) {
	st, err := x.there(top, name)
	if err != nil || st == nil || n > 0 {
		return false, err
	}
	dir := st.Mode&syscall.S_IFMT == syscall.S_IFDIR
	if !dir && x.r.Force {
		return false, syscall.ENOTDIR
	}
	return dir && trusts(owner, st.Uid), nil
}

// trusts tells whether what is owner's may go into a directory of uid's.
func trusts(owner, uid uint32) bool { return uid == 0 || uid == owner }

// wouldMakeDir tells what makeDir would make.
func (x *restorer) wouldMakeDir(top *level, name string, next *level) error {
	for n := 0; n <= maxNumber; n++ {
		at := numbered(name, n)
		next.path = join(top.path, at)
		st, err := x.there(top, at)
		if err != nil {
			return err
		}
		merge, err := x.merges(top, at, n, next.entry.UID)
		switch {
		case err != nil:
			return pathError(next.path, err)
		case merge:
			if next.dir, err = x.open(top, at); err != nil {
				return err
			}
		case st != nil:
			continue
		default:
			x.planned[next.path], next.back = true, true
		}
		x.tell(Restored{Entry: next.entry, Path: next.path}, nil)
		return nil
	}
	return pathError(next.path, errNumbers)
}
