package trash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/posix"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// world is the trash of one metadata directory, and users who fill it.
type world struct {
	*Trash
	t     testing.TB
	root  string
	clock time.Time
	o     metadata.Options
}

var ctx = context.Background()

// noObjects are the objects of files that have none.
type noObjects struct{}

func (noObjects) Delete(context.Context, objfmt.ObjectRef) error { return nil }

func (noObjects) DeletePrefix(context.Context, objfmt.ObjectID, func(uint32) bool) error { return nil }

func newWorld(t testing.TB) *world { return newWorldIn(t, t.TempDir()) }

func newWorldIn(t testing.TB, root string) *world {
	t.Helper()
	w := &world{t: t, root: root, clock: time.Now()}
	w.must(os.Chmod(root, 0o700))
	md, err := posix.Open(root)
	w.must(err)
	w.must(metadata.Init(md, "test"))
	md.Close()
	w.o = metadata.Options{Namespace: "test", Node: "node1", Objects: noObjects{}, SkipTest: true,
		Clock: func() time.Time { w.clock = w.clock.Add(time.Millisecond); return w.clock }}
	w.Trash = w.node("node1")
	t.Cleanup(func() { // what else keeps who is not root from removing it
		_ = filepath.WalkDir(root, func(p string, e fs.DirEntry, _ error) error {
			if e != nil && e.IsDir() {
				return os.Chmod(p, 0o700)
			}
			return nil
		})
	})
	if isRoot() {
		w.must(w.Meta.Tree().Chmod(".", 0o777))
	}
	return w
}

// node opens the directory as another process.
func (w *world) node(name string) *Trash {
	w.t.Helper()
	md, err := posix.Open(w.root)
	w.must(err)
	o := w.o
	o.Node = name
	m, err := metadata.Open(ctx, md, o)
	w.must(err)
	w.t.Cleanup(func() { m.Close(); md.Close() })
	return &Trash{Namespace: "test", Meta: m}
}

func isRoot() bool { return os.Geteuid() == 0 }

func needRoot(t *testing.T) {
	t.Helper()
	if !isRoot() {
		t.Skip("needs root")
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func wantErrno(t testing.TB, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// me is the user of the tests, and someone another one for root.
var (
	me    = mdfs.Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	alice = mdfs.Cred{UID: 4242, GID: 4242, Groups: []uint32{4300}}
	bob   = mdfs.Cred{UID: 4343, GID: 4343}
)

// someone is alice for root, else me.
func someone() mdfs.Cred {
	if isRoot() {
		return alice
	}
	return me
}

func who(c mdfs.Cred, path string) metadata.Who { return metadata.Who{Cred: c, Path: path} }

// in runs fn in the directory of a path, with its last name.
func (w *world) in(path string, fn func(d mdfs.Dir, name string) error) {
	w.t.Helper()
	d, err := mdfs.Walk(w.Meta.Tree(), parent(path))
	w.must(err)
	defer d.Close()
	w.must(fn(d, base(path)))
}

// as is in with a user's rights.
func (w *world) as(c mdfs.Cred, path string, fn func(d mdfs.Dir, name string) error) {
	w.t.Helper()
	w.in(path, func(d mdfs.Dir, name string) error {
		return w.Meta.MD().As(c, func() error { return fn(d, name) })
	})
}

func (w *world) mkdir(c mdfs.Cred, path string, mode uint32) {
	w.t.Helper()
	w.as(c, path, func(d mdfs.Dir, name string) error {
		return errors.Join(d.Mkdir(name, 0o700), d.Chmod(name, mode))
	})
}

func (w *world) file(c mdfs.Cred, path, text string) objfmt.ID {
	w.t.Helper()
	var id objfmt.ID
	w.in(path, func(d mdfs.Dir, name string) error {
		fl, err := w.Meta.Create(ctx, who(c, path), d, name, 0o640)
		if err != nil {
			return err
		}
		defer fl.Close()
		id = fl.ID()
		own, err := fl.Own(ctx, who(c, path))
		if err != nil {
			return err
		}
		if _, err := own.Body().WriteAt([]byte(text), 0); err != nil {
			return err
		}
		_, err = own.Commit(ctx, int64(len(text)), objfmt.Checksum([]byte(text)), true)
		return err
	})
	return id
}

// rewrite gives a file another content, so that it has a version.
func (w *world) rewrite(c mdfs.Cred, path, text string) {
	w.t.Helper()
	w.in(path, func(d mdfs.Dir, name string) error {
		fl, err := w.Meta.Open(ctx, d, name)
		if err != nil {
			return err
		}
		defer fl.Close()
		base, err := fl.Newest(ctx)
		if err != nil {
			return err
		}
		s, err := w.Meta.Begin(ctx, fl, who(c, path), base)
		if err != nil {
			return err
		}
		id, body, err := s.NewBody(ctx)
		if err != nil {
			return err
		}
		if _, err := body.WriteAt([]byte(text), 0); err != nil {
			return err
		}
		src := objfmt.Source{Kind: objfmt.SourceBody, Stored: int64(len(text)), Sum: objfmt.Checksum([]byte(text))}
		if _, err := s.Publish(ctx, id, src, int64(len(text)), w.clock, objfmt.Final); err != nil {
			return err
		}
		return s.End(ctx)
	})
}

// remove is chmod -R u+rwx and rm -r, as a user, that gives directories the mode and
// the time back that they had before they were emptied: those are what their records hold.
func (w *world) remove(c mdfs.Cred, path string) {
	w.t.Helper()
	w.in(path, func(d mdfs.Dir, name string) error { return w.removeIn(c, d, path) })
}

func (w *world) removeIn(c mdfs.Cred, d mdfs.Dir, path string) error {
	name := base(path)
	st, err := d.Lstat(name)
	if err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return w.Meta.Unlink(ctx, who(c, path), d, name)
	}
	if err := d.Chmod(name, st.Mode|0o700); err != nil {
		return err
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	e, err := sub.Entries()
	if err != nil {
		return err
	}
	defer e.Close()
	for ent, err := e.Next(); err == nil; ent, err = e.Next() {
		if err := w.removeIn(c, sub, path+"/"+ent.Name); err != nil {
			return err
		}
	}
	if err := d.Chmod(name, st.Mode&0o7777); err != nil {
		return err
	}
	if err := d.Lchtimes(name, mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Time: time.Unix(st.Mtim.Unix())}); err != nil {
		return err
	}
	return w.Meta.Rmdir(ctx, who(c, path), d, name)
}

// list lists by path, sorted, with a slash behind directories.
func (w *world) list(c mdfs.Cred, f Filter) (paths []string) {
	w.t.Helper()
	for e, err := range w.List(ctx, c, f) {
		w.must(err)
		p := e.Record.Path
		switch {
		case e.Version():
			p += "@"
		case e.Mode&syscall.S_IFMT == syscall.S_IFDIR:
			p += "/"
		}
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}

func (w *world) wantList(c mdfs.Cred, f Filter, want ...string) {
	w.t.Helper()
	if have := w.list(c, f); !slices.Equal(have, want) {
		w.t.Errorf("trash of %d: %q, want %q", c.UID, have, want)
	}
}

// only is the entry that a filter selects alone.
func (w *world) only(c mdfs.Cred, f Filter) Entry {
	w.t.Helper()
	var all []Entry
	for e, err := range w.List(ctx, c, f) {
		w.must(err)
		all = append(all, e)
	}
	if len(all) != 1 {
		w.t.Fatalf("%d entries, want 1", len(all))
	}
	return all[0]
}

// restore returns where things went, sorted, and the errors.
func (w *world) restore(c mdfs.Cred, r Restoration) (paths []string, errs []error) {
	return restoreBy(w.Trash, c, r)
}

func restoreBy(t *Trash, c mdfs.Cred, r Restoration) (paths []string, errs []error) {
	for x, err := range t.Restore(ctx, c, r) {
		if err != nil {
			errs = append(errs, err)
		} else {
			paths = append(paths, x.Path)
		}
	}
	slices.Sort(paths)
	return paths, errs
}

func (w *world) mustRestore(c mdfs.Cred, r Restoration, want ...string) {
	w.t.Helper()
	have, errs := w.restore(c, r)
	if len(errs) > 0 || want != nil && !slices.Equal(have, want) {
		w.t.Fatalf("restored %q, want %q; errors %v", have, want, errs)
	}
}

// tree tells everything of what is below a path: modes, owners, times, links, xattrs,
// contents. A directory above a removed one has another mtime.
func (w *world) tree(path string) map[string]string {
	w.t.Helper()
	all := map[string]string{}
	top := filepath.Join(w.root, "tree", path)
	w.must(filepath.WalkDir(top, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		s := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" %d links %q", st.Nlink, b)
		case unix.S_IFLNK:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			s += " -> " + to
		case unix.S_IFDIR:
		default:
			s += fmt.Sprintf(" device %d", st.Rdev)
		}
		rel, err := filepath.Rel(top, p)
		all[rel] = s + xattrs(p)
		return err
	}))
	return all
}

func xattrs(p string) (s string) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if err != nil {
		return ""
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	for _, a := range names {
		if a == "" || metadata.Reserved(a) {
			continue
		}
		v := make([]byte, 4096)
		n, err := unix.Lgetxattr(p, a, v)
		s += fmt.Sprintf(" %s=%x %v", a, v[:max(n, 0)], err)
	}
	return s
}

func (w *world) wantTree(path string, want map[string]string) {
	w.t.Helper()
	have := w.tree(path)
	for p, s := range want {
		if have[p] != s {
			w.t.Errorf("%s/%s:\n have %s\n want %s", path, p, have[p], s)
		}
	}
	for p, s := range have {
		if _, ok := want[p]; !ok {
			w.t.Errorf("%s/%s: not wanted: %s", path, p, s)
		}
	}
}

// wantNothingTaken: no record is in anybody's hands, nothing is half made.
func (w *world) wantNothingTaken() {
	w.t.Helper()
	for _, pattern := range []string{"work/*/*", "dead/t.*-*"} {
		if left, _ := filepath.Glob(filepath.Join(w.root, pattern)); len(left) > 0 {
			w.t.Errorf("left: %v", left)
		}
	}
}
