package trash

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// Bounds of one Restore. It holds about 200 bytes for each entry, and its path.
const (
	MaxRestore      = 1 << 20   // entries
	maxRestorePaths = 256 << 20 // bytes of all paths
	maxDepth        = 1000      // directories that are open at once, from the namespace's root down
)

// item is an entry that is to be restored.
type item struct {
	target string // path in the namespace where it goes
	id     ID
	kind   objfmt.RecordKind
	when   time.Time
	uid    uint32 // owner
	named  bool   // its file has another name
}

// plan is what to restore, parents before what is in them.
type plan struct {
	items []item
	dirs  map[string]item // removed directories by target, the newest of each, chosen or not
	errs  []found         // entries that cannot be restored
	bytes int             // of all paths
	uid   uint32          // who asks
	held  int64           // bytes taken of plans
}

// charge counts an entry that the plan is about to hold.
func (p *plan) charge(path string) error {
	p.bytes += len(path)
	if len(p.items)+len(p.dirs)+len(p.errs) >= MaxRestore || p.bytes > maxRestorePaths {
		return errTooMany
	}
	n := int64(plannedBytes + 2*len(path))
	if err := plans.take(p.uid, n); err != nil {
		return err
	}
	p.held += n
	return nil
}

// release ends what the plan counts for.
func (p *plan) release() {
	plans.give(p.uid, p.held)
	p.held = 0
}

// fail notes an entry that cannot be restored.
func (p *plan) fail(x found) error {
	if err := p.charge(x.Record.Path); err != nil {
		return err
	}
	p.errs = append(p.errs, x)
	return nil
}

var errTooMany = fmt.Errorf("more than %d entries, or %d MiB of paths, at once; restore it in parts: %w",
	MaxRestore, maxRestorePaths>>20, syscall.E2BIG)

func (p *plan) add(x item) error {
	if err := p.charge(x.target); err != nil {
		return err
	}
	p.items = append(p.items, x)
	return nil
}

// addDir notes a removed directory in case that something is restored below it.
func (p *plan) addDir(x item) error {
	if old, ok := p.dirs[x.target]; ok && !newer(x, old) {
		return nil
	}
	if err := p.charge(x.target); err != nil {
		return err
	}
	p.dirs[x.target] = x
	return nil
}

func newer(a, b item) bool {
	return cmp.Or(a.when.Compare(b.when), cmp.Compare(a.id.Name, b.id.Name)) > 0
}

// sort puts directories before what is in them, and what goes to one path newest
// first. A slash counts as the lowest byte: what is below a directory comes together.
func (p *plan) sort() {
	slices.SortFunc(p.items, func(a, b item) int {
		if c := comparePaths(a.target, b.target); c != 0 {
			return c
		}
		if newer(a, b) {
			return -1
		}
		return 1
	})
}

func comparePaths(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' {
			return -1
		}
		if b[i] == '/' {
			return 1
		}
		return cmp.Compare(a[i], b[i])
	}
	return cmp.Compare(len(a), len(b))
}

// target is where what was at p goes.
func (r *Restoration) target(p string) string {
	switch {
	case r.To == "":
		return p
	case len(r.IDs) > 0:
		return r.to(base(p))
	case r.Filter.Under == "":
		return r.to(p)
	}
	return r.to(base(r.Filter.Under) + p[len(r.Filter.Under):])
}

// to is a path below To.
func (r *Restoration) to(p string) string {
	if r.To == "." {
		return p
	}
	return r.To + "/" + p
}

// errNoPath is a removal of which nobody knows where it was.
var errNoPath = fmt.Errorf("where it was is not known; say where it goes: %w", syscall.EINVAL)

// place finds out where an entry goes. A path that a record could not hold whole
// is none; a file without a path is named by its id.
func (r *Restoration) place(e *Entry) (string, error) {
	p := e.Record.Path
	if len(p) >= objfmt.MaxPath || p == "" {
		if r.To == "" || e.Record.File.IsZero() {
			return "", errNoPath
		}
		return r.to(e.Record.File.String()), nil
	}
	if !validPath(p) {
		return "", fmt.Errorf("path %.100q: %w", p, syscall.EINVAL)
	}
	p = r.target(p)
	if strings.Count(p, "/") > maxDepth {
		return "", errDeep
	}
	if r.Refuse != nil {
		return p, r.Refuse(p)
	}
	return p, nil
}

var errDeep = fmt.Errorf("more than %d directories deep; restore it to another place: %w", maxDepth, syscall.ENAMETOOLONG)

// validPath tells whether p leads down from the namespace's root by plain names.
func validPath(p string) bool {
	for name := range strings.SplitSeq(p, "/") {
		if name == "" || name == "." || name == ".." || strings.IndexByte(name, 0) >= 0 {
			return false
		}
	}
	return true
}

// plan chooses what to restore.
func (t *Trash) plan(ctx context.Context, who mdfs.Cred, r *Restoration) (*plan, error) {
	if r.To != "" && r.To != "." && !validPath(r.To) {
		return nil, fmt.Errorf("path %.100q: %w", r.To, syscall.EINVAL)
	}
	p := &plan{dirs: map[string]item{}, uid: who.UID}
	var err error
	if len(r.IDs) > 0 {
		err = t.planIDs(ctx, who, r, p)
	} else {
		err = t.planFilter(ctx, who, r, p)
	}
	p.sort()
	return p, err
}

// planIDs takes the entries that are named, also several of one path.
func (t *Trash) planIDs(ctx context.Context, who mdfs.Cred, r *Restoration, p *plan) error {
	for _, id := range r.IDs {
		e, err := t.get(ctx, who, id)
		named := errors.Is(err, errNamed)
		if named {
			err = nil // perhaps only once another of those was restored: looked at again then
		}
		var target string
		if err == nil && e.Version() {
			err = fmt.Errorf("it is an earlier content of a file, not a removal: %w", syscall.EINVAL)
		}
		if err == nil {
			target, err = r.place(&e)
		}
		if err != nil {
			e.ID = id
			if err := p.fail(found{Entry: e, err: fmt.Errorf("trash entry %s: %w", id, err)}); err != nil {
				return err
			}
			continue
		}
		if err := p.add(item{target: target, id: id, kind: e.Record.Kind, when: e.Record.When, uid: e.UID, named: named}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// planFilter takes the newest removal of each path that the filter selects. Was
// Under itself removed, more than once perhaps, then only what was removed in its
// last life counts: after the removal before the last one, whether of the caller's
// directory or of root's. Those of others do not count: where everybody may make names,
// they could hide what was there.
func (t *Trash) planFilter(ctx context.Context, who mdfs.Cred, r *Restoration, p *plan) error {
	f := r.Filter
	f.Versions = false
	if err := f.Check(); err != nil {
		return err
	}
	lives := &lives{under: f.Under, of: who.UID}
	if f.Owner != nil {
		lives.of = *f.Owner
	}
	newest := map[string]int{} // by target: where in p.items
	s := &scan{t: t, who: who, day: f.day, named: true, see: lives.see,
		record: func(rec *objfmt.Record) bool {
			if rec.Kind == objfmt.RecordDir && (under(rec.Path, f.Under) || under(f.Under, rec.Path)) {
				return true
			}
			return f.record(rec)
		},
		entry: func(*Entry) bool { return true },
	}
	var failed error
	s.run(ctx, func(x found) bool {
		switch {
		case x.err != nil && x.ID == ID{}:
			failed = x.err
		case x.err != nil:
			failed = p.fail(x)
		default:
			failed = p.choose(r, &f, x, newest)
		}
		return failed == nil
	})
	if failed == nil {
		p.since(lives.last())
	}
	return failed
}

// choose takes an entry into the plan, in place of an older one of the same path.
func (p *plan) choose(r *Restoration, f *Filter, x found, newest map[string]int) error {
	if !under(x.Record.Path, f.Under) { // a directory above it
		if r.To != "" || !validPath(x.Record.Path) {
			return nil
		}
		return p.addDir(item{target: x.Record.Path, id: x.ID, kind: x.Record.Kind, when: x.Record.When})
	}
	wanted := f.record(&x.Record) && f.entry(&x.Entry)
	target, err := r.place(&x.Entry)
	if err != nil {
		if wanted {
			return p.fail(found{Entry: x.Entry, err: fmt.Errorf("trash entry %s: %w", x.ID, err)})
		}
		return nil
	}
	it := item{target: target, id: x.ID, kind: x.Record.Kind, when: x.Record.When, uid: x.UID, named: x.named}
	if it.kind == objfmt.RecordDir {
		if err := p.addDir(it); err != nil {
			return err
		}
	}
	if !wanted {
		return nil
	}
	if i, ok := newest[target]; ok {
		if newer(it, p.items[i]) {
			p.items[i] = it
		}
		return nil
	}
	newest[target] = len(p.items)
	return p.add(it)
}

// since drops what was removed before the life that is to be restored.
func (p *plan) since(when time.Time) {
	if when.IsZero() {
		return
	}
	p.items = slices.DeleteFunc(p.items, func(x item) bool { return !x.when.After(when) })
}

// lives finds the last two removals of a directory.
type lives struct {
	under string
	of    uint32 // whose directories count, besides root's; root: everybody's

	mu     sync.Mutex // guards newest
	newest [2]time.Time
}

func (l *lives) see(r *objfmt.Record) {
	if r.Kind != objfmt.RecordDir || r.Path != l.under || l.of != 0 && !trusts(l.of, r.UID) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case r.When.After(l.newest[0]):
		l.newest = [2]time.Time{r.When, l.newest[0]}
	case r.When.After(l.newest[1]):
		l.newest[1] = r.When
	}
}

// last is when the removal before the last one was; zero: there was none.
func (l *lives) last() time.Time { return l.newest[1] }

// parents finds the removed directories above the items, when those were named by id.
func (t *Trash) parents(ctx context.Context, who mdfs.Cred, p *plan) error {
	above := map[string]bool{}
	for _, x := range p.items {
		for dir := parent(x.target); dir != "" && !above[dir]; dir = parent(dir) {
			above[dir] = true
		}
	}
	s := &scan{t: t, who: who, day: func(day string) bool { return day != metadata.PurgedDay },
		record: func(r *objfmt.Record) bool { return r.Kind == objfmt.RecordDir && above[r.Path] },
		entry:  func(*Entry) bool { return true },
	}
	var failed error
	s.run(ctx, func(x found) bool {
		switch {
		case x.err == nil:
			failed = p.addDir(item{target: x.Record.Path, id: x.ID, kind: x.Record.Kind, when: x.Record.When})
		case x.ID == ID{}:
			failed = x.err
		}
		return failed == nil
	})
	return failed
}
