package modelcheck

import (
	"strings"
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

// powered are the deeds and situations tried every time; long mode tries all.
var powered = []string{
	"nothing/create", "nothing/batch", "packed/releasepacks", "nothing/createmulti", "small/stream", "small/change", "small/append", "small/empty", "small/cut", "small/pack", "small/unlink",
	"object/stream", "multi/fsync", "packed/packrelease", "packed/repack", "packed/renameover", "trashed/restore", "trashedobject/gc",
	"versioned/restorever", "versioned/gc", "versionedpacked/gc", "body/change", "object/unlinkgc",
}

// TestPowerLoss: power fails at every step of one deed, on a filesystem with one
// journal and on one where every directory and inode reaches the disk on its own.
func TestPowerLoss(t *testing.T) {
	list := powered
	if *long {
		list = nil
		for setup := range setups {
			for _, name := range wholeDeeds() {
				list = append(list, setup+"/"+name)
			}
		}
	}
	for _, name := range list {
		setup, deed, _ := strings.Cut(name, "/")
		for _, journal := range []bool{true, false} {
			s := scenario(setup, deed)
			s.Name += map[bool]string{true: " (one journal)", false: " (no order)"}[journal]
			t.Run(s.Name, func(t *testing.T) {
				t.Parallel()
				losePower(t, s, mdfssim.Options{OneJournal: journal}, Limits{Bounds: []int{0}})
			})
		}
	}
}
