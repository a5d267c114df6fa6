package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"marfs/internal/fault"
	"marfs/internal/testenv"
)

// keepNothing destroys with the next gc whatever was deleted or replaced.
func keepNothing() testenv.Options {
	o := edges()
	o.Namespace = []string{"trash: {keep: 0s, grace: 0s}"}
	return o
}

// TestReadersOfDeleted deletes and replaces files that programs have open, and runs
// gc with no keep time at all: they read on.
func TestReadersOfDeleted(t *testing.T) {
	m := testenv.NewMount(t, keepNothing())
	want := noisy(1, 300*kib)
	open := map[string]*os.File{}
	for _, name := range []string{"removed", "renamed over", "linked"} {
		mustWrite(t, m.Join(name), want)
		f, err := os.Open(m.Join(name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		open[name] = f
	}
	mustWrite(t, m.Join("new"), []byte("new"))
	for _, do := range []func() error{
		func() error { return os.Remove(m.Join("removed")) },
		func() error { return os.Rename(m.Join("new"), m.Join("renamed over")) },
		func() error { return os.Link(m.Join("linked"), m.Join("other name")) },
		func() error { return os.Remove(m.Join("linked")) },
		func() error { return os.Remove(m.Join("other name")) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	half := make([]byte, 100*kib)
	for name, f := range open {
		if _, err := io.ReadFull(f, half); err != nil || !bytes.Equal(half, want[:len(half)]) {
			t.Errorf("%s, before gc: %v", name, err)
		}
	}
	for range 2 {
		m.Ctl("gc", "--apply")
	}
	dropCaches(t)
	for name, f := range open {
		rest, err := io.ReadAll(f)
		if err != nil || !bytes.Equal(rest, want[len(half):]) {
			t.Errorf("%s, after gc: %d bytes, %v", name, len(rest), err)
		}
		f.Close()
	}
	collect(t, m)
	wantNothingElse(t, m)
	wantFile(t, m.Join("renamed over"), []byte("new"))
}

// dropCaches makes the kernel ask the mount again.
func dropCaches(t *testing.T) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil && os.Geteuid() == 0 && os.Getenv("CI") != "" {
		t.Log(err) // a container may not
	}
}

// TestCollectorKilledAtEachStep kills gc before and after each durable step it
// takes: another one ends what it began, and what lives stays.
func TestCollectorKilledAtEachStep(t *testing.T) {
	m := testenv.NewMount(t, keepNothing())
	stay := map[string][]byte{"stays": noisy(1, 200*kib)}
	mustWrite(t, m.Join("stays"), stay["stays"])
	hit := 0
	for _, point := range fault.Names() {
		if !strings.HasPrefix(point, "metadata.") && !strings.HasPrefix(point, "trash.") || strings.Contains(point, ".init.") {
			continue
		}
		for n := 1; n <= often(1, 4); n++ {
			litter(t, m, uint64(100*hit))
			if !killedCtl(t, m, fmt.Sprintf("%s=kill:%d", point, n), "gc", "--apply") {
				break // gc does not come by so often
			}
			hit++
			t.Run(fmt.Sprint(point, n), func(t *testing.T) {
				wantFiles(t, m, stay)
				collect(t, m)
				wantNothingElse(t, m)
				wantFiles(t, m, stay)
			})
		}
	}
	if hit < 15 { // some are for chance: which directories there are already
		t.Errorf("only %d steps were reached", hit)
	}
}

// litter makes something of everything that gc destroys.
func litter(t *testing.T, m *testenv.Mount, seed uint64) {
	t.Helper()
	mustWrite(t, m.Join("small"), noisy(seed, 5*kib))
	mustWrite(t, m.Join("large"), noisy(seed+1, 200*kib))
	mustWrite(t, m.Join("stays again"), noisy(seed+2, 5*kib))
	mustWrite(t, m.Join("stays again"), noisy(seed+3, 200*kib)) // a version
	for _, err := range []error{
		os.Mkdir(m.Join("dir"), 0o755),
		os.Symlink("x", m.Join("link")),
		os.Remove(m.Join("dir")),
		os.Remove(m.Join("link")),
		os.Remove(m.Join("small")),
		os.Remove(m.Join("large")),
		os.Remove(m.Join("stays again")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// killedCtl runs marfsctl with a fault armed, and tells whether it was killed there.
func killedCtl(t *testing.T, m *testenv.Mount, spec string, args ...string) bool {
	t.Helper()
	c := m.Command("marfsctl", args...)
	c.Env = append(c.Env, "MARFS_FAULT="+spec)
	out, err := c.CombinedOutput()
	if err == nil {
		return false
	}
	if s := c.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGKILL {
		t.Fatalf("marfsctl %s, %s: %v\n%s", strings.Join(args, " "), spec, err, out)
	}
	return true
}

// TestRestoreKilledAtEachStep removes a tree and kills the restore of it at each
// durable step: every file is live or in trash, and the restore that follows
// completes the tree, attributes of directories included.
func TestRestoreKilledAtEachStep(t *testing.T) {
	m := testenv.NewMount(t, edges())
	want := filepath.Join(t.TempDir(), "tree")
	plant(t, want)
	hit, round := 0, 0
	for _, point := range fault.Names() {
		if !strings.HasPrefix(point, "metadata.") && !strings.HasPrefix(point, "trash.") || strings.Contains(point, ".init.") {
			continue
		}
		for n := 1; n <= often(2, 6); n++ {
			round++
			tree := fmt.Sprint("tree", round)
			if err := copyTree(want, m.Join(tree)); err != nil {
				t.Fatal(err)
			}
			mustRun(t, "rm", "-r", m.Join(tree))
			if !killedCtl(t, m, fmt.Sprintf("%s=kill:%d", point, n), "trash", "restore", "/marfs/"+tree) {
				break
			}
			hit++
			t.Run(fmt.Sprint(point, n), func(t *testing.T) {
				liveOrInTrash(t, m, want, tree)
				m.Ctl("trash", "restore", "/marfs/"+tree)
				// rm has touched the directories before it removed them.
				mustRun(t, "sh", "-c", `cd "$1" && find . -type d | while read -r d; do touch -r "$d" "$2/$d"; done`, "sh", want, m.Join(tree))
				if err := sameTree(want, m.Join(tree)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if hit < 8 {
		t.Errorf("only %d steps were reached", hit)
	}
}

// plant makes a small tree with something of everything.
func plant(t *testing.T, root string) {
	t.Helper()
	for _, dir := range []string{"", "a", "a/b", "closed"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"one", "a/two", "a/b/three", "closed/four"} {
		mustWrite(t, filepath.Join(root, name), noisy(uint64(i), 1000+i*50*kib))
	}
	for _, err := range []error{
		os.Symlink("../one", filepath.Join(root, "a", "link")),
		syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600),
		os.WriteFile(filepath.Join(root, "empty"), nil, 0o640),
		os.Chmod(filepath.Join(root, "closed"), 0o555),
		os.Chmod(filepath.Join(root, "a"), 0o2750),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// liveOrInTrash checks that each file of the tree is in exactly one of the two places, whole.
func liveOrInTrash(t *testing.T, m *testenv.Mount, want, tree string) {
	t.Helper()
	kept := map[string][]byte{}
	for e, b := range trashContents(t, m) {
		kept[strings.TrimPrefix(e.Path, "/")] = b
	}
	for _, name := range filesBelow(t, want) {
		wanted, err := os.ReadFile(filepath.Join(want, name))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(tree, name)
		live, err := os.ReadFile(m.Join(path))
		in, trashed := kept[path]
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			t.Error(err)
		case (err == nil) == trashed:
			t.Errorf("%s: live %v, in trash %v", path, err == nil, trashed)
		case !trashed && !bytes.Equal(live, wanted), trashed && !bytes.Equal(in, wanted):
			t.Errorf("%s: not what it was", path)
		}
	}
}

// TestTrashWhenFull fills the metadata filesystem: rm says so and loses nothing, and
// purge and gc make room.
func TestTrashWhenFull(t *testing.T) {
	dirs, _ := tmpfsStores(t, 1, "nr_inodes=1200")
	m := testenv.NewMount(t, testenv.Options{Expect: []string{"no space left"},
		More: fmt.Sprintf("  - {name: tiny, path: /tiny, metadata: %q, repo: main, trash: {keep: 30d, grace: 0s}}\n", dirs[0]+"/metadata")})
	files := map[string][]byte{}
	for i := range 100 {
		name := fmt.Sprint("tiny/first", i)
		files[name] = noisy(uint64(i+1), 100+i)
		mustWrite(t, m.Join(name), files[name])
	}
	for name := range files {
		if err := os.Remove(m.Join(name)); err != nil {
			t.Fatal(err)
		}
	}
	files = fill(t, m, "tiny")
	var err error
	victim := ""
	for name := range files {
		if err = os.Remove(m.Join(name)); err != nil {
			victim = name
			break
		}
		delete(files, name)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("rm on a full metadata filesystem: %v, want ENOSPC", err)
	}
	wantFile(t, m.Join(victim), files[victim])
	m.Ctl("trash", "purge", "--all")
	log := filepath.Join(t.TempDir(), "gc.jsonl")
	m.Ctl("gc", "--apply", "--log", log)
	if b, err := os.ReadFile(log); err != nil || bytes.Count(b, []byte("\n")) < 100 {
		t.Errorf("the log has %d lines (%v), want one for each of 100 files", bytes.Count(b, []byte("\n")), err)
	}
	if err := os.Remove(m.Join(victim)); err != nil {
		t.Errorf("rm after gc: %v", err)
	}
	delete(files, victim)
	wantFiles(t, m, files)
}
