package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"marfs/pkg/mdfs/posix"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// Made is one thing that [Init] made or found to be there.
type Made struct {
	Kind  string // "store" or "metadata"
	Where string
	Is    string // what it is now, for people
	New   bool
}

// Init makes what cfg describes and is not there: store directories, buckets,
// the identities of stores, metadata directories. What is there is checked and
// left alone. No identity is written before every store is known to be empty or
// this configuration's. The list is right also when there is an error.
func Init(ctx context.Context, cfg *Config) (made []Made, err error) {
	var errs []error
	for i := range cfg.Repos {
		errs = append(errs, makePlaces(ctx, &cfg.Repos[i]))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var found []*pods
	defer func() {
		for _, ps := range found {
			err = errors.Join(err, ps.close())
		}
	}()
	for i := range cfg.Repos {
		ps, err := identify(ctx, &cfg.Repos[i])
		if err != nil {
			return nil, err
		}
		found = append(found, ps)
		errs = append(errs, ps.adoptable())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, ps := range found {
		m, err := ps.adopt(ctx)
		made = append(made, m...)
		if err != nil {
			return made, err
		}
	}
	return initNamespaces(ctx, cfg, made)
}

// makePlaces makes the directories and buckets of a repo.
func makePlaces(ctx context.Context, r *Repo) error {
	var errs []error
	for _, p := range r.Pods {
		for _, spec := range p.Stores {
			if err := spec.create(ctx); err != nil {
				errs = append(errs, &StoreError{Repo: r.Name, Pod: p.Name, Store: spec.String(), Err: err})
			}
		}
	}
	return errors.Join(errs...)
}

// adoptable reports stores that are another's or cannot be looked into.
func (ps *pods) adoptable() error {
	var errs []error
	for _, members := range ps.members {
		for _, m := range members {
			if m.state == unreachable {
				m.blame(ps, m.err, "init needs every store: without a look into it, it cannot know which shards are missing")
			}
		}
		errs = append(errs, faults(members)...)
	}
	return errors.Join(errs...)
}

// adopt gives every store without an identity one of the places that are left,
// in the order of the file, and then reads all identities back.
func (ps *pods) adopt(ctx context.Context) (made []Made, err error) {
	if ps.uuid.IsZero() {
		ps.uuid = objfmt.NewID()
	}
	for _, members := range ps.members {
		for i, m := range inOrder(members) {
			fresh := !m.known()
			if fresh {
				if err := ps.found(ctx, m, i); err != nil {
					return made, err
				}
			}
			made = append(made, Made{"store", m.Name, fmt.Sprintf("repo %s, pod %s, shard %d", ps.repo.Name, m.pod.Name, i), fresh})
		}
	}
	return made, nil
}

// found makes the store of m the one for shard i, and reads that back: another
// init at the same moment may have thought the same.
func (ps *pods) found(ctx context.Context, m *member, i int) error {
	want := ps.identity(m.pod, i)
	err := writeIdentity(ctx, m.Store, want)
	if err == nil {
		m.connect(ctx)
		err = m.err
	}
	if err == nil && m.id != want {
		err = fmt.Errorf("%w: another init made it shard %d of repo %s, pod %s", errForeign, m.id.Index, m.id.Repo, m.id.Pod)
	}
	if err != nil {
		m.blame(ps, err, "")
		return m.fail
	}
	return nil
}

func initNamespaces(ctx context.Context, cfg *Config, made []Made) ([]Made, error) {
	for i := range cfg.Namespaces {
		if err := ctx.Err(); err != nil {
			return made, err
		}
		n := &cfg.Namespaces[i]
		fresh, err := initMetadata(n)
		if err != nil {
			return made, metadataError(n, err)
		}
		made = append(made, Made{"metadata", n.Metadata[0], "namespace " + n.Name, fresh})
	}
	return made, nil
}

// markerFile is what metadata.Init leaves in a metadata directory as the last thing.
const markerFile = "marfs.json"

// initDirs are the directories that metadata.Init makes before.
var initDirs = []string{"tree", "files", "staged", "bodies", "chunks", "packs", "versions", "trash", "work", "nodes", "dead", "repack", "degraded"}

// errNotNew is a metadata directory without a marker that is not new either.
var errNotNew = errors.New("has no " + markerFile + " but is not empty")

// isNew reports whether a metadata directory is still to be made: it is not
// there, or there is nothing in it but what an interrupted init leaves. One
// without a marker that holds anything else is errNotNew: it is somebody's.
func isNew(dir string) (bool, error) {
	if _, err := os.Lstat(filepath.Join(dir, markerFile)); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == "lost+found", strings.HasPrefix(name, markerFile+"."):
		case e.IsDir() && slices.Contains(initDirs, name):
			err = errors.Join(err, holdsOnlyDirs(filepath.Join(dir, name)))
		default:
			return false, fmt.Errorf("it %w (%s)", errNotNew, name)
		}
	}
	return err == nil, err
}

func holdsOnlyDirs(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			err = fmt.Errorf("it %w (%s)", errNotNew, path)
		}
		return err
	})
}

// keepOut makes a new metadata directory its owner's alone, and refuses one in
// use that lets others in: they could go around MarFS.
func keepOut(dir string, fresh bool) error {
	fi, err := os.Stat(dir)
	if err != nil || fi.Mode().Perm()&0o077 == 0 {
		return err
	}
	if fresh {
		return os.Chmod(dir, 0o700) //nolint:gosec // a directory
	}
	return hinted{fmt.Errorf("others may look into it (mode %04o)", fi.Mode().Perm()), "users reach what is in it through the mount alone: chmod 700 " + dir}
}

// initMetadata makes a metadata directory. Only the daemon's user can look into
// a new one: users reach the tree in it through MarFS alone.
func initMetadata(n *Namespace) (fresh bool, err error) {
	dir := n.Metadata[0]
	if fresh, err = isNew(dir); err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return false, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	if err := keepOut(dir, fresh); err != nil {
		return false, err
	}
	md, err := posix.Open(dir)
	if err != nil {
		return false, err
	}
	return fresh, errors.Join(metadata.Init(md, n.Name), md.Close())
}
