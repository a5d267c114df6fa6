package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"marfs/internal/testenv"
)

// nested adds a namespace inside another, and some with fewer permissions.
const nested = `  - {name: inner, path: /projects/inner, metadata: "%s/inner", repo: main}
  - {name: look, path: /look, metadata: "%s/look", repo: main, interactive: [rm, rd]}
  - {name: blind, path: /blind, metadata: "%s/blind", repo: main, interactive: [rm, wm, wd, ud, td]}
  - {name: once, path: /once, metadata: "%s/once", repo: main, interactive: [rm, wm, rd, wd]}
`

func TestNestedNamespaces(t *testing.T) {
	m := testenv.NewMount(t, testenv.Options{More: nested})
	outer, inner := m.Join("f"), m.Join("projects", "inner", "f")
	mustWrite(t, outer, []byte("outer"))
	mustWrite(t, inner, []byte("inner"))
	if err := os.Rename(outer, filepath.Join(filepath.Dir(inner), "g")); !errors.Is(err, syscall.EXDEV) {
		t.Errorf("rename into another namespace: %v, want EXDEV", err)
	}
	if err := os.Link(inner, m.Join("g")); !errors.Is(err, syscall.EXDEV) {
		t.Errorf("link out of a namespace: %v, want EXDEV", err)
	}
	if err := os.Remove(m.Join("projects", "inner")); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("rmdir of a namespace: %v, want EBUSY", err)
	}
	wantFile(t, outer, []byte("outer"))
	wantFile(t, inner, []byte("inner"))

	big := noisy(1, 300*kib)
	mustWrite(t, m.Join("big"), big)
	if err := copyTree(goSource(t, "fmt")[0], m.Join("tree")); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "mv", m.Join("big"), m.Join("tree"), m.Join("projects", "inner"))
	m.Remount()
	wantFile(t, m.Join("projects", "inner", "big"), big)
	if err := sameTree(goSource(t, "fmt")[0], m.Join("projects", "inner", "tree")); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"big", "tree"} {
		if _, err := os.Lstat(m.Join(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still where it was moved from: %v", name, err)
		}
	}
	inos := map[uint64]string{}
	for _, p := range []string{outer, inner, m.Join("projects"), m.Join("projects", "inner"), m.Path} {
		fi, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		ino := fi.Sys().(*syscall.Stat_t).Ino
		if other := inos[ino]; other != "" {
			t.Errorf("%s and %s have the inode number %d", p, other, ino)
		}
		inos[ino] = p
	}
}

// fill makes files in a directory until its filesystem has no room for more.
func fill(t *testing.T, m *testenv.Mount, dir string) map[string][]byte {
	t.Helper()
	var err error
	files := map[string][]byte{}
	for i := 0; err == nil && i < 5000; i++ {
		name := fmt.Sprint(dir, "/f", i)
		content := noisy(uint64(i+1), 100+i)
		if err = writeFile(m.Join(name), content); err == nil {
			files[name] = content
		}
	}
	if !errors.Is(err, syscall.ENOSPC) || len(files) == 0 {
		t.Fatalf("after %d files: %v, want ENOSPC", len(files), err)
	}
	return files
}

// TestMetadataFull makes files until the metadata filesystem has no room for
// more. What is there stays, and work goes on when there is room again.
func TestMetadataFull(t *testing.T) {
	dirs, _ := tmpfsStores(t, 1, "nr_inodes=700")
	m := testenv.NewMount(t, testenv.Options{Expect: []string{"no space left"}, More: fmt.Sprintf("  - {name: tiny, path: /tiny, metadata: %q, repo: main}\n", dirs[0]+"/metadata")})
	files := fill(t, m, "tiny")
	wantFiles(t, m, files)
	m.Remount() // full as it is: its files can be read
	wantFiles(t, m, files)
	if err := unix.Mount("", dirs[0], "", unix.MS_REMOUNT, "nr_inodes=4000"); err != nil {
		t.Fatal(err)
	}
	m.Remount()
	wantFiles(t, m, files)
	for name := range files {
		if err := os.Remove(m.Join(name)); err != nil {
			t.Error(err)
		}
	}
}

// TestPermissions tries, in namespaces that do not grant everything, what needs
// it: EPERM, even for root, and a line in the log.
func TestPermissions(t *testing.T) {
	m := testenv.NewMount(t, testenv.Options{More: nested})
	mustWrite(t, m.Join("blind", "f"), []byte("unread"))
	mustWrite(t, m.Join("once", "f"), []byte("once"))
	read := func(path string) error { _, err := os.ReadFile(path); return err }
	for _, c := range []struct {
		what, name, missing string
		do                  func(path string) error
	}{
		{"create", "look/new", "wm", func(p string) error { return writeFile(p, nil) }},
		{"mkdir", "look/dir", "wm", func(p string) error { return os.Mkdir(p, 0o755) }},
		{"read", "blind/f", "rd", read},
		{"unlink", "once/f", "ud", os.Remove},
		{"truncate", "once/f", "td", func(p string) error { return os.Truncate(p, 0) }},
		{"overwrite", "once/f", "td", func(p string) error { return writeFile(p, []byte("again")) }},
	} {
		t.Run(c.what, func(t *testing.T) {
			if err := c.do(m.Join(c.name)); !errors.Is(err, syscall.EPERM) {
				t.Errorf("%s of %s: %v, want EPERM", c.what, c.name, err)
			}
			wantLogged(t, m, "namespace="+filepath.Dir(c.name), "missing="+c.missing, fmt.Sprint("uid=", os.Geteuid()))
		})
	}
	wantFile(t, m.Join("once", "f"), []byte("once"))
	if _, err := os.ReadDir(m.Join("look")); err != nil {
		t.Error(err)
	}
}
