package namespace

import (
	"strings"

	"marfs/pkg/mdfs"
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
		Xattrs: xattrsOf(in),
	}
	t := objfmt.Trailer{Namespace: w.inode.space.cfg.Name, Object: c.ref.Object, Chunk: c.ref.Chunk, Stored: c.length}
	if w.done+c.length == size { // the last, as far as one can tell
		t.Chunks, f.Size = c.ref.Chunk+1, size
	}
	t.Files = []objfmt.TrailerFile{f}
	return t.Encode()
}

// xattrsOf are the user's xattrs and ACLs of a file. What cannot be read is left
// out: the trailer is a help for recovery, not a reason to refuse a write.
func xattrsOf(in mdfs.File) map[string][]byte {
	names, err := in.Listxattr()
	if err != nil {
		return nil
	}
	var out map[string][]byte
	for _, name := range names {
		if hidden(name) || !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "system.posix_acl_") {
			continue
		}
		if v, err := in.Getxattr(name); err == nil {
			if out == nil {
				out = map[string][]byte{}
			}
			out[name] = v
		}
	}
	return out
}
