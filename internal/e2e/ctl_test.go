package e2e

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"marfs/internal/testenv"
	"marfs/pkg/objfmt"
)

// What `marfsctl --json stat` prints, as far as these tests look.
type statResult struct {
	Files []statFile
}

type statFile struct {
	Path    string
	Type    string
	Objects []statObject
}

type statObject struct {
	Key    string
	Shards []statShard
}

type statShard struct {
	Index int
	Store string
	State string
	Error string
}

// not returns the shards in any other state.
func (o statObject) not(state string) (others []statShard) {
	for _, s := range o.Shards {
		if s.State != state {
			others = append(others, s)
		}
	}
	return others
}

// statFiles looks at files, named from the root of the mount. It may find damage.
func statFiles(t *testing.T, m *testenv.Mount, names []string, flags ...string) (files []statFile, code int) {
	t.Helper()
	args := append([]string{"stat"}, flags...)
	for _, n := range names {
		args = append(args, "/marfs/"+n)
	}
	var r statResult
	code = m.CtlJSON(&r, args...)
	if len(r.Files) != len(names) {
		t.Errorf("marfsctl stat shows %d files of %d", len(r.Files), len(names))
	}
	return r.Files, code
}

func stat(t *testing.T, m *testenv.Mount, name string) statFile {
	t.Helper()
	files, _ := statFiles(t, m, []string{name})
	return files[0]
}

// statDeep verifies every byte of files and returns the exit code.
func statDeep(t *testing.T, m *testenv.Mount, files map[string][]byte) int {
	t.Helper()
	var names []string
	for name := range files {
		names = append(names, name)
	}
	_, code := statFiles(t, m, names, "--deep")
	return code
}

// wantClean verifies every byte of every shard of every file in the mount.
func wantClean(t *testing.T, m *testenv.Mount) {
	t.Helper()
	for names := range slices.Chunk(filesBelow(t, m.Path), 500) {
		files, code := statFiles(t, m, names, "--deep")
		if code != 0 {
			t.Errorf("marfsctl stat --deep: exit code %d", code)
		}
		for _, f := range files {
			for _, o := range f.Objects {
				if bad := o.not("ok"); len(bad) > 0 {
					t.Errorf("%s, object %s: %+v", f.Path, o.Key, bad)
				}
			}
		}
	}
}

// degraded returns the keys of the objects that are listed to be rebuilt.
func degraded(t *testing.T, m *testenv.Mount) (keys []string) {
	t.Helper()
	dir := filepath.Join(m.Dir, "metadata", "degraded")
	for _, f := range filesBelow(t, dir) {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		d, err := objfmt.ParseDamage(b)
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		keys = append(keys, d.Object.Key("ns"))
	}
	return keys
}

// in reports whether the shard is kept by the bucket or directory of this name.
func (s statShard) in(store string) bool { return path.Base(strings.TrimSpace(s.Store)) == store }
