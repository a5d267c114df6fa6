package namespace_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/posix"
	"marfs/pkg/metadata"
	"marfs/pkg/namespace"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore/memstore"
	"marfs/pkg/repo"
	"marfs/pkg/trash"
)

// mounted is a mount of namespaces by name, each at a path.
func mounted(t *testing.T, log io.Writer, at map[string]string) *namespace.FS {
	t.Helper()
	r, err := repo.New(repo.Config{Name: "r", Geometry: objfmt.Geometry{Data: 1, Block: block}, MinWrite: 1,
		Pods: []repo.Pod{{Name: "pod0", Weight: 1, Stores: []repo.Store{{Store: memstore.New(), Name: "s"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	o := namespace.Options{Log: slog.New(slog.NewTextHandler(log, nil))}
	for name, path := range at {
		root := t.TempDir()
		md, err := posix.Open(root)
		if err == nil {
			err = metadata.Init(md, name)
		}
		if err != nil {
			t.Fatal(err)
		}
		m, err := metadata.Open(ctx, md, metadata.Options{Namespace: name, Node: "a", Grace: time.Hour, Objects: objects{r}, SkipTest: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close(); md.Close() })
		if err := m.Tree().Mkdir("sub", 0o755); err != nil { // before a namespace was put below it
			t.Fatal(err)
		}
		o.Namespaces = append(o.Namespaces, namespace.Config{Name: name, Path: path, Meta: m, Perms: allPerms,
			Repos:     map[string]*repo.Repo{"r": r},
			Placement: []namespace.Placement{{Repo: r, RepoName: "r", ChunkSize: chunkSize}}})
	}
	f, err := namespace.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func unlink(t *testing.T, f *namespace.FS, path string) {
	t.Helper()
	d, name, err := f.Walk(ctx, me, path)
	if err == nil {
		err = d.Unlink(ctx, me, name)
		d.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// listed gives the paths of what a query selects.
func listed(t *testing.T, f *namespace.FS, q namespace.TrashQuery) string {
	t.Helper()
	var paths []string
	for e, err := range f.Trash(ctx, me, q) {
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, e.Path)
	}
	slices.Sort(paths)
	return strings.Join(paths, " ")
}

func onlyID(t *testing.T, f *namespace.FS, q namespace.TrashQuery) string {
	t.Helper()
	var ids []string
	for e, err := range f.Trash(ctx, me, q) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.TrashID())
	}
	if len(ids) != 1 {
		t.Fatalf("entries %q, want one", ids)
	}
	return ids[0]
}

// restored gives where things went, and the errors.
func restored(f *namespace.FS, r namespace.TrashRestoration) (string, error) {
	var paths []string
	var errs []error
	for e, err := range f.RestoreTrash(ctx, me, r) {
		if errs = append(errs, err, e.Err); e.Where != "" {
			paths = append(paths, e.Where)
		}
	}
	slices.Sort(paths)
	return strings.Join(paths, " "), errors.Join(errs...)
}

func TestTrashOfNestedNamespaces(t *testing.T) {
	f := mounted(t, io.Discard, map[string]string{"proj": "/proj", "inner": "/proj/sub/inner", "other": "/else/other"})
	for _, p := range []string{"/proj", "/proj/sub/inner", "/else/other"} {
		d := dir(t, f, p)
		put(t, d, "f", []byte(p))
		if p == "/proj" {
			put(t, dir(t, f, "/proj/sub"), "g", []byte("g"))
			unlink(t, f, "/proj/sub/g")
		}
		unlink(t, f, p+"/f")
	}
	for _, tt := range []struct{ path, want string }{
		{"/", "/else/other/f /proj/f /proj/sub/g /proj/sub/inner/f"},
		{"proj", "/proj/f /proj/sub/g /proj/sub/inner/f"},
		{"/proj/sub/", "/proj/sub/g /proj/sub/inner/f"},
		{"/proj/sub/g", "/proj/sub/g"},
		{"/proj/su", ""},
		{"/proj/sub/inner", "/proj/sub/inner/f"},
		{"/proj/sub/inner/f", "/proj/sub/inner/f"},
		{"/else", "/else/other/f"},
	} {
		if have := listed(t, f, namespace.TrashQuery{Path: tt.path}); have != tt.want {
			t.Errorf("%s: %q, want %q", tt.path, have, tt.want)
		}
	}
	for _, err := range f.Trash(ctx, me, namespace.TrashQuery{Path: "/none"}) {
		wantErrno(t, "none", err, syscall.ENOENT)
	}
	id := onlyID(t, f, namespace.TrashQuery{Path: "/proj/sub/inner"})
	if !strings.HasPrefix(id, "inner/") {
		t.Error(id)
	}
	for _, to := range []string{"/proj", "/", "/else", "/proj/sub"} {
		_, err := restored(f, namespace.TrashRestoration{TrashQuery: namespace.TrashQuery{IDs: []string{id}}, To: to})
		wantErrno(t, to, err, syscall.EXDEV)
	}
	_, err := restored(f, namespace.TrashRestoration{TrashQuery: namespace.TrashQuery{IDs: []string{"inner/x", "none" + id[5:]}}})
	wantErrno(t, "wrong ids", err, syscall.ENOENT)
	where, err := restored(f, namespace.TrashRestoration{TrashQuery: namespace.TrashQuery{IDs: []string{id}}, To: "/proj/sub/inner"})
	if err != nil || where != "/proj/sub/inner/f" {
		t.Errorf("%q, %v", where, err)
	}
	same(t, "restored", get(t, dir(t, f, "/proj/sub/inner"), "f"), []byte("/proj/sub/inner"))
	where, err = restored(f, namespace.TrashRestoration{TrashQuery: namespace.TrashQuery{Path: "/"}})
	if err != nil || where != "/else/other/f /proj/f /proj/sub/g" {
		t.Errorf("%q, %v", where, err)
	}
}

// Names that lead to another namespace hide what is there: nothing is restored to it.
func TestNothingIsRestoredUnderANamespace(t *testing.T) {
	f := mounted(t, io.Discard, map[string]string{"proj": "/proj", "inner": "/proj/sub/inner"})
	d := dir(t, f, "/proj")
	put(t, d, "inner", []byte("a name"))
	unlink(t, f, "/proj/inner")
	_, err := restored(f, namespace.TrashRestoration{TrashQuery: namespace.TrashQuery{Path: "/proj/inner"}, To: "/proj/sub"})
	wantErrno(t, "restore under a namespace", err, syscall.EBUSY)
	if have := listed(t, f, namespace.TrashQuery{Path: "/"}); have != "/proj/inner" {
		t.Error(have)
	}
}

func TestTrashNeedsPermissions(t *testing.T) {
	var log bytes.Buffer
	f := mounted(t, &log, map[string]string{"proj": "/proj"})
	d := dir(t, f, "/proj")
	put(t, d, "f", []byte("old"))
	put(t, d, "f", []byte("new"))
	put(t, d, "g", []byte("text"))
	put(t, d, "here", []byte("text"))
	unlink(t, f, "/proj/g")
	q := namespace.TrashQuery{Path: "/proj"}
	id := onlyID(t, f, q)
	list, err := f.Versions(ctx, me, "/proj/f")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	version := list[0].Record.Content.String()
	restoration := namespace.TrashRestoration{TrashQuery: namespace.TrashQuery{IDs: []string{id}}}
	forced := restoration
	forced.Force = true
	dry := namespace.TrashRestoration{TrashQuery: q, DryRun: true}
	for _, tt := range []struct {
		what string
		need namespace.Perm
		do   func() error
	}{
		{"list", namespace.RM, func() error { return firstError(f.Trash(ctx, me, q)) }},
		{"get", namespace.RM, func() error { return firstError(f.Trash(ctx, me, restoration.TrashQuery)) }},
		{"versions", namespace.RM, func() error { _, err := f.Versions(ctx, me, "/proj/f"); return err }},
		{"open", namespace.RM | namespace.RD, func() error {
			o, err := f.OpenTrash(ctx, me, id)
			if err == nil {
				o.Close()
			}
			return err
		}},
		{"version", namespace.WM | namespace.WD | namespace.TD, func() error {
			_, err := f.RestoreVersion(ctx, me, "/proj/f", version)
			return err
		}},
		{"restore by force", namespace.RM | namespace.WM | namespace.UD, func() error { _, err := restored(f, forced); return err }},
		{"restore", namespace.RM | namespace.WM, func() error { _, err := restored(f, restoration); return err }},
		{"dry run", namespace.RM | namespace.WM, func() error { _, err := restored(f, dry); return err }},
		{"purge", namespace.RM | namespace.WM | namespace.UD, func() error { return firstError(f.PurgeTrash(ctx, me, q)) }},
	} {
		for p := namespace.RM; p <= namespace.TD; p <<= 1 {
			if p&tt.need == 0 || p == namespace.RM && (tt.what == "version" || tt.need&namespace.RM == 0) {
				continue
			}
			log.Reset()
			f.SetPerms("proj", allPerms&^p)
			wantErrno(t, tt.what+" without "+p.String(), tt.do(), syscall.EPERM)
			if !strings.Contains(log.String(), "missing="+p.String()) {
				t.Errorf("%s without %s: log %q", tt.what, p, log.String())
			}
		}
		f.SetPerms("proj", tt.need|namespace.RM) // the way to the file is to be looked up
		if err := tt.do(); err != nil {
			t.Errorf("%s: %v", tt.what, err)
		}
		f.SetPerms("proj", allPerms)
		if tt.what == "restore by force" {
			unlink(t, f, "/proj/g")
			id = onlyID(t, f, q)
			restoration.IDs = []string{id}
		}
	}
}

func firstError(seq func(yield func(namespace.TrashEntry, error) bool)) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestOpenTrash(t *testing.T) {
	w := newWorld(t)
	f := w.node("a")
	d := dir(t, f, "/proj")
	old, next := random(1, 3*chunkSize+17), random(2, 100_000)
	put(t, d, "f", old)
	put(t, d, "f", next)
	v := onlyID(t, f, namespace.TrashQuery{Path: "/", Filter: trash.Filter{Versions: true}})
	unlink(t, f, "/proj/f")
	gone := onlyID(t, f, namespace.TrashQuery{Path: "/"})
	for id, want := range map[string][]byte{v: old, gone: next} {
		o, err := f.OpenTrash(ctx, me, id)
		if err != nil {
			t.Fatal(err)
		}
		if o.Size() != int64(len(want)) {
			t.Errorf("size %d, want %d", o.Size(), len(want))
		}
		have, err := io.ReadAll(io.NewSectionReader(contentReader{o}, 0, o.Size()))
		if err != nil {
			t.Fatal(err)
		}
		same(t, id, have, want)
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.Mkdir(ctx, me, "dir", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.Rmdir(ctx, me, "dir"); err != nil {
		t.Fatal(err)
	}
	_, err := f.OpenTrash(ctx, me, onlyID(t, f, namespace.TrashQuery{Path: "/proj/dir"}))
	wantErrno(t, "a directory", err, syscall.EISDIR)
	_, err = f.OpenTrash(ctx, me, "proj/2020-01-01/none")
	wantErrno(t, "none", err, syscall.ENOENT)
	_, err = f.OpenTrash(ctx, me, "../../x")
	wantErrno(t, "no id", err, syscall.EINVAL)
}

type contentReader struct{ o *namespace.Content }

func (r contentReader) ReadAt(p []byte, off int64) (int, error) { return r.o.ReadAt(ctx, p, off) }

// What gc destroys under a reader that it does not know of is ESTALE, not other bytes.
func TestOpenTrashOfWhatGoes(t *testing.T) {
	w := newWorld(t)
	f := w.node("a")
	d := dir(t, f, "/proj")
	put(t, d, "f", random(1, chunkSize))
	put(t, d, "f", random(2, chunkSize))
	o, err := f.OpenTrash(ctx, me, onlyID(t, f, namespace.TrashQuery{Path: "/", Filter: trash.Filter{Versions: true}}))
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	content := o.Entry.Record.Content
	src := o.Entry.Record.Slot.Source
	record, err := filepath.Glob(filepath.Join(w.meta, "versions", "*", content.String()))
	if err != nil || len(record) != 1 {
		t.Fatal(record, err)
	}
	for _, s := range w.stores {
		if err := s.Delete(ctx, src.Object.Key("proj")); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Unlink(record[0]); err != nil {
		t.Fatal(err)
	}
	_, err = o.ReadAt(ctx, make([]byte, 10), 0)
	wantErrno(t, "read", err, syscall.ESTALE)
}

func TestRestoreVersionUnderReaders(t *testing.T) {
	w := newWorld(t)
	f, other := w.node("a"), w.node("b")
	d := dir(t, f, "/proj")
	old, next := random(1, chunkSize+5), random(2, 3000)
	put(t, d, "f", old)
	put(t, d, "f", next)
	r := open(t, d, "f", syscall.O_RDONLY)
	defer r.Close()
	same(t, "before", readAll(t, r), next)
	list, err := f.Versions(ctx, me, "/proj/f")
	if err != nil || len(list) != 1 || list[0].Size != int64(len(old)) || list[0].Path != "/proj/f" {
		t.Fatal(list, err)
	}
	id := list[0].Record.Content.String()

	wr := open(t, d, "f", syscall.O_WRONLY|syscall.O_TRUNC)
	_, err = f.RestoreVersion(ctx, me, "proj/f", id)
	wantErrno(t, "while it is written here", err, syscall.EBUSY)
	write(t, wr, 0, next)
	if err := wr.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = other.RestoreVersion(ctx, me, "proj/f", id)
	wantErrno(t, "while it is written elsewhere", err, syscall.EBUSY)
	if err := wr.Close(); err != nil {
		t.Fatal(err)
	}

	_, err = f.RestoreVersion(ctx, me, "proj/f", "zzz")
	wantErrno(t, "none", err, syscall.ENOENT)
	_, err = f.RestoreVersion(ctx, me, "proj/f", "")
	wantErrno(t, "none", err, syscall.ENOENT)
	same(t, "written", readAll(t, r), next)
	e, err := f.RestoreVersion(ctx, me, "proj/f", id)
	if err != nil || e.Record.Content.String() != id {
		t.Fatal(e, err)
	}
	same(t, "after, by an open handle", readAll(t, r), old)
	same(t, "after, on another node", get(t, dir(t, other, "/proj"), "f"), old)
	list, err = f.Versions(ctx, me, "/proj/f")
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	// The first digits do, if they say which.
	if a, b := list[0].Record.Content.String(), list[1].Record.Content.String(); a[:1] != b[:1] {
		_, err = f.RestoreVersion(ctx, me, "proj/f", a[:1])
		if err != nil {
			t.Error(err)
		}
	}
}

func readAll(t *testing.T, f *namespace.File) []byte {
	t.Helper()
	p, err := io.ReadAll(io.NewSectionReader(readerAt{f}, 0, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A user restores versions of files that are the user's, and may be written.
func TestRestoreVersionAsUser(t *testing.T) {
	if me.UID != 0 {
		t.Skip("needs root")
	}
	f := mounted(t, io.Discard, map[string]string{"proj": "/proj"})
	d := dir(t, f, "/proj")
	user := namespace.Caller{Cred: mdfs.Cred{UID: 4242, GID: 4242}}
	give := func(uid uint32) {
		t.Helper()
		if _, err := d.Setattr(ctx, me, "f", namespace.SetAttr{UID: &uid, Atime: omitted, Mtime: omitted}); err != nil {
			t.Fatal(err)
		}
	}
	put(t, d, "f", []byte("old"))
	give(user.UID)
	put(t, d, "f", []byte("new"))
	give(me.UID)
	list, err := f.Versions(ctx, me, "/proj/f")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	id := list[0].Record.Content.String()
	_, err = f.Versions(ctx, user, "/proj/f")
	wantErrno(t, "versions of another's", err, syscall.EPERM)
	_, err = f.RestoreVersion(ctx, user, "/proj/f", id)
	wantErrno(t, "another's file", err, syscall.EACCES)
	mode, uid := uint32(0o444), user.UID
	if _, err := d.Setattr(ctx, me, "f", namespace.SetAttr{Mode: &mode, UID: &uid, Atime: omitted, Mtime: omitted}); err != nil {
		t.Fatal(err)
	}
	_, err = f.RestoreVersion(ctx, user, "/proj/f", id)
	wantErrno(t, "a file that is read-only", err, syscall.EACCES)
	mode = 0o644
	if _, err := d.Setattr(ctx, me, "f", namespace.SetAttr{Mode: &mode, Atime: omitted, Mtime: omitted}); err != nil {
		t.Fatal(err)
	}
	if _, err = f.RestoreVersion(ctx, user, "/proj/f", id); err != nil {
		t.Error(err)
	}
	same(t, "restored", get(t, d, "f"), []byte("old"))
}

// An earlier content does not get what the newest was trusted with: set-group-ID of a
// group that its owner is not in, or capabilities. Writing it would not, either.
func TestRestoreVersionDropsPrivileges(t *testing.T) {
	if me.UID != 0 {
		t.Skip("needs root")
	}
	f := mounted(t, io.Discard, map[string]string{"proj": "/proj"})
	d := dir(t, f, "/proj")
	user := namespace.Caller{Cred: mdfs.Cred{UID: 4242, GID: 4242}}
	for _, c := range []struct {
		who        namespace.Caller
		mode, want uint32
	}{{user, 0o6755, 0o755}, {user, 0o2644, 0o2644}, {user, 0o4711, 0o711}, {me, 0o6755, 0o6755}} {
		name := fmt.Sprintf("%d-%o", c.who.UID, c.mode)
		put(t, d, name, nil)
		uid, gid := user.UID, uint32(60)
		if _, err := d.Setattr(ctx, me, name, namespace.SetAttr{UID: &uid, GID: &gid, Atime: omitted, Mtime: omitted}); err != nil {
			t.Fatal(err)
		}
		put(t, d, name, []byte("old"))
		put(t, d, name, []byte("new"))
		if _, err := d.Setattr(ctx, me, name, namespace.SetAttr{Mode: &c.mode, Atime: omitted, Mtime: omitted}); err != nil {
			t.Fatal(err)
		}
		capability := binary.LittleEndian.AppendUint32(nil, 0x02000001)
		capability = append(capability, make([]byte, 16)...)
		capability[5] = 0x20 // CAP_NET_RAW
		if err := d.Setxattr(ctx, me, name, "security.capability", capability, 0); err != nil {
			t.Fatal(err)
		}
		list, err := f.Versions(ctx, c.who, "/proj/"+name)
		if err != nil || len(list) < 1 {
			t.Fatal(list, err)
		}
		if _, err := f.RestoreVersion(ctx, c.who, "/proj/"+name, list[0].Record.Content.String()); err != nil {
			t.Fatal(err)
		}
		a, err := d.Lookup(ctx, me, name)
		if err != nil || a.Mode&0o7777 != c.want {
			t.Errorf("%s: mode %o, want %o, %v", name, a.Mode&0o7777, c.want, err)
		}
		_, err = d.Getxattr(ctx, me, name, "security.capability")
		wantErrno(t, name+": its capabilities", err, syscall.ENODATA)
		same(t, name, get(t, d, name), []byte("old"))
	}
}

var omitted = mdfs.TimeSet{Omit: true}

// What is read from trash is left alone by gc, though its time has come.
func TestOpenTrashOutlivesGC(t *testing.T) {
	w := newWorld(t)
	f := w.node("a")
	d := dir(t, f, "/proj")
	want := random(1, stripe)
	put(t, d, "f", want)
	unlink(t, f, "/proj/f")
	id := onlyID(t, f, namespace.TrashQuery{Path: "/"})
	o, err := f.OpenTrash(ctx, me, id)
	if err != nil {
		t.Fatal(err)
	}
	if n := w.gc(); n != 0 {
		t.Errorf("%d destroyed while it is read", n)
	}
	have, err := io.ReadAll(io.NewSectionReader(contentReader{o}, 0, o.Size()))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "deleted file", have, want)
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if n := w.gc(); n != 1 {
		t.Errorf("%d destroyed, want the file", n)
	}
	_, err = f.OpenTrash(ctx, me, id)
	wantErrno(t, "after gc", err, syscall.ENOENT)
}
