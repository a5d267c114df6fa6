package metadata

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// Sweep ends what has been in dead/ since before the given time, which must lie
// at least Options.Grace back (it is lowered to that): records of fenced sessions
// and packs, whose objects are deleted once more because an upload may have
// arrived late; and what a gc left that died between taking and deciding, which
// is continued or given back. Times are those of the filesystem's inodes.
//
// doomed is as in [FS.Expire]: it is told of what a gc had taken and is destroyed now.
func (f *FS) Sweep(ctx context.Context, before time.Time, doomed func([]Doom) error) error {
	if f.copied {
		return ErrCopied
	}
	if floor := f.now().Add(-f.o.Grace); before.After(floor) {
		before = floor
	}
	s := &sweep{f: f, before: before, batch: batch{f: f, tell: doomed, done: &Expired{}}}
	errs := []error{s.dir(ctx, deadName, s.dead)}
	fans, err := f.names(takenName, "")
	errs = append(errs, err)
	slices.Sort(fans)
	for _, fan := range fans {
		if ctx.Err() != nil {
			break
		}
		errs = append(errs, s.dir(ctx, takenName+"/"+fan, s.taken))
	}
	return errors.Join(append(errs, s.batch.destroy(ctx))...)
}

// sweep is one Sweep.
type sweep struct {
	f      *FS
	before time.Time
	batch  batch // what is to be destroyed

	recorded map[string]bool // files with a record in dead/ when it was listed
}

// dir calls fn for the names in a directory that got there before the time. What fn
// returns is destroyed.
func (s *sweep) dir(ctx context.Context, dir string, fn func(context.Context, string) (doomed, error)) error {
	names, err := s.f.names(dir, "")
	if dir == deadName {
		s.note(names)
	}
	errs := []error{err}
	for _, name := range names {
		if ctx.Err() != nil {
			break // told once, by the batch
		}
		var d doomed
		old, err := s.f.since(dir, name, s.before)
		if err == nil && old {
			d, err = fn(ctx, name)
		}
		if err := ignore(err, syscall.ENOENT); err != nil {
			errs = append(errs, fmt.Errorf("sweep %s/%s: %w", dir, name, err))
		} else if d != nil {
			errs = append(errs, s.add(ctx, d))
		}
	}
	return errors.Join(errs...)
}

// note keeps which files have a record in dead/, so that it is not listed again for
// each home there.
func (s *sweep) note(names []string) {
	s.recorded = map[string]bool{}
	for _, name := range names {
		if id, _, ok := strings.Cut(strings.TrimPrefix(name, deadTrash), "-"); ok && strings.HasPrefix(name, deadTrash) {
			s.recorded[id] = true
		}
	}
}

// hasRecord tells whether a record of a file is, or was, in dead/: its turn comes.
// None is only believed after another look.
func (s *sweep) hasRecord(id string) (bool, error) {
	if s.recorded[id] {
		return true, nil
	}
	return s.f.anyName(deadName, deadTrash+id)
}

// add destroys what there is when it is enough for a sync.
func (s *sweep) add(ctx context.Context, d doomed) error {
	if s.batch.list = append(s.batch.list, d); len(s.batch.list) < expireAtOnce {
		return nil
	}
	full := s.batch
	s.batch = batch{f: full.f, tell: full.tell, done: full.done}
	return full.destroy(ctx)
}

func (f *FS) since(dir, name string, before time.Time) (old bool, err error) {
	at, err := f.arrived(dir, name)
	return err == nil && at.Before(before), err
}

// arrived tells when a name got into a directory of dead/: the rename that put it
// there has set its ctime. That of an inode which records share is set by whatever
// happens to any of them, so there the home tells: it was taken right after the
// record, or is still where it was when the last name went. Zero, which is old: the
// file has a name, or there is none any more. Then nothing is to be waited for.
func (f *FS) arrived(dir, name string) (at time.Time, err error) {
	if _, shared, _ := objfmt.ParseRecordPart(name); shared && dir == deadName && strings.HasPrefix(name, deadTrash) {
		return f.homeSince(name[len(deadTrash):])
	}
	err = f.in(dir, func(d mdfs.Dir) error {
		st, err := d.Lstat(name)
		at = time.Unix(st.Ctim.Unix())
		return err
	})
	return at, err
}

// homeSince tells since when the file of a removal's record has been as it is.
func (f *FS) homeSince(record string) (at time.Time, err error) {
	id, err := objfmt.ParseID(record[:min(len(record), 32)])
	if err != nil {
		return at, err
	}
	fl, _, err := f.findHome(id)
	if err != nil {
		return at, ignore(err, syscall.ENOENT)
	}
	defer fl.Close()
	st, err := fl.inode.Stat()
	if err == nil && st.Nlink == 1 {
		at = time.Unix(st.Ctim.Unix())
	}
	return at, err
}

func (s *sweep) dead(ctx context.Context, name string) (doomed, error) {
	if len(name) < len(deadWork) {
		return nil, nil
	}
	f := s.f
	switch rest := name[len(deadWork):]; name[:len(deadWork)] {
	case deadWork:
		return nil, f.settleWork(ctx, name, true)
	case deadPack:
		return nil, f.settlePack(ctx, name, true)
	case deadTrash:
		return s.deletion(ctx, name)
	case deadHome:
		return nil, s.home(rest)
	case deadBegun:
		return s.begun(rest)
	case deadMove:
		return nil, f.sweepMove(name)
	case deadTemp:
		return nil, f.in(deadName, func(d mdfs.Dir) error { return removeAny(stepDrop, d, name) })
	}
	return nil, nil
}

// deletion goes on with a removal or a pack whose record a gc had taken. One that
// had not taken the home has decided nothing: the record goes back, for the keep
// time is not known here. It goes when there is no home any more.
func (s *sweep) deletion(ctx context.Context, name string) (doomed, error) {
	f := s.f
	r, err := f.recordAt(deadName, name, strings.TrimPrefix(name, deadTrash))
	if err != nil {
		return nil, err
	}
	switch r.Kind {
	case objfmt.RecordPack:
		return f.doomPack(ctx, name, r, s.batch.done)
	case objfmt.RecordFile:
		fl, place, err := f.findHome(r.File)
		if errors.Is(err, syscall.ENOENT) {
			return nil, f.dropDead(name)
		}
		if err != nil {
			return nil, err
		}
		fl.Close()
		if slices.Contains(takenPlaces, place) {
			return f.doom(name, r, time.Time{}, false, s.batch.done)
		}
	}
	return nil, f.backToTrash(name, r)
}

// begun goes on with a file that was being destroyed, and whose record is gone: only
// a power failure can have parted them.
func (s *sweep) begun(id string) (doomed, error) {
	recorded, err := s.hasRecord(id)
	if err != nil || recorded {
		return nil, err
	}
	file, err := objfmt.ParseID(id)
	if err != nil {
		return nil, err
	}
	return &deletion{record: objfmt.Record{Kind: objfmt.RecordFile, File: file, Node: s.f.o.Node, When: s.f.now(), Why: "found"}, file: file}, nil
}

// home looks after a home in dead/ whose record is gone: only a power
// failure can have parted them. With a name it goes back; without, it gets a new
// record, and with it another keep time.
func (s *sweep) home(id string) error {
	f := s.f
	recorded, err := s.hasRecord(id)
	if err != nil || recorded {
		return err
	}
	file, err := objfmt.ParseID(id)
	if err != nil {
		return err
	}
	fl, err := f.openHome(file, []string{deadName})
	if err != nil {
		return err
	}
	defer fl.Close()
	if named, err := fl.named(); err != nil {
		return err
	} else if !named {
		_, err := f.putTrash(objfmt.Record{Kind: objfmt.RecordFile, File: file, Node: f.o.Node, When: f.now(), Why: "found"}, true)
		if err != nil {
			return err
		}
	}
	return f.spare(fl, deadName, "", &Expired{})
}

// taken gives back or destroys a version that somebody had taken. It is taken over
// by another rename, so that its first taker, should he wake up, finds nothing. A
// restorer's is left while his work record is there.
func (s *sweep) taken(ctx context.Context, name string) (doomed, error) {
	f := s.f
	id, token, ok := strings.Cut(name, ".")
	content, err := objfmt.ParseID(id)
	if !ok || err != nil || token == "" {
		return nil, nil
	}
	if session, err := objfmt.ParseID(token[1:]); err == nil && token == restorer(session) {
		if busy, err := f.restoring(session); busy || err != nil {
			return nil, err
		}
	}
	v := &expiredVersion{token: token[:1] + f.suffix(), found: true}
	err = f.in(fanned(takenName, content), func(d mdfs.Dir) error {
		mine := takenVersion(content, v.token)
		if err := f.retake(d, name, mine); err != nil {
			return err
		}
		v.record, err = readRecord(d, mine)
		return err
	})
	if err != nil {
		return nil, err
	}
	use, err := f.usedBy(ctx, v.record.File, content)
	switch {
	case err != nil:
		return nil, err
	case token[:1] == tokenDoomed && use == usedNot:
		return v, nil
	case use == usedNewest:
		return nil, f.dropTakenAs(content, v.token)
	}
	return nil, f.putVersionBack(v.record, v.token)
}

func (f *FS) retake(d mdfs.Dir, name, mine string) error {
	return rename(stepTake, d, name, d, mine, 0)
}

// restoring tells whether a restorer's record is still in its hands or its fencer's.
func (f *FS) restoring(session objfmt.ID) (bool, error) {
	if found, err := f.hasWork(session); found || err != nil {
		return found, err
	}
	return f.anyName(deadName, deadWork+session.String())
}

// Alive tells whether a node lives ([Watch.Alive]). It decides only what recovery
// tries; nil: nobody lives but this FS.
type Alive func(n Node) bool

// census answers which instances live, as of the first question about each. One
// without a record is dead for good: a process has its record before all else.
type census struct {
	f     *FS
	alive Alive
	known map[[4]byte]bool
}

func (c *census) lives(instance []byte) bool {
	i := [4]byte(instance)
	if i == c.f.instance {
		return true
	}
	if lives, ok := c.known[i]; ok {
		return lives
	}
	nodes, err := c.f.Nodes(context.Background())
	if err != nil {
		return true // cannot tell: leave it alone
	}
	for _, n := range nodes {
		if _, ok := c.known[n.Instance]; !ok {
			c.known[n.Instance] = c.alive != nil && c.alive(n)
		}
	}
	if _, ok := c.known[i]; !ok {
		c.known[i] = false
	}
	return c.known[i]
}

// Recover finishes or abandons what dead processes left: work records, packs, and
// staged files whose slots are open without a record. It walks no tree. Errors of
// single items do not stop the others.
func (f *FS) Recover(ctx context.Context, alive Alive) error {
	c := &census{f: f, alive: alive, known: map[[4]byte]bool{}}
	var errs []error
	for _, step := range []func(context.Context, func([]byte) bool) error{
		f.recoverWork, f.recoverPacks, f.recoverStaged, f.forgetNodes} {
		errs = append(errs, step(ctx, c.lives))
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	return errors.Join(errs...)
}

// RecoverRestores gives back the records of removals that dead processes were
// restoring: the part of Recover that lets a restore be done again.
func (f *FS) RecoverRestores(ctx context.Context, alive Alive) error {
	c := &census{f: f, alive: alive, known: map[[4]byte]bool{}}
	return f.recoverRecords(ctx, func(name string) bool {
		_, _, removal := strings.Cut(name, ".")
		return removal && !f.ownedBy(name, c.lives)
	})
}

func (f *FS) recoverWork(ctx context.Context, lives func([]byte) bool) error {
	return f.recoverRecords(ctx, func(name string) bool { return !f.ownedBy(name, lives) })
}

// recoverRecords ends what the work records tell of that are left over.
func (f *FS) recoverRecords(ctx context.Context, left func(name string) bool) error {
	var errs []error
	for r, err := range f.workRecords(left) {
		if err == nil {
			if err = f.RecoverWork(ctx, r.node, r.name); err != nil {
				err = fmt.Errorf("recover work/%s/%s: %w", r.node, r.name, err)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// workRecord names a record of an unfinished write or restore: work/<node>/<name>.
type workRecord struct{ node, name string }

// workRecords lists those that left chooses.
func (f *FS) workRecords(left func(name string) bool) iter.Seq2[workRecord, error] {
	return func(yield func(workRecord, error) bool) {
		nodes, err := f.names(workName, "")
		if err != nil && !yield(workRecord{}, err) {
			return
		}
		for _, node := range nodes {
			names, err := f.names(workName+"/"+node, "")
			if err != nil && !yield(workRecord{}, err) {
				return
			}
			for _, name := range names {
				if left(name) && !yield(workRecord{node, name}, nil) {
					return
				}
			}
		}
	}
}

// abandonedPacks lists the open packs whose packers do not live.
func (f *FS) abandonedPacks(lives func([]byte) bool) ([]string, error) {
	names, err := f.names(openPacks, "")
	return slices.DeleteFunc(names, func(name string) bool {
		_, instance, ok := strings.Cut(name, ".")
		return ok && lives(fileInstance(instance))
	}), err
}

// forgetNodes removes the records of nodes that have ended.
func (f *FS) forgetNodes(ctx context.Context, lives func([]byte) bool) error {
	nodes, err := f.Nodes(ctx)
	errs := []error{err}
	for _, n := range nodes {
		if !lives(n.Instance[:]) {
			errs = append(errs, f.forgetNode(n.Name))
		}
	}
	return errors.Join(errs...)
}

// ownedBy tells whether the owner of a work record lives. A session of this
// process that has ended, and left its record because something was in its way,
// has no owner any more.
func (f *FS) ownedBy(name string, lives func([]byte) bool) bool {
	if _, instance, ok := strings.Cut(name, "."); ok { // of a restore
		return lives(fileInstance(instance))
	}
	session, err := objfmt.ParseID(name)
	if err != nil {
		return false
	}
	if [4]byte(session[8:sessionBytes]) == f.instance {
		return f.isLive(session)
	}
	return lives(session[8:sessionBytes])
}

func (f *FS) recoverPacks(ctx context.Context, lives func([]byte) bool) error {
	names, err := f.abandonedPacks(lives)
	errs := []error{err}
	for _, name := range names {
		if err := f.RecoverPack(ctx, name); err != nil {
			errs = append(errs, fmt.Errorf("recover %s/%s: %w", openPacks, name, err))
		}
	}
	return errors.Join(errs...)
}

// recoverStaged closes slots that creators and appenders left open, and moves
// homes whose content is archived.
func (f *FS) recoverStaged(ctx context.Context, lives func([]byte) bool) error {
	var errs []error
	for id, err := range f.Staged(ctx) {
		if err == nil {
			err = f.recoverHome(ctx, id, lives)
		}
		if err := ignore(err, syscall.ENOENT, errNoHome); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (f *FS) recoverHome(ctx context.Context, id objfmt.ID, lives func([]byte) bool) error {
	dir, name := homePath(stagedName, id)
	fl, err := f.openAt(dir, name)
	if err != nil {
		return err
	}
	defer fl.Close()
	if fl.id != id && !fl.id.IsZero() { // linked for another inode in a race
		return f.in(dir, func(d mdfs.Dir) error { return remove(stepDropHome, d, name) })
	}
	if err := f.checkStaged(fl); err != nil {
		return err
	}
	s, noted, err := fl.newest()
	if err != nil {
		return err
	}
	if s.State == objfmt.Open && !lives(s.Session[8:sessionBytes]) {
		if err := fl.fence(ctx, s.Session); err != nil {
			return err
		}
		if s, noted, err = fl.newest(); err != nil {
			return err
		}
	}
	if s, err = fl.mendTorn(s); err != nil {
		return err
	}
	if !archived(s) {
		return nil
	}
	if noted.path { // of a content that never came to be
		if err := fl.dropPath(); err != nil {
			return err
		}
	}
	return f.moveRecorded(fl)
}

// moveRecorded places a home for which nobody has a record. Between the look at
// the slot and the rename another writer may publish a body and end; dying
// before the second look would leave the home in files/ for ever, so a note in
// dead/ makes a sweep look again.
func (f *FS) moveRecorded(fl *File) error {
	note := deadMove + fl.id.String() + "." + f.suffix()
	err := f.in(deadName, func(d mdfs.Dir) error { return writeFile(stepPlace, d, note, nil, false) })
	if err != nil {
		return err
	}
	if err := fl.placeHome(0); err != nil {
		return err // the note stays
	}
	return f.dropDead(note)
}

// sweepMove looks again after a move that did not come to its end.
func (f *FS) sweepMove(name string) error {
	id, _, _ := strings.Cut(strings.TrimPrefix(name, deadMove), ".")
	file, err := objfmt.ParseID(id)
	if err != nil {
		return err
	}
	fl, err := f.openHome(file, homePlaces)
	if err == nil {
		err = fl.placeHome(0)
		fl.Close()
	}
	if err := ignore(err, syscall.ENOENT, errNoHome); err != nil {
		return err
	}
	return f.dropDead(name)
}

// checkStaged removes a second home.
func (f *FS) checkStaged(fl *File) error {
	return f.in(fanned(stagedName, fl.id), func(d mdfs.Dir) error { return fl.checkHome(d, false) })
}
