package config

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"marfs/pkg/metadata"
)

// gcSite is a namespace whose garbage is collected, with a clock that only sleeping
// moves, and a foreign node with unfinished work.
type gcSite struct {
	*site
	*Garbage
	clock  time.Time
	slept  int
	moves  bool // the foreign node's counter moves while gc sleeps
	record string
	count  int
}

func newGCSite(t *testing.T, moves bool) *gcSite {
	t.Helper()
	s := &gcSite{site: newSite(t, 1, 0), clock: time.Now(), moves: moves}
	s.init(t)
	sys, _ := s.open(t)
	md := filepath.Join(s.dir, "md")
	s.record = filepath.Join(md, "nodes", "other.batch.1.elsewhere.0")
	s.beat(t)
	work := filepath.Join(md, "work", filepath.Base(s.record))
	if err := errors.Join(os.Mkdir(work, 0o700), os.WriteFile(filepath.Join(work, "00000000000000000102030400000000"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	list, err := sys.Garbage(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%d, %v", len(list), err)
	}
	s.Garbage = list[0]
	s.recovery.watch = metadata.NewWatch(deadAfter) // of this clock
	s.now = func() time.Time { return s.clock }
	s.sleep = func(_ context.Context, d time.Duration) error {
		s.slept++
		s.clock = s.clock.Add(d)
		if s.moves {
			s.beat(t)
		}
		return nil
	}
	if err := s.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// beat writes the foreign node's record.
func (s *gcSite) beat(t *testing.T) {
	s.count++
	if err := os.WriteFile(s.record, fmt.Appendf(nil, "marfs node v1 instance 01020304 count %016x\n", s.count), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *gcSite) await(t *testing.T) (alive bool, told []string) {
	t.Helper()
	lives, err := s.AwaitAlive(t.Context(), func(nodes []string, until time.Time) {
		told = nodes
		if !until.Equal(s.first.Add(deadAfter)) {
			t.Errorf("waits until %v", until)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := s.Meta.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(nodes, func(n metadata.Node) bool { return n.Name == filepath.Base(s.record) })
	return lives(nodes[i]), told
}

// A node of another host is dead once it has been still for a minute: not before,
// and gc waits for that, saying so.
func TestGCWaitsForStillNodes(t *testing.T) {
	s := newGCSite(t, false)
	if lives, err := s.Alive(t.Context()); err != nil || !lives(metadata.Node{Instance: [4]byte{1, 2, 3, 4}, Count: 1}) {
		t.Errorf("dead at the first look: %v", err)
	}
	alive, told := s.await(t)
	if alive || len(told) != 1 || s.slept == 0 || s.clock.Sub(s.first) < deadAfter {
		t.Errorf("alive %v, told %v, slept %d times, %v", alive, told, s.slept, s.clock.Sub(s.first))
	}
}

// One that moves ends the waiting at once.
func TestGCSeesNodesMove(t *testing.T) {
	s := newGCSite(t, true)
	if alive, told := s.await(t); !alive || len(told) != 1 || s.slept != 1 {
		t.Errorf("alive %v, told %v, slept %d times", alive, told, s.slept)
	}
}

// Nobody waits for a node without unfinished work.
func TestGCDoesNotWaitForTheIdle(t *testing.T) {
	s := newGCSite(t, false)
	if err := os.RemoveAll(filepath.Join(s.dir, "md", "work", filepath.Base(s.record))); err != nil {
		t.Fatal(err)
	}
	if alive, told := s.await(t); !alive || told != nil || s.slept != 0 {
		t.Errorf("alive %v, told %v, slept %d times", alive, told, s.slept)
	}
}

func TestGarbageOfUnknownNamespace(t *testing.T) {
	s := newSite(t, 1, 0)
	s.init(t)
	sys, _ := s.open(t)
	if _, err := sys.Garbage(t.Context(), "none"); !errors.Is(err, ErrNoNamespace) {
		t.Errorf("error %v", err)
	}
}
