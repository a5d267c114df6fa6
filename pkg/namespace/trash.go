package namespace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/metadata"
	"marfs/pkg/trash"
)

// TrashEntry is an entry of a namespace's trash.
type TrashEntry struct {
	trash.Entry
	Namespace string
	Path      string    // below the mount, as it was: "/projecta/a/b"; "": not known
	Expires   time.Time // gc destroys it from then on
}

// TrashID names an entry among those of all namespaces: <namespace>/<day>/<name>.
func (e *TrashEntry) TrashID() string { return e.Namespace + "/" + e.ID.String() }

// TrashQuery selects entries of every namespace at or below Path, and those of the
// namespace that Path is in. Filter.Under is set from Path.
type TrashQuery struct {
	Path   string   // below the mount: itself and everything below, there or not
	IDs    []string // TrashIDs: these only, and Path does not matter
	Filter trash.Filter
}

// place is a path in one namespace.
type place struct {
	space *space
	path  string // from the namespace's root, "" at it
}

// places finds the namespace that a path below the mount is in, first, and all
// below it.
func (f *FS) places(p string) ([]place, error) {
	n := f.tree
	inside, found := place{space: n.space}, n.space != nil
	rest := strings.Trim(path.Clean("/"+p), "/")
	for rest != "" && n != nil {
		name, below, _ := strings.Cut(rest, "/")
		if n = n.child(name); n == nil {
			break
		}
		rest = below
		switch {
		case n.space != nil:
			inside, found = place{space: n.space}, true
		case found:
			inside.path = join(inside.path, name)
		}
	}
	var all []place
	if found {
		inside.path = join(inside.path, rest)
		all = append(all, inside)
	}
	if rest == "" {
		all = n.below(all)
	}
	if len(all) == 0 {
		return nil, pathError("trash", p, syscall.ENOENT)
	}
	return all, nil
}

// below adds the namespaces below a node, itself not among them.
func (t *treeNode) below(all []place) []place {
	for _, c := range t.children {
		if c.space != nil {
			all = append(all, place{space: c.space})
		}
		all = c.below(all)
	}
	return all
}

func join(dir, name string) string {
	if dir == "" || name == "" {
		return dir + name
	}
	return dir + "/" + name
}

// trash is the namespace's trash.
func (s *space) trash() *trash.Trash {
	return &trash.Trash{Namespace: s.cfg.Name, Meta: s.cfg.Meta, Policy: s.cfg.Trash}
}

// shown is the path of the namespace as it is below the mount.
func (s *space) shown(p string) string {
	if p == "" {
		return ""
	}
	return strings.TrimSuffix(s.cfg.Path, "/") + "/" + p
}

func (s *space) trashEntry(e trash.Entry) TrashEntry {
	return TrashEntry{Entry: e, Namespace: s.cfg.Name, Path: s.shown(e.Record.Path), Expires: s.cfg.Trash.Expires(&e)}
}

// trashID finds what a TrashID names.
func (f *FS) trashID(id string) (*space, trash.ID, error) {
	name, rest, _ := strings.Cut(id, "/")
	parsed, err := trash.ParseID(rest)
	if err != nil {
		return nil, parsed, err
	}
	i := slices.IndexFunc(f.spaces, func(s *space) bool { return s.cfg.Name == name })
	if i < 0 {
		return nil, parsed, fmt.Errorf("trash id %.200q: no such namespace: %w", id, syscall.ENOENT)
	}
	return f.spaces[i], parsed, nil
}

// Trash lists entries of the caller's; root's are everybody's.
func (f *FS) Trash(ctx context.Context, c Caller, q TrashQuery) iter.Seq2[TrashEntry, error] {
	one := func(s *space, id trash.ID) (trash.Entry, error) { return s.trash().Get(ctx, c.Cred, id) }
	all := func(s *space, flt trash.Filter) iter.Seq2[trash.Entry, error] {
		return s.trash().List(ctx, c.Cred, flt)
	}
	return f.eachEntry(ctx, c, q, RM, "list trash", one, all)
}

// PurgeTrash lets entries go before their time and yields each.
func (f *FS) PurgeTrash(ctx context.Context, c Caller, q TrashQuery) iter.Seq2[TrashEntry, error] {
	one := func(s *space, id trash.ID) (trash.Entry, error) { return s.trash().PurgeID(ctx, c.Cred, id) }
	all := func(s *space, flt trash.Filter) iter.Seq2[trash.Entry, error] {
		return s.trash().Purge(ctx, c.Cred, flt)
	}
	return f.eachEntry(ctx, c, q, RM|WM|UD, "purge trash", one, all)
}

// eachEntry yields what one says of each id, or what all gives for each place.
func (f *FS) eachEntry(ctx context.Context, c Caller, q TrashQuery, need Perm, op string,
	one func(*space, trash.ID) (trash.Entry, error), all func(*space, trash.Filter) iter.Seq2[trash.Entry, error],
) iter.Seq2[TrashEntry, error] {
	return func(yield func(TrashEntry, error) bool) {
		if len(q.IDs) > 0 {
			f.eachID(ctx, c, q.IDs, need, op, one, yield)
			return
		}
		places, err := f.places(q.Path)
		if err != nil {
			yield(TrashEntry{}, err)
			return
		}
		for _, p := range places {
			if err := p.space.allow(c, need, op, p.path); err != nil {
				if !yield(TrashEntry{Namespace: p.space.cfg.Name}, err) {
					return
				}
				continue
			}
			flt := q.Filter
			flt.Under = p.path
			for e, err := range all(p.space, flt) {
				if !yield(p.space.trashEntry(e), err) {
					return
				}
			}
		}
	}
}

func (f *FS) eachID(ctx context.Context, c Caller, ids []string, need Perm, op string,
	one func(*space, trash.ID) (trash.Entry, error), yield func(TrashEntry, error) bool,
) {
	for _, text := range ids {
		var e TrashEntry
		s, id, err := f.trashID(text)
		if err == nil {
			err = s.allow(c, need, op, text)
		}
		if err == nil {
			var x trash.Entry
			x, err = one(s, id)
			e = s.trashEntry(x)
		}
		if err == nil {
			err = ctx.Err()
		}
		if !yield(e, err) {
			return
		}
	}
}

// TrashRestoration says what to restore, and where.
type TrashRestoration struct {
	TrashQuery
	To     string // directory below the mount, of the same namespace; "": where it was
	Force  bool   // what is there now goes to trash, instead of a numbered name for what comes
	DryRun bool
}

// RestoredEntry is what became of one entry. With an error of its own it stayed in trash.
type RestoredEntry struct {
	TrashEntry
	Where string // below the mount, where it is now; "": it was not restored
	Err   error
}

// errOtherNamespace is a restore that would cross namespaces.
var errOtherNamespace = fmt.Errorf("a file is restored in the namespace that it was in; restore it there, then copy it: %w", syscall.EXDEV)

// RestoreTrash puts removals back, as the caller. An error without an entry ends
// what is restored of one namespace.
func (f *FS) RestoreTrash(ctx context.Context, c Caller, r TrashRestoration) iter.Seq2[RestoredEntry, error] {
	return func(yield func(RestoredEntry, error) bool) {
		more := true
		give := func(e RestoredEntry, err error) bool {
			more = more && yield(e, err)
			return more
		}
		for _, part := range f.restorations(r, give) {
			if !more || !f.restoreIn(ctx, c, part, r, give) {
				return
			}
		}
	}
}

// restoration is what is restored in one namespace.
type restoration struct {
	place
	ids []trash.ID
}

// restorations sorts a request by namespace.
func (f *FS) restorations(r TrashRestoration, give func(RestoredEntry, error) bool) (parts []restoration) {
	if len(r.IDs) == 0 {
		places, err := f.places(r.Path)
		if err != nil {
			give(RestoredEntry{}, err)
		}
		for _, p := range places {
			parts = append(parts, restoration{place: p})
		}
		return parts
	}
	for _, text := range r.IDs {
		s, id, err := f.trashID(text)
		if err != nil {
			give(RestoredEntry{TrashEntry: TrashEntry{Entry: trash.Entry{ID: id}}, Err: err}, nil)
			continue
		}
		i := slices.IndexFunc(parts, func(p restoration) bool { return p.space == s })
		if i < 0 {
			i, parts = len(parts), append(parts, restoration{place: place{space: s}})
		}
		parts[i].ids = append(parts[i].ids, id)
	}
	return parts
}

// restoreIn restores what is of one namespace.
func (f *FS) restoreIn(ctx context.Context, c Caller, p restoration, r TrashRestoration, give func(RestoredEntry, error) bool) (more bool) {
	s := p.space
	need := RM | WM // it tells what there is
	if r.Force {
		need |= UD
	}
	in := trash.Restoration{IDs: p.ids, Filter: r.Filter, Force: r.Force, DryRun: r.DryRun, Refuse: s.leadsAway}
	in.Filter.Under = p.path
	err := s.allow(c, need, "restore", p.path)
	if err == nil && r.To != "" {
		in.To, err = f.placeIn(s, r.To)
	}
	if err != nil {
		return give(RestoredEntry{TrashEntry: TrashEntry{Namespace: s.cfg.Name}}, err)
	}
	if !r.DryRun {
		defer f.dirs.purge() // it may hold directories that are in other places now
	}
	for x, err := range s.trash().Restore(ctx, c.Cred, in) {
		e := RestoredEntry{TrashEntry: s.trashEntry(x.Entry), Where: s.shown(x.Path)}
		if x.ID != (trash.ID{}) {
			e.Err, err = err, nil
		}
		if !give(e, err) {
			return false
		}
	}
	return true
}

// placeIn is the path of p, below the mount, in a namespace.
func (f *FS) placeIn(s *space, p string) (string, error) {
	places, err := f.places(p)
	if err != nil || places[0].space != s || f.above(p) {
		return "", pathError("restore", p, errOtherNamespace)
	}
	return cmp.Or(places[0].path, "."), nil
}

// above tells whether p is a directory above all namespaces.
func (f *FS) above(p string) bool {
	n := f.tree
	for name := range strings.SplitSeq(strings.Trim(path.Clean("/"+p), "/"), "/") {
		if n.space != nil {
			return false
		}
		if name == "" {
			break
		}
		if n = n.child(name); n == nil {
			return false
		}
	}
	return n.space == nil
}

// leadsAway tells why nothing may be made at a path of the namespace: its names lead
// to another one, which hides what is there.
func (s *space) leadsAway(p string) error {
	n := s.node
	for name := range strings.SplitSeq(p, "/") {
		if n = n.child(name); n == nil {
			return nil
		}
		if n.space != nil {
			break
		}
	}
	return pathError("restore", p, fmt.Errorf("the name leads to another namespace: %w", syscall.EBUSY))
}

// Versions lists the earlier contents of the file at path, newest first.
func (f *FS) Versions(ctx context.Context, c Caller, path string) ([]TrashEntry, error) {
	d, name, err := f.Walk(ctx, c, path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := d.real("versions", name); err != nil {
		return nil, err
	}
	if err := d.space.allow(c, RM, "versions", d.join(name)); err != nil {
		return nil, err
	}
	a, err := d.Lookup(ctx, c, name)
	if err == nil && a.Mode&syscall.S_IFMT != syscall.S_IFREG {
		err = pathError("versions", name, syscall.EINVAL)
	}
	if err != nil {
		return nil, err
	}
	fl, err := d.space.cfg.Meta.Open(ctx, d.md, name)
	if err != nil {
		return nil, err
	}
	defer fl.Close()
	return d.space.versions(ctx, c, fl)
}

func (s *space) versions(ctx context.Context, c Caller, fl *metadata.File) ([]TrashEntry, error) {
	list, err := s.trash().Versions(ctx, c.Cred, fl.ID())
	entries := make([]TrashEntry, len(list))
	for i, e := range list {
		entries[i] = s.trashEntry(e)
	}
	return entries, err
}

// RestoreVersion makes an earlier content of the file at path the newest; the
// content it replaces becomes a version. version is a content id, or the first
// digits of one: EINVAL when there are several. EBUSY: the file is being written.
func (f *FS) RestoreVersion(ctx context.Context, c Caller, path, version string) (TrashEntry, error) {
	d, name, err := f.Walk(ctx, c, path)
	if err != nil {
		return TrashEntry{}, err
	}
	defer d.Close()
	if err := d.real("restore", name); err != nil {
		return TrashEntry{}, err
	}
	if err := d.space.allow(c, WM|WD|TD, "restore version", d.join(name)); err != nil {
		return TrashEntry{}, err
	}
	n, err := d.openInode(ctx, c, name, syscall.O_WRONLY)
	if err != nil {
		return TrashEntry{}, err
	}
	e, err := n.restoreVersion(ctx, c, d.who(c, name), version)
	return e, errors.Join(err, d.space.inodes.release(n))
}

func (n *inode) restoreVersion(ctx context.Context, c Caller, who metadata.Who, version string) (TrashEntry, error) {
	n.begin.Lock()
	defer n.begin.Unlock()
	if n.writing.Load() != nil {
		return TrashEntry{}, pathError("restore version", who.Path, fmt.Errorf("it is being written: %w", syscall.EBUSY))
	}
	base, err := n.meta.Newest(ctx)
	if err == nil && metadata.Busy(base) {
		err = pathError("restore version", who.Path, errElsewhere)
	}
	if err != nil {
		return TrashEntry{}, err
	}
	list, unread := n.space.versions(ctx, c, n.meta)
	e, err := pickVersion(list, version)
	if err != nil {
		return TrashEntry{}, cmp.Or(unread, err) // it may be one that cannot be read
	}
	if err := n.dropPrivileges(c); err != nil {
		return TrashEntry{}, pathError("restore version", who.Path, err)
	}
	_, err = n.space.cfg.Meta.RestoreVersion(ctx, n.meta, who, e.Record.Content)
	n.commits.Add(1) // open readers look again
	return e, err
}

// dropPrivileges takes away what the content that is about to be replaced was trusted
// with, as the kernel does when a file is written: capabilities, and of who is not
// root set-user-ID and set-group-ID.
func (n *inode) dropPrivileges(c Caller) error {
	x := n.meta.Inode()
	err := x.Removexattr("security.capability")
	if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
		return err
	}
	st, err := x.Stat()
	if err != nil || c.UID == 0 {
		return err
	}
	metadata.StatOf(&st)
	drop := uint32(syscall.S_ISUID)
	if st.Mode&syscall.S_IXGRP != 0 {
		drop |= syscall.S_ISGID // without group execution it is something else
	}
	if st.Mode&drop == 0 {
		return nil
	}
	return n.space.cfg.Meta.MD().As(c.Cred, func() error { return n.space.chmod(x, st.Mode&0o7777&^drop) })
}

// pickVersion finds the version whose content id begins with the digits.
func pickVersion(list []TrashEntry, digits string) (e TrashEntry, err error) {
	found := 0
	for _, v := range list {
		if digits != "" && strings.HasPrefix(v.Record.Content.String(), strings.ToLower(digits)) {
			e, found = v, found+1
		}
	}
	switch found {
	case 0:
		return e, fmt.Errorf("no version %.40q: %w", digits, syscall.ENOENT)
	case 1:
		return e, nil
	}
	return TrashEntry{}, fmt.Errorf("%d versions begin with %.40q: %w", found, digits, syscall.EINVAL)
}
