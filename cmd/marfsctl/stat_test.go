package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"marfs/pkg/config"
)

// installation is a configured system of 2+1 directories with one file, mnt/a/f,
// of one object.
type installation struct {
	file    string // the configuration
	path    string // of the file, below the mount
	content []byte
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	dir := t.TempDir()
	in := &installation{file: filepath.Join(dir, "marfs.yaml"), path: filepath.Join(dir, "mnt", "a", "f"), content: bytes.Repeat([]byte("stat"), 300_000)}
	text := `version: 1
mount: mnt
repos: [{name: r, data: 2, parity: 1, block_size: 64KiB, pods: [{name: p, stores: [{dir: s0}, {dir: s1}, {dir: s2}]}]}]
namespaces: [{name: a, path: /a, metadata: md, repo: r, stage: {max_file: 0}}]
`
	if err := os.WriteFile(in.file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(in.file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.Init(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	in.write(t, cfg)
	return in
}

func (in *installation) write(t *testing.T, cfg *config.Config) {
	t.Helper()
	ctx := t.Context()
	sys, err := config.Open(ctx, cfg, config.Interactive, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c, err := self()
	if err != nil {
		t.Fatal(err)
	}
	d, name, err := sys.FS.Walk(ctx, c, "/a/f")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f, _, err := d.Create(ctx, c, name, uint32(os.O_WRONLY), 0o640)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(ctx, c, in.content, 0)
	if err := errors.Join(err, f.Commit(ctx), f.Close(), sys.Close()); err != nil {
		t.Fatal(err)
	}
}

// run runs marfsctl on the installation and checks the exit code.
func (in *installation) run(t *testing.T, code int, args ...string) (out, stderr string) {
	t.Helper()
	var o, e strings.Builder
	if have := run(t.Context(), append([]string{"--config", in.file}, args...), &o, &e); have != code {
		t.Errorf("marfsctl %v: exit code %d, want %d\n%s%s", args, have, code, o.String(), e.String())
	}
	return o.String(), e.String()
}

// stat returns what stat says of the file.
func (in *installation) stat(t *testing.T, code int, args ...string) statFile {
	t.Helper()
	out, _ := in.run(t, code, append([]string{"--json", "stat", in.path}, args...)...)
	var r statResult
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Files) != 1 {
		t.Fatalf("%v in %s", err, out)
	}
	return r.Files[0]
}

func TestStatShowsEveryShard(t *testing.T) {
	in := newInstallation(t)
	f := in.stat(t, exitDone)
	if f.Type != "uni" || f.State != "final" || f.Size != int64(len(in.content)) || f.Mode != "0640" || f.Namespace != "a" ||
		len(f.File) != 32 || len(f.Content) != 32 || len(f.Objects) != 1 {
		t.Fatalf("have %+v", f)
	}
	o := f.Objects[0]
	if o.Repo != "r" || o.Pod != "p" || o.Data != 2 || o.Parity != 1 || o.Length != f.Size || o.Size < f.Size || len(o.Shards) != 3 {
		t.Fatalf("have %+v", o)
	}
	for i, s := range o.Shards {
		info, err := os.Stat(filepath.Join(s.Store, o.Key))
		if err != nil || info.Size() != s.Bytes || s.Index != i || s.State != "ok" {
			t.Errorf("shard %+v: %v", s, err)
		}
	}
	out, _ := in.run(t, exitDone, "stat", "--deep", in.path)
	for _, want := range []string{
		fmt.Sprintf("path:        %q\n", in.path), "type:        uni\n", "content id:  " + f.Content + "\n", "object:   " + o.Key + "\n",
		"in:       repo r, pod p, 2+1 blocks of 64KiB, ", fmt.Sprintf("shard 2:  ok %21d  %s\n", o.Shards[2].Bytes, o.Shards[2].Store),
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestStatFindsDamage(t *testing.T) {
	in := newInstallation(t)
	o := in.stat(t, exitDone).Objects[0]
	shard := filepath.Join(o.Shards[1].Store, o.Key)
	b, err := os.ReadFile(shard)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(shard, b, 0o600); err != nil {
		t.Fatal(err)
	}
	in.stat(t, exitDone) // a look at both ends does not see it
	if s := in.stat(t, exitDamage, "--deep").Objects[0].Shards[1]; s.State != "corrupt" || s.Error == "" {
		t.Errorf("have %+v", s)
	}
	if err := os.Remove(shard); err != nil {
		t.Fatal(err)
	}
	if s := in.stat(t, exitDamage).Objects[0].Shards[1]; s.State != "missing" {
		t.Errorf("have %+v", s)
	}
	_, stderr := in.run(t, exitDamage, "stat", in.path)
	want := "marfsctl: error: stat, " + in.path + ": damage found: shards 1\nhint: copy the file and rename the copy over it: that writes all shards anew\n"
	if !strings.Contains(stderr, want) {
		t.Errorf("have %s", stderr)
	}
}

func TestStatWithAStoreAway(t *testing.T) {
	for name, away := range map[string]func(store string) error{
		"gone":        func(string) error { return nil },
		"not mounted": func(store string) error { return os.Mkdir(store, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			in := newInstallation(t)
			o := in.stat(t, exitDone).Objects[0]
			store := o.Shards[0].Store
			if err := errors.Join(os.Rename(store, store+".away"), away(store)); err != nil {
				t.Fatal(err)
			}
			if s := in.stat(t, exitFailed).Objects[0].Shards[0]; s.State != "unavailable" || s.Store != store {
				t.Errorf("have %+v", s)
			}
			_, stderr := in.run(t, exitFailed, "stat", in.path)
			if !strings.Contains(stderr, "shards not looked at: 1\nhint: marfsctl status") {
				t.Errorf("have %s", stderr)
			}
		})
	}
}
