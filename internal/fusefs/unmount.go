package fusefs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/internal/mountinfo"
)

// Done is closed when the mount has ended, whoever unmounted it.
func (s *Server) Done() <-chan struct{} { return s.done }

// Unmount unmounts if nothing is in use, and fails otherwise. Sessions of the
// control file end now, so that they are not what uses it.
func (s *Server) Unmount() error {
	s.control.Stop()
	return unmount(s.dir, 0)
}

// Detach takes the mount out of the tree at once; it goes on being served
// until the last file open in it is closed.
func (s *Server) Detach() error { return unmount(s.dir, unix.MNT_DETACH) }

// unmount needs the setuid helper unless we are root.
func unmount(dir string, flags int) error {
	if os.Geteuid() == 0 {
		return os.NewSyscallError("umount", unix.Unmount(dir, flags|unix.UMOUNT_NOFOLLOW))
	}
	args := []string{"-u", "--", dir}
	if flags&unix.MNT_DETACH != 0 {
		args = []string{"-u", "-z", "--", dir}
	}
	out, err := exec.Command("fusermount3", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fusermount3: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// clearWay takes away mounts of ours whose daemons are gone, so that a restarted
// daemon needs nobody's help, and refuses to cover one that is served. It asks with
// statfs, which always reaches the daemon: attributes may come out of the kernel's
// cache a while after its death.
func clearWay(dir string) error {
	for {
		err := unix.Statfs(dir, new(unix.Statfs_t))
		m, merr := mountinfo.At(dir)
		ours := merr == nil && m.Kind == mountinfo.FUSE
		switch {
		case err == nil && ours:
			return fmt.Errorf("MarFS is mounted there already: %w", syscall.EBUSY)
		case err != unix.ENOTCONN || !ours:
			return os.NewSyscallError("statfs", err)
		}
		if err := unmount(dir, unix.MNT_DETACH); err != nil {
			return err
		}
	}
}
