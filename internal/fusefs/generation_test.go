package fusefs

import "testing"

func TestGenerations(t *testing.T) {
	var g generations
	const ino = 7
	if got := g.of(ino); got != 0 {
		t.Fatalf("first directory: generation %d, want 0", got)
	}
	g.died(ino, 0)
	if got := g.of(ino); got != 1 {
		t.Fatalf("number used again: generation %d, want 1", got)
	}
	g.forgot(ino, 0) // the first is forgotten, the second still known
	if got := g.of(ino); got != 1 {
		t.Fatalf("known directory changed its generation to %d", got)
	}
	g.died(ino, 1)
	g.died(ino, 0) // late news of the first changes nothing
	if got := g.of(ino); got != 2 {
		t.Fatalf("number used a third time: generation %d, want 2", got)
	}
	g.forgot(ino, 1)
	g.forgot(ino, 2)
	if len(g.byIno) != 0 {
		t.Errorf("%d entries left of forgotten directories", len(g.byIno))
	}
}

func TestGenerationsForgetTheUnused(t *testing.T) {
	var g generations
	g.died(7, 0)
	g.forgot(7, 0)
	if len(g.byIno) != 0 {
		t.Error("a removed and forgotten directory left an entry")
	}
}
