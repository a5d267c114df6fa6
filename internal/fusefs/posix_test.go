package fusefs_test

import (
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"marfs/internal/testenv"
)

// notHere are tests of go-fuse's suite that MarFS does not pass, and why.
var notHere = map[string]string{
	"Fallocate":           "fallocate is refused until content can be changed in place",
	"FallocateKeepSize":   "fallocate is refused until content can be changed in place",
	"OpenSymlinkRace":     "does not know ESTALE, which is what open says when the name was replaced twice meanwhile; TestOpenRace does",
	"FcntlFlockLocksFile": "expects a process's lock to conflict with its own; ext4 fails it too",
}

func TestPosix(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	for name, run := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if why, ok := notHere[name]; ok {
				t.Skip(why)
			}
			dir := m.Join(name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			run(t, dir)
		})
	}
}
