package modelcheck

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"

	"marfs/pkg/mdfs/mdfssim"
	"marfs/pkg/metadata/internal/omit"
)

// mutant is a step of the protocol left out, and a scenario that needs it.
type mutant struct {
	name    string
	omit    omit.Set
	setup   string
	deeds   []string
	noKill  bool
	power   bool
	residue bool // the scenario leaves residue without kills too
	execs   int  // budget of schedules per bound; 0: enough for most
}

var mutants = []mutant{
	{name: "XattrCreate", omit: omit.XattrCreate, setup: "small", deeds: []string{"change", "change1"}, noKill: true},
	{name: "SameContent", omit: omit.SameContent, setup: "small", deeds: []string{"change", "change1"}, noKill: true},
	{name: "RereadBeforeRecord", omit: omit.RereadBeforeRecord, setup: "small", deeds: []string{"publishmoved", "fencework"}, noKill: true},
	{name: "RewriteVersion", omit: omit.RewriteVersion, setup: "packed", deeds: []string{"stream", "repack", "gc"}, noKill: true},
	{name: "AppendNoRetry", omit: omit.AppendNoRetry, setup: "small", deeds: []string{"append", "append2"}, noKill: true},
	{name: "Seal", omit: omit.Seal, setup: "small", deeds: []string{"append", "fence", "append2"}, noKill: true},
	{name: "CopyOwnVersion", omit: omit.CopyOwnVersion, setup: "small", deeds: []string{"stream"}, noKill: true},
	{name: "TakeVersion", omit: omit.TakeVersion, setup: "object", deeds: []string{"stream", "gcall"}, noKill: true},
	{name: "TakeDeletion", omit: omit.TakeDeletion, setup: "trashedtwice", deeds: []string{"restore", "gc"}, noKill: true},
	{name: "RawAgain", omit: omit.RawAgain, setup: "trashedtwice", deeds: []string{"restore", "gc"}, noKill: true},
	{name: "MakeMissingVersion", omit: omit.MakeMissingVersion, setup: "object", deeds: []string{"stream", "gcall"}, noKill: true},
	{name: "AppendPrefix", omit: omit.AppendPrefix, setup: "small", deeds: []string{"appendpack"}, noKill: true},
	{name: "IgnoreJunk", omit: omit.IgnoreJunk, setup: "small", deeds: []string{"change", "stream", "fence"}, execs: 3500},
	{name: "HomeAfterPack", omit: omit.HomeAfterPack, setup: "small", deeds: []string{"pack", "change"}},
	{name: "HomeAfterSession", omit: omit.HomeAfterSession, setup: "small", deeds: []string{"stream", "change"}},
	{name: "HomeAfterRecovery", omit: omit.HomeAfterRecovery, setup: "small", deeds: []string{"pack", "change"}},
	{name: "KeepTakenRecord", omit: omit.KeepTakenRecord, setup: "object", deeds: []string{"stream", "fence"}, noKill: true},
	{name: "FenceBump", omit: omit.FenceBump, setup: "object", deeds: []string{"stream", "fence"}, noKill: true},
	{name: "FenceBatch", omit: omit.FenceBatch, setup: "nothing", deeds: []string{"batch", "fencepacks"}, noKill: true},
	{name: "RepackRecordFirst", omit: omit.RepackRecordFirst, setup: "packed", deeds: []string{"repack"}},
	{name: "PackHints", omit: omit.PackHints, setup: "small", deeds: []string{"pack", "pack"}, noKill: true},
	{name: "HomeCheck", omit: omit.HomeCheck, setup: "object", deeds: []string{"stream", "unlinkgc"}, noKill: true},
	{name: "RecheckUnlink", omit: omit.RecheckUnlink, setup: "object", deeds: []string{"unlink", "gcall"}, noKill: true},
	{name: "OwnRecordOnly", omit: omit.OwnRecordOnly, setup: "object", deeds: []string{"unlink", "unlink"}, noKill: true},
	{name: "VersionBody", omit: omit.VersionBody, setup: "bodypacked", deeds: []string{"stream"}, noKill: true},
	{name: "SameInodeRename", omit: omit.SameInodeRename, setup: "linked", deeds: []string{"renamelink"}, noKill: true},
	{name: "ReadRecheck", omit: omit.ReadRecheck, setup: "small", deeds: []string{"read", "packrelease"}, noKill: true},
	{name: "VersionRecord", omit: omit.VersionRecord, setup: "small", deeds: []string{"stream", "release"}, noKill: true},
	{name: "TableIDs", omit: omit.TableIDs, setup: "multi", deeds: []string{"multi"}},
	{name: "PackSum", omit: omit.PackSum, setup: "nothing", deeds: []string{"create"}, power: true},
	{name: "RestoreRecordFirst", omit: omit.RestoreRecordFirst, setup: "versioned", deeds: []string{"restorever", "gctwice"}, noKill: true, residue: true},
	{name: "Hold", omit: omit.Hold, setup: "object", deeds: []string{"hold", "unlinkgc"}, noKill: true},
	{name: "BegunName", omit: omit.BegunName, setup: "trashedtwice", deeds: []string{"gcback", "gcall"}},

	{name: "SyncPublish", omit: omit.SyncPublish, setup: "object", deeds: []string{"stream"}, power: true},
	{name: "SyncHome", omit: omit.SyncHome, setup: "nothing", deeds: []string{"createmulti"}, power: true},
	{name: "SyncWork", omit: omit.SyncWork, setup: "object", deeds: []string{"stream"}, power: true},
	{name: "SyncVersion", omit: omit.SyncVersion, setup: "object", deeds: []string{"stream"}, power: true},
	{name: "SyncTable", omit: omit.SyncTable, setup: "nothing", deeds: []string{"createmulti"}, power: true},
	{name: "SyncBeforePunch", omit: omit.SyncBeforePunch, setup: "object", deeds: []string{"unlinkgc"}, power: true},
}

// TestMutants is the proof that the checker sees: with any one step of the
// protocol left out it finds a violation, and with none left out the same
// scenario is clean.
func TestMutants(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			if r := m.explore(m.omit); r.Err == nil {
				t.Errorf("%s: no violation found: %s", m.scenario().Name, r)
			} else if v := (*Violation)(nil); !errors.As(r.Err, &v) {
				t.Errorf("%s: %v", m.scenario().Name, r.Err)
			} else {
				t.Logf("%-28s %s, %d switches, after %d schedules", m.scenario().Name, v.Kind, r.Switches, r.Execs)
			}
			if m.power { // TestPowerLoss explores the same scenario
				if !slices.Contains(powered, m.setup+"/"+m.deeds[0]) {
					t.Error("the scenario is not in powered")
				}
				return
			}
			if r := m.explore(0); r.Err != nil {
				t.Errorf("%s without the omission: %v\n%s", m.scenario().Name, r.Err, r.Trace)
			}
		})
	}
}

func (m mutant) scenario() Scenario {
	s := scenario(m.setup, m.deeds...)
	s.Name += fmt.Sprintf(" without %s", m.name)
	if s.Strict = m.noKill && !m.residue; s.Strict { // residue needs a kill
		s.Lenient &= danglingVersion
	}
	return s
}

func (m mutant) explore(o omit.Set) Report {
	l := Limits{Kills: 1, Bounds: []int{0, 1, 2}, Execs: cmp.Or(m.execs, 1500)}
	if m.noKill {
		l.Kills = 0
	}
	if m.power {
		l = Limits{Bounds: []int{0}, PowerLoss: true}
	}
	return Explore(newBase(m.scenario(), o, mdfssim.Options{Journal: m.power}).program, l)
}
