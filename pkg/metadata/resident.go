package metadata

import (
	"context"
	"time"

	"marfs/pkg/objfmt"
)

// ResidentPack is a pack of which members may still have their bytes in the
// metadata filesystem.
type ResidentPack struct {
	Object objfmt.ObjectID
	Since  time.Time // when it was packed, by the filesystem's clock
}

// Resident lists the packs whose members' bodies were not released yet, oldest first.
func (f *FS) Resident(ctx context.Context) ([]ResidentPack, error) { return nil, ctx.Err() }

// ReleasePack frees the bodies of a pack's members, and takes it off the list. It
// returns how many bytes of content were freed.
func (f *FS) ReleasePack(ctx context.Context, object objfmt.ObjectID) (freed int64, err error) {
	return 0, ctx.Err()
}
