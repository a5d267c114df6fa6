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

// Versions lists the earlier contents of a file that are in trash, newest first,
// each once; of more than MaxVersions those that are filed last. EPERM: the file is
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
	var list []Entry
	var errs []error
	seen := map[objfmt.ID]bool{}
	for _, ref := range slices.Backward(refs) {
		if len(list) == MaxVersions {
			break
		}
		e, err := t.version(ctx, who, ID(ref))
		switch {
		case errors.Is(err, syscall.ENOENT):
		case err != nil:
			errs = append(errs, fmt.Errorf("trash entry %s: %w", ID(ref), err))
		case !seen[e.Record.Content]:
			seen[e.Record.Content] = true
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, func(a, b Entry) int { return b.Record.When.Compare(a.Record.When) })
	return list, errors.Join(errs...)
}

// version is Get for an earlier content; what is none is ENOENT.
func (t *Trash) version(ctx context.Context, who mdfs.Cred, id ID) (Entry, error) {
	e, err := t.Get(ctx, who, id)
	if err == nil && !e.Version() {
		err = errGone
	}
	return e, err
}
