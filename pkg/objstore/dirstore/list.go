package dirstore

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"

	"marfs/pkg/objstore"
)

const (
	batchNames = 1 << 16 // names of one directory kept at a time
	readNames  = 1024    // names read in one call
	statNames  = 256     // files looked at in one call
)

// List implements objstore.Store.
//
// A walk in order needs each directory's names sorted. It keeps at most 128 Ki
// names of each directory on the way down, and reads a directory that has more
// once for every 64 Ki of them.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		w := &walk{ctx: ctx, s: s, prefix: prefix, after: after, yield: yield}
		if err := ctx.Err(); err != nil {
			w.fail(prefix, err)
			return
		}
		if objstore.CheckPrefix(prefix) {
			w.dir(prefix[:strings.LastIndexByte(prefix, '/')+1])
		}
	}
}

// walk is one listing.
type walk struct {
	ctx           context.Context
	s             *Store
	prefix, after string
	yield         func(objstore.Info, error) bool
}

// entry is a name in a directory; that of a directory ends in a slash, which
// gives it its place in the order of keys.
type entry string

func (e entry) isDir() bool { return strings.HasSuffix(string(e), "/") }

// dir lists what is below a directory ("" or ending in a slash), and says
// whether to go on.
func (w *walk) dir(dir string) bool {
	root, err := call(w.ctx, w.s, 0, func(context.Context) (*os.Root, error) {
		return w.s.root.OpenRoot("./" + dir)
	}, func(r *os.Root) { _ = r.Close() })
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return w.fail(dir, err)
	}
	defer func() { _ = root.Close() }()
	for last := entry(""); ; {
		entries, more, err := w.batch(root, dir, last)
		if err != nil {
			return w.fail(dir, err)
		}
		if !w.entries(root, dir, entries) {
			return false
		}
		if !more {
			return true
		}
		last = entries[len(entries)-1]
	}
}

// batch returns, in order, the first entries of a directory beyond last that
// the listing wants, and whether there are more.
func (w *walk) batch(root *os.Root, dir string, last entry) (found []entry, more bool, err error) {
	d, err := call(w.ctx, w.s, 0, func(context.Context) (*os.File, error) { return root.Open(".") },
		func(f *os.File) { f.Close() })
	if err != nil {
		return nil, false, err
	}
	defer d.Close()
	for {
		names, err := call(w.ctx, w.s, 0, func(context.Context) ([]fs.DirEntry, error) {
			names, err := d.ReadDir(readNames)
			if len(names) > 0 || err == io.EOF {
				err = nil // an error comes again in the next call
			}
			return names, err
		}, nil)
		if err != nil {
			return nil, false, err
		}
		if len(names) == 0 {
			break
		}
		for _, de := range names {
			if e, ok := w.wants(dir, de); ok && e > last {
				found = append(found, e)
			}
		}
		if len(found) >= 2*w.s.batch {
			slices.Sort(found)
			found, more = found[:w.s.batch], true
		}
	}
	slices.Sort(found)
	if len(found) > w.s.batch {
		found, more = found[:w.s.batch], true
	}
	return found, more, nil
}

// wants says whether the listing has to look at an entry of dir.
func (w *walk) wants(dir string, de fs.DirEntry) (entry, bool) {
	name := de.Name()
	if !objstore.ValidComponent(name) {
		return "", false
	}
	if de.IsDir() {
		below := dir + name + "/"
		inPrefix := strings.HasPrefix(below, w.prefix) || strings.HasPrefix(w.prefix, below)
		// All keys below begin with it, so unless after does too they are on one side of it.
		return entry(name + "/"), inPrefix && (below > w.after || strings.HasPrefix(w.after, below))
	}
	key := dir + name
	return entry(name), de.Type().IsRegular() && strings.HasPrefix(key, w.prefix) && key > w.after
}

// entries lists sorted entries of a directory, looking at runs of files at once.
func (w *walk) entries(root *os.Root, dir string, entries []entry) bool {
	for len(entries) > 0 {
		if entries[0].isDir() {
			if !w.dir(dir + string(entries[0])) {
				return false
			}
			entries = entries[1:]
			continue
		}
		n := 1
		for n < len(entries) && n < statNames && !entries[n].isDir() {
			n++
		}
		if !w.files(root, dir, entries[:n]) {
			return false
		}
		entries = entries[n:]
	}
	return true
}

func (w *walk) files(root *os.Root, dir string, files []entry) bool {
	infos, err := call(w.ctx, w.s, 0, func(context.Context) ([]objstore.Info, error) {
		infos := make([]objstore.Info, 0, len(files))
		for _, f := range files {
			fi, err := root.Lstat(string(f))
			if errors.Is(err, fs.ErrNotExist) {
				continue // deleted meanwhile
			}
			if err != nil {
				return nil, err
			}
			if fi.Mode().IsRegular() {
				infos = append(infos, objstore.Info{Key: dir + string(f), Size: fi.Size(), ModTime: fi.ModTime()})
			}
		}
		return infos, nil
	}, nil)
	if err != nil {
		return w.fail(dir, err)
	}
	for _, info := range infos {
		if !w.yield(info, nil) {
			return false
		}
	}
	return true
}

func (w *walk) fail(dir string, err error) bool {
	w.yield(objstore.Info{}, failed("list", dir, err))
	return false
}

// Content returns the name of one thing in the directory, or "" when there is
// nothing: unlike List it sees also what is no object. What makes no difference
// is our own directory of temporary files and the lost+found of a filesystem.
func (s *Store) Content(ctx context.Context) (name string, err error) {
	name, err = call(ctx, s, 0, func(context.Context) (string, error) {
		d, err := s.root.Open(".")
		if err != nil {
			return "", err
		}
		defer d.Close()
		names, err := d.Readdirnames(3) // so one of them is neither
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		for _, name := range names {
			if name != tempDir && name != "lost+found" {
				return name, nil
			}
		}
		return "", nil
	}, nil)
	if err != nil {
		return "", failed("list", "", err)
	}
	return name, nil
}
