package config

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/namespace"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/repo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a configuration of one repo of n stores in a directory of its own.
type site struct {
	dir    string
	repo   string
	data   int
	stores []string // in the order of the file
	keys   string   // more of the namespace; "": nothing is staged
}

func newSite(t *testing.T, data, parity int) *site {
	s := &site{dir: t.TempDir(), repo: "r", data: data}
	for i := range data + parity {
		s.stores = append(s.stores, filepath.Join(s.dir, fmt.Sprintf("s%d", i)))
	}
	return s
}

// config loads the site's configuration as it is now.
func (s *site) config(t *testing.T) *Config {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nmount: /m\nrepos:\n  - name: %s\n    data: %d\n    parity: %d\n    block_size: 64KiB\n    pods:\n      - name: p\n        stores:\n",
		s.repo, s.data, len(s.stores)-s.data)
	for _, dir := range s.stores {
		fmt.Fprintf(&b, "          - dir: %s\n", dir)
	}
	fmt.Fprintf(&b, "namespaces:\n  - {name: a, path: /a, metadata: md, repo: %s, %s}\n", s.repo, cmp.Or(s.keys, "stage: {max_file: 0}"))
	c, err := Parse(filepath.Join(s.dir, "marfs.yaml"), []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *site) init(t *testing.T, replace ...string) []Made {
	t.Helper()
	made, err := Init(t.Context(), s.config(t), replace...)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// open opens the site and closes it at the end of the test.
func (s *site) open(t *testing.T) (*System, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	sys, err := Open(t.Context(), s.config(t), Interactive, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, sys.Close)
	return sys, &log
}

func closeAtEnd(t *testing.T, closer func() error) {
	t.Cleanup(func() {
		if err := closer(); err != nil {
			t.Error(err)
		}
	})
}

// refused checks that neither Open nor Init accepts the site, and why.
func (s *site) refused(t *testing.T, why string) {
	t.Helper()
	sys, err := Open(t.Context(), s.config(t), Interactive, slog.New(slog.DiscardHandler))
	if err == nil {
		closeAtEnd(t, sys.Close)
	}
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("open: have %v, want %s", err, why)
	}
	if _, err := Init(t.Context(), s.config(t)); err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("init: have %v, want %s", err, why)
	}
}

func caller() namespace.Caller {
	return namespace.Caller{Cred: mdfs.Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}}
}

// write makes the file /a/name.
func write(t *testing.T, sys *System, name string, content []byte) {
	t.Helper()
	ctx := t.Context()
	d, base, err := sys.FS.Walk(ctx, caller(), "/a/"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f, _, err := d.Create(ctx, caller(), base, uint32(os.O_WRONLY), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(ctx, caller(), content, 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Commit(ctx), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// read returns what is in the file /a/name.
func read(t *testing.T, sys *System, name string, size int) []byte {
	t.Helper()
	ctx := t.Context()
	d, base, err := sys.FS.Walk(ctx, caller(), "/a/"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f, err := d.Open(ctx, caller(), base, uint32(os.O_RDONLY))
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, f.Close)
	p := make([]byte, size)
	if n, err := f.ReadAt(ctx, caller(), p, 0); n != size {
		t.Fatalf("read %d of %d bytes: %v", n, size, err)
	}
	return p
}

func TestInitIsIdempotent(t *testing.T) {
	s := newSite(t, 2, 1)
	first := s.init(t)
	if len(first) != 4 {
		t.Fatalf("made %v", first)
	}
	for i, m := range s.init(t) {
		if !first[i].New || m.New {
			t.Errorf("%v: first new %v, then new %v", m, first[i].New, m.New)
		}
		m.New = true
		if m != first[i] {
			t.Errorf("first %v, then %v", first[i], m)
		}
	}
}

func TestOrderOfStoresDoesNotMatter(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	content := bytes.Repeat([]byte("order"), 100_000)
	sys, err := Open(t.Context(), s.config(t), Interactive, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	write(t, sys, "f", content)
	if err := sys.Close(); err != nil {
		t.Fatal(err)
	}
	s.stores = []string{s.stores[2], s.stores[0], s.stores[1]}
	sys, log := s.open(t)
	if have := read(t, sys, "f", len(content)); !bytes.Equal(have, content) {
		t.Error("other bytes")
	}
	d, name, err := sys.FS.Walk(t.Context(), caller(), "/a/f")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := d.Layout(t.Context(), caller(), name, true)
	if err != nil || len(l.Objects) != 1 {
		t.Fatalf("layout %v: %v", l, err)
	}
	for _, sh := range l.Objects[0].Shards {
		if sh.State != repo.ShardOK {
			t.Errorf("shard %d in %s: %s, %v", sh.Index, sh.Store, sh.State, sh.Err)
		}
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", log)
	}
}

func TestWrongStoresAreRefused(t *testing.T) {
	copyIdentity := func(t *testing.T, from, to string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(from, objfmt.StoreIdentityKey))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, objfmt.StoreIdentityKey), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name  string
		spoil func(t *testing.T, s *site)
		want  string
	}{
		{"copy of a store", func(t *testing.T, s *site) { copyIdentity(t, s.stores[0], s.stores[1]) }, "is not this pod's: it holds shard 0, as does"},
		{"of another installation", func(t *testing.T, s *site) {
			other := newSite(t, 2, 1)
			other.init(t)
			copyIdentity(t, other.stores[1], s.stores[1])
		}, "it belongs to another repo that is also called r"},
		{"of another repo", func(t *testing.T, s *site) {
			other := newSite(t, 2, 1)
			other.repo = "q"
			other.init(t)
			copyIdentity(t, other.stores[1], s.stores[1])
		}, "it holds shard 1 of repo q, pod p"},
		{"renamed repo", func(t *testing.T, s *site) { s.repo = "q" }, "it holds shard 0 of repo r, pod p"},
		{"changed geometry", func(t *testing.T, s *site) { s.data = 1 }, "it was made for 2+1, the configuration says 1+2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t, 2, 1)
			s.init(t)
			test.spoil(t, s)
			s.refused(t, test.want)
		})
	}
}

// TestBrokenStoreIsLeftOut: one sick disk must not stop a mount that has enough
// others, and is used when it is well again.
func TestBrokenStoreIsLeftOut(t *testing.T) {
	identity := func(s *site) string { return filepath.Join(s.stores[0], objfmt.StoreIdentityKey) }
	tests := []struct {
		name  string
		spoil func(t *testing.T, s *site, id []byte) error
		want  string
	}{
		{"flipped bit", func(_ *testing.T, s *site, id []byte) error {
			id[len(id)/2] ^= 1
			return os.WriteFile(identity(s), id, 0o600)
		}, "store identity: "},
		{"unknown format", func(_ *testing.T, s *site, _ []byte) error {
			return os.WriteFile(identity(s), []byte("{}"), 0o600)
		}, "store identity: unknown format version"},
		{"unreadable identity", func(_ *testing.T, s *site, _ []byte) error {
			return errors.Join(os.Remove(identity(s)), os.Symlink("/etc/passwd", identity(s)))
		}, objstore.ErrCorrupt.Error()},
		{"no permission", func(t *testing.T, s *site, _ []byte) error {
			if os.Geteuid() == 0 {
				t.Skip("root may read everything")
			}
			return os.Chmod(identity(s), 0)
		}, "permission denied"},
		{"content without identity", func(_ *testing.T, s *site, id []byte) error {
			return errors.Join(os.Remove(identity(s)), os.WriteFile(filepath.Join(s.stores[0], "Thesis.TEX"), id, 0o600))
		}, "it has no identity but is not empty (Thesis.TEX)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t, 2, 1)
			s.init(t)
			good, err := os.ReadFile(identity(s))
			if err == nil {
				err = test.spoil(t, s, bytes.Clone(good))
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Init(t.Context(), s.config(t)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("init: have %v, want %s", err, test.want)
			}
			sys, log := s.open(t)
			if text := log.String(); !strings.Contains(text, "level=ERROR msg=\"store left out\"") || !strings.Contains(text, test.want) || !strings.Contains(text, s.stores[0]) {
				t.Errorf("logged %s, want %s", text, test.want)
			}
			_ = os.Remove(identity(s))
			if err := os.WriteFile(identity(s), good, 0o600); err != nil {
				t.Fatal(err)
			}
			late := sys.stores[0].Store.(*late)
			late.mu.Lock()
			late.tried = time.Time{}
			late.mu.Unlock()
			if _, err := late.Stat(t.Context(), objfmt.StoreIdentityKey); err != nil {
				t.Errorf("well again: %v", err)
			}
		})
	}
}

func TestStoreWithoutCredentialsIsLeftOut(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	c := s.config(t)
	c.Repos[0].Pods[0].Stores[1] = Store{S3: &S3{Endpoint: "http://127.0.0.1:1", Bucket: "bbb", Region: "r", Credentials: filepath.Join(s.dir, "nokey")}}
	var log bytes.Buffer
	sys, err := Open(t.Context(), c, Batch, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, sys.Close)
	if !strings.Contains(log.String(), "store left out") || !strings.Contains(log.String(), "nokey") {
		t.Errorf("logged %s", log.String())
	}
}

func TestEmptyStoreIsLeftOutUntilInit(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	if err := os.Remove(filepath.Join(s.stores[1], objfmt.StoreIdentityKey)); err != nil {
		t.Fatal(err)
	}
	sys, log := s.open(t)
	if !strings.Contains(log.String(), "marfsctl init --replace "+s.stores[1]) || !strings.Contains(log.String(), s.stores[1]) {
		t.Errorf("logged %s", log)
	}
	if err := sys.Repos["r"].Put(t.Context(), "a/00/x", strings.NewReader("x"), 1); err == nil {
		t.Error("an object was written with a store left out, and min_write is all three")
	}
	if _, err := os.Stat(filepath.Join(s.stores[1], "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the store without identity was written to: %v", err)
	}
	made := s.init(t, s.stores[1])
	if !made[1].New || !strings.HasSuffix(made[1].Is, "shard 1") {
		t.Errorf("init gave %v", made)
	}
	_, log = s.open(t)
	if log.Len() > 0 {
		t.Errorf("logged %s", log)
	}
}

// hintOf returns the hint of the first error in err that has one.
func hintOf(err error) string {
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		return hinted.Hint()
	}
	return ""
}

func TestInitMakesNoStoreInAnUnmountedPlace(t *testing.T) {
	s := newSite(t, 2, 1)
	disk := filepath.Join(s.dir, "disk")
	s.stores[1] = filepath.Join(disk, "s1")
	s.init(t)
	if err := os.Rename(disk, disk+".away"); err != nil {
		t.Fatal(err)
	}
	refused := func(why string) {
		t.Helper()
		made, err := Init(t.Context(), s.config(t))
		if err == nil || !strings.Contains(err.Error(), s.stores[1]) || !strings.Contains(err.Error(), why) ||
			!strings.HasPrefix(hintOf(err), "mount it; ") || !strings.Contains(hintOf(err), "marfsctl init --replace "+s.stores[1]) {
			t.Errorf("have %v, hint: %s", err, hintOf(err))
		}
		if len(made) != 1 || made[0].Kind != "metadata" || made[0].New {
			t.Errorf("made %v", made)
		}
	}
	refused("the directory is not there")
	if _, err := os.Stat(disk); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("init made %s: %v", disk, err)
	}
	if err := os.MkdirAll(s.stores[1], 0o700); err != nil { // the mount point of a disk that is not mounted
		t.Fatal(err)
	}
	refused("has no identity")
	if entries, err := os.ReadDir(s.stores[1]); len(entries) > 0 || err != nil {
		t.Errorf("init made %v, %v", entries, err)
	}
	if err := os.RemoveAll(disk); err != nil {
		t.Fatal(err)
	}
	if made := s.init(t, "disk/s1/"); !made[1].New || !strings.HasSuffix(made[1].Is, "shard 1") { // as the configuration may write it
		t.Errorf("init gave %v", made)
	}
}

func TestInitMakesNoMetadataWhereObjectsSayThereIsSome(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	md := filepath.Join(s.dir, "md")
	if err := os.RemoveAll(md); err != nil {
		t.Fatal(err)
	}
	if made := s.init(t); !made[3].New {
		t.Errorf("without objects: made %v", made)
	}
	sys, err := Open(t.Context(), s.config(t), Batch, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	write(t, sys, "f", bytes.Repeat([]byte("meta"), 100_000))
	if err := errors.Join(sys.Close(), os.Rename(md, md+".away")); err != nil {
		t.Fatal(err)
	}
	_, err = Init(t.Context(), s.config(t))
	if err == nil || !strings.Contains(err.Error(), "repo r has objects of it (a/") || !strings.Contains(hintOf(err), "mount it; ") || !strings.Contains(hintOf(err), "--replace "+md) {
		t.Errorf("have %v, hint %s", err, hintOf(err))
	}
	if _, err := os.Stat(md); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("init made %s: %v", md, err)
	}
	// The object has shards in all stores, and one store is enough to know.
	if err := errors.Join(os.RemoveAll(filepath.Join(s.stores[0], "a")), os.RemoveAll(filepath.Join(s.stores[1], "a"))); err != nil {
		t.Fatal(err)
	}
	if _, err = Init(t.Context(), s.config(t)); err == nil {
		t.Error("accepted")
	}
	if made := s.init(t, md); !made[3].New {
		t.Errorf("made %v", made)
	}
}

func TestInitWithTooFewStoresMakesNoMetadata(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	if err := errors.Join(os.RemoveAll(filepath.Join(s.dir, "md")), os.RemoveAll(s.stores[0]), os.RemoveAll(s.stores[1])); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), s.config(t)); err == nil || !strings.Contains(err.Error(), "too few stores of repo r, pod p can be looked at") {
		t.Errorf("have %v", err)
	}
}

func TestInitGoesOnWithOtherRepos(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	if err := os.RemoveAll(s.stores[1]); err != nil {
		t.Fatal(err)
	}
	c := s.config(t)
	second := c.Repos[0]
	second.Name, second.Pods = "r2", []Pod{{Name: "p"}}
	for i := range 3 {
		second.Pods[0].Stores = append(second.Pods[0].Stores, Store{Dir: filepath.Join(s.dir, fmt.Sprint("t", i))})
	}
	c.Repos = append(c.Repos, second)
	made, err := Init(t.Context(), c)
	if err == nil || len(made) != 4 || !made[0].New || made[0].Is != "repo r2, pod p, shard 0" || made[3].Kind != "metadata" {
		t.Errorf("have %v, %v", made, err)
	}
}

func TestInitReplacesNothingUnknown(t *testing.T) {
	s := newSite(t, 2, 1)
	if _, err := Init(t.Context(), s.config(t), "/elsewhere"); !errors.Is(err, ErrNoPlace) || !strings.Contains(err.Error(), "/elsewhere") {
		t.Errorf("have %v", err)
	}
	if _, err := os.Stat(s.stores[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("made: %v", err)
	}
}

func TestInitLeavesAStoreWithContentAlone(t *testing.T) {
	for _, name := range []string{"x/object", "Thesis.TEX", "Photos/IMG 1.JPG", ".hidden"} {
		s := newSite(t, 2, 1)
		file := filepath.Join(s.stores[2], name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		top, _, _ := strings.Cut(name, "/")
		_, err := Init(t.Context(), s.config(t))
		if err == nil || !strings.Contains(err.Error(), "it has no identity but is not empty ("+top+")") {
			t.Errorf("init: have %v", err)
		}
		stores, _, err := Status(t.Context(), s.config(t))
		if err != nil || stores[2].Health != Wrong {
			t.Errorf("status: have %+v, %v", stores[2], err)
		}
	}
}

func TestInitLeavesAMetadataDirectoryWithContentAlone(t *testing.T) {
	for _, name := range []string{"Thesis.TEX", "Photos/IMG 1.JPG", "tree/file", "Empty/"} {
		s := newSite(t, 2, 1)
		file := filepath.Join(s.dir, "md", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil && !strings.HasSuffix(name, "/") {
			t.Fatal(err)
		}
		if _, err := Init(t.Context(), s.config(t)); err == nil || !strings.Contains(err.Error(), "has no marfs.json but is not empty") {
			t.Errorf("%s: have %v", name, err)
		}
		_, spaces, err := Status(t.Context(), s.config(t))
		if err != nil || spaces[0].Health != Wrong {
			t.Errorf("%s: status: have %+v, %v", name, spaces[0], err)
		}
	}
}

// TestInitGoesOnWithAMetadataDirectory holds the names that an interrupted init
// leaves against those that init makes.
func TestInitGoesOnWithAMetadataDirectory(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	md := filepath.Join(s.dir, "md")
	if err := errors.Join(os.Rename(filepath.Join(md, markerFile), filepath.Join(md, markerFile+".x")), os.Mkdir(filepath.Join(md, "lost+found"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if made := s.init(t); !made[3].New {
		t.Errorf("have %+v", made[3])
	}
	entries, err := os.ReadDir(md)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); !slices.Contains(initDirs, name) && name != "lost+found" && !strings.HasPrefix(name, markerFile) {
			t.Errorf("init makes %s", name)
		}
	}
}

func TestMetadataDirectoryIsPrivate(t *testing.T) {
	s := newSite(t, 2, 1)
	md := filepath.Join(s.dir, "md")
	if err := errors.Join(os.Mkdir(md, 0o700), os.Chmod(md, 0o777)); err != nil { //nolint:gosec // what init must not leave so
		t.Fatal(err)
	}
	s.init(t)
	if fi, err := os.Stat(md); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("an empty directory has mode %v, %v", fi.Mode(), err)
	}
	if err := os.Chmod(md, 0o755); err != nil { //nolint:gosec // what init must refuse
		t.Fatal(err)
	}
	_, err := Init(t.Context(), s.config(t))
	if err == nil || !strings.Contains(err.Error(), "others may look into it (mode 0755)") || !strings.Contains(hintOf(err), "chmod 700 "+md) {
		t.Errorf("have %v", err)
	}
}

func TestInitRefusesMetadataOfAnother(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	c := s.config(t)
	c.Namespaces[0].Name = "b"
	if _, err := Init(t.Context(), c); err == nil || !strings.Contains(err.Error(), `belongs to namespace "a"`) {
		t.Errorf("have %v", err)
	}
}

func TestMissingStoreIsToleratedAndComesBack(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	away := s.stores[1] + ".away"
	if err := os.Rename(s.stores[1], away); err != nil {
		t.Fatal(err)
	}
	c := s.config(t)
	ps, err := identify(t.Context(), &c.Repos[0])
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, ps.close)
	var log bytes.Buffer
	if err := ps.usable(slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "store cannot be reached") || !strings.Contains(log.String(), s.stores[1]) {
		t.Errorf("logged %q", log.String())
	}
	st := ps.stores(ps.members[0], slog.New(slog.DiscardHandler))[1]
	if _, err := st.Stat(t.Context(), "x"); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("away: %v", err)
	}
	if err := os.Rename(away, s.stores[1]); err != nil {
		t.Fatal(err)
	}
	late := st.Store.(*late)
	closeAtEnd(t, late.Close)
	late.tried = late.tried.Add(-lateRetry)
	if _, err := st.Stat(t.Context(), objfmt.StoreIdentityKey); err != nil {
		t.Errorf("back: %v", err)
	}
}

func TestLateStoreGoesByIdentity(t *testing.T) {
	s := newSite(t, 2, 2)
	s.init(t)
	// Stores 1 and 3 are away at the start and come back in each other's place.
	c := s.config(t)
	for _, i := range []int{1, 3} {
		if err := os.Rename(s.stores[i], s.stores[i]+".away"); err != nil {
			t.Fatal(err)
		}
	}
	ps, err := identify(t.Context(), &c.Repos[0])
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, ps.close)
	if err := errors.Join(os.Rename(s.stores[1]+".away", s.stores[3]), os.Rename(s.stores[3]+".away", s.stores[1])); err != nil {
		t.Fatal(err)
	}
	for i, st := range ps.stores(ps.members[0], slog.New(slog.DiscardHandler)) {
		if l, ok := st.Store.(*late); ok {
			closeAtEnd(t, l.Close)
			l.tried = l.tried.Add(-lateRetry)
		}
		if id, err := readIdentity(t.Context(), st); err != nil || id.Index != i {
			t.Errorf("place %d: shard %d, %v", i, id.Index, err)
		}
	}
}

// A disk is replaced, or a store emptied, while a mount is running: what is written
// goes there once init has made it the store that is missing, and nowhere before.
func TestReplacedStoreIsTakenIntoUse(t *testing.T) {
	for name, replace := range map[string]func(dir string) error{
		"other directory": func(dir string) error { return errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o700)) },
		"unmounted":       func(dir string) error { return os.Rename(dir, dir+".old") },
		"emptied": func(dir string) error {
			return errors.Join(os.RemoveAll(dir+"/x"), os.RemoveAll(dir+"/~tmp"), os.Remove(filepath.Join(dir, objfmt.StoreIdentityKey)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, 2, 1)
			s.init(t)
			var log bytes.Buffer
			sys, err := Open(t.Context(), s.config(t), Batch, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			closeAtEnd(t, sys.Close)
			st := sys.stores[1].Store.(*late)
			put := func(key string) error { return st.Put(t.Context(), key, strings.NewReader("x"), 1) }
			if err := put("x/1"); err != nil {
				t.Fatal(err)
			}
			if err := replace(s.stores[1]); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := put("x/2"); !errors.Is(err, objstore.ErrUnavailable) {
					t.Errorf("put: %v, want ErrUnavailable", err)
				}
				if _, err := st.Stat(t.Context(), "x/1"); !errors.Is(err, objstore.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("stat: %v, want ErrUnavailable alone", err)
				}
				st.mu.Lock()
				st.tried = time.Time{}
				st.mu.Unlock()
			}
			if made := s.init(t, s.stores[1]); !made[1].New {
				t.Errorf("init gave %v", made)
			}
			if err := put("x/3"); err != nil {
				t.Errorf("after init: %v", err)
			}
			if _, err := os.Stat(filepath.Join(s.stores[1], "x/3")); err != nil {
				t.Errorf("what was put is elsewhere: %v", err)
			}
			for _, want := range []string{"store is not used any more", "marfsctl init --replace", "store taken into use", s.stores[1]} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("log has no %q: %s", want, log.String())
				}
			}
		})
	}
}

func TestTooFewStores(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	for _, i := range []int{0, 2} {
		if err := os.RemoveAll(s.stores[i]); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Open(t.Context(), s.config(t), Batch, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "only 1 of 3 can be used, 2 are needed") {
		t.Errorf("have %v", err)
	}
}

func TestDamageIsRecorded(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	content := bytes.Repeat([]byte("damage"), 100_000)
	var log bytes.Buffer
	sys, err := Open(t.Context(), s.config(t), Interactive, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	write(t, sys, "f", content)
	d, name, err := sys.FS.Walk(t.Context(), caller(), "/a/f")
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Layout(t.Context(), caller(), name, false)
	d.Close()
	if err != nil || len(l.Objects) != 1 {
		t.Fatalf("layout %v: %v", l, err)
	}
	if err := os.Remove(filepath.Join(l.Objects[0].Shards[0].Store, l.Objects[0].Key)); err != nil {
		t.Fatal(err)
	}
	if have := read(t, sys, "f", len(content)); !bytes.Equal(have, content) {
		t.Error("other bytes")
	}
	if err := sys.Close(); err != nil {
		t.Fatal(err)
	}
	notes, err := os.ReadDir(filepath.Join(s.dir, "md", "degraded"))
	if err != nil || len(notes) != 1 {
		t.Errorf("degraded/ has %v, %v", notes, err)
	}
	if !strings.Contains(log.String(), "damaged shards found") {
		t.Errorf("logged %q", log.String())
	}
}

func TestDamageNotesAreBounded(t *testing.T) {
	var log bytes.Buffer
	q := newDamageNotes(slog.New(slog.NewTextHandler(&log, nil)))
	for range damageBacklog + 5 {
		q.bad("a/00/x", objfmt.Layout{}, []int{1}, errors.New("why"))
	}
	if have := q.dropped.Load(); have != 5 {
		t.Errorf("dropped %d", have)
	}
	q.start(nil)
	q.stop()
	if len(q.found) != 0 || !strings.Contains(log.String(), "too many damaged objects") {
		t.Errorf("%d notes left, logged %.200q", len(q.found), log.String())
	}
}

func TestReload(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	sys, _ := s.open(t)
	next := s.config(t)
	next.Namespaces[0].Interactive = Perms(namespace.RM)
	if later := sys.Reload(next); len(later) != 0 {
		t.Errorf("waits for the next start: %v", later)
	}
	d, name, err := sys.FS.Walk(t.Context(), caller(), "/a/new")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, _, err := d.Create(t.Context(), caller(), name, uint32(os.O_WRONLY), 0o644); err == nil {
		t.Error("created without wm")
	}
	next.Cache.Memory *= 2
	next.Namespaces[0].UpdateInPlace = false
	if have, want := sys.Reload(next), []string{"namespaces[a].update_in_place", "cache"}; !reflect.DeepEqual(have, want) {
		t.Errorf("have %v, want %v", have, want)
	}
	next = s.config(t)
	next.Namespaces[0].Stage.MaxFile, next.Namespaces[0].Pack.MinFiles, next.Namespaces[0].Repack.BelowLive = 1, 2, 0.1
	if have, want := sys.Reload(next), []string{"namespaces[a].stage", "namespaces[a].pack", "namespaces[a].repack"}; !reflect.DeepEqual(have, want) {
		t.Errorf("have %v, want %v", have, want)
	}
	next.Namespaces = append(next.Namespaces, next.Namespaces[0])
	if have, want := sys.Reload(next), []string{"namespaces"}; !reflect.DeepEqual(have, want) {
		t.Errorf("have %v, want %v", have, want)
	}
}

func TestStatus(t *testing.T) {
	s := newSite(t, 2, 2)
	s.init(t)
	if err := errors.Join(os.RemoveAll(s.stores[1]), os.Remove(filepath.Join(s.stores[2], objfmt.StoreIdentityKey)),
		os.WriteFile(filepath.Join(s.stores[3], objfmt.StoreIdentityKey), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	stores, spaces, err := Status(context.Background(), s.config(t))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Health{Healthy, Missing, Missing, Wrong} {
		if stores[i].Health != want || (stores[i].Err == nil) != (want == Healthy) {
			t.Errorf("store %d: %s, %v; want %s", i, stores[i].Health, stores[i].Err, want)
		}
	}
	if len(spaces) != 1 || spaces[0].Health != Healthy || spaces[0].Total == 0 {
		t.Errorf("namespaces %+v", spaces)
	}
}

func TestStatusShowsRoomAndReadOnly(t *testing.T) {
	s := newSite(t, 2, 1)
	s.init(t)
	md := filepath.Join(s.dir, "md")
	stores, spaces, err := Status(t.Context(), s.config(t))
	if err != nil || stores[0].Total == 0 || stores[0].Free == 0 || stores[0].Free > stores[0].Total || spaces[0].Health != Healthy {
		t.Fatalf("have %+v, %+v, %v", stores[0], spaces[0], err)
	}
	if os.Geteuid() != 0 {
		t.Skip("mounting wants root")
	}
	for _, dir := range []string{s.stores[1], md} {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("no mounts here: %v", err)
		}
		closeAtEnd(t, func() error { return unix.Unmount(dir, unix.MNT_DETACH) })
		if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Skipf("no read-only mounts here: %v", err)
		}
	}
	stores, spaces, err = Status(t.Context(), s.config(t))
	if err != nil || stores[0].Health != Healthy || stores[1].Health != ReadOnly || stores[1].Err == nil || spaces[0].Health != ReadOnly || spaces[0].Err == nil {
		t.Errorf("have %+v, %+v, %v", stores[:2], spaces[0], err)
	}
}

func TestInside(t *testing.T) {
	c := &Config{Mount: "/campaign"}
	for p, want := range map[string]string{"/campaign": "/", "/campaign/": "/", "/campaign/a/b": "/a/b", "/campaign/a/../b": "/b", "/x/../campaign/a": "/a"} {
		if have, err := c.Inside(p); err != nil || have != want {
			t.Errorf("%s: have %s, %v", p, have, err)
		}
	}
	for _, p := range []string{"/", "/campaigns", "/campaign/../x", "a"} {
		if have, err := c.Inside(p); err == nil {
			t.Errorf("%s: have %s", p, have)
		}
	}
}

func TestInsideThroughSymlinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.MkdirAll(in("real/mnt/a"), 0o700), os.Symlink(in("real"), in("link")), os.Symlink("mnt/a", in("real/last"))); err != nil {
		t.Fatal(err)
	}
	for _, mount := range []string{in("real/mnt"), in("link/mnt")} {
		c := &Config{Mount: mount}
		for p, want := range map[string]string{"link/mnt/a/f": "/a/f", "real/mnt/a/f": "/a/f", "link/mnt/none/x/y": "/none/x/y", "real/last/f": "/a/f", "link/mnt": "/"} {
			if have, err := c.Inside(in(p)); err != nil || have != want {
				t.Errorf("mount %s, path %s: have %s, %v", mount, p, have, err)
			}
		}
		if have, err := c.Inside(in("real/last")); err == nil { // about the link itself
			t.Errorf("have %s", have)
		}
	}
}

// TestAcceptedGeometriesMakeRepos holds the rules of the file against those of the repo.
func TestAcceptedGeometriesMakeRepos(t *testing.T) {
	for _, g := range []struct{ data, parity int }{{1, 0}, {1, 1}, {2, 1}, {4, 2}, {10, 4}, {16, 4}, {128, 128}} {
		for _, block := range []Size{4 << 10, 16 << 10, 64 << 10, 1 << 20, 16 << 20} {
			r := Repo{Name: "r", Data: g.data, Parity: g.parity, BlockSize: block}
			_, err := repo.New(repo.Config{
				Name:     r.Name,
				Geometry: r.geometry(),
				Memory:   repo.LeastMemory(r.geometry()),
				Pods:     []repo.Pod{{Name: "p", Weight: 1, Stores: make([]repo.Store, g.data+g.parity)}},
			})
			if err != nil {
				t.Errorf("%d+%d of %v: %v", g.data, g.parity, block, err)
			}
		}
	}
}

// TestWriteNotesWhatItLeavesOut: the note is there before the write has succeeded.
func TestWriteNotesWhatItLeavesOut(t *testing.T) {
	s := newSite(t, 2, 2)
	s.init(t)
	sys, log := s.open(t)
	if err := os.Rename(s.stores[0], s.stores[0]+".away"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2100 * time.Millisecond) // a directory is trusted for so long
	write(t, sys, "f", bytes.Repeat([]byte("x"), 100_000))
	notes, err := os.ReadDir(filepath.Join(s.dir, "md", "degraded"))
	if err != nil || len(notes) != 1 {
		t.Errorf("degraded/ has %v, %v", notes, err)
	}
	if !strings.Contains(log.String(), "object written without all shards") || strings.Contains(log.String(), "damaged") {
		t.Errorf("logged %q", log)
	}
}

// TestDamageNoteTakesAnyReason: what a store says may be long, and no text.
func TestDamageNoteTakesAnyReason(t *testing.T) {
	n := newDamageNote("a/00/x", objfmt.Layout{}, []int{1}, errors.New(strings.Repeat("\xff€", 10_000)))
	if len(n.Why) > objfmt.MaxWhy || !utf8.ValidString(n.Why) || n.Why == "" {
		t.Errorf("%d bytes, valid %v", len(n.Why), utf8.ValidString(n.Why))
	}
}

// TestNoteThatFailsIsNoStoresFault: what is wrong with a store is not what makes the
// write fail, so it does not decide the errno.
func TestNoteThatFailsIsNoStoresFault(t *testing.T) {
	d := newDamageNotes(slog.New(slog.DiscardHandler))
	err := d.leftOut(t.Context(), "a/00/x", objfmt.Layout{}, []int{1}, objstore.ErrUnavailable)
	if err == nil || errors.Is(err, objstore.ErrUnavailable) || !strings.Contains(err.Error(), "unavailable") {
		t.Errorf("have %v", err)
	}
}
