package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"marfs/internal/testenv"
)

// credentialsEnv is the prefix of the environment variables that the stores' keys
// are in.
const credentialsEnv = "MARFS_BENCH"

// startS3 starts the S3 server of the tests, its buckets below dir.
func startS3(dir string) (s *testenv.S3, stop func(), err error) {
	t := &testless{dir: dir}
	defer func() {
		if f, ok := recover().(failure); ok {
			t.end()
			err = errors.New(string(f))
		}
	}()
	s = testenv.StartS3(t)
	err = errors.Join(os.Setenv(credentialsEnv+"_ACCESS_KEY", s.AccessKey), os.Setenv(credentialsEnv+"_SECRET_KEY", s.SecretKey))
	return s, t.end, err
}

// s3Stores are buckets of a server.
func s3Stores(s *testenv.S3) string {
	return storesText(func(i int) string {
		return fmt.Sprintf(`s3: {endpoint: %q, bucket: marfs-s%d, credentials: "env:%s"}`, s.Endpoint, i, credentialsEnv)
	})
}

// testless is as much of a test as testenv needs to start a server. What fails it panics.
type testless struct {
	testing.TB
	dir   string
	clean []func()
}

// failure is why a test would have failed or been skipped.
type failure string

func (t *testless) Helper()                        {}
func (t *testless) Context() context.Context       { return context.Background() }
func (t *testless) Cleanup(f func())               { t.clean = append(t.clean, f) }
func (t *testless) Errorf(format string, a ...any) { panic(failure(fmt.Sprintf(format, a...))) }
func (t *testless) Fatalf(format string, a ...any) { panic(failure(fmt.Sprintf(format, a...))) }
func (t *testless) Skipf(format string, a ...any)  { panic(failure(fmt.Sprintf(format, a...))) }
func (t *testless) Fatal(a ...any)                 { panic(failure(fmt.Sprint(a...))) }

func (t *testless) TempDir() string {
	dir, err := os.MkdirTemp(t.dir, "s3.")
	if err != nil {
		panic(failure(err.Error()))
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (t *testless) end() {
	for ; len(t.clean) > 0; t.clean = t.clean[:len(t.clean)-1] {
		t.clean[len(t.clean)-1]()
	}
}

// rclone copies between directories and a bucket of a server.
type rclone struct{ args []string }

// newRclone makes a bucket for it; nil where the program is not installed.
func newRclone(ctx context.Context, s *testenv.S3) (*rclone, error) {
	if _, err := exec.LookPath("rclone"); err != nil {
		return nil, nil
	}
	r := &rclone{args: []string{"--config", "", "--s3-provider", "Other", "--s3-endpoint", s.Endpoint,
		"--s3-access-key-id", s.AccessKey, "--s3-secret-access-key", s.SecretKey}}
	return r, r.do(ctx, "mkdir", remote(""))
}

// remote is a path in the bucket.
func remote(path string) string { return filepath.Join(":s3:rclone", path) }

func (r *rclone) do(ctx context.Context, args ...string) error {
	// Where AWS_CA_BUNDLE is set, some rclones refuse to start.
	_, err := quietly(ctx, "/", "env", slices.Concat([]string{"-u", "AWS_CA_BUNDLE", "rclone"}, args, r.args)...)
	return err
}
