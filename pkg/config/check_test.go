package config

import (
	"errors"
	"strings"
	"testing"
)

// minimal is a configuration with nothing but what is required.
const minimal = `version: 1
mount: /campaign
repos:
  - name: r
    data: 1
    parity: 1
    pods:
      - name: p
        stores:
          - dir: stores/s0
          - dir: stores/s1
namespaces:
  - name: a
    path: /a
    metadata: md/a
    repo: r
`

// with is minimal with each pair of texts replaced.
func with(t *testing.T, pairs ...string) string {
	t.Helper()
	text := minimal
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%q is not in the text", pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

func TestRules(t *testing.T) {
	const s3 = `s3: {endpoint: "https://h:9000", bucket: bbb, credentials: /c}`
	tests := []struct {
		name  string
		edits []string // of minimal
		want  string   // the one problem, or "" for none
	}{
		{"fine", nil, ""},
		{"unknown key", []string{"parity: 1", "parity: 1\n    chunksize: 1GiB"}, `f:7: repos[0].chunksize: unknown key`},
		{"duplicate key", []string{"data: 1", "data: 1\n    data: 2"}, `f:6: repos[0].data: is already given on line 5`},
		{"null", []string{"repo: r", "repo: r\n    quota:"}, `f:17: namespaces[0].quota: has no value`},
		{"alias", []string{"mount: /campaign", "mount: &m /campaign", "path: /a", "path: *m"}, `*f:14: namespaces[0].path: *m: aliases are not supported`},
		{"anchor", []string{"mount: /campaign", "mount: &x /campaign"}, `f:2: mount: &x: anchors are not supported`},
		{"anchor of a list", []string{"        stores:", "        stores: &x"}, `f:9: repos[0].pods[0].stores: &x: anchors are not supported`},
		{"anchor of a key", []string{"mount:", "&x mount:"}, `*f:2: mount: &x: anchors are not supported`},
		{"anchor in a list", []string{"repo: r", "repo: r\n    batch: [&x rm]"}, `f:17: namespaces[0].batch[0]: &x: anchors are not supported`},
		{"home", []string{"/campaign", "~/mnt"}, `f:2: mount: ~/mnt: would be taken literally: there are no variables`},
		{"variable", []string{"md/a", "$HOME/md"}, `f:15: namespaces[0].metadata[0]: $HOME/md: would be taken literally: there are no variables`},
		{"variable in braces", []string{"stores/s1", "/srv/${DISK}"}, `f:11: repos[0].pods[0].stores[1].dir: /srv/${DISK}: would be taken literally: there are no variables`},
		{"tilde and dollar inside", []string{"stores/s1", "/srv/a~$1"}, ""},
		{"tag", []string{"/campaign", "!/campaign"}, `f:2: mount: !/campaign: tags are not supported`},
		{"empty path", []string{"md/a", `""`}, `f:15: namespaces[0].metadata[0]: is not a path`},
		{"list for a value", []string{"repo: r", "repo: [r]"}, `f:16: namespaces[0].repo: must be a single value`},
		{"value for a list", []string{"metadata: md/a\n    repo: r", "metadata: md/a\n    repo: r\n    batch: rm"}, `f:17: namespaces[0].batch: rm: must be a list`},
		{"value for keys", []string{"repo: r", "repo: r\n    stage: 5"}, `f:17: namespaces[0].stage: 5: must be keys and values`},
		{"not a number", []string{"data: 1", "data: one"}, `f:5: repos[0].data: one: must be a whole number`},
		{"not a fraction", []string{"repo: r", "repo: r\n    repack: {below_live: .nan}"}, `f:17: namespaces[0].repack.below_live: .nan: must be a number`},
		{"not a truth", []string{"repo: r", "repo: r\n    update_in_place: yes"}, `f:17: namespaces[0].update_in_place: yes: must be true or false`},
		{"bad size", []string{"parity: 1", "parity: 1\n    block_size: 1mb"}, `f:7: repos[0].block_size: 1mb: is not a size: want a whole number and a unit`},
		{"bad duration", []string{"repo: r", "repo: r\n    trash: {keep: 1w}"}, `f:17: namespaces[0].trash.keep: 1w: is not a duration: want whole numbers and units, largest first`},
		{"bad count", []string{"repo: r", "repo: r\n    quota: {files: 1Ki}"}, `f:17: namespaces[0].quota.files: 1Ki: is not a count: want a whole number, perhaps with k, M or G`},
		{"bad permission", []string{"repo: r", "repo: r\n    batch: [rm, rx]"}, `f:17: namespaces[0].batch[1]: rx: is no permission`},
		{"permission twice", []string{"repo: r", "repo: r\n    batch: [rm, rm]"}, `f:17: namespaces[0].batch[1]: rm: is given twice`},
		{"no permissions", []string{"repo: r", "repo: r\n    batch: []"}, ""},
		{"second document", []string{"    repo: r\n", "    repo: r\n---\nversion: 1\n"}, `f:17: a second YAML document begins here`},

		{"missing version", []string{"version: 1\n", ""}, `f:1: version: is missing`},
		{"unknown version", []string{"version: 1", "version: 2"}, `f:1: version: 2: is not a version this build knows`},
		{"mount at the root", []string{"/campaign", "/"}, `f:2: mount: /: must be below the root directory`},
		{"no repos", []string{"repo: r", "repo: r # ", "repos:\n", "repos: []\nx:\n"}, `*f:3: repos: is empty`},

		{"no name", []string{"- name: r\n    data", "- data"}, `*f:4: repos[0].name: is missing`},
		{"bad name", []string{"name: a", "name: A b"}, `f:13: namespaces[0].name: A b: is not a name`},
		{"data 0", []string{"data: 1", "data: 0"}, `f:5: repos[0].data: 0: must be at least 1`},
		{"parity negative", []string{"parity: 1", "parity: -1"}, `f:6: repos[0].parity: -1: must be at least 0`},
		{"parity missing", []string{"    parity: 1\n", ""}, `f:4: repos[0].parity: is missing`},
		{"too many shards", []string{"parity: 1", "parity: 256"}, `f:6: repos[0].parity: 256: makes data + parity 257: must be at most 256`},
		{"too few stores", []string{"data: 1", "data: 2"}, `f:9: repos[0].pods[0].stores: 2: must be 3 stores, one for each of 2 data and 1 parity shards`},
		{"negative weight", []string{"name: p", "name: p\n        weight: -1"}, `f:9: repos[0].pods[0].weight: -1: must be at least 0`},
		{"no weight at all", []string{"name: p", "name: p\n        weight: 0"}, `f:7: repos[0].pods: all have weight 0: new objects have nowhere to go`},
		{"no pods", []string{"pods:\n", "pods: []\n#", "        stores", "#", "          - dir", "#", "          - dir", "#"}, `f:7: repos[0].pods: is empty`},
		{"block not a multiple", []string{"parity: 1", "parity: 1\n    block_size: 100000"}, `f:7: repos[0].block_size: 100kB: must be a multiple of 4KiB, and of 64KiB when larger, at most 1GiB`},
		{"block too large", []string{"parity: 1", "parity: 1\n    block_size: 2GiB"}, `f:7: repos[0].block_size: 2GiB: must be a multiple of 4KiB, and of 64KiB when larger, at most 1GiB`},
		{"chunk below a stripe", []string{"parity: 1", "parity: 1\n    chunk_size: 512KiB"},
			`f:7: repos[0].chunk_size: 512KiB: is less than one stripe, data x block_size (1MiB)`},
		{"chunk too large", []string{"parity: 1", "parity: 1\n    chunk_size: 6TiB"}, `f:7: repos[0].chunk_size: 6TiB: must be at most 5TiB`},
		{"chunk too large for S3", []string{"parity: 1", "parity: 1\n    chunk_size: 78GiB", "dir: stores/s1", s3}, `f:7: repos[0].chunk_size: 78GiB: makes shards that S3 cannot take: with data 1 it must be at most 77GiB`},
		{"chunk as large as S3 takes", []string{"parity: 1", "parity: 1\n    chunk_size: 77GiB", "dir: stores/s1", s3}, ""},
		{"chunk of a TiB in directories", []string{"parity: 1", "parity: 1\n    chunk_size: 1TiB"}, ""},
		{"min_write too low", []string{"parity: 1", "parity: 1\n    min_write: 1"}, `f:7: repos[0].min_write: 1: must be from 2 to 2 with 1+1`},
		{"min_write too high", []string{"parity: 1", "parity: 1\n    min_write: 3"}, `f:7: repos[0].min_write: 3: must be from 2 to 2 with 1+1`},
		{"plain objects", []string{"parity: 1", "parity: 0\n    min_write: 1", "          - dir: stores/s1\n", ""}, ""},

		{"store without place", []string{"dir: stores/s1", "{}"}, `f:11: repos[0].pods[0].stores[1]: must have either dir or s3`},
		{"store with two", []string{"- dir: stores/s1", "- {dir: stores/s1, " + s3 + "}"}, `f:11: repos[0].pods[0].stores[1]: must have either dir or s3`},
		{"same store twice", []string{"stores/s1", "stores/./s0"}, `f:11: repos[0].pods[0].stores[1].dir: /d/stores/s0: is the same as repos[0].pods[0].stores[0].dir on line 10 (/d/stores/s0)`},
		{"store in a store", []string{"stores/s1", "stores/s0/s1"}, `f:11: repos[0].pods[0].stores[1].dir: /d/stores/s0/s1: is inside repos[0].pods[0].stores[0].dir on line 10 (/d/stores/s0)`},
		{"metadata in a store", []string{"md/a", "stores/s0/md"}, `f:15: namespaces[0].metadata[0]: /d/stores/s0/md: is inside repos[0].pods[0].stores[0].dir on line 10 (/d/stores/s0)`},
		{"metadata around stores", []string{"md/a", "."}, `*f:15: namespaces[0].metadata[0]: /d: is around repos[0].pods[0].stores[0].dir on line 10 (/d/stores/s0)`},
		{"store in the mount", []string{"stores/s1", "/campaign/s1"}, `f:11: repos[0].pods[0].stores[1].dir: /campaign/s1: is inside mount on line 2 (/campaign)`},
		{"sibling with the same beginning", []string{"stores/s1", "stores/s0-1"}, ""},
		{"bucket", []string{"dir: stores/s1", s3}, ""},
		{"same bucket", []string{"dir: stores/s0", s3, "dir: stores/s1", `s3: {endpoint: "https://H:9000/", bucket: bbb, credentials: /c}`},
			`f:11: repos[0].pods[0].stores[1].s3: https://h:9000/bbb: is the same as repos[0].pods[0].stores[0].s3 on line 10 (https://h:9000/bbb)`},
		{"same bucket by default port", []string{"dir: stores/s0", `s3: {endpoint: "https://h", bucket: bbb, credentials: /c}`, "dir: stores/s1", `s3: {endpoint: "https://h:443", bucket: bbb, credentials: /c}`},
			`f:11: repos[0].pods[0].stores[1].s3: https://h:443/bbb: is the same as repos[0].pods[0].stores[0].s3 on line 10 (https://h:443/bbb)`},
		{"bad bucket", []string{"dir: stores/s1", strings.Replace(s3, "bbb", "Bucket_1", 1)}, `f:11: repos[0].pods[0].stores[1].s3.bucket: Bucket_1: is not a bucket name`},
		{"bucket like an address", []string{"dir: stores/s1", strings.Replace(s3, "bbb", "10.0.0.1", 1)}, `f:11: repos[0].pods[0].stores[1].s3.bucket: 10.0.0.1: is not a bucket name`},
		{"bad endpoint", []string{"dir: stores/s1", strings.Replace(s3, "https://h:9000", "h:9000", 1)}, `f:11: repos[0].pods[0].stores[1].s3.endpoint: h:9000: is not http:// or https:// and a host`},
		{"endpoint with path", []string{"dir: stores/s1", strings.Replace(s3, ":9000", ":9000/x", 1)}, `f:11: repos[0].pods[0].stores[1].s3.endpoint: https://h:9000/x: has more than a host and a port`},
		{"endpoint with port 0", []string{"dir: stores/s1", strings.Replace(s3, ":9000", ":0", 1)}, `f:11: repos[0].pods[0].stores[1].s3.endpoint: https://h:0: has a bad port`},
		{"endpoint with secret", []string{"dir: stores/s1", strings.Replace(s3, "h:9000", "u:pw@h", 1)}, `f:11: repos[0].pods[0].stores[1].s3.endpoint: holds a user or password`},
		{"endpoint with secret and another scheme", []string{"dir: stores/s1", strings.Replace(s3, "https://h", "s3://u:pw@h", 1)}, `f:11: repos[0].pods[0].stores[1].s3.endpoint: holds a user or password`},
		{"endpoint with secret and no port", []string{"dir: stores/s1", strings.Replace(s3, "h:9000", "u:pw@h:port", 1)}, `f:11: repos[0].pods[0].stores[1].s3.endpoint: holds a user or password`},
		{"endpoint with a secret of percents", []string{"dir: stores/s1", strings.Replace(s3, "h:9000", "u:p%ss@h", 1)}, `f:11: repos[0].pods[0].stores[1].s3.endpoint: holds a user or password`},
		{"endpoint with a signature", []string{"dir: stores/s1", strings.Replace(s3, ":9000", ":9000/?sig=pw", 1)}, `f:11: repos[0].pods[0].stores[1].s3.endpoint: has more than a host and a port`},
		{"bad region", []string{"dir: stores/s1", strings.Replace(s3, "bucket", "region: a b, bucket", 1)}, `f:11: repos[0].pods[0].stores[1].s3.region: a b: is not a region`},
		{"bad prefix", []string{"dir: stores/s1", strings.Replace(s3, "/c", "env:1-A", 1)}, `f:11: repos[0].pods[0].stores[1].s3.credentials: env:1-A: is not the prefix of environment variables`},
		{"no credentials", []string{"dir: stores/s1", strings.Replace(s3, ", credentials: /c", "", 1)}, `f:11: repos[0].pods[0].stores[1].s3.credentials: is missing`},

		{"unknown repo", []string{"repo: r", "repo: rr"}, `f:16: namespaces[0].repo: rr: is not the name of a repo`},
		{"no repo", []string{"    repo: r\n", ""}, `f:13: namespaces[0].repo: is missing`},
		{"path not clean", []string{"path: /a", "path: /a/../b"}, `f:14: namespaces[0].path: /a/../b: is not a clean absolute path`},
		{"path relative", []string{"path: /a", "path: a"}, `f:14: namespaces[0].path: a: is not a clean absolute path`},
		{"same name", []string{"    repo: r\n", "    repo: r\n  - {name: a, path: /b, metadata: md/b, repo: r}\n"}, `f:17: namespaces[1].name: a: is already the name of namespaces[0] on line 13`},
		{"same path", []string{"    repo: r\n", "    repo: r\n  - {name: b, path: /a, metadata: md/b, repo: r}\n"}, `f:17: namespaces[1].path: /a: is already the path of namespaces[0] on line 14`},
		{"nested path", []string{"    repo: r\n", "    repo: r\n  - {name: b, path: /a/b, metadata: md/b, repo: r}\n"}, ""},
		{"metadata in metadata", []string{"    repo: r\n", "    repo: r\n  - {name: b, path: /b, metadata: md/a/b, repo: r}\n"},
			`f:17: namespaces[1].metadata[0]: /d/md/a/b: is inside namespaces[0].metadata[0] on line 15 (/d/md/a)`},
		{"metadata as a list", []string{"md/a", "[md/a]"}, ""},
		{"several metadata", []string{"md/a", "[md/a, md/b]"}, `f:15: namespaces[0].metadata: has several directories: metadata in several filesystems is not supported yet`},
		{"empty placement", []string{"repo: r", "placement: []"}, `f:16: namespaces[0].placement: is empty`},
		{"placement out of order", []string{"repo: r", "placement: [{max_size: 2MiB, repo: r}, {max_size: 1MiB, repo: r}, {repo: r}]"},
			`f:16: namespaces[0].placement[1].max_size: 1MiB: must be more than that of the entry before (2MiB)`},
		{"placement that ends", []string{"repo: r", "placement: [{max_size: 2MiB, repo: r}]"}, `f:16: namespaces[0].placement[0].max_size: 2MiB: is given for the last entry`},
		{"placement cut short", []string{"repo: r", "placement: [{repo: r}, {repo: r}]"}, `f:16: namespaces[0].placement[0].max_size: is missing`},
		{"placement and the same repo", []string{"repo: r", "repo: r\n    placement: [{repo: r}]"}, ""},
		{"placement and another repo", []string{"repo: r", "repo: x\n    placement: [{repo: r}]"}, `f:16: namespaces[0].repo: x: is not the repo of the last placement (r)`},
		{"small file above a pack", []string{"repo: r", "repo: r\n    stage: {max_file: 1GiB}"}, `f:17: namespaces[0].stage.max_file: 1GiB: is more than pack.target_size (256MiB)`},
		{"pack above a chunk", []string{"repo: r", "repo: r\n    pack: {target_size: 2GiB}"}, `f:17: namespaces[0].pack.target_size: 2GiB: is more than chunk_size of repo r (1GiB)`},
		{"pack above the stage", []string{"repo: r", "repo: r\n    stage: {max_bytes: 1MiB}\n    pack: {target_size: 2MiB}"}, `f:18: namespaces[0].pack.target_size: 2MiB: is more than stage.max_bytes (1MiB)`},
		{"nothing is packed", []string{"repo: r", "repo: r\n    stage: {max_file: 0}\n    pack: {target_size: 2GiB}"}, ""},
		{"no min_files", []string{"repo: r", "repo: r\n    pack: {min_files: 0}"}, `f:17: namespaces[0].pack.min_files: 0: must be at least 1`},
		{"too many min_files", []string{"repo: r", "repo: r\n    pack: {min_files: 262145}"}, `f:17: namespaces[0].pack.min_files: 262145: is more than a pack holds (262144)`},
		{"no stage", []string{"repo: r", "repo: r\n    stage: {max_bytes: 0}"}, `f:17: namespaces[0].stage.max_bytes: 0B: must be at least 1MiB`},
		{"unknown sync", []string{"repo: r", "repo: r\n    stage: {sync: never}"}, `f:17: namespaces[0].stage.sync: never: must be one of close, application`},
		{"below_live", []string{"repo: r", "repo: r\n    repack: {below_live: 1}"}, `f:17: namespaces[0].repack.below_live: 1: must be from 0 to below 1`},
		{"user bytes above all", []string{"repo: r", "repo: r\n    quota: {bytes: 1GiB, per_user: {bytes: 2GiB}}"}, `f:17: namespaces[0].quota.per_user.bytes: 2GiB: is more than the namespace's quota.bytes (1GiB)`},
		{"user files above all", []string{"repo: r", "repo: r\n    quota: {files: 1k, per_user: {files: 2k}}"}, `f:17: namespaces[0].quota.per_user.files: 2k: is more than the namespace's quota.files (1k)`},

		{"memory", []string{"version: 1", "version: 1\ncache: {memory: 64KiB}"},
			`f:2: cache.memory: 64KiB: is too small: repos[0] needs 1048704B for 1+1, its share is 32KiB`},
		{"metrics", []string{"version: 1", "version: 1\nmetrics: {listen: 9567}"}, `f:2: metrics.listen: 9567: is not host:port`},
		{"log level", []string{"version: 1", "version: 1\nlog: {level: loud}"}, `f:2: log.level: loud: must be one of debug, info, warn, error`},
		{"log format", []string{"version: 1", "version: 1\nlog: {format: xml}"}, `f:2: log.format: xml: must be one of text, json`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("/d/f", []byte(with(t, test.edits...)))
			expect(t, err, test.want)
		})
	}
}

// problems returns what err consists of; anything but Problems fails the test.
func problems(t *testing.T, err error) (ps Problems) {
	t.Helper()
	if err != nil && !errors.As(err, &ps) {
		t.Fatalf("%v is not Problems", err)
	}
	return ps
}

// expect compares the problems with the one wanted; after * others may come too.
func expect(t *testing.T, err error, want string) {
	t.Helper()
	var have []string
	for _, p := range problems(t, err) {
		have = append(have, strings.TrimPrefix(p.Error(), "/d/"))
	}
	want, others := strings.CutPrefix(want, "*")
	switch {
	case want == "" && len(have) == 0:
	case !others && len(have) == 1 && have[0] == want:
	case others && strings.Contains(strings.Join(have, "\n")+"\n", want+"\n"):
	default:
		t.Errorf("have\n  %s\nwant\n  %s", strings.Join(have, "\n  "), want)
	}
}

func TestNotADocument(t *testing.T) {
	for text, want := range map[string]string{
		"":                   "/d/f: is empty",
		"# nothing\n":        "/d/f: is empty",
		"5":                  "/d/f:1: 5: must be keys and values",
		"- a":                "/d/f:1: must be keys and values",
		"a: [":               "/d/f:1: is not YAML, on this line or in the block that begins here: did not find expected node content",
		"version: 1\n\tx: 1": "/d/f:2: is not YAML: found a tab character that violates indentation",
		"version: 1\n---\n[": "/d/f:3: is not YAML, on this line or in the block that begins here: did not find expected node content",
		// The first line of an entry that a later one spoils, and of a list that does not end.
		"version: 1\nmount: /m\nrepos:\n  - name: r\n    data: 1\n   parity: 1\n": "/d/f:4: is not YAML, on this line or in the block that begins here: did not find expected '-' indicator",
		"version: 1\nlog:\n  level: info\n  format: text\n x: 1\n":                "/d/f:5: is not YAML, on this line or in the block that begins here: did not find expected key",
		"version: 1\nrepos: [1, 2\nmount: /m\n":                                   "/d/f:2: is not YAML, on this line or in the block that begins here: did not find expected ',' or ']'",
		"mount: \"\x01\"":                                                         "/d/f: is not YAML: control characters are not allowed",
		"\xff\xfe":                                                                "/d/f: is empty",
		"version: 1\nmou":                                                         "",
	} {
		_, err := Parse("/d/f", []byte(text))
		if ps := problems(t, err); len(ps) == 0 {
			t.Errorf("%q: accepted", text)
		} else if have := ps[0].Error(); want != "" && have != want {
			t.Errorf("%q: have %s, want %s", text, have, want)
		}
	}
}

func TestEveryMistakeAtOnce(t *testing.T) {
	_, err := Parse("/d/f", []byte(with(t, "data: 1", "data: 0", "path: /a", "path: a", "repo: r", "repo: q", "mount", "muont")))
	want := `/d/f:1: mount: is missing
hint: where users' paths start: mount: /campaign
/d/f:2: muont: unknown key
hint: did you mean "mount"?
/d/f:5: repos[0].data: 0: must be at least 1
/d/f:14: namespaces[0].path: a: is not a clean absolute path
hint: it starts below the mount: /projecta
/d/f:16: namespaces[0].repo: q: is not the name of a repo
hint: did you mean "r"?`
	if err == nil || err.Error() != want {
		t.Errorf("have\n%v\nwant\n%s", err, want)
	}
}

func TestWarnings(t *testing.T) {
	const inert = ": has no effect in this version: "
	below := func(text string) []string { return []string{"repo: r", "repo: r\n    " + text} }
	tests := []struct {
		name  string
		edits []string // of minimal
		want  []string // beginnings of the warnings
	}{
		{"defaults", nil, nil},
		{"short grace", below("trash: {grace: 5m}"), []string{"17: namespaces[0].trash.grace: 5m: is below 1h:"}},
		{"keep below grace", below("trash: {keep: 30m}"), []string{"17: namespaces[0].trash.keep: 30m: is below trash.grace (1h), which is the floor"}},
		{"no parity", []string{"parity: 1", "parity: 0", "          - dir: stores/s1\n", ""}, []string{"6: repos[0].parity: 0: survives no loss"}},
		{"more memory than there is", []string{"version: 1", "version: 1\ncache: {memory: 1EiB}"}, []string{"2: cache.memory: 1EiB: is more than this machine has"}},
		{"little memory", []string{"version: 1", "version: 1\ncache: {memory: 4MiB}"}, []string{"2: cache.memory: 4MiB: is little: with less than 8MiB for repos[0], its share is 2MiB, objects get smaller blocks than block_size (1MiB)"}},
		{"quota", below("quota: {bytes: 10TiB, per_user: {files: 5}}"), []string{"17: namespaces[0].quota" + inert}},
		{"no quota", below("quota: {bytes: 0}"), nil},
		{"stage", below("stage: {max_file: 1MiB, max_bytes: 1GiB, linger: 1s}\n    pack: {min_files: 3}\n    repack: {below_live: 0.7}"), nil},
		{"nothing staged", below("stage: {max_file: 0, max_bytes: 1MiB, sync: application}\n    pack: {max_age: 1s}"), nil},
		{"sync by applications", below("stage: {sync: application}"), []string{"17: namespaces[0].stage.sync: application: makes close return before a small file is durable"}},
		{"staged and not packed", []string{"repo: r", "stage: {max_file: 1MiB}\n    placement: [{repo: r, pack: false}]"}, []string{"16: namespaces[0].stage.max_file: 1MiB: stages nothing"}},
		{"only larger files packed", []string{"repo: r", "stage: {max_file: 1MiB}\n    placement: [{max_size: 64KiB, repo: r, pack: false}, {repo: r}]"}, []string{"16: namespaces[0].stage.max_file: 1MiB: stages nothing"}},
		{"only smaller files packed", []string{"repo: r", "stage: {max_file: 1MiB}\n    placement: [{max_size: 64KiB, repo: r}, {repo: r, pack: false}]"}, []string{"16: namespaces[0].stage.max_file: 1MiB: stages files of up to 64KiB only"}},
		{"all staged files packed", []string{"repo: r", "stage: {max_file: 1MiB}\n    placement: [{max_size: 1MiB, repo: r}, {repo: r, pack: false}]"}, nil},
		{"not packed", []string{"repo: r", "placement: [{repo: r, pack: false}]"}, nil},
		{"little stage", below("stage: {max_bytes: 768MiB}\n    pack: {target_size: 256MiB}"), []string{"17: namespaces[0].stage.max_bytes: 768MiB: is less than four packs (pack.target_size is 256MiB)"}},
		{"little stage, packs give way", below("stage: {max_bytes: 8MiB}"), nil},
		{"packed before it rests", below("pack: {max_age: 1s}"), []string{"17: namespaces[0].pack.max_age: 1s: is below stage.linger (5s)"}},
		{"repack of nearly all", below("repack: {below_live: 0.95}"), []string{"17: namespaces[0].repack.below_live: 0.95: rewrites packs of which little is dead"}},
		{"no repack", below("repack: {below_live: 0}"), nil},
		{"placement", []string{"repo: r", "placement: [{max_size: 1MiB, repo: r, pack: true}, {repo: r, pack: false}]"}, nil},
		{"trash", below("trash: {keep: 1d, max_bytes: 1TiB}"), nil},
		{"update", below("update_in_place: true"), []string{"17: namespaces[0].update_in_place: true" + inert}},
		{"no update", below("update_in_place: false"), nil},
		{"metrics", []string{"version: 1", `version: 1
metrics: {listen: "127.0.0.1:1"}`}, []string{"2: metrics.listen: 127.0.0.1:1" + inert}},
		{"in two namespaces", below("quota: {files: 1}\n  - {name: b, path: /b, metadata: md/b, repo: r, quota: {files: 1}}"),
			[]string{"17: namespaces[0].quota" + inert + "quotas are not enforced (also given in 1 other place)"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := Parse("f", []byte(with(t, test.edits...)))
			if err != nil {
				t.Fatal(err)
			}
			good := len(c.Warnings) == len(test.want)
			for i := 0; good && i < len(test.want); i++ {
				good = strings.HasPrefix(c.Warnings[i].Error(), "f:"+test.want[i])
			}
			if !good {
				t.Errorf("have %v, want %q", c.Warnings, test.want)
			}
		})
	}
}

func TestDefaultsGiveWay(t *testing.T) {
	for text, want := range map[string][2]Size{ // target_size, max_file
		"":                         {256 << 20, 1 << 20},
		"stage: {max_bytes: 8MiB}": {1 << 20, 1 << 20},
		"stage: {max_bytes: 4MiB}": {512 << 10, 512 << 10},
		"stage: {max_file: 128MiB, max_bytes: 512MiB}": {128 << 20, 128 << 20},
		"pack: {target_size: 64KiB}":                   {64 << 10, 64 << 10},
	} {
		c, err := Parse("/d/f", []byte(with(t, "repo: r", "repo: r\n    "+text)))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if n := c.Namespaces[0]; n.Pack.TargetSize != want[0] || n.Stage.MaxFile != want[1] {
			t.Errorf("%s: target_size %v, max_file %v", text, n.Pack.TargetSize, n.Stage.MaxFile)
		}
	}
	c, err := Parse("/d/f", []byte(with(t, "parity: 1", "parity: 1\n    block_size: 64KiB\n    chunk_size: 512KiB")))
	if err != nil {
		t.Fatal(err)
	}
	if n := c.Namespaces[0]; n.Pack.TargetSize != 512<<10 || n.Stage.MaxFile != 512<<10 {
		t.Errorf("target_size %v, max_file %v", n.Pack.TargetSize, n.Stage.MaxFile)
	}
}

func TestDesignExample(t *testing.T) {
	// repo beside placement, as the design document writes it.
	text := with(t, "repo: r", `repo: r
    placement:
      - {max_size: 16MiB, repo: r, pack: true}
      - {repo: r}
    stage: {max_file: 1MiB, max_bytes: 64GiB, linger: 5s}
    quota: {bytes: 10TiB, files: 10M, per_user: {bytes: 1TiB, files: 1M}}
    trash: {keep: 30d, grace: 1h, max_bytes: 100TiB}`)
	if _, err := Parse("/d/f", []byte(text)); err != nil {
		t.Error(err)
	}
}

func TestHostileValuesAreShownShort(t *testing.T) {
	_, err := Parse("/d/f", []byte(with(t, "name: a", "name: \"\\e[31m"+strings.Repeat("x", 1000)+"\"")))
	if err == nil || len(err.Error()) > 400 || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("have %q", err)
	}
}
