package modelcheck

import (
	"maps"
	"slices"
	"testing"
	"time"

	"marfs/pkg/mdfs/mdfssim"
)

// losePower explores one scenario with a power failure at every state.
func losePower(t *testing.T, s Scenario, o mdfssim.Options, l Limits) Report {
	t.Helper()
	start := time.Now()
	o.Journal = true
	l.PowerLoss = true
	r := Explore(newBase(s, 0, o).program, l)
	t.Logf("%-40s %s %s", s.Name, r, time.Since(start).Round(time.Millisecond))
	if r.Err != nil {
		t.Errorf("%s: %v\n%s", s.Name, r.Err, r.Trace)
	}
	return r
}

func TestPowerLoss(t *testing.T) {
	for _, setup := range slices.Sorted(maps.Keys(setups)) {
		for _, name := range slices.Sorted(maps.Keys(deeds)) {
			for _, names := range []bool{true, false} {
				s := scenario(setup, name)
				s.Name += map[bool]string{true: " (one journal)", false: " "}[names]
				t.Run(s.Name, func(t *testing.T) {
					t.Parallel()
					losePower(t, s, mdfssim.Options{OneJournal: names}, Limits{Bounds: []int{0}})
				})
			}
		}
	}
}
