package modelcheck

import (
	"flag"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"marfs/pkg/mdfs/mdfssim"
)

var only = flag.String("only", "", "one scenario: setup/deed,deed[,deed]")

func explore(t *testing.T, s Scenario, l Limits) Report {
	t.Helper()
	start := time.Now()
	r := Explore(newBase(s, 0, mdfssim.Options{}).program, l)
	t.Logf("%-40s %s %s", s.Name, r, time.Since(start).Round(time.Millisecond))
	if r.Err != nil {
		t.Errorf("%s: %v\n%s", s.Name, r.Err, r.Trace)
	}
	return r
}

func TestOnly(t *testing.T) {
	if *only == "" {
		t.Skip("no -only")
	}
	setup, names, _ := strings.Cut(*only, "/")
	explore(t, scenario(setup, strings.Split(names, ",")...), Limits{Kills: 1, Bounds: []int{0, 1, 2, -1}, Execs: 20000})
}

func TestSingles(t *testing.T) {
	for setup := range setups {
		for name := range deeds {
			s := scenario(setup, name)
			t.Run(s.Name, func(t *testing.T) {
				explore(t, s, Limits{Kills: 1, Bounds: []int{-1}})
			})
		}
	}
}

var sweep = flag.String("sweep", "", "setups for TestSweep, comma separated")

func TestSweep(t *testing.T) {
	if *sweep == "" {
		t.Skip("no -sweep")
	}
	names := slices.Sorted(maps.Keys(deeds))
	for _, setup := range strings.Split(*sweep, ",") {
		for i, a := range names {
			for _, b := range names[i:] {
				s := scenario(setup, a, b)
				t.Run(s.Name, func(t *testing.T) {
					t.Parallel()
					explore(t, s, Limits{Kills: 1, Bounds: []int{1, -1}, Execs: 600, Random: 60})
				})
			}
		}
	}
}
