package metadata

import (
	"errors"
	"syscall"

	"marfs/pkg/objfmt"
)

// A small file is committed by one fsync, so a power failure in the middle of it may
// leave the slot and not the bytes. Nobody was told that they are durable, and the
// file becomes what it was: empty. Filesystems that write bytes before the size
// which covers them (ext4, XFS) then show a body that is shorter than its slot says,
// and that is the proof: a writer's body is whole before he publishes, and whatever
// shortens it later publishes first. A body of the right size that does not have the
// slot's checksum proves nothing, it may as well have been damaged since: it is left
// alone, not packed, and reading it is EIO.

// mendTorn makes a file whose own body never became durable what it was before, and
// returns the newest slot. s was read before; the size has to be read after.
func (fl *File) mendTorn(s objfmt.Slot) (objfmt.Slot, error) {
	if s.Source.Kind != objfmt.SourceOwn || s.State != objfmt.Final {
		return s, nil
	}
	st, err := fl.inode.Stat()
	if err != nil || st.Size >= s.Source.Stored {
		return s, err
	}
	next := s
	next.Content = fl.f.another(sessionOf(s.Content)) // of the same session: the torn one is no version
	next.Size, next.Source = 0, objfmt.Source{Kind: objfmt.SourceEmpty}
	mended, err := fl.publish(stepMend, s, next)
	if errors.Is(err, errLost) {
		mended, _, err = fl.newest()
		return mended, err
	}
	if err == nil {
		err = syncFile(stepMend, fl.inode)
	}
	if err == nil {
		err = fl.settle(mended, false)
	}
	if err == nil {
		_, err = fl.dropLower(Who{}, "torn", mended.Nonce)
	}
	if full(err) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EACCES) {
		return s, nil // later; reading it is an error until then
	}
	return mended, err
}

// another returns a content id of a session that the session does not count to.
func (f *FS) another(session objfmt.ID) objfmt.ID {
	var b [4]byte
	f.random(b[:])
	copy(session[sessionBytes:], b[:])
	session[sessionBytes] |= 0x80
	return session
}
