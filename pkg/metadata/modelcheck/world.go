package modelcheck

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/mdfssim"
	"marfs/pkg/metadata"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// Scenario is a small situation: what is there, and who does what to it.
type Scenario struct {
	Name   string
	Setup  func(p *Party) // unscheduled, once
	Actors []Role
	// Strict: nobody is killed, so records tell exactly the names that are gone.
	Strict bool
	// Lenient names the residue that this scenario may leave; see residue.go.
	Lenient residue
}

// Role is what one actor does.
type Role struct {
	Name  string
	NoDie bool                  // is not killed
	Ready func(p *Party) func() // unscheduled; what it returns is done instead of Do
	Late  bool                  // its clock is far ahead, so that what others record has expired
	Do    func(p *Party)
}

const namespace = "ns"

// base is what every execution of a scenario starts from.
type base struct {
	s       Scenario
	omit    omit.Set
	disk    mdfssim.Options
	image   *mdfssim.Image
	objects *Objects
	files   map[objfmt.ID]string          // content of each file, as cells
	past    map[objfmt.ID]map[string]bool // what it held before
}

// world is one execution of a scenario.
type world struct {
	*base
	x       *Exec
	disk    *mdfssim.Disk
	objects *Objects
	history history
	wrong   error // seen by an actor
	touched bool  // a user has set the mtime of f, and nobody writes
}

// newBase builds the state that a scenario begins with.
func newBase(s Scenario, o omit.Set, disk mdfssim.Options) *base {
	if disk.Journal {
		s.Lenient |= lostRecord(s, disk.OneJournal)
	}
	b := &base{s: s, omit: o, disk: disk, files: map[objfmt.ID]string{}, past: map[objfmt.ID]map[string]bool{}}
	w := &world{base: b, disk: mdfssim.New(mdfssim.Options{OneJournal: disk.OneJournal}), objects: newObjects()}
	w.history.files = b.files
	md := w.disk.Mount(mdfssim.MountOptions{Clock: func() int64 { return epoch }})
	if err := metadata.Init(md, namespace); err != nil {
		panic(err) // the simulated disk has no errors of its own
	}
	dropPurged(md)
	if s.Setup != nil {
		p := w.party("setup", md, nil, 999, false)
		s.Setup(p)
		for id := range b.files {
			b.past[id] = w.history.outcomes(id).ever
			b.files[id] = w.history.certain(id)
		}
		p.close()
	}
	b.image, b.objects = w.disk.Freeze(), w.objects
	return b
}

// dropPurged removes the directories that purged records go to: they are made again
// when one does, and 257 that are empty would be most of what every execution lists.
func dropPurged(md mdfs.FS) {
	trash, err := mdfs.Walk(md.Root(), "trash")
	if err != nil {
		panic(err)
	}
	defer trash.Close()
	purged, err := trash.OpenDir(metadata.PurgedDay)
	if err != nil {
		panic(err)
	}
	defer purged.Close()
	for hh := range 256 {
		if err := purged.RemoveDir(fmt.Sprintf("%02x", hh)); err != nil {
			panic(err)
		}
	}
	if err := trash.RemoveDir(metadata.PurgedDay); err != nil {
		panic(err)
	}
}

// program makes the scenario's executions.
func (b *base) program(x *Exec) System {
	w := &world{base: b, x: x, disk: b.image.Disk(b.disk), objects: b.objects.clone()}
	w.history.files, w.history.past = b.files, b.past
	for _, r := range b.s.Actors {
		var p *Party
		var do func()
		a := x.Go(r.Name, !r.NoDie, func(*Actor) { do() })
		p = w.party(r.Name, a.Mount(w.disk), a, uint64(a.id), r.Late)
		if do = func() { r.Do(p) }; r.Ready != nil {
			do = r.Ready(p)
		}
	}
	return w
}

// Hash implements System.
func (w *world) Hash() uint64 { return mix(w.disk.Hash(), w.objects.sum) }

// Verdict implements System.
func (w *world) Verdict() uint64 {
	if w.wrong != nil {
		return ^uint64(0)
	}
	return w.history.hash()
}

// Party is one node's access to the world: what a namespace does, made of calls
// of the real protocol.
type Party struct {
	w     *world
	name  string
	actor *Actor // nil: unscheduled
	disk  mdfs.FS
	md    *metadata.FS
	obj   client
	ctx   context.Context
	who   metadata.Who
}

func (w *world) party(name string, disk mdfs.FS, a *Actor, seed uint64, late bool) *Party {
	p := &Party{w: w, name: name, actor: a, disk: disk, obj: client{w.objects, a}, ctx: context.Background()}
	ticks := int64(0)
	clock := func() time.Time {
		ns := int64(epoch)
		switch {
		case a != nil:
			ns = a.clock()
		case late: // goes on, so that what it records can expire too
			ticks++
			ns += ticks
		}
		if late {
			ns += int64(90 * 24 * time.Hour)
		}
		if late && a == nil { // the healer comes after everybody
			ns += int64(90 * 24 * time.Hour)
		}
		return time.Unix(0, ns)
	}
	sync := metadata.NameSyncNames
	if w.base.disk.OneJournal {
		sync = metadata.NameSyncFile
	}
	md, err := metadata.Open(p.ctx, disk, metadata.Options{
		Namespace: namespace, Node: name, Objects: p.obj, NameSync: sync, SkipTest: true,
		Rand: &stream{seed: seed}, Clock: clock, Omit: w.omit,
	})
	if err != nil {
		panic(fmt.Sprintf("open as %s: %v", name, err)) // nothing is wrong with the disk
	}
	p.md = md
	p.who = metadata.Who{Cred: mdfs.Cred{UID: 1000, GID: 1000}}
	return p
}

func (p *Party) close() {
	if err := p.md.Close(); err != nil {
		panic(err)
	}
}

// stream is a source of ids that depends on its owner and on how much was drawn.
type stream struct{ seed, n uint64 }

func (s *stream) Read(b []byte) (int, error) {
	for i := 0; i < len(b); i += 8 {
		s.n++
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], splitmix(splitmix(s.seed+1)+s.n))
		copy(b[i:], word[:])
	}
	return len(b), nil
}

var _ io.Reader = (*stream)(nil)

func splitmix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
