package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/posix"
	"marfs/pkg/metadata"
	"marfs/pkg/namespace"
	"marfs/pkg/objfmt"
	"marfs/pkg/packer"
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
	damage   *damageNotes
	stores   []repo.Store

	stopRecovery, stopPackers func() // nil: none run
}

// Opened is one namespace of a System.
type Opened struct {
	*Namespace
	Meta   *metadata.FS
	Packer *packer.Packer // runs in the mount only
	md     mdfs.FS
}

// Open starts what cfg describes: it connects to the stores, checks whose they
// are, and opens the metadata directories. A store that belongs to another is an
// error. One that cannot be reached, is empty or broken is logged and left to the repo to
// work around, as long as each pod has enough stores to read from; it is used
// once it answers with the identity that is missing.
func Open(ctx context.Context, cfg *Config, front FrontEnd, log *slog.Logger) (*System, error) {
	s := &System{config: cfg, frontEnd: front, Repos: map[string]*repo.Repo{}, damage: newDamageNotes(log)}
	err := s.openRepos(ctx, log)
	if err == nil {
		err = s.openNamespaces(ctx, log, false)
	}
	if err == nil {
		s.openPackers(log)
		err = s.openTree(log)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.damage.start(s.Namespaces)
	if front == Interactive {
		s.startRecovery(log)
		s.startPackers()
	}
	return s, nil
}

// OpenMetadata opens the metadata directories alone, and changes nothing there: for
// what only looks. FS is nil, and there are no repos; packers can tell what they
// would do.
func OpenMetadata(ctx context.Context, cfg *Config, log *slog.Logger) (*System, error) {
	s := &System{config: cfg, frontEnd: Batch, damage: newDamageNotes(log)}
	if err := s.openNamespaces(ctx, log, true); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.openPackers(log)
	return s, nil
}

// Close commits and closes files still open, then everything under them.
func (s *System) Close() error {
	var errs []error
	if s.FS != nil {
		errs = append(errs, s.FS.Close()) // which may ask packers for room
	}
	if s.stopPackers != nil {
		s.stopPackers()
	}
	if s.stopRecovery != nil {
		s.stopRecovery()
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

// Reload applies what of a new configuration can change while the system runs:
// the permissions of namespaces, for open files too. It returns the keys that
// differ otherwise and wait for the next start, those of namespaces as
// namespaces[NAME].KEY. Calls must not overlap.
func (s *System) Reload(cfg *Config) (later []string) {
	for i := range cfg.Namespaces {
		n := &cfg.Namespaces[i]
		s.FS.SetPerms(n.Name, s.frontEnd.perms(n))
	}
	for _, key := range differing(*s.config, *cfg) {
		if key == "namespaces" {
			later = append(later, differingNamespaces(s.config.Namespaces, cfg.Namespaces)...)
		} else {
			later = append(later, key)
		}
	}
	return later
}

// differingNamespaces lists what differs in lists of namespaces, but for what
// [System.Reload] applies.
func differingNamespaces(have, want []Namespace) (keys []string) {
	names := func(list []Namespace) (names []string) {
		for _, n := range list {
			names = append(names, n.Name)
		}
		return names
	}
	if !slices.Equal(names(have), names(want)) {
		return []string{"namespaces"} // added, removed or reordered
	}
	for i := range have {
		for _, key := range differing(have[i], want[i]) {
			if key != "interactive" && key != "batch" {
				keys = append(keys, fmt.Sprintf("namespaces[%s].%s", have[i].Name, key))
			}
		}
	}
	return keys
}

// differing lists the keys whose values differ in two structs of the file.
func differing[T any](have, want T) (keys []string) {
	h, w := reflect.ValueOf(have), reflect.ValueOf(want)
	for i := range h.NumField() {
		if key := tagOf(h.Type().Field(i)); key != "" && !reflect.DeepEqual(h.Field(i).Interface(), w.Field(i).Interface()) {
			keys = append(keys, key)
		}
	}
	return keys
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
		s.Repos[r.Name], err = repo.New(s.repoConfig(ps, log))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// usable reports what keeps a repo from being used: stores that are another's,
// and pods of which too few can be used. An empty store among others is left out
// until init has adopted it: it may be a directory whose filesystem is not mounted,
// and what is written there would be hidden later. A broken one is left out too: a
// sick disk is what parity is for. The pod's objects are still read.
func (ps *pods) usable(log *slog.Logger) error {
	var errs []error
	for i, members := range ps.members {
		var reached int
		var last error
		for _, m := range members {
			switch m.state {
			case unreachable:
				last = m.err
				log.Warn("store cannot be reached", "repo", ps.repo.Name, "pod", m.pod.Name, "store", m.Name, "error", m.err)
			case empty:
				last = errNoIdentity
				ps.leftOut(log, m, errNoIdentity, replaceHint(m.Name))
			case broken:
				last = m.err
				ps.leftOut(log, m, m.err, "repair what the error says: the store is used once it answers with its identity; if it is lost, put an empty one in its place and run marfsctl init --replace "+m.Name)
			case identified:
				if m.fail != nil {
					errs = append(errs, m.fail)
					continue
				}
				reached++
			}
		}
		if reached < ps.repo.Data {
			errs = append(errs, &StoreError{Repo: ps.repo.Name, Pod: ps.repo.Pods[i].Name, Store: "all",
				Err:  fmt.Errorf("only %d of %d can be used, %d are needed: %w", reached, len(members), ps.repo.Data, last),
				hint: "marfsctl status shows which; if the configuration is new, marfsctl init makes them"})
		}
	}
	return errors.Join(errs...)
}

func (ps *pods) leftOut(log *slog.Logger, m *member, err error, hint string) {
	log.Error("store left out", "repo", ps.repo.Name, "pod", m.pod.Name, "store", m.Name, "error", err, "hint", hint)
}

func (s *System) repoConfig(ps *pods, log *slog.Logger) repo.Config {
	r := ps.repo
	c := repo.Config{
		Name:     r.Name,
		Geometry: r.geometry(),
		MinWrite: r.MinWrite,
		Memory:   int64(s.config.repoMemory()),
		Damaged:  s.damage.bad,
		LeftOut:  s.damage.leftOut,
	}
	for i, members := range ps.members {
		pod := repo.Pod{Name: r.Pods[i].Name, Weight: r.Pods[i].Weight}
		pod.Stores = ps.stores(members, log)
		s.stores = append(s.stores, pod.Stores...)
		c.Pods = append(c.Pods, pod)
	}
	return c
}

func (s *System) openNamespaces(ctx context.Context, log *slog.Logger, look bool) error {
	node, err := nodeName(s.frontEnd)
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
			Namespace:   n.Name,
			Node:        node,
			Grace:       n.Trash.Grace.Std(),
			Objects:     objects{n.Name, s.Repos},
			Distributed: n.Shared,
			Heartbeat:   heartbeat,
			LookOnly:    look,
		})
		s.Namespaces = append(s.Namespaces, o)
		if err != nil {
			return metadataError(n, err)
		}
		if o.Meta.Copied() {
			log.Warn("metadata directory is a copy or was restored: nothing of it is destroyed", "namespace", n.Name, "metadata", n.Metadata[0])
		}
	}
	return nil
}

func metadataError(n *Namespace, err error) error {
	return fmt.Errorf("metadata of namespace %s, %s: %w", n.Name, n.Metadata[0], err)
}

func (s *System) openTree(log *slog.Logger) error {
	o := namespace.Options{ReadAhead: int64(s.config.Cache.Memory / 2), Uploads: s.config.uploads(), Log: log}
	for _, n := range s.Namespaces {
		c := namespace.Config{
			Name:     n.Name,
			Path:     n.Path,
			Meta:     n.Meta,
			Repos:    s.Repos,
			Perms:    s.frontEnd.perms(n.Namespace),
			Trash:    n.Trash.policy(),
			Packer:   n.Packer,
			LazySync: n.Stage.Sync == SyncApplication,
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
func (o objects) DeletePrefix(ctx context.Context, id objfmt.ObjectID, keep func(chunk uint32) bool) error {
	var errs []error
	for _, r := range o.repos {
		for info, err := range r.List(ctx, objfmt.ObjectKey(o.namespace, id, 0), "") {
			if err == nil {
				err = o.deleteListed(ctx, r, info.Key, id, keep)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// deleteListed deletes an object of id, unless it is to be kept.
func (o objects) deleteListed(ctx context.Context, r *repo.Repo, key string, id objfmt.ObjectID, keep func(chunk uint32) bool) error {
	_, have, chunk, err := objfmt.ParseObjectKey(key)
	if err != nil || have != id || keep != nil && keep(chunk) {
		return nil // nothing a session wrote, or wanted
	}
	return r.Delete(ctx, key)
}
