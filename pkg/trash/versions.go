package trash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// MaxVersions bounds the versions of one file that [Trash.Versions] tells of.
const MaxVersions = 1 << 16

// maxVersionPaths bounds the paths of those, in bytes: each may be of 64 KiB, and the
// list is in memory.
const maxVersionPaths = 16 << 20

// versionList holds versions, each content once, as they are found.
type versionList struct {
	list  []Entry
	seen  map[objfmt.ID]bool
	paths int // bytes
}

// full tells whether what is filed earlier is left out.
func (l *versionList) full() bool { return len(l.list) >= MaxVersions || l.paths >= maxVersionPaths }

func (l *versionList) add(e Entry) {
	if !l.seen[e.Record.Content] {
		l.seen[e.Record.Content] = true
		l.list = append(l.list, e)
		l.paths += len(e.Record.Path)
	}
}

// Versions lists the earlier contents of a file that are in trash, newest first,
// each once; of more than MaxVersions, or 16 MiB of paths, those that are filed last. EPERM: the file is
// another's. An error of one is told beside the others.
func (t *Trash) Versions(ctx context.Context, who mdfs.Cred, file objfmt.ID) ([]Entry, error) {
	st, err := t.Meta.StatID(ctx, file)
	if err == nil && !owned(who, st.Uid) {
		err = fmt.Errorf("versions of a file of uid %d: %w", st.Uid, syscall.EPERM)
	}
	if err != nil {
		return nil, err
	}
	refs, err := t.Meta.TrashOf(ctx, file)
	if err != nil {
		return nil, err
	}
	var errs []error
	found := versionList{seen: map[objfmt.ID]bool{}}
	for _, ref := range slices.Backward(refs) {
		if found.full() || ctx.Err() != nil {
			break
		}
		e, err := t.version(ctx, who, ID(ref))
		switch {
		case errors.Is(err, syscall.ENOENT):
		case err != nil:
			errs = append(errs, fmt.Errorf("trash entry %s: %w", ID(ref), err))
		default:
			found.add(e)
		}
	}
	slices.SortStableFunc(found.list, func(a, b Entry) int { return b.Record.When.Compare(a.Record.When) })
	return found.list, errors.Join(append(errs, ctx.Err())...)
}

// version is Get for an earlier content; what is none is ENOENT.
func (t *Trash) version(ctx context.Context, who mdfs.Cred, id ID) (Entry, error) {
	e, err := t.Get(ctx, who, id)
	if err == nil && !e.Version() {
		err = errGone
	}
	return e, err
}
