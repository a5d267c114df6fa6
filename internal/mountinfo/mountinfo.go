// Package mountinfo says what is mounted where, without touching it: a dead or
// hostile mount cannot make it wait.
package mountinfo

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Mount is a line of /proc/self/mountinfo, as far as MarFS needs it.
type Mount struct {
	Dev  string // major:minor, which st_dev of what is in it has too
	Kind string // of the filesystem: ext4, fuse.marfs
	User int    // uid that mounted a FUSE filesystem; -1: it does not say
}

// FUSE is the kind of MarFS's mounts.
const FUSE = "fuse.marfs"

// At finds the newest mount at dir, an absolute path without symbolic links. ENOENT: none.
func At(dir string) (Mount, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Mount{}, err
	}
	m, ok := newest(string(data), dir)
	if !ok {
		return m, &os.PathError{Op: "mountinfo", Path: dir, Err: syscall.ENOENT}
	}
	return m, nil
}

func newest(table, dir string) (m Mount, ok bool) {
	for line := range strings.Lines(table) {
		// id parent major:minor root mountpoint options tags... - type source options
		before, after, _ := strings.Cut(line, " - ")
		f, t := strings.Fields(before), strings.Fields(after)
		if len(f) > 4 && len(t) > 0 && unescape(f[4]) == dir {
			m, ok = Mount{Dev: f[2], Kind: t[0], User: user(t[len(t)-1])}, true
		}
	}
	return m, ok
}

func user(options string) int {
	for o := range strings.SplitSeq(options, ",") {
		if v, found := strings.CutPrefix(o, "user_id="); found {
			if uid, err := strconv.ParseUint(v, 10, 32); err == nil {
				return int(uid)
			}
		}
	}
	return -1
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
