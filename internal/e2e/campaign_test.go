package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"marfs/internal/testenv"
)

// TestCampaign is the life of a campaign of small files on real S3: a source tree is
// unpacked three times, packed, read back with cold caches; two of the three are
// deleted, and the packs rewritten. What is stored at last is what is live. With
// -long the tree is the whole source of the Go toolchain.
func TestCampaign(t *testing.T) {
	server := testenv.StartS3(t)
	o := sixBuckets(server)
	o.BlockSize, o.ChunkSize = "256KiB", "64MiB"
	o.Namespace = []string{
		"stage: {max_file: 1MiB, max_bytes: 1GiB, linger: 1s}",
		"pack: {target_size: 16MiB}",
		"repack: {below_live: 0.9}",
		"trash: {keep: 0s, grace: 0s}",
	}
	m := testenv.NewMount(t, o)
	src := goSource(t, "cmd/compile")[0]
	if *long {
		src = goSource(t, "")[0]
	}
	for i := range 3 {
		if err := untar(src, m.Join(fmt.Sprint("copy", i))); err != nil {
			t.Fatal(err)
		}
	}
	m.Ctl("pack", "--all", "--release")
	for _, home := range regular(t, filepath.Join(m.Dir, "metadata", "staged")) {
		if st, err := os.Stat(home); err == nil && st.Size() > 0 {
			t.Errorf("%s waits to be packed still", home)
		}
	}
	cold(t, m)
	for i := range 3 {
		if err := sameTree(src, m.Join(fmt.Sprint("copy", i))); err != nil {
			t.Error(err)
		}
	}
	before := stored(t, server)

	// Of each pack some files go and some stay.
	for i, name := range regular(t, m.Path) {
		if i%3 != 0 {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := map[string]int64{}
	live := int64(0)
	for _, name := range regular(t, m.Path) {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		left[name] = st.Size()
		live += st.Size()
	}
	collect(t, m)
	m.Ctl("repack", "--apply")
	cold(t, m)
	for i := range 3 {
		same := 0
		for name := range left {
			rel, err := filepath.Rel(m.Join(fmt.Sprint("copy", i)), name)
			if err != nil || !filepath.IsLocal(rel) {
				continue
			}
			if err := sameFile(filepath.Join(src, rel), name); err != nil {
				t.Error(err)
			}
			same++
		}
		if same == 0 {
			t.Errorf("nothing of copy %d is left to compare", i)
		}
	}
	collect(t, m)
	after, want := stored(t, server), live*(4+2)/4
	t.Logf("%d files of %d bytes are left; stored %d bytes before, %d after repack and gc: %.3f of live x 6/4", len(left), live, before, after, float64(after)/float64(want))
	if after > want+want/10 {
		t.Errorf("%d bytes are stored for %d live ones, want at most %d", after, live, want+want/10)
	}
	wantClean(t, m)

	for i := range 3 { // and nothing stays of nothing, without a repack
		mustRun(t, "rm", "-r", m.Join(fmt.Sprint("copy", i)))
	}
	collect(t, m)
	if rest := stored(t, server); rest > 0 {
		t.Errorf("%d bytes are stored for no file", rest)
	}
}

// cold mounts again, with nothing cached.
func cold(t *testing.T, m *testenv.Mount) {
	t.Helper()
	m.Remount()
	dropCaches(t)
}

// regular lists the regular files with content below dir.
func regular(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// stored is how many bytes of objects a server has.
func stored(t *testing.T, s *testenv.S3) (bytes int64) {
	t.Helper()
	for _, name := range regular(t, s.Dir) {
		if st, err := os.Stat(name); err != nil {
			t.Fatal(err)
		} else if filepath.Base(filepath.Dir(filepath.Dir(name))) == "ns" {
			bytes += st.Size()
		}
	}
	return bytes
}
