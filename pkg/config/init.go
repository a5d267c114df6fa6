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
	"marfs/pkg/objstore"
)

// Made is one thing that [Init] made or found to be there.
type Made struct {
	Kind  string // "store" or "metadata"
	Where string
	Is    string // what it is now, for people
	New   bool
}

// ErrNoPlace is something to replace that the configuration does not have.
var ErrNoPlace = errors.New("is no store or metadata directory of the configuration")

// Init makes what cfg describes and is not there: store directories, buckets,
// the identities of stores, metadata directories. What is there is checked and
// left alone. In a repo nothing is made before every store of it is known to be
// empty or this configuration's; the other repos are made all the same. The list
// is right also when there is an error.
//
// A store that is missing or empty while others of its pod have identities was
// lost, or it is not mounted, and what is written to its mount point would be
// hidden later. So it is made only when replace names it, as the configuration or
// [Store.String] does; likewise a metadata directory whose objects are in the
// stores. That holds for the stores of a pod without objects too: the next write
// would go to the mount point.
func Init(ctx context.Context, cfg *Config, replace ...string) ([]Made, error) {
	in := &initialiser{cfg: cfg, replace: map[string]bool{}}
	if err := in.lost(replace); err != nil {
		return nil, err
	}
	err := in.run(ctx)
	for _, ps := range in.repos {
		err = errors.Join(err, ps.close())
	}
	return in.made, err
}

// initialiser is one Init.
type initialiser struct {
	cfg     *Config
	replace map[string]bool // stores and metadata directories that are lost
	repos   []*pods         // in the order of the file
	made    []Made
}

// lost takes the names of what is to be replaced.
func (in *initialiser) lost(names []string) error {
	places := map[string]bool{}
	for _, r := range in.cfg.Repos {
		for _, p := range r.Pods {
			for _, st := range p.Stores {
				places[st.String()] = true
			}
		}
	}
	for _, n := range in.cfg.Namespaces {
		places[n.Metadata[0]] = true
	}
	for _, name := range names {
		place := strings.TrimSuffix(name, "/")
		if !places[place] {
			place = in.cfg.absolute(name)
		}
		if !places[place] {
			return fmt.Errorf("%s: %w", name, ErrNoPlace)
		}
		in.replace[place] = true
	}
	return nil
}

func (in *initialiser) run(ctx context.Context) error {
	var errs []error
	for i := range in.cfg.Repos {
		ps, err := identify(ctx, &in.cfg.Repos[i])
		if err != nil {
			return errors.Join(errors.Join(errs...), err)
		}
		in.repos = append(in.repos, ps)
		errs = append(errs, in.repo(ctx, ps))
	}
	for i := range in.cfg.Namespaces {
		n := &in.cfg.Namespaces[i]
		if err := ctx.Err(); err != nil {
			return errors.Join(errors.Join(errs...), err)
		}
		if err := in.namespace(ctx, n); err != nil {
			errs = append(errs, metadataError(n, err))
		}
	}
	return errors.Join(errs...)
}

// repo makes the stores of a repo that are to be made.
func (in *initialiser) repo(ctx context.Context, ps *pods) error {
	in.makeBuckets(ctx, ps)
	if err := in.adoptable(ps); err != nil {
		return err
	}
	made, err := ps.adopt(ctx)
	in.made = append(in.made, made...)
	return err
}

// makeBuckets makes the buckets that may be made and looks again: one that is not
// there cannot be told from a server that does not answer.
func (in *initialiser) makeBuckets(ctx context.Context, ps *pods) {
	for _, members := range ps.members {
		fresh := !hasIdentity(members)
		for _, m := range members {
			if m.spec.S3 == nil || m.state != unreachable || !fresh && !in.replace[m.Name] {
				continue
			}
			if m.err = m.spec.create(ctx); m.err == nil {
				m.connect(ctx)
			}
		}
	}
	ps.judge()
}

func hasIdentity(members []*member) bool {
	return slices.ContainsFunc(members, func(m *member) bool { return m.state == identified })
}

// adoptable reports stores that are another's, that cannot be looked into, or
// that may be made only when they are to be replaced.
func (in *initialiser) adoptable(ps *pods) error {
	var errs []error
	for _, members := range ps.members {
		fresh := !hasIdentity(members)
		for _, m := range members {
			absent := m.state == empty || errors.Is(m.err, errNoDirectory)
			switch {
			case absent && !fresh && !in.replace[m.Name]:
				m.blame(ps, m.absence(), replaceHint(m.Name))
			case m.state == unreachable && !absent:
				m.blame(ps, m.err, unreachableHint(m.Name, fresh))
			}
		}
		errs = append(errs, faults(members)...)
	}
	return errors.Join(errs...)
}

func unreachableHint(store string, fresh bool) string {
	hint := "init needs every store: without a look into it, it cannot know which shards are missing"
	if !fresh {
		hint += "; if it is a new bucket in the place of a lost one: marfsctl init --replace " + store
	}
	return hint
}

// absence says how a store is absent.
func (m *member) absence() error {
	if m.state == empty {
		return errNoIdentity
	}
	return m.err
}

// replaceHint says what to do about a store or metadata directory that is absent.
func replaceHint(place string) string {
	return "mount it; if its disk was replaced by an empty one, or init did not come to it: marfsctl init --replace " + place
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
	if m.state != empty {
		if m.err = m.spec.create(ctx); m.err == nil {
			m.connect(ctx)
		}
	}
	if m.state == empty {
		if m.err = writeIdentity(ctx, m.Store, want); m.err == nil {
			m.connect(ctx)
		}
	}
	err := m.err
	if err == nil && m.id != want {
		err = fmt.Errorf("%w: another init made it shard %d of repo %s, pod %s", errForeign, m.id.Index, m.id.Repo, m.id.Pod)
	}
	if err != nil {
		m.blame(ps, err, "")
		return m.fail
	}
	return nil
}

// namespace makes the metadata directory of a namespace.
func (in *initialiser) namespace(ctx context.Context, n *Namespace) error {
	dir := n.Metadata[0]
	fresh, err := isNew(dir)
	if err == nil && fresh && !in.replace[dir] {
		err = in.noObjects(ctx, n)
	}
	if err == nil {
		err = initMetadata(n, fresh)
	}
	if err == nil {
		in.made = append(in.made, Made{"metadata", dir, "namespace " + n.Name, fresh})
	}
	return err
}

// noObjects reports objects of a namespace whose metadata directory is not there:
// most likely it is not mounted.
func (in *initialiser) noObjects(ctx context.Context, n *Namespace) error {
	for _, ps := range in.repos {
		if !slices.ContainsFunc(n.placements(), func(p Placement) bool { return p.Repo == ps.repo.Name }) {
			continue
		}
		for i, members := range ps.members {
			var seen int
			for _, m := range members {
				if !m.known() {
					continue
				}
				key, err := firstKey(ctx, m.Store, n.Name+"/")
				if err != nil {
					continue
				}
				seen++
				if key != "" {
					return hinted{fmt.Errorf("it is new, empty or not mounted, but repo %s has objects of it (%s in %s)", ps.repo.Name, key, m.Name), replaceHint(n.Metadata[0])}
				}
			}
			// Each object has a shard in as many stores as it has data, at least.
			if len(members)-seen >= ps.repo.Data {
				return fmt.Errorf("it is not made: too few stores of repo %s, pod %s can be looked at for objects of it", ps.repo.Name, ps.repo.Pods[i].Name)
			}
		}
	}
	return nil
}

// firstKey returns a key with the prefix, or "" when there is none.
func firstKey(ctx context.Context, st objstore.Store, prefix string) (string, error) {
	for info, err := range st.List(ctx, prefix, "") {
		return info.Key, err
	}
	return "", nil
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
func initMetadata(n *Namespace, fresh bool) error {
	dir := n.Metadata[0]
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := keepOut(dir, fresh); err != nil {
		return err
	}
	md, err := posix.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(metadata.Init(md, n.Name), md.Close())
}
