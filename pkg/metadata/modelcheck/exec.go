package modelcheck

import (
	"fmt"
	"runtime"
	"strings"

	"marfs/pkg/mdfs/mdfssim"
)

// System is one fresh instance of what is explored. Its actors change nothing
// but through steps.
type System interface {
	// Hash identifies the shared state.
	Hash() uint64
	// Verdict is a hash of what Check looks at beside the shared state.
	Verdict() uint64
	// Check judges the state after every actor ended or was killed. It may take
	// further steps; they are not scheduled.
	Check() error
}

// Program makes Systems. Every instance must behave alike under one schedule.
type Program func(x *Exec) System

// crasher is a System that can lose power at any state.
type crasher interface {
	// CheckCrash judges what power failures at the present state may leave.
	CheckCrash() error
}

// step is one call of an actor.
type step interface {
	Footprint([]mdfssim.Access) []mdfssim.Access
	Digest() uint64
	String() string
	Outcome() string
}

// maxSteps bounds one execution: an actor that spins would never end it.
const maxSteps = 20_000

type status uint8

const (
	parked  status = iota // before a step
	running               // has the token
	ended
	killed
)

// Actor is one of the parties; it runs in a goroutine of its own.
type Actor struct {
	Name string
	x    *Exec
	id   int
	kill bool // may be killed
	body func(*Actor)

	resume  chan struct{}
	status  status
	pending step
	history uint64        // of every step and its result
	tick    int64         // changes made: its clock
	doomed  bool          // unwinds at its next step
	mounts  []*mdfssim.FS // its locks go when it is killed
}

// choice is one decision of the scheduler.
type choice struct {
	actor int
	kill  bool
}

// Exec is one execution of a Program under a policy. Whoever parks or ends
// decides who is next and hands the token on, so going on costs no switch.
type Exec struct {
	sys    System
	actors []*Actor
	policy policy
	main   chan struct{}   // the token's way back
	free   bool            // steps are not scheduled
	kills  int             // kills left
	crash  map[uint64]bool // states at which power was lost; nil: never

	schedule []choice
	trace    *strings.Builder // nil: none
	err      error            // of the policy
	done     bool             // every actor ended or was killed
}

// policy decides. It returns false to give the execution up.
type policy interface {
	choose(x *Exec, last *Actor) (choice, bool)
}

// Go adds an actor. kill says that the scheduler may kill it.
func (x *Exec) Go(name string, kill bool, body func(*Actor)) *Actor {
	a := &Actor{Name: name, x: x, id: len(x.actors), kill: kill, body: body, resume: make(chan struct{})}
	a.history = uint64(a.id) + 1
	x.actors = append(x.actors, a)
	return a
}

// execute runs the program once, to the end or until the policy gives up.
func execute(p Program, pol policy, l Limits, trace *strings.Builder) *Exec {
	x := &Exec{policy: pol, main: make(chan struct{}), kills: l.Kills, free: true}
	x.sys = p(x)
	x.trace, x.crash = trace, l.crashes
	x.free = false
	for _, a := range x.actors {
		a.status = running
		go a.run()
		<-x.main // parked before its first step, or ended
	}
	if a := x.next(nil); a != nil {
		x.pass(a)
		<-x.main
	}
	x.unwind()
	x.free = true
	return x
}

func (a *Actor) run() {
	defer func() {
		if a.status == running {
			a.status = ended
			a.x.note(a, "ends", "")
		}
		switch {
		case a.doomed || a.pending == nil: // unwound, or ended before the first step
			a.x.main <- struct{}{}
		default:
			a.x.pass(a.x.next(a))
		}
	}()
	a.body(a)
}

// before is called by the actor before a step; it does not return when the actor is killed.
func (a *Actor) before(s step) {
	x := a.x
	if a.doomed {
		runtime.Goexit()
	}
	if x.free || a.status != running {
		return
	}
	if x.crash == nil && len(s.Footprint(nil)) == 0 {
		return // nobody can see it
	}
	first := a.pending == nil
	a.pending, a.status = s, parked
	if first {
		x.main <- struct{}{}
	} else if n := x.next(a); n != a {
		x.pass(n)
	} else {
		a.status = running
		return
	}
	<-a.resume
	if a.doomed {
		runtime.Goexit()
	}
	a.status = running
}

// after records a step's result.
func (a *Actor) after(s step, result uint64) {
	if a.x.free || a.doomed {
		return
	}
	a.history = mix(mix(a.history, s.Digest()), result)
	if a.x.trace != nil {
		a.x.note(a, s.String(), s.Outcome())
	}
}

func (x *Exec) note(a *Actor, what, result string) {
	if x.trace == nil || x.free {
		return
	}
	if result != "" {
		what += " = " + result
	}
	fmt.Fprintf(x.trace, "%4d %-10s %s\n", len(x.schedule), a.Name, what)
}

// next takes the policy's decisions until one lets an actor go on; nil ends the execution.
func (x *Exec) next(last *Actor) *Actor {
	for {
		if x.losePower(); x.err != nil {
			return nil
		}
		if !x.alive() {
			x.done = true
			return nil
		}
		if len(x.schedule) > maxSteps {
			x.err = fmt.Errorf("%s goes on for ever: %s", last.Name, last.pending)
			return nil
		}
		c, ok := x.policy.choose(x, last)
		if !ok {
			return nil
		}
		x.schedule = append(x.schedule, c)
		a := x.actors[c.actor]
		if !c.kill {
			return a
		}
		x.kills--
		a.status = killed
		for _, m := range a.mounts {
			m.Kill()
		}
		x.note(a, "KILLED", "before "+a.pending.String())
	}
}

// losePower judges the crashes possible at a state not seen before.
func (x *Exec) losePower() {
	if x.crash == nil {
		return
	}
	if h := x.hash(); !x.crash[h] {
		x.crash[h] = true
		x.free = true
		x.err = x.sys.(crasher).CheckCrash()
		x.free = false
		if x.err != nil {
			delete(x.crash, h) // to be found again when the schedule is replayed
		}
	}
}

func (x *Exec) alive() bool {
	for _, a := range x.actors {
		if a.status == parked {
			return true
		}
	}
	return false
}

// pass hands the token on.
func (x *Exec) pass(a *Actor) {
	if a == nil {
		x.main <- struct{}{}
		return
	}
	a.resume <- struct{}{}
}

// unwind ends the goroutines of actors that have not ended.
func (x *Exec) unwind() {
	for _, a := range x.actors {
		if a.status != ended {
			a.doomed = true
			a.resume <- struct{}{}
			<-x.main
		}
	}
}

// hash identifies the whole state: shared, and what each actor knows.
func (x *Exec) hash() uint64 {
	h := x.sys.Hash()
	for _, a := range x.actors {
		h = mix(mix(h, a.history), uint64(a.status))
	}
	return h
}

// mix combines two hashes; the order matters.
func mix(a, b uint64) uint64 {
	h := (a ^ 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	h ^= h >> 29
	h += b
	h *= 0x94d049bb133111eb
	return h ^ h>>32
}

// Before implements mdfssim.Hook.
func (a *Actor) Before(c *mdfssim.Call) error {
	a.before(c)
	return nil
}

// After implements mdfssim.Hook.
func (a *Actor) After(c *mdfssim.Call) { a.after(c, c.Result) }

// Mount gives the actor access to a disk.
func (a *Actor) Mount(d *mdfssim.Disk) *mdfssim.FS {
	m := d.Mount(mdfssim.MountOptions{Hook: a, Clock: a.clock, ID: uint64(a.id) + 64})
	a.mounts = append(a.mounts, m)
	return m
}

// clock gives every change a time of its own that depends on the actor alone.
func (a *Actor) clock() int64 {
	a.tick++
	return epoch + int64(a.id+1)*1e9 + a.tick*1e3
}

// epoch is when simulated time begins: 2000-01-01.
const epoch = 946684800e9
