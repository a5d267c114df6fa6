package namespace

import (
	"encoding/binary"
	"slices"
	"syscall"

	"marfs/pkg/metadata"
)

// accessACL is the xattr of a POSIX ACL. It holds the mode as well: `cp -a` sets
// modes by it. So on a regular file the owner's rights in it are kept as those of
// chmod are (metadata.FS.DiskMode): an unprivileged daemon must go on writing slots.
const accessACL = "system.posix_acl_access"

// setACL sets the ACL of x.
func (s *space) setACL(x attributed, acl []byte) error {
	at, err := s.ownersRights(x, acl)
	if err != nil {
		return err
	}
	if at < 0 {
		return x.Setxattr(accessACL, acl, 0)
	}
	rights := uint32(acl[at] & 7)
	acl = slices.Clone(acl)
	acl[at] |= 6
	if err := x.Setxattr(accessACL, acl, 0); err != nil {
		return err
	}
	st, err := x.Stat() // the ACL has changed the group's bits
	if err != nil {
		return err
	}
	return x.Chmod(s.cfg.Meta.DiskMode(st.Mode&0o7077 | rights<<6))
}

// shownACL turns the ACL that is kept into the one that users see.
func (s *space) shownACL(x attributed, acl []byte) ([]byte, error) {
	at, err := s.ownersRights(x, acl)
	if err != nil || at < 0 {
		return acl, err
	}
	st, err := x.Stat()
	metadata.StatOf(&st)
	acl[at] = acl[at]&^7 | byte(st.Mode>>6&7)
	return acl, err
}

// ownersRights returns where in an ACL the owner's rights are: after 4 bytes of
// version, entries of tag 2, rights 2 and id 4. -1: nowhere, or nothing is to be done.
func (s *space) ownersRights(x attributed, acl []byte) (at int, err error) {
	const version, entry, userObj = 4, 8, 1
	if s.cfg.Meta.DiskMode(0) == 0 {
		return -1, nil // a privileged daemon keeps modes as they are
	}
	st, err := x.Stat()
	if err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return -1, err
	}
	for at := version; at+entry <= len(acl); at += entry {
		if binary.LittleEndian.Uint16(acl[at:]) == userObj {
			return at + 2, nil
		}
	}
	return -1, nil
}
