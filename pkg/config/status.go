package config

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/objfmt"
	"marfs/pkg/packer"
)

// Health says whether a part of the system can be used.
type Health string

// The healths of stores and metadata directories.
const (
	Healthy     Health = "ok"
	Unreachable Health = "unreachable" // it does not answer
	Missing     Health = "missing"     // new, empty or not mounted
	Wrong       Health = "wrong"       // it answers, but is another's or cannot be used
	ReadOnly    Health = "read-only"   // its filesystem is mounted so
)

// StoreStatus is how one store is.
type StoreStatus struct {
	Repo, Pod string
	Store     string
	Shard     int // by its identity; -1: not known
	Health    Health
	Err       error // unless Healthy
	Total     Size  // of the filesystem of a directory; 0: not known
	Free      Size  // for users other than root
}

// NamespaceStatus is how a namespace's metadata directory is.
type NamespaceStatus struct {
	Name, Path string
	Metadata   string
	Health     Health
	Err        error    // unless Healthy
	Total      Size     // of the metadata filesystem
	Free       Size     // for users other than root
	Staging    *Staging // nil: the directory cannot be read
}

// Staging is what of a namespace is in its metadata filesystem on its way into packs.
type Staging struct {
	packer.Backlog
	MaxBytes Size  // stage.max_bytes
	Late     bool  // the oldest waits longer than a packer would let it
	Hinted   int   // packs in which contents are known to be dead
	Dead     int   // those contents
	Err      error // why it is not known
}

// Used is the share of stage.max_bytes that is taken.
func (s *Staging) Used() float64 { return float64(s.Bytes+s.Resident) / float64(max(s.MaxBytes, 1)) }

// lateAfter is the least time after which a staged file is late: a pack takes its
// time, and so do stores that are away for a moment.
const lateAfter = 10 * time.Minute

// late reports whether what has waited since oldest should have been packed.
func (n *Namespace) late(oldest, now time.Time) bool {
	return !oldest.IsZero() && now.Sub(oldest) > max(10*n.Pack.MaxAge.Std(), lateAfter)
}

// staging counts what is staged, in a metadata directory that can be used.
func (c *Config) staging(ctx context.Context, n *Namespace) *Staging {
	s := &Staging{MaxBytes: n.Stage.MaxBytes}
	one := *c
	one.Namespaces = []Namespace{*n}
	sys, err := OpenMetadata(ctx, &one, slog.New(slog.DiscardHandler))
	if err != nil {
		s.Err = err
		return s
	}
	space := sys.Namespaces[0]
	s.Backlog, s.Err = space.Packer.Backlog(ctx)
	s.Late = n.late(s.Oldest, time.Now())
	hints, err := space.Meta.Hints(ctx)
	for _, dead := range hints {
		s.Hinted++
		s.Dead += dead
	}
	s.Err = errors.Join(s.Err, err, sys.Close())
	return s
}

// Status looks at every store and metadata directory, and counts what is staged
// there, without starting anything; so it works also when [Open] would refuse.
func Status(ctx context.Context, cfg *Config) (stores []StoreStatus, spaces []NamespaceStatus, err error) {
	for i := range cfg.Repos {
		ps, err := identify(ctx, &cfg.Repos[i])
		if err != nil {
			return nil, nil, err
		}
		for _, members := range ps.members {
			for _, m := range members {
				stores = append(stores, m.status(ctx, ps))
			}
		}
		if err := ps.close(); err != nil {
			return nil, nil, err
		}
	}
	for i := range cfg.Namespaces {
		s := cfg.Namespaces[i].status(ctx)
		if s.Health == Healthy || s.Health == ReadOnly {
			s.Staging = cfg.staging(ctx, &cfg.Namespaces[i])
		}
		spaces = append(spaces, s)
	}
	return stores, spaces, ctx.Err()
}

// errReadOnly is a filesystem that is mounted so, or that the kernel has made so
// after errors.
var errReadOnly = errors.New("the filesystem is read-only")

// room is what a filesystem says of itself.
type room struct {
	total, free Size
	readOnly    bool
}

func roomOf(dir string) (room, error) {
	var f unix.Statfs_t
	if err := unix.Statfs(dir, &f); err != nil {
		return room{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return room{Size(f.Blocks) * Size(f.Bsize), Size(f.Bavail) * Size(f.Bsize), f.Flags&unix.ST_RDONLY != 0}, nil
}

func (m *member) status(ctx context.Context, ps *pods) StoreStatus {
	s := m.health(ps)
	if m.spec.S3 != nil || m.Store.Store == nil {
		return s
	}
	r, err := patiently(ctx, func() (room, error) { return roomOf(m.spec.Dir) })
	s.Total, s.Free = r.total, r.free
	switch {
	case s.Health != Healthy:
	case err != nil:
		s.Health, s.Err = Unreachable, err
	case r.readOnly:
		s.Health, s.Err = ReadOnly, errReadOnly
	}
	return s
}

func (m *member) health(ps *pods) StoreStatus {
	s := StoreStatus{Repo: ps.repo.Name, Pod: m.pod.Name, Store: m.Name, Shard: -1, Err: m.err}
	switch {
	case m.fail != nil:
		s.Health, s.Err = Wrong, m.fail.Err
	case m.state == identified:
		s.Health, s.Shard = Healthy, m.id.Index
	case m.state == empty:
		s.Health, s.Err = Missing, errNoIdentity
	case errors.Is(m.err, errNoDirectory):
		s.Health = Missing
	default:
		s.Health = Unreachable
	}
	return s
}

func (n *Namespace) status(ctx context.Context) NamespaceStatus {
	s := NamespaceStatus{Name: n.Name, Path: n.Path, Metadata: n.Metadata[0]}
	type found struct {
		room
		objfmt.Marker
	}
	have, err := patiently(ctx, func() (f found, err error) {
		if f.room, err = roomOf(s.Metadata); err != nil {
			return f, err
		}
		if _, err := isNew(s.Metadata); err != nil {
			return f, err
		}
		text, err := readLimited(filepath.Join(s.Metadata, markerFile))
		if err == nil {
			f.Marker, err = objfmt.ParseMarker(text)
		}
		return f, err
	})
	s.Total, s.Free = have.total, have.free
	switch {
	case errors.Is(err, os.ErrNotExist):
		s.Health, s.Err = Missing, errors.New("there is no "+markerFile+": it is new, empty or not mounted")
	case isAway(err):
		s.Health, s.Err = Unreachable, err
	case err != nil:
		s.Health, s.Err = Wrong, err
	case have.Namespace != n.Name:
		s.Health, s.Err = Wrong, errors.New("it belongs to namespace "+have.Namespace)
	case have.readOnly:
		s.Health, s.Err = ReadOnly, errReadOnly
	default:
		s.Health = Healthy
	}
	return s
}
