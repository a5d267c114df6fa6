package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func TestShippedConfigurationsLoad(t *testing.T) {
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("found %v: %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			// The reference shows every key, also those without effect yet.
			if len(c.Warnings) > 0 && filepath.Base(file) != "campaign.yaml" {
				t.Errorf("warnings: %v", c.Warnings)
			}
			roundTrip(t, c)
		})
	}
}

// roundTrip checks that the effective configuration means the same.
func roundTrip(t *testing.T, c *Config) {
	t.Helper()
	text, err := c.Effective()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("/elsewhere/again.yaml", text)
	if err != nil {
		t.Fatalf("effective configuration does not load: %v\n%s", err, text)
	}
	want := *c
	want.File, want.Warnings = again.File, again.Warnings
	if !reflect.DeepEqual(&want, again) {
		second, _ := again.Effective()
		t.Errorf("effective configuration means something else:\n%s\n%s", text, second)
	}
}

func TestCampaignHasEveryKey(t *testing.T) {
	text, err := os.ReadFile("../../configs/campaign.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	collectKeys(doc.Content[0], "", have)
	for _, key := range allKeys(reflect.TypeFor[Config](), "") {
		if !have[key] {
			t.Errorf("configs/campaign.yaml does not show %s", key)
		}
	}
}

func collectKeys(n *yaml.Node, at string, have map[string]bool) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			key := strings.TrimPrefix(at+"."+n.Content[i].Value, ".")
			have[key] = true
			collectKeys(n.Content[i+1], key, have)
		}
	case yaml.SequenceNode:
		for _, e := range n.Content {
			collectKeys(e, at, have)
		}
	}
}

func allKeys(t reflect.Type, at string) (keys []string) {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		tag := tagOf(t.Field(i))
		if tag == "" {
			continue
		}
		key := strings.TrimPrefix(at+"."+tag, ".")
		keys = append(append(keys, key), allKeys(t.Field(i).Type, key)...)
	}
	return keys
}

func TestDefaults(t *testing.T) {
	c, err := Parse("/etc/marfs/marfs.yaml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	n, r := c.Namespaces[0], c.Repos[0]
	for _, check := range []struct {
		key        string
		have, want any
	}{
		{"block_size", r.BlockSize, Size(1 << 20)},
		{"chunk_size", r.ChunkSize, Size(1 << 30)},
		{"min_write", r.MinWrite, 2},
		{"weight", r.Pods[0].Weight, 100},
		{"dir", r.Pods[0].Stores[0].Dir, "/etc/marfs/stores/s0"},
		{"mount", c.Mount, "/campaign"},
		{"metadata", n.Metadata[0], "/etc/marfs/md/a"},
		{"stage", n.Stage, Stage{1 << 20, 64 << 30, 5 * second, SyncClose}},
		{"update_in_place", n.UpdateInPlace, true},
		{"interactive", n.Interactive, AllPerms},
		{"batch", n.Batch, AllPerms},
		{"quota", n.Quota, Quota{}},
		{"trash", n.Trash, Trash{Keep: 30 * day, Grace: minGrace}},
		{"pack", n.Pack, Pack{256 << 20, 1000, 60 * second}},
		{"repack", n.Repack.BelowLive, 0.5},
		{"placement", n.placements(), []Placement{{Repo: "r", Pack: true}}},
		{"cache", c.Cache.Memory, Size(256 << 20)},
		{"metrics", c.Metrics.Listen, ""},
		{"log", c.Log, Log{"info", "text"}},
	} {
		if !reflect.DeepEqual(check.have, check.want) {
			t.Errorf("%s: have %v, want %v", check.key, check.have, check.want)
		}
	}
}

func TestMinWriteDefault(t *testing.T) {
	for _, c := range []struct{ data, parity, want int }{{1, 0, 1}, {4, 0, 4}, {2, 1, 3}, {4, 2, 5}, {10, 4, 13}} {
		if have := newSite(t, c.data, c.parity).config(t).Repos[0].MinWrite; have != c.want {
			t.Errorf("%d+%d: have %d, want %d", c.data, c.parity, have, c.want)
		}
	}
}

func TestPathOrder(t *testing.T) {
	t.Setenv("MARFS_CONFIG", "/env.yaml")
	if have := Path("/flag.yaml"); have != "/flag.yaml" {
		t.Errorf("flag: %s", have)
	}
	if have := Path(""); have != "/env.yaml" {
		t.Errorf("environment: %s", have)
	}
	t.Setenv("MARFS_CONFIG", "")
	if have := Path(""); have != DefaultPath {
		t.Errorf("default: %s", have)
	}
}

func TestLoadRefusesLargeFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(file, bytes.Repeat([]byte("#"), maxFile+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), "is larger than 1MiB") {
		t.Errorf("have %v", err)
	}
}

// FuzzParse checks that any text is refused or means the same when written out
// and read again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{minimal, "", "a: &a [*a]", "version: 1\n---\n", "- - - -", "mount: *x", "{", "\x00", "? {a: b}\n: c",
		"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]", strings.Repeat("[", 300), "repos: {<<: {a: b}}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("/etc/marfs/marfs.yaml", text)
		if err == nil {
			roundTrip(t, c)
		} else if len(problems(t, err)) == 0 {
			t.Error("refused without a reason")
		}
	})
}
