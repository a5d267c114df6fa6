package metadata

import (
	"context"
	"iter"
	"strings"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// Leftover is something that a process which is no more has left.
type Leftover struct {
	Place  string        // its path in the metadata directory
	Since  time.Time     // when it got there
	Record objfmt.Record // of an unfinished write, a deletion or a pack; else zero
}

// Leftovers lists what [FS.Recover] with the same alive and [FS.Sweep] with the
// same before would look at: work records and open packs of dead processes, slots
// they left open, and what has been in dead/ since before that time. It changes
// nothing. An error of one does not end it.
func (f *FS) Leftovers(ctx context.Context, alive Alive, before time.Time) iter.Seq2[Leftover, error] {
	if floor := f.now().Add(-f.o.Grace); before.After(floor) {
		before = floor
	}
	return func(yield func(Leftover, error) bool) {
		c := &census{f: f, alive: alive, known: map[[4]byte]bool{}}
		for _, list := range []func() iter.Seq2[Leftover, error]{
			func() iter.Seq2[Leftover, error] { return f.deadWork(c.lives) },
			func() iter.Seq2[Leftover, error] { return f.deadPacks(c.lives) },
			func() iter.Seq2[Leftover, error] { return f.deadStaged(ctx, c.lives) },
			func() iter.Seq2[Leftover, error] { return f.inDead(deadName, before) },
			func() iter.Seq2[Leftover, error] { return f.inTaken(before) },
		} {
			for l, err := range list() {
				if ctx.Err() != nil {
					yield(Leftover{}, ctx.Err())
					return
				}
				if !yield(l, err) {
					return
				}
			}
		}
	}
}

func (f *FS) deadWork(lives func([]byte) bool) iter.Seq2[Leftover, error] {
	return func(yield func(Leftover, error) bool) {
		for r, err := range f.workRecords(func(name string) bool { return !f.ownedBy(name, lives) }) {
			if err != nil {
				if !yield(Leftover{}, err) {
					return
				}
			} else if !f.leftover(workName+"/"+r.node, r.name, time.Time{}, yield) {
				return
			}
		}
	}
}

func (f *FS) deadPacks(lives func([]byte) bool) iter.Seq2[Leftover, error] {
	return func(yield func(Leftover, error) bool) {
		names, err := f.abandonedPacks(lives)
		if err != nil && !yield(Leftover{}, err) {
			return
		}
		for _, name := range names {
			if !f.leftover(openPacks, name, time.Time{}, yield) {
				return
			}
		}
	}
}

func (f *FS) deadStaged(ctx context.Context, lives func([]byte) bool) iter.Seq2[Leftover, error] {
	return func(yield func(Leftover, error) bool) {
		for id, err := range f.Staged(ctx) {
			var open bool
			if err == nil {
				open, err = f.leftOpen(id, lives)
			}
			if err = ignore(err, syscall.ENOENT, errNoHome); err != nil && !yield(Leftover{}, err) {
				return
			}
			if dir, name := homePath(stagedName, id); open && !f.leftover(dir, name, time.Time{}, yield) {
				return
			}
		}
	}
}

// leftOpen tells whether the newest slot of a staged file is open by a dead process.
func (f *FS) leftOpen(id objfmt.ID, lives func([]byte) bool) (bool, error) {
	fl, err := f.openHome(id, []string{stagedName})
	if err != nil {
		return false, err
	}
	defer fl.Close()
	s, _, err := fl.newest()
	return err == nil && s.State == objfmt.Open && !lives(s.Session[8:sessionBytes]), err
}

func (f *FS) inDead(dir string, before time.Time) iter.Seq2[Leftover, error] {
	return func(yield func(Leftover, error) bool) {
		names, err := f.names(dir, "")
		if err != nil && !yield(Leftover{}, err) {
			return
		}
		for _, name := range names {
			if dir+"/"+name != takenName && !f.leftover(dir, name, before, yield) {
				return
			}
		}
	}
}

func (f *FS) inTaken(before time.Time) iter.Seq2[Leftover, error] {
	return func(yield func(Leftover, error) bool) {
		fans, err := f.names(takenName, "")
		if err != nil && !yield(Leftover{}, err) {
			return
		}
		for _, fan := range fans {
			for l, err := range f.inDead(takenName+"/"+fan, before) {
				if !yield(l, err) {
					return
				}
			}
		}
	}
}

// leftover yields dir/name if it has been there since before a time (zero: any),
// with its record if it is one. What is gone by now is none.
func (f *FS) leftover(dir, name string, before time.Time, yield func(Leftover, error) bool) (more bool) {
	l := Leftover{Place: dir + "/" + name}
	at, err := f.arrived(dir, name)
	if err != nil {
		return ignore(err, syscall.ENOENT) == nil || yield(Leftover{}, err)
	}
	if !before.IsZero() && !at.Before(before) {
		return true
	}
	if top, _, _ := strings.Cut(dir, "/"); top != stagedName && !strings.HasPrefix(name, deadHome) && !strings.HasPrefix(name, deadBegun) {
		_ = f.in(dir, func(d mdfs.Dir) (err error) { // tables and notes are none
			l.Record, err = readRecord(d, name)
			return err
		})
	}
	if l.Since = at; at.IsZero() {
		l.Since = l.Record.When
	}
	return yield(l, nil)
}
