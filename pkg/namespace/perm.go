package namespace

import (
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// Perm is a set of the six permissions of a namespace.
type Perm uint8

// The permissions, as the configuration writes them.
const (
	RM Perm = 1 << iota // read metadata
	WM                  // write metadata
	RD                  // read data
	WD                  // write data
	UD                  // unlink data
	TD                  // truncate data
)

var permNames = [...]string{"rm", "wm", "rd", "wd", "ud", "td"}

// ParsePerm reads the names of permissions.
func ParsePerm(names []string) (p Perm, err error) {
next:
	for _, n := range names {
		for i, want := range permNames {
			if n == want {
				p |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("%q is not one of %s", n, strings.Join(permNames[:], ", "))
	}
	return p, nil
}

func (p Perm) String() string {
	var out []string
	for i, n := range permNames {
		if p&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return strings.Join(out, ",")
}

// allow returns EPERM, logged, when the namespace does not grant need.
func (s *space) allow(c Caller, need Perm, op, name string) error {
	if missing := need &^ Perm(s.perms.Load()); missing != 0 {
		s.fs.log.Warn("refused by the namespace's permissions", "namespace", s.cfg.Name,
			"missing", missing.String(), "op", op, "name", name, "uid", c.UID, "pid", c.PID)
		return pathError(op, name, syscall.EPERM)
	}
	return nil
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}
