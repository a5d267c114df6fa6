package metadata

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/internal/fault"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// errLost means that a publish did not become the newest slot's successor:
// somebody else published. Callers of the package see it as ESTALE.
var errLost = fmt.Errorf("another writer was faster: %w", syscall.ESTALE)

// errRaced means that the slot a publish wanted to go on top of is not the newest
// any more: there is one to be reread, and it may be as good.
var errRaced = fmt.Errorf("%w", errLost)

// noteAttr names the xattr that keeps the mtime while an own body is punched.
func (f *FS) noteAttr() string { return f.prefix + "punch" }

// notes are the xattrs of MarFS beside the slots: of a punch, and of a path.
type notes struct{ punch, path bool }

// gens lists the generations of the slots, highest first, and the notes.
func (fl *File) gens() (gens []uint64, noted notes, err error) {
	attrs, err := fl.inode.Listxattr()
	if err != nil {
		return nil, noted, err
	}
	punch, path := fl.f.noteAttr(), fl.f.pathAttr()
	for _, a := range attrs {
		if g, ok := objfmt.ParseSlotName(fl.f.prefix, a); ok {
			gens = append(gens, g)
		}
		noted.punch = noted.punch || a == punch
		noted.path = noted.path || a == path
	}
	slices.SortFunc(gens, func(a, b uint64) int {
		if a > b {
			return -1
		}
		return 1
	})
	return gens, noted, nil
}

func (fl *File) readSlot(gen uint64) (objfmt.Slot, error) {
	b, err := fl.inode.Getxattr(objfmt.SlotName(fl.f.prefix, gen))
	if err != nil {
		return objfmt.Slot{}, err
	}
	return objfmt.ParseSlot(gen, b)
}

// noSlot is what a file without slots is: empty, never committed.
func noSlot() objfmt.Slot {
	return objfmt.Slot{State: objfmt.Final, Source: objfmt.Source{Kind: objfmt.SourceEmpty}}
}

// newest reads the highest slot, which is the truth: a slot is only ever created
// above it, or in a gap below it that nobody believes. One that is gone when it
// is read was dropped because a higher one came: list again.
func (fl *File) newest() (s objfmt.Slot, noted notes, err error) {
	for range maxRaces {
		var gens []uint64
		if gens, noted, err = fl.gens(); err != nil {
			return s, noted, err
		}
		if len(gens) == 0 {
			return noSlot(), noted, nil
		}
		if s, err = fl.readSlot(gens[0]); !errors.Is(err, syscall.ENODATA) {
			return s, noted, err
		}
	}
	return s, noted, err
}

// history reads the committed slots, newest first, and the generations of junk:
// slots below the top that are not the predecessor named by the slot above. They
// were created by writers who fell asleep, in gaps that cleaning had left, and
// were never published (R1).
func (fl *File) history() (chain []objfmt.Slot, junk []uint64, err error) {
	chain, junk, _, err = fl.historyNoted()
	return chain, junk, err
}

func (fl *File) historyNoted() (chain []objfmt.Slot, junk []uint64, noted notes, err error) {
	for range maxRaces {
		var gens []uint64
		gens, noted, err = fl.gens()
		if err != nil || len(gens) == 0 {
			return nil, nil, noted, err
		}
		if chain, junk, err = fl.follow(gens); !errors.Is(err, syscall.ENODATA) {
			return chain, junk, noted, err
		}
	}
	return nil, nil, noted, syscall.ENODATA
}

func (fl *File) follow(gens []uint64) (chain []objfmt.Slot, junk []uint64, err error) {
	for _, g := range gens {
		s, err := fl.readSlot(g)
		if err != nil {
			return nil, nil, err
		}
		if n := len(chain); n > 0 && !fl.f.o.Omit.Has(omit.IgnoreJunk) {
			if above := chain[n-1]; g != above.Gen-1 || s.Nonce != above.Prev {
				junk = append(junk, g)
				continue
			}
		}
		chain = append(chain, s)
	}
	return chain, junk, nil
}

// publish is R1: it creates the slot above prev, exclusively, and returns it when
// it is committed. errRaced: it is not, and never will be.
func (fl *File) publish(p *fault.Step, prev, next objfmt.Slot) (objfmt.Slot, error) {
	next.File, next.Gen = fl.id, prev.Gen+1
	next.Nonce, next.Prev = fl.f.newNonce(), prev.Nonce
	if next.State != objfmt.Open {
		next.Session = objfmt.ID{}
	}
	b, err := next.Encode()
	if err != nil {
		return objfmt.Slot{}, err
	}
	flags := unix.XATTR_CREATE
	if fl.f.o.Omit.Has(omit.XattrCreate) {
		flags = 0
	}
	err = setxattr(p, fl.inode, objfmt.SlotName(fl.f.prefix, next.Gen), b, flags)
	if full(err) {
		if _, noted, e := fl.gens(); e == nil && noted.path && fl.dropPath() == nil { // a slot matters more
			err = setxattr(p, fl.inode, objfmt.SlotName(fl.f.prefix, next.Gen), b, flags)
		}
	}
	if errors.Is(err, syscall.EEXIST) {
		return objfmt.Slot{}, errRaced
	}
	if err == nil {
		err = fl.confirm(next)
	}
	if err != nil {
		return objfmt.Slot{}, err
	}
	return next, nil
}

// confirm tells whether a slot that was just created is committed: it is the
// highest, or the chain of predecessors from the highest reaches it. Otherwise
// it was created in a gap below the top, where prev had been dropped meanwhile.
func (fl *File) confirm(s objfmt.Slot) error {
	gens, _, err := fl.gens()
	if err != nil || len(gens) > 0 && gens[0] == s.Gen {
		return err
	}
	chain, junk, err := fl.history()
	if err != nil {
		return err
	}
	for _, c := range chain {
		if c.Nonce == s.Nonce || c.Gen == s.Gen+1 && c.Prev == s.Nonce {
			return nil // committed; the second: and already replaced and dropped
		}
	}
	if slices.Contains(junk, s.Gen) { // what is in a gap never gets out of it, whosever it is
		if err := removexattr(stepJunk, fl.inode, objfmt.SlotName(fl.f.prefix, s.Gen)); err != nil {
			return err
		}
	}
	return errRaced
}

// landed returns the newest slot when its content is the one that was to be
// published, else the error. A publish may succeed and be fenced twice before its
// maker looks: his slot is gone then, and the content the newest all the same. To
// call that a failure would let a failed close displace what was acknowledged.
func (fl *File) landed(next objfmt.Slot, raced error) (objfmt.Slot, error) {
	top, _, err := fl.newest()
	if err == nil && (next.State == objfmt.Open || top.State == objfmt.Open || top.Content != next.Content || top.Source != next.Source) {
		err = raced
	}
	return top, err
}

// archived reports whether every byte of a slot's content is in objects: then
// the file's home is in files/, else in staged/.
func archived(s objfmt.Slot) bool {
	switch s.Source.Kind {
	case objfmt.SourceOwn, objfmt.SourceBody:
		return false
	case objfmt.SourceTable:
		return s.Source.Tail.IsZero() && s.State != objfmt.Open
	}
	return s.State != objfmt.Open
}

// sameContent reports whether b is a's content, unchanged, wherever it is now.
func sameContent(a, b objfmt.Slot) bool {
	return a.Content == b.Content && a.Size == b.Size && a.Source.Stored == b.Source.Stored
}

// empty reports whether a slot holds no bytes that anybody could miss.
func empty(s objfmt.Slot) bool {
	return s.Source.Kind == objfmt.SourceEmpty || s.Source.Stored == 0
}
