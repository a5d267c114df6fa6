package dirstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Clean implements objstore.Cleaner. The files of writers that live are locked,
// where the filesystem has locks, so there their age does not matter.
func (s *Store) Clean(ctx context.Context, olderThan time.Duration) (int, error) {
	limit := time.Now().Add(-olderThan)
	return call(ctx, s, 0, func(ctx context.Context) (n int, err error) {
		names, err := s.temps()
		if err != nil {
			return 0, err
		}
		var first error
		failures := 0
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return n, err
			}
			switch removed, err := s.removeStale(path.Join(tempDir, name), limit); {
			case removed:
				n++
			case err != nil && !errors.Is(err, fs.ErrNotExist):
				if failures++; first == nil {
					first = err
				}
			}
		}
		if first != nil {
			first = fmt.Errorf("%d temporary files are not removed; the first: %w", failures, first)
		}
		return n, first
	}, nil)
}

// temps returns the names of the temporary files.
func (s *Store) temps() ([]string, error) {
	d, err := s.root.Open(tempDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// removeStale removes a file that nobody has written to since limit and nobody
// has open for writing. What is no file is nothing of ours.
func (s *Store) removeStale(name string, limit time.Time) (bool, error) {
	fi, err := s.root.Lstat(name)
	if err != nil || !fi.Mode().IsRegular() || fi.ModTime().After(limit) {
		return false, err
	}
	f, err := s.root.OpenFile(name, os.O_WRONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if isLocked, err := lock(f); err != nil || isLocked {
		return false, err
	}
	return true, s.root.Remove(name)
}

// lock takes the lock that a writer holds on its file until it closes it, unless
// another has it. A filesystem may have no locks; then nobody has one.
func lock(f *os.File) (others bool, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	err = raw.Control(func(fd uintptr) {
		others = errors.Is(unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	})
	return others, err
}
