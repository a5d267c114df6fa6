package namespace

import "context"

// Sync makes the directory's entries durable.
func (d *Dir) Sync(ctx context.Context) error {
	if d.md == nil {
		return nil
	}
	return d.md.Sync()
}
