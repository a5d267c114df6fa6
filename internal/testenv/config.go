package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Options of Mount. The zero value is one namespace at /, on directory stores, with
// small shards and objects, so that small files exercise what large ones do.
type Options struct {
	// Stores are YAML values, one for each shard: `dir: /x` or `s3: {...}`.
	// Default: directories.
	Stores []string
	// Geometry. Default: 2+1, blocks of 4 KiB, objects of 64 KiB.
	Data, Parity         int
	BlockSize, ChunkSize string
	// Namespace is YAML of more keys of the namespace. Unless it has `stage`, small
	// files go to objects at once.
	Namespace []string
	// More is YAML for the end of the file: more namespaces ("  - name: …"), then
	// other sections. %s is the directory that holds everything.
	More string
	// MountOptions are those of -o.
	MountOptions string
	// User mounts as this uid and gid, with fusermount3. 0: as the test.
	User uint32
	// Env is added to the environment of the programs.
	Env []string
	// Expect lists what may be in the log as an error.
	Expect []string
}

func (o *Options) setDefaults(dir string) {
	if o.Data == 0 {
		o.Data, o.Parity = 2, 1
	}
	if o.BlockSize == "" {
		o.BlockSize = "4KiB"
	}
	if o.ChunkSize == "" {
		o.ChunkSize = "64KiB"
	}
	for i := len(o.Stores); i < o.Data+o.Parity; i++ {
		o.Stores = append(o.Stores, fmt.Sprintf("dir: %s/store%d", dir, i))
	}
}

// writeConfig writes a configuration of everything below dir.
func (o *Options) writeConfig(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `version: 1
mount: /marfs
repos:
  - name: main
    data: %d
    parity: %d
    block_size: %s
    chunk_size: %s
    pods:
      - name: pod0
        stores:
`, o.Data, o.Parity, o.BlockSize, o.ChunkSize)
	for _, s := range o.Stores {
		fmt.Fprintf(&b, "          - %s\n", s)
	}
	fmt.Fprintf(&b, `namespaces:
  - name: ns
    path: /
    metadata: %s/metadata
    repo: main
`, dir)
	for _, line := range o.Namespace {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	if !slices.ContainsFunc(o.Namespace, func(line string) bool { return strings.HasPrefix(line, "stage:") }) {
		b.WriteString("    stage: {max_file: 0}\n")
	}
	b.WriteString(strings.ReplaceAll(o.More, "%s", dir))
	file := filepath.Join(dir, "marfs.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
