package modelcheck

import (
	"slices"
	"strings"
)

// residue is litter that the protocol is known to leave in certain races. Each
// kind is harmless to live files and is found by fsck; a scenario says which it
// may leave, so that anything else is still a violation.
type residue uint8

const (
	// unrecordedDeletion: a file whose last name is gone without a record in
	// trash/. An unlinker was killed exactly between the unlink and the look
	// whether its record is still there, while a gc acted on that young record;
	// or another node renamed another file onto the name; or the file was committed
	// for the first time while a name that was still empty went away. fsck finds
	// the home (raw link count 1). Or there is no home, and the file's bytes stay in a
	// pack that nobody has a hint of: its unlinker was killed before he left it.
	unrecordedDeletion residue = 1 << iota
	// danglingVersion: a version record whose content is gone. A session that
	// lost to another writer made it after gc had lawfully purged that content.
	danglingVersion
	// orphanContent: bodies and objects of a replaced content that no record leads
	// to. A writer slept past the grace time, a gc purged the version it had made,
	// and it was killed while making that version again. reconcile finds it.
	orphanContent
)

func (r residue) has(k residue) bool { return r&k != 0 }

// lostRecord: records of removals are not synced, so a power failure may keep the
// removal and lose the record where one journal does not order both; or keep the
// home of a new file and lose its name.
func lostRecord(s Scenario, oneJournal bool) residue {
	for _, removal := range []string{"unlink", "rename", "create", "batch", "mkin"} {
		if strings.Contains(s.Name, removal) && !oneJournal {
			return unrecordedDeletion
		}
	}
	return 0
}

// lenient says which residue a scenario may leave.
func lenient(setup string, names []string) (r residue) {
	has := func(any ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(any, n) })
	}
	removals := 0
	for _, n := range names {
		if n == "unlink" || n == "renameover" || n == "renamelink" {
			removals++
		}
	}
	if has("renameover") && removals > 1 || removals > 0 && has("gcall", "gcback", "fencegc", "create", "createmulti", "batch") {
		r |= unrecordedDeletion
	}
	if has("gcall", "gctwice", "fencegc", "unlinkgc") {
		r |= orphanContent | danglingVersion
	}
	return r
}
