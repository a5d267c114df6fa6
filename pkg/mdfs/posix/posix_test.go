package posix_test

import (
	"testing"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/mdfstest"
	"marfs/pkg/mdfs/posix"
)

func TestConformance(t *testing.T) {
	mdfstest.Run(t, open, mdfstest.Options{})
}

func open(t *testing.T) mdfs.FS {
	f, err := posix.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
