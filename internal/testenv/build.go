package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Race says whether the race detector is in the programs; they need several times
// the memory then.
const Race = raceEnabled

// binaries builds the programs once in the life of a test binary.
var binaries = sync.OnceValues(func() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	// Not in a test's directory: it outlives the test. The programs of one
	// checkout are the same, so runs share the place and leave nothing more.
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("marfs-test-bin-%d", os.Getpid()))
	args := []string{"build", "-o", dir + "/"}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "./cmd/marfs-fuse", "./cmd/marfsctl")...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
})

// Binary returns the path of a program of this project: marfs-fuse or marfsctl.
func Binary(t testing.TB, name string) string {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// Main runs a test binary and removes what its tests built; TestMain calls it.
func Main(m *testing.M) {
	code := m.Run()
	os.RemoveAll(filepath.Join(os.TempDir(), fmt.Sprintf("marfs-test-bin-%d", os.Getpid())))
	os.Exit(code)
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}
