package trash

import (
	"context"
	"errors"
	"iter"
	"syscall"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
)

// Purge lets entries go before their time: gc destroys them once Grace has passed
// since they were removed. It yields each entry that it has marked.
//
// Nothing is synced: a power failure may undo a mark, and then the entry lives for
// its keep time as if nobody had asked, and is listed, to be purged again.
func (t *Trash) Purge(ctx context.Context, who mdfs.Cred, f Filter) iter.Seq2[Entry, error] {
	f.Purged = false
	return func(yield func(Entry, error) bool) {
		for e, err := range t.List(ctx, who, f) {
			if err == nil {
				e, err = t.purge(ctx, e)
			}
			if errors.Is(err, syscall.ENOENT) {
				continue // restored, destroyed or purged meanwhile
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// PurgeID is Purge of one entry. ENOENT: there is none, or it is another's.
func (t *Trash) PurgeID(ctx context.Context, who mdfs.Cred, id ID) (Entry, error) {
	e, err := t.Get(ctx, who, id)
	if err != nil {
		return Entry{}, err
	}
	return t.purge(ctx, e)
}

func (t *Trash) purge(ctx context.Context, e Entry) (Entry, error) {
	ref, err := t.Meta.Purge(ctx, metadata.TrashRef(e.ID))
	if err == nil {
		e.ID, e.Purged = ID(ref), true
	}
	return e, err
}
