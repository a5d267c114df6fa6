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

var (
	long = flag.Bool("long", false, "explore every pair of deeds, and triples, deeply: hours")
	only = flag.String("only", "", "one scenario, every schedule: setup/deed,deed[,deed]")
	seed = flag.Uint64("seed", 1, "of the random schedules")
)

// explore reports on one scenario.
func explore(t *testing.T, s Scenario, l Limits) {
	t.Helper()
	start := time.Now()
	l.Seed = *seed
	r := Explore(newBase(s, 0, mdfssim.Options{}).program, l)
	t.Logf("%-40s %s, seed %d, %s", s.Name, r, *seed, time.Since(start).Round(time.Millisecond))
	if r.Err != nil {
		t.Errorf("%s: %v\n%s", s.Name, r.Err, r.Trace)
	}
}

func TestOnly(t *testing.T) {
	if *only == "" {
		t.Skip("no -only")
	}
	setup, names, _ := strings.Cut(*only, "/")
	explore(t, scenario(setup, strings.Split(names, ",")...), Limits{Kills: 1, Bounds: []int{0, 1, 2, -1}, Execs: 200_000, Random: 2000})
}

// wholeDeeds are those that need nothing to be ready, and are no sequence of others.
func wholeDeeds() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(deeds)), func(n string) bool { return deeds[n].ready != nil || deeds[n].named })
}

// TestSingles: every deed alone in every situation, killed anywhere.
func TestSingles(t *testing.T) {
	for _, setup := range slices.Sorted(maps.Keys(setups)) {
		t.Run(setup, func(t *testing.T) {
			t.Parallel()
			for _, name := range wholeDeeds() {
				explore(t, scenario(setup, name), Limits{Kills: 1, Bounds: []int{-1}})
			}
		})
	}
}

// pairs are run every time: those that found something, here or in earlier
// models of the protocol. Long mode runs all.
var pairs = []string{
	"small/stream,change", "small/change,change1", "small/append,append2", "small/append,pack", "small/append,fence",
	"small/changesync,fence", "small/changesync,stream", "small/changesync,pack", "small/change,empty", "small/cut,empty",
	"small/append2,stream", "small/pack,pack", "small/pack,unlink", "small/stream,release", "small/read,packrelease",
	"small/unlink,unlink", "small/unlink,renameover", "small/restore,unlink", "small/restorever,stream", "small/fsync,fence",
	"nothing/create,fence", "nothing/create,create", "nothing/create,unlink", "nothing/createmulti,fence",
	"nothing/batch,fence", "nothing/batch,unlink", "nothing/batch,renameover", "nothing/batch,read", "nothing/batch,stream", "nothing/batch,gc",
	"small/read,packthenrelease", "packed/releasepacks,release", "packed/releasepacks,change", "packed/releasepacks,repack", "bodypacked/releasepacks,stream",
	"object/stream,fence", "object/multi,change", "object/stream,unlink", "multi/multi,fence", "multi/cut,extend",
	"packed/repack,stream", "packed/repack,gc", "packed/release,touch", "packed/release,change", "released/read,repack",
	"trashed/restore,gc", "trashed/restore,restore", "trashedobject/restore,fencegc", "trashedtwice/restore,gc",
	"versioned/restorever,gc", "versioned/restorever,change", "versioned/stream,gc", "versionedpacked/gc,repack", "versionedown/restorever,gc",
	"homeless/link,stream", "homeless/linkstream,fence", "homeless/linkstream,unlink", "linked/renamelink,unlink", "linked/unlink,change", "dir/rmdir,mkin",
	"object/hold,unlinkgc", "packed/hold,renameover", "trashedtwice/gcback,gcall", "trashedtwice/restore,gcback", "versioned/restorever,gcback",
	"object/unlink,purge", "trashedobject/restore,purge", "trashedtwice/purge,gc", "versioned/restorever,purge", "versioned/purge,gc", "trashed/purge,purge",
}

func TestPairs(t *testing.T) {
	for _, name := range pairs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			setup, names, _ := strings.Cut(name, "/")
			explore(t, scenario(setup, strings.Split(names, ",")...), Limits{Kills: 1, Bounds: []int{1, -1}, Execs: 150, Random: 30})
		})
	}
}

// triples are those that lost data in an earlier model of the protocol.
var triples = []string{
	"small/stream,fence,pack", "small/change,pack,release", "packed/stream,repack,gc", "trashed/restore,fence,gc",
	"small/append,pack,release", "small/append,fence,append2", "object/stream,unlink,gc", "versioned/restorever,fence,gc",
	"nothing/batch,fence,stream", "nothing/batch,unlink,gcall", "packed/releasepacks,repack,gc",
	"small/change,stream,fence", "object/hold,unlink,gcall", "object/unlink,purge,gcall", "trashedtwice/restore,purge,gc", "trashedtwice/gcback,restore,gc",
}

// TestLateLoser: a session that has slept while its base moved, and was replaced,
// keeps its hands off the version that the winner made. All is uploaded before it
// sleeps, so that every place for one preemption is tried.
func TestLateLoser(t *testing.T) {
	for _, name := range []string{"body/publish,packreleasestream", "packed/publish,repackgcstream"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			setup, names, _ := strings.Cut(name, "/")
			explore(t, scenario(setup, strings.Split(names, ",")...), Limits{Bounds: []int{1}, Execs: 300})
		})
	}
}

func TestTriples(t *testing.T) {
	for _, name := range triples {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			setup, names, _ := strings.Cut(name, "/")
			l := Limits{Kills: 1, Bounds: []int{1}, Execs: 150, Random: 60}
			if *long {
				l = Limits{Kills: 1, Bounds: []int{1, 2, -1}, Execs: 1_000_000, Random: 100_000}
			}
			explore(t, scenario(setup, strings.Split(names, ",")...), l)
		})
	}
}

// TestEveryPair is the long mode: every two deeds in every situation.
func TestEveryPair(t *testing.T) {
	if !*long {
		t.Skip("takes hours: run with -long")
	}
	names := wholeDeeds()
	for _, setup := range slices.Sorted(maps.Keys(setups)) {
		for i, a := range names {
			for _, b := range names[i:] {
				t.Run(setup+"/"+a+","+b, func(t *testing.T) {
					t.Parallel()
					explore(t, scenario(setup, a, b), Limits{Kills: 1, Bounds: []int{0, 1, -1}, Execs: 20_000, Random: 2000})
				})
			}
		}
	}
}
