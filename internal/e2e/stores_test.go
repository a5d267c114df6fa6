package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"marfs/internal/testenv"
)

// bucket is the YAML of a store in a server that testenv started.
func bucket(s *testenv.S3, name string) string {
	return fmt.Sprintf(`s3: {endpoint: "%s", bucket: %s, credentials: "env:E2E"}`, s.Endpoint, name)
}

// credentials are the same for every server.
func credentials(s *testenv.S3) []string {
	return []string{"E2E_ACCESS_KEY=" + s.AccessKey, "E2E_SECRET_KEY=" + s.SecretKey}
}

// sixServers starts a server for each store of 4+2, so that each can be lost alone.
func sixServers(t *testing.T) ([]*testenv.S3, testenv.Options) {
	t.Helper()
	o := testenv.Options{Data: 4, Parity: 2}
	var servers []*testenv.S3
	for i := range 6 {
		s := testenv.StartS3(t)
		servers = append(servers, s)
		o.Stores = append(o.Stores, bucket(s, fmt.Sprint("marfs-s", i)))
	}
	o.Env = credentials(servers[0])
	return servers, o
}

// oneServer starts one server for all six stores of 4+2.
func oneServer(t *testing.T) testenv.Options {
	t.Helper()
	return sixBuckets(testenv.StartS3(t))
}

// sixBuckets are stores of 4+2 on one server.
func sixBuckets(s *testenv.S3) testenv.Options {
	o := testenv.Options{Data: 4, Parity: 2, Env: credentials(s)}
	for i := range 6 {
		o.Stores = append(o.Stores, bucket(s, fmt.Sprint("marfs-s", i)))
	}
	return o
}

// storeDir is the directory of a store, where stores are directories.
func storeDir(m *testenv.Mount, i int) string {
	return filepath.Join(m.Dir, fmt.Sprint("store", i))
}

// objectsDir holds the objects of the namespace in a store.
func objectsDir(m *testenv.Mount, i int) string { return filepath.Join(storeDir(m, i), "ns") }

// tmpfsStores mounts a file system for each of n stores; options limit it.
func tmpfsStores(t *testing.T, n int, options string) (dirs, yaml []string) {
	t.Helper()
	needRoot(t)
	base := t.TempDir()
	for i := range n {
		dir := filepath.Join(base, fmt.Sprint("disk", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		mustRun(t, "mount", "-t", "tmpfs", "-o", options, "marfs-test", dir)
		t.Cleanup(func() { mustRun(t, "umount", "-l", dir) })
		dirs = append(dirs, dir)
		yaml = append(yaml, "dir: "+dir)
	}
	return dirs, yaml
}
