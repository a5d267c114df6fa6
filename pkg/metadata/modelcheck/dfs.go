package modelcheck

import (
	"fmt"
	"slices"

	"marfs/pkg/mdfs/mdfssim"
)

// set is a set of choices: bit 2*actor to run it, 2*actor+1 to kill it.
type set uint32

func (c choice) bit() set {
	if c.kill {
		return 1 << (2*c.actor + 1)
	}
	return 1 << (2 * c.actor)
}

// frame is one state on the path being explored.
type frame struct {
	choices []choice // to explore from here
	at      int      // of them, the one taken now
	sleep   set      // choices that another path already covers
	feet    [][]mdfssim.Access
	next    uint64 // digest of the step taken, to notice a program that is not deterministic
	spent   int    // preemptions on the way here
	last    int    // actor that came here; -1: none
}

// dfs is the policy of a depth-first search by replay. One execution follows
// the stack of decisions and then goes on, without preemption first, until the
// end or a state seen before; then the deepest decision with an alternative is
// changed.
//
// Unbounded, it uses sleep sets: after exploring a choice, the others need not
// consider it until something it conflicts with has happened. Combined with the
// visited states as in Godefroid's "Partial-Order Methods" (1996), every
// reachable state without enabled actors is still reached.
type dfs struct {
	bound   int  // preemptions; < 0: any number
	plain   bool // no sleep sets
	visited map[uint64]visit
	stack   []frame
	depth   int
	sleep   set // of the state reached next
	spent   int
	steps   uint64
}

// visit says how a state was explored: with which choices asleep, after how many preemptions.
type visit struct {
	sleep set
	spent uint8
}

func newDFS(bound int) *dfs { return &dfs{bound: bound, visited: map[uint64]visit{}} }

// restart prepares the next execution.
func (d *dfs) restart() { d.depth, d.sleep, d.spent = 0, 0, 0 }

// backtrack changes the deepest decision that has an alternative; false when there is none.
func (d *dfs) backtrack() bool {
	for len(d.stack) > 0 {
		f := &d.stack[len(d.stack)-1]
		if f.at++; f.at < len(f.choices) {
			return true
		}
		d.stack = d.stack[:len(d.stack)-1]
	}
	return false
}

func (d *dfs) choose(x *Exec, last *Actor) (choice, bool) {
	d.steps++
	if d.depth == len(d.stack) && !d.push(x, last) {
		return choice{}, false
	}
	f := &d.stack[d.depth]
	c := f.choices[f.at]
	digest := x.actors[c.actor].pending.Digest()
	if f.next == 0 || d.depth == len(d.stack)-1 {
		f.next = digest
	} else if f.next != digest || x.actors[c.actor].status != parked {
		x.err = fmt.Errorf("not deterministic: step %d of %s was another in the last execution: %s",
			d.depth, x.actors[c.actor].Name, x.actors[c.actor].pending)
		return choice{}, false
	}
	d.depth++
	d.enter(f, c)
	return c, true
}

// enter computes what the state after taking c from f inherits.
func (d *dfs) enter(f *frame, c choice) {
	d.spent = f.spent
	if !c.kill && f.last >= 0 && c.actor != f.last && f.feet[f.last] != nil {
		d.spent++
	}
	d.sleep = 0
	if d.bound >= 0 || d.plain {
		return
	}
	asleep := f.sleep
	for _, done := range f.choices[:f.at] {
		asleep |= done.bit()
	}
	for a, foot := range f.feet {
		// Whether an actor may be killed depends on what its step would change:
		// so a kill conflicts with what its victim's step conflicts with.
		if a == c.actor || mdfssim.Conflict(foot, f.feet[c.actor]) {
			continue
		}
		d.sleep |= asleep & choice{a, false}.bit()
		if !c.kill { // two kills compete for the right to kill
			d.sleep |= asleep & choice{a, true}.bit()
		}
	}
}

// push adds the present state to the stack, unless it is explored or covered.
func (d *dfs) push(x *Exec, last *Actor) bool {
	f := frame{sleep: d.sleep, spent: d.spent, last: -1}
	if last != nil {
		f.last = last.id
	}
	f.feet = make([][]mdfssim.Access, len(x.actors))
	for _, a := range x.actors {
		if a.status == parked {
			f.feet[a.id] = a.pending.Footprint(make([]mdfssim.Access, 0, 4))
			for _, m := range a.mounts { // which a kill would give up
				f.feet[a.id] = m.Locks(f.feet[a.id])
			}
		}
	}
	only := d.see(x, &f)
	f.choices = slices.DeleteFunc(d.candidates(x, &f), func(c choice) bool { return c.bit()&only == 0 || c.bit()&f.sleep != 0 })
	if len(f.choices) == 0 {
		return false
	}
	d.stack = append(d.stack, f)
	return true
}

// see looks the state up and returns the choices still to be explored from it.
func (d *dfs) see(x *Exec, f *frame) set {
	key := x.hash()
	if d.bound >= 0 {
		key = mix(key, uint64(f.last))
	}
	v, seen := d.visited[key]
	switch {
	case !seen:
		d.visited[key] = visit{f.sleep, uint8(f.spent)}
		return ^set(0)
	case d.bound >= 0:
		if int(v.spent) <= f.spent {
			return 0
		}
		d.visited[key] = visit{0, uint8(f.spent)}
		return ^set(0)
	}
	todo := v.sleep &^ f.sleep
	f.sleep &= v.sleep
	d.visited[key] = visit{f.sleep, 0}
	return todo
}

// candidates lists what the scheduler may do: go on first, then switch, then kill.
// An actor is killed only before a step that changes something, and while it has
// locks: before any other the result is that of a later kill.
func (d *dfs) candidates(x *Exec, f *frame) []choice {
	cs := make([]choice, 0, 2*len(x.actors))
	goesOn := f.last >= 0 && f.feet[f.last] != nil
	if goesOn {
		cs = append(cs, choice{f.last, false})
	}
	for a, foot := range f.feet {
		if foot != nil && a != f.last && !(goesOn && d.bound >= 0 && f.spent >= d.bound) {
			cs = append(cs, choice{a, false})
		}
	}
	for a, foot := range f.feet {
		if x.kills > 0 && x.actors[a].kill && mdfssim.Changes(foot) {
			cs = append(cs, choice{a, true})
		}
	}
	return cs
}
