package namespace

import (
	"context"
	"iter"
	"syscall"

	"marfs/pkg/trash"
)

// TrashEntry is an entry of a namespace's trash.
type TrashEntry struct {
	trash.Entry
	Namespace string
	Path      string // below the mount, as it was
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

// Trash lists entries of the caller's; root's are everybody's.
func (f *FS) Trash(ctx context.Context, c Caller, q TrashQuery) iter.Seq2[TrashEntry, error] {
	return func(yield func(TrashEntry, error) bool) { yield(TrashEntry{}, syscall.ENOSYS) }
}

// PurgeTrash lets entries go before their time and yields each.
func (f *FS) PurgeTrash(ctx context.Context, c Caller, q TrashQuery) iter.Seq2[TrashEntry, error] {
	return func(yield func(TrashEntry, error) bool) { yield(TrashEntry{}, syscall.ENOSYS) }
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

// RestoreTrash puts removals back, as the caller.
func (f *FS) RestoreTrash(ctx context.Context, c Caller, r TrashRestoration) iter.Seq2[RestoredEntry, error] {
	return func(yield func(RestoredEntry, error) bool) { yield(RestoredEntry{}, syscall.ENOSYS) }
}

// Versions lists the earlier contents of the file at path, newest first.
func (f *FS) Versions(ctx context.Context, c Caller, path string) ([]TrashEntry, error) {
	return nil, syscall.ENOSYS
}

// RestoreVersion makes an earlier content of the file at path the newest; the
// content it replaces becomes a version. version is a content id, or the first
// digits of one. EBUSY: the file is being written.
func (f *FS) RestoreVersion(ctx context.Context, c Caller, path, version string) (TrashEntry, error) {
	return TrashEntry{}, syscall.ENOSYS
}

// Content is what a deleted file or a version holds, open for reading.
type Content struct {
	Entry TrashEntry
	view  *view
}

// OpenTrash opens what an entry of the caller's holds, without restoring it.
func (f *FS) OpenTrash(ctx context.Context, c Caller, id string) (*Content, error) {
	return nil, syscall.ENOSYS
}

// Size is in bytes.
func (o *Content) Size() int64 { return o.view.size }

// ReadAt reads as io.ReaderAt does.
func (o *Content) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return o.view.readAt(ctx, p, off)
}

// Close releases it.
func (o *Content) Close() error { o.view.close(); return nil }
