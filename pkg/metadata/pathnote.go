package metadata

import "context"

// CreationPath is where the file was when its staged content was written, from the
// namespace's root; "": not known. It is a hint, for the packs' recovery trailers.
func (fl *File) CreationPath(ctx context.Context) (string, error) { return "", ctx.Err() }
