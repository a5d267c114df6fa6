package dirstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"marfs/pkg/objstore"
)

// ErrLost is the error of every call once the store's path leads to another
// directory, or the store was emptied.
var ErrLost = fmt.Errorf("%w: the directory was replaced, unmounted or emptied", objstore.ErrUnavailable)

// lookEvery is how long a path is trusted to lead where it led.
const lookEvery = 2 * time.Second

// Lost returns why the store has let go of its directory, or nil.
func (s *Store) Lost() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// lookSometimes is look, once every lookEvery.
func (s *Store) lookSometimes() error {
	s.mu.Lock()
	lost, recent := s.lost, time.Since(s.looked) < lookEvery
	s.mu.Unlock()
	if lost == nil && recent {
		return nil
	}
	return s.look()
}

// look loses the store unless its path leads to the directory that is held. While
// that is held, no other filesystem can have its device number.
func (s *Store) look() error {
	if err := s.Lost(); err != nil {
		return err
	}
	held, err := s.root.Stat(".")
	if err != nil {
		return s.lose(err)
	}
	there, err := os.Stat(s.dir)
	if err != nil {
		return s.lose(err)
	}
	if !os.SameFile(held, there) {
		return s.lose(errors.New(s.dir + " is another directory now"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked = time.Now()
	return nil
}

// lookForMark loses the store if it was emptied. It is asked when a directory is
// missing that should be there: what would be written before somebody says whose
// the empty store is would be nobody's.
func (s *Store) lookForMark() error {
	if s.mark == "" {
		return nil
	}
	if _, err := s.root.Lstat(s.mark); errors.Is(err, fs.ErrNotExist) {
		return s.lose(errors.New(s.mark + " is gone"))
	}
	return nil
}

// lose lets go of the directory. Calls under way end by themselves.
func (s *Store) lose(why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = fmt.Errorf("%w: %s", ErrLost, why.Error())
		_ = s.root.Close()
	}
	return s.lost
}
