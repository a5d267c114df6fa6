package namespace

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
)

// inode is what the open handles of one regular file on this mount share.
type inode struct {
	space *space
	ino   uint64 // of the metadata filesystem
	meta  *metadata.File
	refs  int  // guarded by the table
	made  bool // here: it may have the right to write the own body. Guarded by begin

	// commits counts what this mount published of the file and what it began to
	// write, so that readers know when to look again.
	commits atomic.Uint64
	writing atomic.Pointer[stream] // the write in progress, or nil

	begin   sync.Mutex // serialises what sets writing and ends it; guards what follows
	writers int        // open handles that may change the content
	emptied uint64     // how often an open has emptied the file
}

// live is the write in progress whose bytes readers on this mount see; nil when
// there is none, or it failed.
func (n *inode) live() *stream {
	if w := n.writing.Load(); w != nil && !w.over.Load() {
		return w
	}
	return nil
}

func (n *inode) opened(f *File) {
	n.begin.Lock()
	defer n.begin.Unlock()
	f.emptied = n.emptied
	if f.changes() {
		n.writers++
	}
}

// writerGone ends the write in progress with the last handle that may write.
func (n *inode) writerGone(f *File) error {
	if !f.changes() {
		return nil
	}
	n.begin.Lock()
	defer n.begin.Unlock()
	n.writers--
	if w := n.writing.Load(); w != nil && n.writers == 0 {
		return w.finish()
	}
	return nil
}

// inodeTable holds the regular files that are open on this mount.
type inodeTable struct {
	mu    sync.Mutex // guards the map and the inodes' refs
	byIno map[uint64]*inode
}

func (t *inodeTable) init() { t.byIno = map[uint64]*inode{} }

// acquire returns the inode, pinning it with pin when it is not open yet, and holding
// it, so that gc leaves it alone. ESTALE: the name stands for another inode by now, or
// has none any more, unless this mount has just made it.
func (t *inodeTable) acquire(s *space, ino uint64, made bool, pin func() (*metadata.File, error)) (*inode, error) {
	t.mu.Lock()
	if n := t.byIno[ino]; n != nil {
		n.refs++
		t.mu.Unlock()
		return n, nil
	}
	t.mu.Unlock()
	meta, err := pin()
	if err != nil {
		return nil, err
	}
	if err := hold(meta, ino, made); err != nil {
		meta.Close()
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byIno[ino]; n != nil { // somebody was faster
		meta.Close()
		n.refs++
		return n, nil
	}
	n := &inode{space: s, ino: ino, meta: meta, refs: 1, made: made}
	t.byIno[ino] = n
	return n, nil
}

// hold holds a file that was just pinned, if it is the inode that was meant.
func hold(meta *metadata.File, ino uint64, made bool) error {
	named, err := meta.Hold()
	if err != nil {
		return err
	}
	if made { // its maker has looked at it
		return nil
	}
	st, err := meta.Inode().Stat()
	if err == nil && (st.Ino != ino || !named) {
		err = syscall.ESTALE
	}
	return err
}

// release drops one reference; the last one closes the pin.
func (t *inodeTable) release(n *inode) error {
	t.mu.Lock()
	n.refs--
	last := n.refs == 0
	if last {
		delete(t.byIno, n.ino)
	}
	t.mu.Unlock()
	if last {
		return n.meta.Close()
	}
	return nil
}

// overlay shows the size and time that writers on this mount have given a file.
func (t *inodeTable) overlay(st *mdfs.Stat) {
	t.mu.Lock()
	n := t.byIno[st.Ino]
	t.mu.Unlock()
	if n == nil {
		return
	}
	if w := n.live(); w != nil {
		w.overlay(st)
	}
}

// closeAll ends the writes in progress, when the FS closes under open files.
func (t *inodeTable) closeAll() error {
	t.mu.Lock()
	open := slices.Collect(maps.Values(t.byIno))
	t.mu.Unlock()
	errs := make([]error, len(open))
	var g errgroup.Group
	g.SetLimit(maxArchives)
	for i, n := range open {
		g.Go(func() error { errs[i] = n.leave(); return nil })
	}
	_ = g.Wait() // the errors are in errs
	return errors.Join(errs...)
}

// leave ends the write in progress under the handles that are open. What would
// replace a content and was never committed is given up: nobody has said that it
// is whole. Of a new file there is nothing to lose.
func (n *inode) leave() error {
	n.begin.Lock()
	defer n.begin.Unlock()
	w := n.writing.Load()
	switch {
	case w == nil:
		return nil
	case w.replaces():
		return w.abandon()
	}
	return w.finish()
}
