package fusefs_test

import (
	"fmt"
	"os"
	"testing"

	"marfs/internal/testenv"
	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/mdfstest"
	"marfs/pkg/mdfs/posix"
)

// notMetadata are tests of the suite that MarFS does not pass, and why.
var notMetadata = map[string]string{
	"Mode/File":           "the sticky bit of a regular file is not kept",
	"File/Large":          "a gap is written out as zeros until content can be changed in place",
	"File/Truncate":       "what is being written can only be cut to nothing until content can be changed in place",
	"File/Unlinked":       "writes in the middle until content can be changed in place",
	"Hole":                "fallocate is refused, and gaps are zeros, until content can be changed in place",
	"Identity/Concurrent": "a hundred thousand calls take a minute over a mount; TestUsers and TestManyClients do less",
	"Xattr/Sizes":         "the xattrs of a file are bounded to 2 KiB in all",
}

// TestMetadataSuite: a mount is one more POSIX filesystem, so the suite of
// metadata filesystems holds for it. Not parallel: the suite sets the umask.
func TestMetadataSuite(t *testing.T) {
	m := testenv.NewMount(t, testenv.Options{})
	dirs := 0
	mdfstest.Run(t, func(t *testing.T) mdfs.FS {
		dirs++
		dir := m.Join(fmt.Sprint(dirs))
		ok(t, os.Mkdir(dir, 0o755))
		md, err := posix.Open(dir)
		ok(t, err)
		t.Cleanup(func() { md.Close() })
		return md
	}, mdfstest.Options{Names: 3000, Skip: notMetadata})
}
