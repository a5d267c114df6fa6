package trash

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"strings"
	"syscall"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// Restored is what became of one entry.
type Restored struct {
	Entry
	Path string // in the namespace, where it is now; "": it stayed in trash
}

// Restore puts removals back, as who, and yields each once it is durable: what is in
// a directory before the directory. An entry that cannot be restored comes with its
// error, and stays in trash; the others go on. An error without an entry ends it.
//
// Directories that are missing on the way come back too, as their records say, or
// else are made for the caller alone (0700). A directory that is there is merged into and
// keeps its attributes, if it is root's or of the same owner; its entry is done with. Any other name that is taken makes
// what comes NAME.~1~, NAME.~2~ …, or with Force is replaced and goes to trash.
//
// A name that was removed while its file had others comes back only in a directory
// that comes back too.
//
// Killed in the middle, or left by its consumer, it is completed by the next one.
func (t *Trash) Restore(ctx context.Context, who mdfs.Cred, r Restoration) iter.Seq2[Restored, error] {
	return func(yield func(Restored, error) bool) {
		p, err := t.plan(ctx, who, &r)
		if p != nil {
			defer p.release()
		}
		if err != nil {
			yield(Restored{}, err)
			return
		}
		x := &restorer{t: t, ctx: ctx, who: who, r: &r, plan: p, yield: yield,
			planned: map[string]bool{}, linked: map[objfmt.ID]bool{}}
		x.run()
	}
}

// restorer carries out one Restore. It goes down and up the tree by open handles, so
// that nothing it does depends on what a path stands for by then.
type restorer struct {
	t     *Trash
	ctx   context.Context
	who   mdfs.Cred
	r     *Restoration
	plan  *plan
	yield func(Restored, error) bool

	levels   []*level
	pending  int                // restored and not yet durable, on all levels
	stopped  bool               // the consumer has had enough
	searched bool               // plan.dirs is complete
	owner    uint32             // of what is being restored
	linked   map[objfmt.ID]bool // files that this call has given a name
	planned  map[string]bool    // names that a dry run would have made
}

// level is a directory on the way to what is being restored.
type level struct {
	target  string   // as planned
	path    string   // as it is: names on the way may have been taken
	dir     mdfs.Dir // nil: a dry run has not made it; or err
	err     error    // why nothing can be restored in it
	back    bool     // it comes back by this restore
	removal *metadata.Removal
	entry   Entry  // of removal: being restored
	pending []done // in it
}

// done is what is restored and not yet durable.
type done struct {
	removal *metadata.Removal
	Restored
}

// flushAt is how many entries become durable together.
const flushAt = 1000

func (x *restorer) run() {
	for _, e := range x.plan.errs {
		x.failed(e.Entry, e.err)
	}
	root, err := x.t.Meta.Tree().Again()
	if err == nil && x.r.To != "" && x.r.To != "." {
		err = x.as(func() error { return x.checkTo(root) })
	}
	if err != nil {
		if root != nil {
			root.Close()
		}
		x.fatal(err)
		return
	}
	x.levels = []*level{{dir: root}}
	for _, it := range x.plan.items {
		if x.stopped || x.ctx.Err() != nil {
			break
		}
		x.restore(it)
	}
	for len(x.levels) > 0 {
		x.up()
	}
	if err := x.ctx.Err(); err != nil {
		x.fatal(err)
	}
}

func (x *restorer) as(fn func() error) error { return x.t.Meta.MD().As(x.who, fn) }

// by is the caller as records tell it.
func (x *restorer) by(path string) metadata.Who { return metadata.Who{Cred: x.who, Path: path} }

func (x *restorer) fatal(err error) { x.tell(Restored{}, err) }

func (x *restorer) failed(e Entry, err error) { x.tell(Restored{Entry: e}, err) }

func (x *restorer) tell(r Restored, err error) {
	if !x.stopped {
		x.stopped = !x.yield(r, err)
	}
}

// checkTo: the place where things go has to be there.
func (x *restorer) checkTo(root mdfs.Dir) error {
	d, err := mdfs.Walk(root, x.r.To)
	if err != nil {
		return pathError(x.r.To, err)
	}
	return d.Close()
}

// pathError says which path it was.
func pathError(path string, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	return &fs.PathError{Op: "restore", Path: path, Err: err}
}

// join is the path of a name in a directory of the namespace.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// restore restores one item in its directory.
func (x *restorer) restore(it item) {
	x.owner = it.uid
	l := x.enter(parent(it.target))
	if it.kind == objfmt.RecordDir {
		x.enterRemoved(l, it)
		return
	}
	e, err := x.t.get(x.ctx, x.who, it.id)
	if errors.Is(err, errNamed) && (x.linked[e.Record.File] || l.back) {
		err = nil
	}
	if errors.Is(err, errNamed) && len(x.r.IDs) == 0 {
		return // it was never chosen
	}
	if err == nil {
		err = l.err
	}
	// The quota of the owner will be checked here, once there are quotas.
	if err == nil {
		err = x.put(l, it, e)
	}
	if err != nil {
		e.ID = it.id
		x.failed(e, err)
	}
}

// enter goes to a directory, up and down, making what is missing.
func (x *restorer) enter(target string) *level {
	for {
		top := x.levels[len(x.levels)-1]
		if top.target == target {
			return top
		}
		if len(x.levels) > 1 && !under(target, top.target) {
			x.up()
			continue
		}
		rest := strings.TrimPrefix(strings.TrimPrefix(target, top.target), "/")
		name, _, _ := strings.Cut(rest, "/")
		x.down(top, name)
	}
}

// down enters a directory that was not chosen itself.
func (x *restorer) down(top *level, name string) {
	next := &level{target: join(top.target, name), path: join(top.path, name), err: top.err}
	if next.err == nil {
		next.dir, next.err = x.open(top, name)
	}
	missing := errors.Is(next.err, syscall.ENOENT) && top.err == nil
	if missing || x.strange(next) {
		if it, ok := x.removedDir(next.target); ok {
			if next.dir != nil {
				next.dir.Close()
			}
			x.enterRemoved(top, it)
			return
		}
	}
	if missing {
		next.dir, next.err = x.makeParent(top, name)
	}
	x.levels = append(x.levels, next)
}

// strange tells whether a directory that is there may be one that another user has
// put in the place of a removed one.
func (x *restorer) strange(l *level) bool {
	if l.err != nil || l.dir == nil {
		return false
	}
	st, err := l.dir.Stat()
	if err != nil {
		l.err = pathError(l.path, err)
	}
	return err == nil && !trusts(x.owner, st.Uid)
}

// open opens a directory that is there, as the caller. A dry run finds nothing, and
// nothing wrong, in one that it would have made.
func (x *restorer) open(top *level, name string) (d mdfs.Dir, err error) {
	if top.dir == nil {
		if x.planned[join(top.path, name)] {
			return nil, nil
		}
		return nil, pathError(join(top.path, name), syscall.ENOENT)
	}
	err = x.as(func() error {
		d, err = top.dir.OpenDir(name)
		return err
	})
	if err != nil {
		if errors.Is(err, syscall.ENOENT) && x.planned[join(top.path, name)] {
			return nil, nil
		}
		return nil, pathError(join(top.path, name), err)
	}
	return d, nil
}

// removedDir finds the record of a directory on the way.
func (x *restorer) removedDir(target string) (item, bool) {
	if len(x.r.IDs) > 0 && x.r.To == "" && !x.searched {
		x.searched = true
		if err := x.t.parents(x.ctx, x.who, x.plan); err != nil {
			x.fatal(err)
		}
	}
	it, ok := x.plan.dirs[target]
	return it, ok
}

func (x *restorer) makeParent(top *level, name string) (mdfs.Dir, error) {
	if x.r.DryRun {
		x.planned[join(top.path, name)] = true
		return nil, nil
	}
	err := x.t.Meta.MakeParent(x.by(""), top.dir, name)
	if err != nil && !errors.Is(err, syscall.EEXIST) {
		return nil, pathError(join(top.path, name), err)
	}
	return x.open(top, name)
}

// up leaves the last directory: it gets its attributes, then what was restored in it
// becomes durable.
func (x *restorer) up() {
	l := x.levels[len(x.levels)-1]
	x.levels = x.levels[:len(x.levels)-1]
	finished := l.removal != nil
	if finished {
		finished = x.finish(l)
	}
	x.flush(l)
	if finished {
		x.done(x.levels[len(x.levels)-1], done{l.removal, Restored{Entry: l.entry, Path: l.path}})
	}
	if l.dir != nil {
		l.dir.Close()
	}
}

// finish gives a directory its attributes. When the restore is broken off it stays
// as it is, and its record goes back for another.
func (x *restorer) finish(l *level) bool {
	err := x.ctx.Err()
	if err == nil && x.stopped {
		err = context.Canceled
	}
	if err == nil {
		err = l.removal.FinishDir(x.by(l.path), l.dir)
	}
	if err != nil {
		x.failed(l.entry, errors.Join(pathError(l.path, err), l.removal.Back()))
	}
	return err == nil
}

// done notes what was restored in a directory.
func (x *restorer) done(l *level, d done) {
	l.pending = append(l.pending, d)
	if x.pending++; x.pending < flushAt {
		return
	}
	for _, l := range x.levels {
		x.flush(l)
	}
}

// flush makes durable what was restored in a directory, and tells.
func (x *restorer) flush(l *level) {
	var taken []*metadata.Removal
	for _, d := range l.pending {
		if d.removal != nil {
			taken = append(taken, d.removal)
		}
	}
	err := x.t.Meta.Restored(l.dir, taken...)
	x.pending -= len(l.pending)
	for _, d := range l.pending {
		x.tell(d.Restored, err)
	}
	l.pending = nil
}
