package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"marfs/pkg/config"
	"marfs/pkg/namespace"
)

// onFiles makes a command `NAME CONFIG PATH...` of scripts, which acts on files below
// the mount as one would that is there.
func onFiles(act func(d *namespace.Dir, c namespace.Caller, name string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 2 {
			ts.Fatalf("usage: COMMAND CONFIG PATH...")
		}
		cfg, err := config.Load(ts.MkAbs(args[0]))
		ts.Check(err)
		sys, err := config.Open(context.Background(), cfg, config.Interactive, slog.New(slog.DiscardHandler))
		ts.Check(err)
		caller, err := self()
		ts.Check(err)
		for _, p := range args[1:] {
			d, name, e := sys.FS.Walk(context.Background(), caller, p)
			if e == nil {
				e = act(d, caller, name)
				d.Close()
			}
			err = errors.Join(err, e)
		}
		ts.Check(errors.Join(err, sys.Close()))
	}
}

func makeFile(d *namespace.Dir, c namespace.Caller, name string) error {
	ctx := context.Background()
	f, _, err := d.Create(ctx, c, name, uint32(os.O_WRONLY), 0o640)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(ctx, c, []byte("of no use"), 0)
	return errors.Join(err, f.Commit(ctx), f.Close())
}

func makeEmpty(d *namespace.Dir, c namespace.Caller, name string) error {
	f, _, err := d.Create(context.Background(), c, name, uint32(os.O_WRONLY), 0o640)
	if err != nil {
		return err
	}
	return errors.Join(f.Commit(context.Background()), f.Close())
}

func removeFile(d *namespace.Dir, c namespace.Caller, name string) error {
	return d.Unlink(context.Background(), c, name)
}

// fileIsThere checks that the content is readable, and is what makeFile has written.
func fileIsThere(d *namespace.Dir, c namespace.Caller, name string) error {
	ctx := context.Background()
	f, err := d.Open(ctx, c, name, uint32(os.O_RDONLY))
	if err != nil {
		return err
	}
	b := make([]byte, 100)
	n, err := f.ReadAt(ctx, c, b, 0)
	if err == io.EOF {
		err = nil
	}
	if err == nil && string(b[:n]) != "of no use" {
		err = fmt.Errorf("%s holds %q", name, b[:n])
	}
	return errors.Join(err, f.Close())
}

func makeAndRemove(d *namespace.Dir, c namespace.Caller, name string) error {
	return errors.Join(makeFile(d, c, name), removeFile(d, c, name))
}

func TestGCRefusesWrongUse(t *testing.T) {
	in := newInstallation(t)
	for _, args := range [][]string{
		{"gc", "--namespace", "none"}, {"gc", "--apply", "--list"}, {"gc", "--workers", "0"}, {"gc", "--rate", "-1"},
		{"gc", "--max-entries", "-1"}, {"gc", "--max-bytes", "much"}, {"gc", "--max-time", "soon"}, {"gc", "x"},
	} {
		in.run(t, exitUsage, args...)
	}
}

// A plan needs no store, and changes nothing.
func TestGCPlanWithoutStores(t *testing.T) {
	in := newInstallation(t)
	dir := filepath.Dir(in.file)
	for _, s := range []string{"s0", "s1", "s2"} {
		if err := os.Rename(filepath.Join(dir, s), filepath.Join(dir, "away-"+s)); err != nil {
			t.Fatal(err)
		}
	}
	in.run(t, exitStart, "gc", "--apply")
	out, _ := in.run(t, exitDone, "--json", "gc", "--list")
	var r struct {
		gcResult
		Entries []gcEntry `json:"entries"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Namespaces) != 1 || r.Entries == nil || r.Namespaces[0].Rows == nil || r.Applied {
		t.Errorf("%v in %s", err, out)
	}
}

// The log goes where --log says; where it cannot be written nothing is destroyed.
func TestGCLogElsewhere(t *testing.T) {
	in := newInstallation(t)
	in.removeIt(t)
	out, stderr := in.run(t, exitFailed, "gc", "--apply", "--log", "/dev/full")
	if !strings.Contains(stderr, "audit log: ") || !strings.Contains(stderr, "hint: nothing is destroyed without a log: --log FILE") {
		t.Errorf("%s%s", out, stderr)
	}
	if !in.shards(t) {
		t.Fatal("destroyed without a log")
	}
	log := filepath.Join(t.TempDir(), "gc.log")
	in.run(t, exitDone, "gc", "--apply", "--log", log)
	if in.shards(t) {
		t.Error("not destroyed")
	}
	b, err := os.ReadFile(log)
	if err != nil || strings.Count(string(b), `"event":"destroy"`) != 1 || !strings.Contains(string(b), `"path":"f"`) {
		t.Errorf("%v: %s", err, b)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(in.file), "md", "log")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("log/ is there: %v", err)
	}
}

// removeIt removes the file and lets grace pass.
func (in *installation) removeIt(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(in.file)
	if err != nil {
		t.Fatal(err)
	}
	short := strings.Replace(string(text), "repo: r,", "repo: r, trash: {keep: 0s, grace: 0s},", 1)
	if err := os.WriteFile(in.file, []byte(short), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(in.file)
	if err != nil {
		t.Fatal(err)
	}
	sys, err := config.Open(t.Context(), cfg, config.Interactive, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c, err := self()
	if err != nil {
		t.Fatal(err)
	}
	d, name, err := sys.FS.Walk(t.Context(), c, "/a/f")
	if err != nil {
		t.Fatal(err)
	}
	err = d.Unlink(t.Context(), c, name)
	d.Close()
	if err := errors.Join(err, sys.Close()); err != nil {
		t.Fatal(err)
	}
}

// shards tells whether the stores hold anything of the namespace.
func (in *installation) shards(t *testing.T) bool {
	t.Helper()
	m, err := filepath.Glob(filepath.Join(filepath.Dir(in.file), "s0", "a", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(m) > 0
}

// Where there is no terminal a line is written once a minute.
func TestProgressLines(t *testing.T) {
	var b strings.Builder
	a := &app{err: &b}
	p := a.progress("gc of a", "entries")
	now := p.began
	p.now = func() time.Time { return now }
	for i := range 7 {
		now = p.began.Add(time.Duration(i) * 30 * time.Second)
		p.set(tally{items: int64(300 * i), total: 3000, bytes: int64(i) << 30, failures: int64(i / 4)})
	}
	p.say("waits")
	p.end()
	want := `marfsctl: gc of a: 600 of 3000 entries, 2.0 GiB, 10/s, about 4m0s left
marfsctl: gc of a: 1200 of 3000 entries, 4.0 GiB, 10/s, 1 failed, about 3m0s left
marfsctl: gc of a: 1800 of 3000 entries, 6.0 GiB, 10/s, 1 failed, about 2m0s left
marfsctl: gc of a: waits
`
	if b.String() != want {
		t.Errorf("have\n%swant\n%s", b.String(), want)
	}
}

func TestGCStartsElsewhereOnEachHost(t *testing.T) {
	seen := map[string]bool{}
	for i := range 50 {
		at := startAt(fmt.Sprint("host", i), 1)
		if len(at) != 2 {
			t.Errorf("start at %q", at)
		}
		seen[at] = true
	}
	if len(seen) < 25 {
		t.Errorf("only %d of 50 places differ", len(seen))
	}
}
