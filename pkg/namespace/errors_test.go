package namespace

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/repo"
)

// TestDataErrorLog: what a caller may not do is a warning with the reason, what
// fails is an error, and what is in the log already is not said again.
func TestDataErrorLog(t *testing.T) {
	for _, c := range []struct {
		name, op string
		err      error
		errno    syscall.Errno
		log      string // "": nothing
	}{
		{"out of order", "write", errInPlace, syscall.EOPNOTSUPP, "level=WARN msg=refused namespace=proj op=write path=f uid=7 errno=\"operation not supported\" reason=\"this release does not change existing content"},
		{"open elsewhere", "truncate", errElsewhere, syscall.EBUSY, "level=WARN msg=refused"},
		{"lost", "commit", syscall.ESTALE, syscall.ESTALE, "level=WARN msg=refused"},
		{"filesystem without xattrs", "commit", &fs.PathError{Op: "setxattr", Path: "f", Err: syscall.EOPNOTSUPP}, syscall.EOPNOTSUPP, "level=ERROR msg=\"data path failed\""},
		{"stores", "commit", fmt.Errorf("write: %w", repo.ErrQuorum), syscall.EIO, "level=ERROR msg=\"data path failed\""},
		{"interrupt", "read", syscall.EINTR, syscall.EINTR, ""},
		{"again", "close", fmt.Errorf("close: %w", Reported{syscall.EIO}), syscall.EIO, ""},
	} {
		var out bytes.Buffer
		s := &space{cfg: Config{Name: "proj"}, fs: &FS{log: slog.New(slog.NewTextHandler(&out, nil))}}
		err := s.dataError(c.op, metadata.Who{Cred: mdfs.Cred{UID: 7}, Path: "f"}, c.err)
		if !errors.Is(err, c.errno) || !errors.As(err, new(Reported)) {
			t.Errorf("%s: got %v, want %v, marked", c.name, err, c.errno)
		}
		if !strings.Contains(out.String(), c.log) || c.log == "" && out.Len() > 0 {
			t.Errorf("%s: logged %q, want %q", c.name, &out, c.log)
		}
	}
}
