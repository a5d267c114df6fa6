package modelcheck

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of Explore.
type Limits struct {
	Kills     int    // actors that may be killed in one execution
	Bounds    []int  // numbers of preemptions to try in turn; < 0: any
	Execs     int    // executions per bound; 0: any number
	Random    int    // random schedules where the last bound did not finish
	Seed      uint64 // of the random schedules
	PowerLoss bool   // judge a power failure at every state; the System must be a crasher
	NoReduce  bool   // no sleep sets: for tests of the reduction

	crashes map[uint64]bool // states whose power failures were judged
}

// Violation is a broken invariant.
type Violation struct {
	Kind   string // short and stable: what was broken
	Detail string
}

func (v *Violation) Error() string { return v.Kind + ": " + v.Detail }

// Report is what an exploration found.
type Report struct {
	States, Execs int
	Steps         uint64
	Bound         int  // the highest bound that was finished; -1: none
	Exhaustive    bool // every schedule was covered
	Random        int
	Err           error  // the first violation or failure
	Trace         string // of the shortest schedule found that gives Err
	Switches      int    // preemptions in it
}

// String is one line for people.
func (r Report) String() string {
	how := fmt.Sprintf("bounded at %d", r.Bound)
	if r.Exhaustive {
		how = "exhaustive"
	}
	if r.Random > 0 {
		how += fmt.Sprintf(" + %d random", r.Random)
	}
	return fmt.Sprintf("%7d states %7d schedules %9d steps  %s", r.States, r.Execs, r.Steps, how)
}

// Explore runs p under every schedule the limits allow, until one violates an invariant.
func Explore(p Program, l Limits) Report {
	r := Report{Bound: -1}
	judged := map[uint64]bool{}
	if l.PowerLoss {
		l.crashes = map[uint64]bool{}
	}
	for _, bound := range l.Bounds {
		finished, schedule := r.search(p, l, bound, judged)
		if r.Err != nil {
			r.shrink(p, l, schedule)
			return r
		}
		if finished && bound >= 0 {
			r.Bound = bound
		}
		r.Exhaustive = finished && bound < 0
	}
	for i := 0; i < l.Random && !r.Exhaustive; i++ {
		x := execute(p, newRandom(l.Seed+uint64(i)), l, nil)
		r.Random++
		r.Steps += uint64(len(x.schedule))
		if r.Err = judge(x, judged); r.Err != nil {
			r.Err = fmt.Errorf("random schedule %d: %w", l.Seed+uint64(i), r.Err)
			r.shrink(p, l, x.schedule)
			return r
		}
	}
	return r
}

// search explores one bound; finished says that nothing within it was left out.
func (r *Report) search(p Program, l Limits, bound int, judged map[uint64]bool) (finished bool, failed []choice) {
	d := newDFS(bound)
	d.plain = l.NoReduce || l.PowerLoss // the order of syncs matters to what survives
	for n := 1; ; n++ {
		d.restart()
		x := execute(p, d, l, nil)
		r.Execs++
		if err := judge(x, judged); err != nil {
			r.Err, failed = err, x.schedule
			break
		}
		if !d.backtrack() {
			finished = true
			break
		}
		if l.Execs > 0 && n >= l.Execs {
			break
		}
	}
	r.States += len(d.visited)
	r.Steps += d.steps
	return finished, failed
}

// judge checks an execution that came to its end, once per final state.
func judge(x *Exec, judged map[uint64]bool) error {
	if x.err != nil || !x.done {
		return x.err
	}
	key := mix(x.sys.Hash(), x.sys.Verdict())
	if judged[key] {
		return nil
	}
	judged[key] = true
	return x.sys.Check()
}

// shrink takes preemptions out of a failing schedule as long as it fails alike,
// and keeps the trace of what remains.
func (r *Report) shrink(p Program, l Limits, schedule []choice) {
	for tries := 0; tries < 400; {
		smaller := false
		for i := 1; i < len(schedule) && tries < 400; i++ {
			if schedule[i].actor == schedule[i-1].actor || schedule[i].kill {
				continue
			}
			tries++
			x := execute(p, &guided{schedule: merge(schedule, i)}, l, nil)
			if alike(judge(x, map[uint64]bool{}), r.Err) && switches(x.schedule) < switches(schedule) {
				schedule, smaller = x.schedule, true
				break
			}
		}
		if !smaller {
			break
		}
	}
	var b strings.Builder
	x := execute(p, &guided{schedule: schedule}, l, &b)
	x.free = false // show the steps of the check too
	err := judge(x, map[uint64]bool{})
	if !alike(err, r.Err) {
		fmt.Fprintf(&b, "replayed alone: %v\n", err)
	}
	r.Trace, r.Switches = b.String(), switches(schedule)
}

// merge moves the next block of the actor that is interrupted at i up to there.
func merge(schedule []choice, i int) []choice {
	who := schedule[i-1].actor
	from := i
	for from < len(schedule) && schedule[from].actor != who {
		from++
	}
	to := from
	for to < len(schedule) && schedule[to].actor == who {
		to++
	}
	return slices.Concat(schedule[:i], schedule[from:to], schedule[i:from], schedule[to:])
}

func switches(schedule []choice) (n int) {
	for i := 1; i < len(schedule); i++ {
		if schedule[i].actor != schedule[i-1].actor {
			n++
		}
	}
	return n
}

// alike reports whether two errors break the same invariant.
func alike(a, b error) bool {
	var va, vb *Violation
	if errors.As(a, &va) && errors.As(b, &vb) {
		return va.Kind == vb.Kind
	}
	return a != nil && b != nil && va == nil && vb == nil
}
