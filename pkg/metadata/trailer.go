package metadata

import (
	"strings"

	"marfs/pkg/mdfs"
)

// TrailerXattrs are the users' xattrs and ACLs of a file, for the recovery trailer
// of its object. What cannot be read is left out: the trailer is a help for
// recovery, not a reason to refuse a write.
func TrailerXattrs(in mdfs.FileXattrs) map[string][]byte {
	names, err := in.Listxattr()
	if err != nil {
		return nil
	}
	var out map[string][]byte
	for _, name := range names {
		if Reserved(name) || strings.ContainsRune(name, 0) ||
			!strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "system.posix_acl_") {
			continue
		}
		if v, err := in.Getxattr(name); err == nil {
			if out == nil {
				out = map[string][]byte{}
			}
			out[name] = v
		}
	}
	return out
}
