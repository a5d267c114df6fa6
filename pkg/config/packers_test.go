package config

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Who has no record, or one that stands still, or was a process of this host that
// has ended, is dead to packers; this process and who has just come are not.
func TestPackersKnowTheDead(t *testing.T) {
	s := newSite(t, 1, 0)
	s.init(t)
	sys, _ := s.open(t)
	where, err := pidSpace()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("true")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	beat := func(node string, instance byte, count int) {
		t.Helper()
		text := fmt.Appendf(nil, "marfs node v1 instance %08x count %016x\n", instance, count)
		if err := os.WriteFile(filepath.Join(s.dir, "md", "nodes", node), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const away, gone, none, late = 1, 2, 3, 4
	beat("other.interactive.1.elsewhere.0", away, 1)
	beat(fmt.Sprintf("h.interactive.%d.%s.0", child.Process.Pid, where), gone, 1)
	l := newLiveness(sys.Namespaces[0].Meta)
	clock := time.Now()
	l.now = func() time.Time { return clock }
	want := func(instance byte, dead bool) {
		t.Helper()
		if l.dead([4]byte{3: instance}) != dead {
			t.Errorf("instance %d at %v: dead is %v", instance, clock, !dead)
		}
	}
	want(away, false)
	want(gone, true)
	want(none, true)
	if l.dead(sys.Namespaces[0].Meta.Instance()) {
		t.Error("this process is dead")
	}
	beat("late.interactive.1.elsewhere.0", late, 1)
	clock = clock.Add(lookAgain)
	want(late, false) // it was not there at the first look
	for range 7 {
		clock = clock.Add(heartbeat)
		beat("late.interactive.1.elsewhere.0", late, int(clock.Unix()))
		want(late, false)
	}
	want(away, true)
	want(late, false)
}

// Where heartbeats cannot be read, nobody is taken for dead.
func TestPackersWithoutHeartbeats(t *testing.T) {
	s := newSite(t, 1, 0)
	s.init(t)
	sys, err := Open(t.Context(), s.config(t), Batch, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l := newLiveness(sys.Namespaces[0].Meta)
	if err := sys.Close(); err != nil {
		t.Fatal(err)
	}
	if l.look(time.Now()) != nil {
		t.Fatal("heartbeats are still read: the test proves nothing")
	}
	if l.dead([4]byte{1}) {
		t.Error("dead")
	}
}

// The mount waits for what makes a pack worth it; who runs marfsctl does not.
func TestPolicyOfTheFrontEnds(t *testing.T) {
	s := newSite(t, 1, 0)
	n := &s.config(t).Namespaces[0]
	if have := n.packing(Interactive).MinFiles; have != 1000 {
		t.Errorf("the mount packs %d files", have)
	}
	if have := n.packing(Batch).MinFiles; have != 1 {
		t.Errorf("marfsctl packs %d files", have)
	}
}

// A file is late when packers that run would have packed it long ago.
func TestLate(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		maxAge Duration
		age    time.Duration
		want   bool
	}{
		{second, 9 * time.Minute, false},
		{second, 11 * time.Minute, true},
		{5 * 60 * second, 49 * time.Minute, false},
		{5 * 60 * second, 51 * time.Minute, true},
	} {
		n := Namespace{Pack: Pack{MaxAge: test.maxAge}}
		if n.late(now.Add(-test.age), now) != test.want {
			t.Errorf("max_age %v, waits for %v", test.maxAge, test.age)
		}
	}
	if (&Namespace{}).late(time.Time{}, now) {
		t.Error("late without files")
	}
}

// Status counts what is staged without changing anything, as a plan may.
func TestStatusOfStaging(t *testing.T) {
	s := newSite(t, 1, 0)
	s.init(t)
	before := tree(t, filepath.Join(s.dir, "md"))
	_, spaces, err := Status(t.Context(), s.config(t))
	if err != nil || spaces[0].Staging == nil || spaces[0].Staging.Err != nil || spaces[0].Staging.MaxBytes != 64<<30 {
		t.Fatalf("%v, %+v", err, spaces)
	}
	if after := tree(t, filepath.Join(s.dir, "md")); !slices.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
}

// tree lists what is below a directory, with times.
func tree(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			list = append(list, fmt.Sprint(p, info.Mode(), info.ModTime()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A mount packs in the background what it has staged, and what one that is gone has
// left; closing it ends that.
func TestMountsPack(t *testing.T) {
	s := newSite(t, 2, 1)
	s.keys = "stage: {linger: 1h}, pack: {max_age: 1h}"
	s.init(t)
	sys, err := Open(t.Context(), s.config(t), Interactive, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	write(t, sys, "left", []byte("by one that is gone"))
	if err := sys.Close(); err != nil {
		t.Fatal(err)
	}
	s.wantType(t, "own", "left")

	s.keys = "stage: {linger: 0s}, pack: {max_age: 0s}"
	sys, log := s.open(t)
	write(t, sys, "own", []byte("by this one"))
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		b, err := sys.Namespaces[0].Packer.Backlog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if b.Files == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("still staged: %+v\n%s", b, log)
		}
	}
	s.wantType(t, "packed", "left", "own")
	if have := string(read(t, sys, "left", 19)) + string(read(t, sys, "own", 11)); have != "by one that is goneby this one" {
		t.Errorf("read %q", have)
	}
}

// wantType checks where the bytes of files are.
func (s *site) wantType(t *testing.T, want string, names ...string) {
	t.Helper()
	sys, err := Open(t.Context(), s.config(t), Batch, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	for _, name := range names {
		d, base, err := sys.FS.Walk(t.Context(), caller(), "/a/"+name)
		if err != nil {
			t.Fatal(err)
		}
		l, err := d.Layout(t.Context(), caller(), base, false)
		if err != nil || l.Type != want {
			t.Errorf("%s: %s, %v; want %s", name, l.Type, err, want)
		}
		d.Close()
	}
}
