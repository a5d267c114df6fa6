package config

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"marfs/pkg/objfmt"
)

// Health says whether a part of the system can be used.
type Health string

// The healths of stores and metadata directories.
const (
	Healthy     Health = "ok"
	Unreachable Health = "unreachable" // it does not answer
	Missing     Health = "missing"     // new, empty or not mounted: init makes it
	Wrong       Health = "wrong"       // it answers, but is another's or cannot be used
)

// StoreStatus is how one store is.
type StoreStatus struct {
	Repo, Pod string
	Store     string
	Shard     int // by its identity; -1: not known
	Health    Health
	Err       error // unless Healthy
}

// NamespaceStatus is how a namespace's metadata directory is.
type NamespaceStatus struct {
	Name, Path string
	Metadata   string
	Health     Health
	Err        error // unless Healthy
	Total      Size  // of the metadata filesystem
	Free       Size  // for users other than root
}

// Status looks at every store and metadata directory, without starting
// anything; so it works also when [Open] would refuse.
func Status(ctx context.Context, cfg *Config) (stores []StoreStatus, spaces []NamespaceStatus, err error) {
	for i := range cfg.Repos {
		ps, err := identify(ctx, &cfg.Repos[i])
		if err != nil {
			return nil, nil, err
		}
		for _, members := range ps.members {
			for _, m := range members {
				stores = append(stores, m.status(ps))
			}
		}
		if err := ps.close(); err != nil {
			return nil, nil, err
		}
	}
	for i := range cfg.Namespaces {
		spaces = append(spaces, cfg.Namespaces[i].status(ctx))
	}
	return stores, spaces, ctx.Err()
}

func (m *member) status(ps *pods) StoreStatus {
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
	var room syscall.Statfs_t
	marker, err := patiently(ctx, func() (objfmt.Marker, error) {
		if err := syscall.Statfs(s.Metadata, &room); err != nil {
			return objfmt.Marker{}, err
		}
		if _, err := isNew(s.Metadata); err != nil {
			return objfmt.Marker{}, err
		}
		text, err := readLimited(filepath.Join(s.Metadata, markerFile))
		if err != nil {
			return objfmt.Marker{}, err
		}
		return objfmt.ParseMarker(text)
	})
	switch {
	case errors.Is(err, os.ErrNotExist):
		s.Health, s.Err = Missing, errors.New("there is no "+markerFile+": it is new, empty or not mounted")
	case isAway(err):
		s.Health, s.Err = Unreachable, err
		return s // room may still be written to
	case err != nil:
		s.Health, s.Err = Wrong, err
	case marker.Namespace != n.Name:
		s.Health, s.Err = Wrong, errors.New("it belongs to namespace "+marker.Namespace)
	default:
		s.Health = Healthy
	}
	s.Total, s.Free = Size(room.Blocks)*Size(room.Bsize), Size(room.Bavail)*Size(room.Bsize)
	return s
}
