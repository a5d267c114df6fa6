package namespace

import "context"

// Sync makes the directory's entries durable.
func (d *Dir) Sync(ctx context.Context) error {
	if d.md == nil {
		return nil
	}
	return d.md.Sync()
}

// Forget drops what is remembered of the directory name: the next OpenDir finds
// what another node has put there.
func (d *Dir) Forget(name string) {
	if d.md != nil {
		d.forget(name)
	}
}
