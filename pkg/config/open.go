package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/posix"
	"marfs/pkg/metadata"
	"marfs/pkg/namespace"
	"marfs/pkg/objfmt"
	"marfs/pkg/repo"
)

// FrontEnd is which program opens the system; permissions differ.
type FrontEnd int

// The front ends.
const (
	Interactive FrontEnd = iota // the mount
	Batch                       // marfsctl
)

func (f FrontEnd) String() string { return [...]string{"interactive", "batch"}[f] }

// perms are those of a namespace for this front end.
func (f FrontEnd) perms(n *Namespace) namespace.Perm {
	if f == Interactive {
		return namespace.Perm(n.Interactive)
	}
	return namespace.Perm(n.Batch)
}

// System is a configuration in use.
type System struct {
	FS         *namespace.FS
	Repos      map[string]*repo.Repo
	Namespaces []Opened // in the order of the file

	config   *Config
	frontEnd FrontEnd
	damage   *damageQueue
	stores   []repo.Store
}

// Opened is one namespace of a System.
type Opened struct {
	*Namespace
	Meta *metadata.FS
	md   mdfs.FS
}

// Open starts what cfg describes: it connects to the stores, checks whose they
// are, and opens the metadata directories. A store that cannot be reached is
// logged and left to the repo to work around, as long as each pod has enough
// stores to read from.
func Open(ctx context.Context, cfg *Config, front FrontEnd, log *slog.Logger) (*System, error) {
	s := &System{config: cfg, frontEnd: front, Repos: map[string]*repo.Repo{}, damage: newDamageQueue(log)}
	err := s.openRepos(ctx, log)
	if err == nil {
		err = s.openNamespaces(ctx)
	}
	if err == nil {
		err = s.openTree(log)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.damage.start(s.Namespaces)
	return s, nil
}

// Close commits and closes files still open, then everything under them.
func (s *System) Close() error {
	var errs []error
	if s.FS != nil {
		errs = append(errs, s.FS.Close())
	}
	s.damage.stop()
	for _, n := range slices.Backward(s.Namespaces) {
		if n.Meta != nil {
			errs = append(errs, n.Meta.Close())
		}
		errs = append(errs, n.md.Close())
	}
	for _, st := range s.stores {
		errs = append(errs, closeStore(st.Store))
	}
	return errors.Join(errs...)
}

func (s *System) openRepos(ctx context.Context, log *slog.Logger) error {
	var errs []error
	for i := range s.config.Repos {
		r := &s.config.Repos[i]
		ps, err := identify(ctx, r)
		if err != nil {
			return err
		}
		if err := ps.usable(log); err != nil {
			errs = append(errs, err, ps.close())
			continue
		}
		s.Repos[r.Name], err = repo.New(s.repoConfig(ps))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// usable reports what keeps a repo from being used: stores that are wrong or
// empty, and pods of which too few can be reached.
func (ps *pods) usable(log *slog.Logger) error {
	var errs []error
	for i, members := range ps.members {
		var reached int
		var last error
		for _, m := range members {
			switch {
			case m.reachable():
				reached++
				m.refuseEmpty(ps)
			default:
				last = m.err
				log.Warn("store cannot be reached", "repo", ps.repo.Name, "pod", m.pod.Name, "store", m.Name, "error", m.err)
			}
		}
		errs = append(errs, faults(members)...)
		if reached < ps.repo.Data {
			errs = append(errs, fmt.Errorf("repo %s, pod %s: only %d of %d stores can be reached, %d are needed: %w",
				ps.repo.Name, ps.repo.Pods[i].Name, reached, len(members), ps.repo.Data, last))
		}
	}
	return errors.Join(errs...)
}

// refuseEmpty blames a store without an identity: it may be a directory whose
// filesystem is not mounted, and its objects would look lost.
func (m *member) refuseEmpty(ps *pods) {
	if m.fail == nil && errors.Is(m.err, fs.ErrNotExist) {
		m.blame(ps, errors.New("has no identity: it is new, empty or not mounted"),
			"mount it; if it is new or replaces a lost one, run marfsctl init")
	}
}

func (s *System) repoConfig(ps *pods) repo.Config {
	r := ps.repo
	c := repo.Config{
		Name:     r.Name,
		Geometry: objfmt.Geometry{Data: r.Data, Parity: r.Parity, Block: int(r.BlockSize)},
		MinWrite: r.MinWrite,
		Memory:   int64(s.config.repoMemory()),
		Damaged:  s.damage.add,
	}
	for i, members := range ps.members {
		pod := repo.Pod{Name: r.Pods[i].Name, Weight: r.Pods[i].Weight}
		pod.Stores = ps.stores(members)
		s.stores = append(s.stores, pod.Stores...)
		c.Pods = append(c.Pods, pod)
	}
	return c
}

func (s *System) openNamespaces(ctx context.Context) error {
	node, err := s.node()
	if err != nil {
		return err
	}
	for i := range s.config.Namespaces {
		n := &s.config.Namespaces[i]
		md, err := posix.Open(n.Metadata[0])
		if err != nil {
			return metadataError(n, err)
		}
		o := Opened{Namespace: n, md: md}
		o.Meta, err = metadata.Open(ctx, md, metadata.Options{
			Namespace: n.Name,
			Node:      node,
			Grace:     n.Trash.Grace.Std(),
			Objects:   objects{n.Name, s.Repos},
		})
		s.Namespaces = append(s.Namespaces, o)
		if err != nil {
			return metadataError(n, err)
		}
	}
	return nil
}

func metadataError(n *Namespace, err error) error {
	return fmt.Errorf("metadata of namespace %s, %s: %w", n.Name, n.Metadata[0], err)
}

// node names this process among all that work on a namespace at once.
func (s *System) node() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("host name: %w", err)
	}
	return host + "." + s.frontEnd.String() + "." + strconv.Itoa(os.Getpid()), nil
}

func (s *System) openTree(log *slog.Logger) error {
	o := namespace.Options{ReadAhead: int64(s.config.Cache.Memory / 2), Log: log}
	for _, n := range s.Namespaces {
		c := namespace.Config{
			Name:          n.Name,
			Path:          n.Path,
			Meta:          n.Meta,
			Repos:         s.Repos,
			Perms:         s.frontEnd.perms(n.Namespace),
			UpdateInPlace: n.UpdateInPlace,
		}
		for _, p := range n.placements() {
			c.Placement = append(c.Placement, namespace.Placement{
				MaxSize:   int64(p.MaxSize),
				Repo:      s.Repos[p.Repo],
				RepoName:  p.Repo,
				ChunkSize: int64(s.config.repo(p.Repo).ChunkSize),
			})
		}
		o.Namespaces = append(o.Namespaces, c)
	}
	var err error
	s.FS, err = namespace.New(o)
	return err
}

// objects deletes objects for the metadata of one namespace.
type objects struct {
	namespace string
	repos     map[string]*repo.Repo
}

// Delete implements metadata.Objects.
func (o objects) Delete(ctx context.Context, ref objfmt.ObjectRef) error {
	r := o.repos[ref.Repo]
	if r == nil {
		return fmt.Errorf("object %s: repo %s is not in the configuration", ref.Key(o.namespace), ref.Repo)
	}
	return r.Remove(ctx, ref.Key(o.namespace), ref.Layout)
}

// DeletePrefix implements metadata.Objects.
func (o objects) DeletePrefix(ctx context.Context, id objfmt.ObjectID) error {
	var errs []error
	for _, r := range o.repos {
		for info, err := range r.List(ctx, objfmt.ObjectKey(o.namespace, id, 0), "") {
			if err == nil {
				err = r.Delete(ctx, info.Key)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
