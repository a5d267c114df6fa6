package namespace

import (
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// trailer makes the recovery trailer of a chunk that ends now: with the key it is
// enough to make the file's metadata again, as of this moment.
func (w *stream) trailer(c *chunkWriter) ([]byte, error) {
	in := w.inode.meta.Inode()
	st, err := in.Stat()
	if err != nil {
		return nil, err
	}
	w.meta.Lock()
	size, mtime := w.size, w.mtime
	w.meta.Unlock()
	f := objfmt.TrailerFile{
		File: w.base.File, Content: w.content, Path: w.who.Path,
		Mode: st.Mode, UID: st.Uid, GID: st.Gid, MTime: mtime,
		Size: -1, Offset: w.done, Length: c.length, Sum: c.sum,
		Xattrs: metadata.TrailerXattrs(in),
	}
	t := objfmt.Trailer{Namespace: w.inode.space.cfg.Name, Object: c.ref.Object, Chunk: c.ref.Chunk, Stored: c.length}
	if w.done+c.length == size { // the last, as far as one can tell
		t.Chunks, f.Size = c.ref.Chunk+1, size
	}
	t.Files = []objfmt.TrailerFile{f}
	return t.Encode()
}
