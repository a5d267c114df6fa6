package metadata

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/objfmt"
)

// TestKill repeats some of the crashes with a real process and a real SIGKILL,
// through MARFS_FAULT: what the process had in memory, descriptors included, is gone.
func TestKill(t *testing.T) {
	if dir := os.Getenv("MARFS_KILL_DIR"); dir != "" {
		victimProcess(t, dir)
		return
	}
	tests := []struct {
		point string
		want  string
	}{
		{"metadata.begin.record.after", "old"},
		{"metadata.body.before", "old"},
		{"metadata.version.after", "old"},
		{"metadata.publish.slot.before:2", "old"}, // the first makes the file
		{"metadata.publish.slot.after:2", "newer"},
		{"metadata.publish.sync.after:2", "newer"},
		{"metadata.publish.size.after", "newer"},
		{"metadata.end.lower.before", "newer"},
		{"metadata.end.record.before", "newer"},
	}
	for _, tt := range tests {
		t.Run(tt.point, func(t *testing.T) {
			w := newWorldIn(t, fastDir(t))
			w.must(w.Close())
			kill(t, w.root, tt.point)
			w.FS = w.node("node2")
			w.must(w.Recover(ctx, nil))
			if have := w.shown("f"); have != tt.want {
				t.Errorf("have %q, want %q", have, tt.want)
			}
			w.pass(2 * time.Hour)
			w.must(w.Sweep(ctx, *w.clock, nil))
			for _, problem := range w.audit() {
				t.Error(problem)
			}
		})
	}
}

// A batch whose process is killed: each file is empty or has its content, nothing
// stays open, and nothing is left over.
func TestKillBatch(t *testing.T) {
	for point, want := range map[string]string{
		"metadata.create.home.after:2": "", // f is the first
		"metadata.pack.table.after":    "",
		"metadata.pack.slot.before":    "",
		"metadata.pack.slot.after:2":   "object",
		"metadata.syncfs.after":        "object",
		"metadata.pack.done.before":    "object",
	} {
		t.Run(point, func(t *testing.T) {
			w := newWorldIn(t, fastDir(t))
			w.must(w.Close())
			kill(t, w.root, point)
			w.FS = w.node("node2")
			w.must(w.Recover(ctx, nil))
			fl := w.pinned("m")
			s, err := fl.Newest(ctx)
			w.must(err)
			if s.State != objfmt.Final || empty(s) != (want == "") {
				t.Errorf("slot %+v, want %q", s, want)
			}
			w.wantHome(fl.ID(), filesName)
			w.pass(2 * time.Hour)
			w.must(w.Sweep(ctx, *w.clock, nil))
			w.wantNames(openPacks, 0)
		})
	}
}

// kill runs victimProcess in a child that kills itself at a point.
func kill(t *testing.T, dir, point string) {
	t.Helper()
	spec, n, counted := strings.Cut(point, ":")
	fault := spec + "=kill"
	if counted {
		fault += ":" + n
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "MARFS_KILL_DIR="+dir, "MARFS_FAULT="+fault)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child was not killed: %v\n%s", err, out)
	}
}

// victimProcess makes "f" with "old", and changes it to "newer".
func victimProcess(t *testing.T, dir string) {
	now := time.Now()
	w := &world{t: t, root: dir, store: &store{}, clock: &now}
	w.o = Options{Namespace: "test", Node: "victim", Grace: time.Hour, Objects: w.store, SkipTest: true}
	w.FS = w.open(w.o)
	fl := w.file("f", "old")
	w.must(w.replace(w.FS, fl, "newer"))
	w.must(w.batch("m", "n"))
	packs, err := w.Resident(ctx)
	w.must(err)
	for _, p := range packs {
		_, err = w.ReleasePack(ctx, p.Object)
		w.must(err)
	}
}
