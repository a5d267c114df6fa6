package modelcheck

import "math/rand/v2"

// random is the policy of a seeded random walk that switches now and then and
// kills at most as allowed.
type random struct{ r *rand.Rand }

func newRandom(seed uint64) *random { return &random{rand.New(rand.NewPCG(seed, 0))} }

func (p *random) choose(x *Exec, last *Actor) (choice, bool) {
	var able []*Actor
	for _, a := range x.actors {
		if a.status == parked {
			able = append(able, a)
		}
	}
	a := able[p.r.IntN(len(able))]
	if last != nil && last.status == parked && p.r.IntN(8) > 0 {
		a = last
	}
	return choice{a.id, x.kills > 0 && a.kill && p.r.IntN(100) == 0}, true
}

// guided is the policy that follows a schedule as well as it can: a choice that
// is not possible is passed over, after the last one every actor runs to its end.
type guided struct {
	schedule []choice
	at       int
}

func (p *guided) choose(x *Exec, last *Actor) (choice, bool) {
	for ; p.at < len(p.schedule); p.at++ {
		c := p.schedule[p.at]
		if a := x.actors[c.actor]; a.status == parked && (!c.kill || x.kills > 0) {
			p.at++
			return c, true
		}
	}
	if last != nil && last.status == parked {
		return choice{last.id, false}, true
	}
	for _, a := range x.actors {
		if a.status == parked {
			return choice{a.id, false}, true
		}
	}
	return choice{}, false
}
