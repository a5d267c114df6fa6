package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"marfs/internal/fault"
	"marfs/internal/testenv"
)

// staging has a mount stage small files, and pack nothing by itself.
func staging() testenv.Options {
	o := edges()
	o.ChunkSize = "1MiB"
	o.Namespace = []string{
		"stage: {max_file: 64KiB, max_bytes: 64MiB, linger: 1h}",
		"pack: {target_size: 256KiB, min_files: 1, max_age: 2h}",
		"trash: {keep: 0s, grace: 0s}",
	}
	return o
}

// packAtOnce is for daemons that are started from now on: they pack what is closed.
func packAtOnce(t *testing.T, m *testenv.Mount) {
	t.Helper()
	text, err := os.ReadFile(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	quick := strings.NewReplacer("linger: 1h", "linger: 0s", "max_age: 2h", "max_age: 1s").Replace(string(text))
	if err := os.WriteFile(m.Config, []byte(quick), 0o644); err != nil {
		t.Fatal(err)
	}
}

// someSmall are contents of files of a directory that fit into the stage.
func someSmall(dir string, seed uint64, n int) map[string][]byte {
	files := map[string][]byte{}
	for i := range n {
		files[fmt.Sprintf("%s/f%03d", dir, i)] = noisy(seed+uint64(i), 1+(i*i*977)%(60*kib))
	}
	return files
}

func mustWriteAll(t *testing.T, m *testenv.Mount, files map[string][]byte) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(8)
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(m.Join(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		g.Go(func() error { return writeFile(m.Join(name), content) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// staged is how many files are not in objects yet.
func staged(t *testing.T, m *testenv.Mount) int {
	t.Helper()
	n := 0
	// Homes go while this looks, so fan-out directories are read one by one.
	fans, err := filepath.Glob(filepath.Join(m.Dir, "metadata", "staged", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, fan := range fans {
		homes, err := os.ReadDir(fan)
		if err != nil {
			t.Fatal(err)
		}
		n += len(homes)
	}
	return n
}

// wantPackedSoon waits until somebody has packed everything.
func wantPackedSoon(t *testing.T, m *testenv.Mount) {
	t.Helper()
	n := 0
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if n = staged(t, m); n == 0 {
			return
		}
	}
	t.Errorf("%d files are still staged", n)
}

// wantType checks where the bytes of files are.
func wantType(t *testing.T, m *testenv.Mount, files map[string][]byte, want string) {
	t.Helper()
	var names []string
	for name, b := range files {
		if len(b) > 0 {
			names = append(names, name)
		}
	}
	for part := range slices.Chunk(names, 500) {
		found, code := statFiles(t, m, part)
		if code != 0 {
			t.Errorf("marfsctl stat: exit code %d", code)
		}
		for _, f := range found {
			if f.Type != want {
				t.Errorf("%s is %s, want %s", f.Path, f.Type, want)
			}
		}
	}
}

// wantReleased checks that the metadata filesystem holds the bytes no more.
func wantReleased(t *testing.T, metadata string, files map[string][]byte) {
	t.Helper()
	const attrs = 8 << 10 // what the inode may have besides: slots
	for name, b := range files {
		fi, err := os.Lstat(filepath.Join(metadata, "tree", name))
		if err != nil {
			t.Error(err)
		} else if n := fi.Sys().(*syscall.Stat_t).Blocks * 512; len(b) > attrs && n > attrs {
			t.Errorf("%s of %d bytes takes %d in the metadata filesystem after its release", name, len(b), n)
		}
	}
}

// TestSmallFiles copies a source tree, in which most files are small: they are
// packed into few objects, and what is read is the same before, after, and without
// the bodies.
func TestSmallFiles(t *testing.T) {
	m := testenv.NewMount(t, staging())
	src := goSource(t, "encoding")[0]
	if err := copyTree(src, m.Join("tree")); err != nil {
		t.Fatal(err)
	}
	if staged(t, m) < 50 {
		t.Fatalf("only %d files are staged", staged(t, m))
	}
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"staged", func() {}},
		{"staged and read cold", func() { m.Remount() }},
		{"packed", func() { m.Ctl("pack", "--all") }},
		{"packed and read cold", func() { m.Remount() }},
		{"released", func() { m.Ctl("pack", "--all", "--release") }},
		{"released and read cold", func() { m.Remount() }},
	} {
		step.do()
		if err := sameTree(src, m.Join("tree")); err != nil {
			t.Errorf("%s: %v", step.what, err)
		}
	}
	if n := staged(t, m); n > 0 {
		t.Errorf("%d files are still staged", n)
	}
	files, objects := len(filesBelow(t, src)), len(filesBelow(t, objectsDir(m, 0)))
	if objects*4 > files {
		t.Errorf("%d files are in %d objects", files, objects)
	}
	wantClean(t, m)
}

// TestPackedByAnother kills a mount that has staged files: nothing is lost, and
// another mount packs them, which leaves alone what a living one has staged.
func TestPackedByAnother(t *testing.T) {
	m := testenv.NewMount(t, staging())
	files := someSmall("d", 1, 100)
	mustWriteAll(t, m, files)
	wantType(t, m, files, "own")
	packAtOnce(t, m)
	other := m.Again(t)
	wantFiles(t, other, files)
	mine := someSmall("mine", 1000, 20)
	mustWriteAll(t, other, mine)
	for deadline := time.Now().Add(30 * time.Second); staged(t, m) > len(files) && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	if n := staged(t, m); n != len(files) {
		t.Errorf("%d files are staged, want the %d of the other process", n, len(files))
	}
	m.Kill()
	wantFiles(t, other, files)
	// Who dies is seen within a heartbeat, and a packer that is idle looks once in a minute.
	for i := 0; staged(t, m) >= len(files) && i < 60; i++ {
		mustWrite(t, other.Join("mine", fmt.Sprint("more", i)), []byte("more"))
		time.Sleep(time.Second)
	}
	wantPackedSoon(t, other)
	wantType(t, other, files, "packed")
	other.Ctl("pack", "--all", "--release")
	other.Remount()
	wantFiles(t, other, files)
	wantFiles(t, other, mine)
	wantReleased(t, filepath.Join(m.Dir, "metadata"), files)
	collect(t, other)
	wantNothingElse(t, other)
	wantClean(t, other)
}

// packing are the fault points that a packer may come by.
func packing() (points []string) {
	for _, p := range fault.Names() {
		if strings.HasPrefix(p, "metadata.init") || !*long && !strings.HasSuffix(p, ".after") {
			continue
		}
		points = append(points, p)
	}
	return points
}

// TestPackerKilledAtEachStep kills marfsctl pack at each durable step it takes:
// nothing is lost, the next one packs what is left, and gc finds what it left.
func TestPackerKilledAtEachStep(t *testing.T) {
	m := testenv.NewMount(t, staging())
	files := map[string][]byte{}
	hit := 0
	for _, point := range packing() {
		for n := 1; n <= often(2, 6); n++ {
			restage(t, m, files, uint64(1000*hit))
			if !killedCtl(t, m, fmt.Sprintf("%s=kill:%d", point, n), "pack", "--all", "--release") {
				break // it does not come by so often
			}
			hit++
			t.Run(fmt.Sprint(point, n), func(t *testing.T) {
				wantFiles(t, m, files)
				m.Ctl("pack", "--all", "--release")
				wantFiles(t, m, files)
				wantType(t, m, files, "packed")
				wantReleased(t, filepath.Join(m.Dir, "metadata"), files)
				collectPacks(t, m)
				wantNothingElse(t, m)
			})
		}
	}
	if hit < 10 {
		t.Errorf("only %d steps were reached", hit)
	}
	m.Remount()
	wantFiles(t, m, files)
	wantClean(t, m)
}

// restage makes small files for a packer, replaces the content of some that are
// packed already, and removes others.
func restage(t *testing.T, m *testenv.Mount, files map[string][]byte, seed uint64) {
	t.Helper()
	fresh := someSmall("new", seed, 12)
	for i := range 3 {
		fresh[fmt.Sprint("again/f", i)] = noisy(seed+100+uint64(i), 10*kib+i)
	}
	mustWriteAll(t, m, fresh)
	for name, b := range fresh {
		files[name] = b
	}
	gone := "new/f001"
	if err := os.Remove(m.Join(gone)); err != nil {
		t.Fatal(err)
	}
	delete(files, gone)
}

// TestMountKilledWhilePacking kills a mount at each durable step of what it packs
// behind its users.
func TestMountKilledWhilePacking(t *testing.T) {
	m := testenv.NewMount(t, staging())
	packAtOnce(t, m)
	l := ledger{}
	hit := 0
	for round, point := range packing() {
		if !strings.HasPrefix(point, "metadata.pack.") && !strings.HasPrefix(point, "metadata.end.") &&
			!strings.HasPrefix(point, "packer.") && !strings.HasPrefix(point, "metadata.syncfs.") {
			continue
		}
		m.Setenv(fmt.Sprintf("MARFS_FAULT=%s=kill", point))
		m.Remount()
		m.Setenv()
		var err error
		for i := 0; i < 12 && err == nil; i++ {
			name, content := fmt.Sprint("f", i), noisy(uint64(100*round+i), 1+i*5*kib)
			err = l.try(name, content, func() error { return writeFile(m.Join(name), content) })
		}
		if !endsPacking(t, m) {
			continue
		}
		hit++
		t.Run(point, func(t *testing.T) {
			m.Remount()
			l.check(t, m)
			wantPackedSoon(t, m)
			l.check(t, m)
		})
	}
	if hit < 3 {
		t.Errorf("only %d steps were reached", hit)
	}
	m.Remount()
	wantPackedSoon(t, m)
	m.Ctl("pack", "--all", "--release")
	l.check(t, m)
	collectPacks(t, m)
	wantNothingElse(t, m)
	wantClean(t, m)
}

// collectPacks destroys what no file needs, in packs too: gc notes which bytes of
// packs are dead, repack gives the packs up, and gc destroys them.
func collectPacks(t *testing.T, m *testenv.Mount) {
	t.Helper()
	collect(t, m)
	m.Ctl("repack", "--apply")
	m.Ctl("pack", "--all", "--release")
	collect(t, m)
}

// endsPacking waits until everything is packed, or the daemon has died of it.
func endsPacking(t *testing.T, m *testenv.Mount) (died bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case <-m.Ended():
			return true
		default:
		}
		if staged(t, m) == 0 {
			return false
		}
	}
	t.Errorf("%d files are still staged", staged(t, m))
	return false
}

// TestSmallFilesBeyondTheMetadataFilesystem writes more small files than the
// metadata filesystem has room for: objects take them, and no writer is told that
// there is no space.
func TestSmallFilesBeyondTheMetadataFilesystem(t *testing.T) {
	const (
		size  = 32 * kib
		count = 2500 // 78 MiB
	)
	disk := smallDisk(t, "64M")
	o := testenv.Options{ChunkSize: "4MiB", More: fmt.Sprintf(
		"  - {name: tiny, path: /tiny, metadata: %q, repo: main, stage: {max_file: 64KiB, linger: 0s}, pack: {min_files: 1, max_age: 1s}}\n", disk+"/metadata")}
	m := testenv.NewMount(t, o)
	var g errgroup.Group
	g.SetLimit(8)
	name := func(i int) string { return fmt.Sprintf("tiny/d%d/f%d", i/100, i) }
	for i := range count {
		if err := os.MkdirAll(filepath.Dir(m.Join(name(i))), 0o755); err != nil {
			t.Fatal(err)
		}
		g.Go(func() error {
			if err := writeFile(m.Join(name(i)), noisy(uint64(i), size)); err != nil {
				return fmt.Errorf("file %d of %d: %w", i, count, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		for i := range count {
			if got, err := os.ReadFile(m.Join(name(i))); err != nil || string(got) != string(noisy(uint64(i), size)) {
				t.Fatalf("%s: file %d: %d bytes, %v", when, i, len(got), err)
			}
		}
	}
	check("written")
	m.Ctl("pack", "--all", "--release", "--namespace", "tiny")
	m.Remount()
	check("released")
	var s syscall.Statfs_t
	if err := syscall.Statfs(disk, &s); err != nil || s.Bfree*2 < s.Blocks {
		t.Errorf("after the release %d of %d blocks are free (%v)", s.Bfree, s.Blocks, err)
	}
}

// smallDisk mounts an ext4 of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	image, disk := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	mustRun(t, "truncate", "-s", size, image)
	mustRun(t, "mkfs.ext4", "-q", "-b", "4096", image)
	mustRun(t, "mkdir", disk)
	mustRun(t, "mount", "-o", "loop", image, disk)
	t.Cleanup(func() { mustRun(t, "umount", "-l", disk) })
	return disk
}

// TestSmallFilesOfUsers has two users stage files, which stay theirs: packing, by
// root, and release change neither owner nor mode nor times, nor who can read them.
func TestSmallFilesOfUsers(t *testing.T) {
	needRoot(t)
	const one, two = 4001, 4002
	m := testenv.NewMount(t, staging())
	for _, dir := range []string{filepath.Dir(m.Dir), m.Dir} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(m.Path, 0o1777); err != nil {
		t.Fatal(err)
	}
	as := func(uid uint32, script string) (string, error) {
		c := exec.Command("sh", "-ec", script)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		c.Dir = m.Path
		out, err := c.CombinedOutput()
		return string(out), err
	}
	const make = `umask 077; mkdir d$(id -u); chmod 755 d$(id -u); cd d$(id -u)
		echo secret of $(id -u) >secret; echo for all >open; chmod 644 open; touch -d 2001-02-03 open
		echo for reading >fixed; chmod 400 fixed`
	for _, uid := range []uint32{one, two} {
		if out, err := as(uid, make); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if n := staged(t, m); n != 6 {
		t.Fatalf("%d files are staged, want 6", n)
	}
	const look = `stat -c "%n %u %g %a %s %Y" d*/*`
	before, err := as(0, look)
	if err != nil {
		t.Fatalf("%v: %s", err, before)
	}
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"staged", func() {}},
		{"packed", func() { m.Ctl("pack", "--all") }},
		{"released", func() { m.Ctl("pack", "--all", "--release") }},
		{"mounted again", func() { m.Remount() }},
	} {
		step.do()
		if after, err := as(0, look); err != nil || after != before {
			t.Errorf("%s: %v\n%s, was\n%s", step.what, err, after, before)
		}
		for me, other := range map[uint32]uint32{one: two, two: one} {
			script := fmt.Sprintf(`cat d%d/secret d%d/open d%d/fixed`, me, other, me)
			want := fmt.Sprintf("secret of %d\nfor all\nfor reading\n", me)
			if out, err := as(me, script); err != nil || out != want {
				t.Errorf("%s: %d reads %q, %v", step.what, me, out, err)
			}
			for _, name := range []string{"secret", "fixed"} {
				if out, err := as(me, fmt.Sprintf("cat d%d/%s", other, name)); err == nil || !strings.Contains(out, "Permission denied") {
					t.Errorf("%s: %d reads %s of %d: %q, %v", step.what, me, name, other, out, err)
				}
			}
		}
	}
	if n := staged(t, m); n > 0 {
		t.Errorf("%d files are still staged", n)
	}
}
