package config

import (
	"fmt"
	"net"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/objfmt"
	"marfs/pkg/repo"
)

const (
	second   = Duration(time.Second)
	day      = Duration(24 * time.Hour)
	minGrace = Duration(time.Hour)
)

// checker holds the rules between and beyond single values. The decoder has
// filled the configuration; a value it has reported is left alone here.
type checker struct {
	*decoder
	cfg      *Config
	warnings []Problem
	places   []place
}

// complain reports a rule that the value at key breaks, once for each key.
func (k *checker) complain(key string, value any, rule, hint string) {
	if !k.failed[key] {
		k.report(k.line(key), key, text(value), rule, hint)
	}
}

func text(value any) string {
	if value == nil {
		return ""
	}
	return fmt.Sprint(value)
}

// line returns where key is given, or else the innermost key around it.
func (k *checker) line(key string) int {
	for {
		if n, ok := k.lines[key]; ok || key == "" {
			return n
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
}

func (k *checker) given(key string) bool { _, ok := k.lines[key]; return ok }

// require reports a key that must be there and is not.
func (k *checker) require(parent string, keys ...string) {
	for _, sub := range keys {
		if key := join(parent, sub); !k.given(key) && !k.failed[parent] {
			k.complain(key, nil, "is missing", whatFor[sub])
		}
	}
}

// whatFor says what required keys are for, and what to write.
var whatFor = map[string]string{
	"version":     "this build reads version: 1",
	"mount":       "where users' paths start: mount: /campaign",
	"repos":       "where data goes: configs/quickstart.yaml is an example",
	"namespaces":  "the file trees: configs/quickstart.yaml is an example",
	"name":        "a permanent name, recorded with the data",
	"data":        "how many shards hold content: data: 4",
	"parity":      "how many stores of a pod may be lost: parity: 2",
	"pods":        "groups of data + parity stores: configs/quickstart.yaml is an example",
	"stores":      "one for each of data + parity shards: - dir: /srv/s0",
	"endpoint":    `the server: endpoint: "https://s3.example:9000"`,
	"bucket":      "the bucket that is the store, all of it: bucket: marfs-s0",
	"credentials": "a file with access_key and secret_key, or env:PREFIX",
	"path":        "where it is below the mount: path: /projecta",
	"metadata":    "its metadata directory: metadata: /md/projecta",
	"repo":        "the name of the repo that files of this size go to",
}

// warn notes what works but should be looked at.
func (k *checker) warn(key string, value any, rule, hint string) {
	k.warnings = append(k.warnings, Problem{File: k.file, Line: k.line(key), Key: key, Value: text(value), Rule: rule, Hint: hint})
}

// atLeast reports a value below least.
func atLeast[T Size | Count | Duration | int](k *checker, key string, v, least T) bool {
	if v < least {
		k.complain(key, v, fmt.Sprintf("must be at least %v", least), "")
	}
	return v >= least
}

func (k *checker) config() {
	c := k.cfg
	k.require("", "version", "mount", "repos", "namespaces")
	if k.given("version") && c.Version != 1 {
		k.complain("version", c.Version, "is not a version this build knows", "this build reads version 1")
	}
	k.mount()
	names := map[string]string{}
	for i := range c.Repos {
		key := fmt.Sprintf("repos[%d]", i)
		k.name(key+".name", c.Repos[i].Name, names)
		k.repo(key, &c.Repos[i])
	}
	names = map[string]string{}
	paths := map[string]string{}
	for i := range c.Namespaces {
		key := fmt.Sprintf("namespaces[%d]", i)
		k.name(key+".name", c.Namespaces[i].Name, names)
		k.namespace(key, &c.Namespaces[i], paths)
	}
	for _, list := range []string{"repos", "namespaces"} {
		if k.given(list) && !k.given(list+"[0]") {
			k.complain(list, nil, "is empty", "describe at least one")
		}
	}
	k.overlaps()
	k.memory()
	k.metrics()
	k.inert()
	oneOf(k, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(k, "log.format", c.Log.Format, "text", "json")
}

func (k *checker) mount() {
	if !k.given("mount") || !k.directory("mount", &k.cfg.Mount) {
		return
	}
	if k.cfg.Mount == "/" {
		k.complain("mount", "/", "must be below the root directory", "for example /campaign")
		return
	}
	k.place("mount", k.cfg.Mount)
}

// variable is what a shell would replace in a path.
var variable = regexp.MustCompile(`^~|\$[A-Za-z_{]`)

// directory makes a path of the file absolute, or reports why it is none.
func (k *checker) directory(key string, p *string) bool {
	switch {
	case *p == "" || strings.ContainsRune(*p, 0):
		k.complain(key, *p, "is not a path", "")
		return false
	case variable.MatchString(*p):
		k.complain(key, *p, "would be taken literally: there are no variables", "write the whole path out; ./~name is a directory that is called so")
		return false
	}
	*p = k.cfg.absolute(*p)
	return true
}

// name checks the name of a repo, pod or namespace, unique within taken.
func (k *checker) name(key, name string, taken map[string]string) {
	k.require(strings.TrimSuffix(key, ".name"), "name")
	if !k.given(key) {
		return
	}
	if objfmt.CheckName("", name) != nil {
		k.complain(key, name, "is not a name", "names are 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit")
	} else if first, dup := taken[name]; dup {
		k.complain(key, name, fmt.Sprintf("is already the name of %s on line %d", strings.TrimSuffix(first, ".name"), k.line(first)), "names are unique")
		return
	}
	taken[name] = key
}

func (k *checker) namespace(key string, n *Namespace, paths map[string]string) {
	k.require(key, "path", "metadata")
	k.path(key+".path", n.Path, paths)
	k.metadata(key+".metadata", n)
	k.placement(key, n)
	k.sizes(key, n)
	k.packing(key, n)
	if n.Trash.Grace < minGrace {
		k.warn(key+".trash.grace", n.Trash.Grace,
			fmt.Sprintf("is below %v: a file that another node has open may lose its objects while it is read", minGrace),
			"keep grace above the longest time a reader holds a file open")
	}
	if n.Trash.Keep < n.Trash.Grace {
		k.warn(key+".trash.keep", n.Trash.Keep, fmt.Sprintf("is below trash.grace (%v), which is the floor: what is deleted is kept for grace", n.Trash.Grace), "")
	}
	if q := n.Quota; q.Bytes > 0 && q.PerUser.Bytes > q.Bytes {
		k.complain(key+".quota.per_user.bytes", q.PerUser.Bytes, fmt.Sprintf("is more than the namespace's quota.bytes (%v)", q.Bytes), "")
	}
	if q := n.Quota; q.Files > 0 && q.PerUser.Files > q.Files {
		k.complain(key+".quota.per_user.files", q.PerUser.Files, fmt.Sprintf("is more than the namespace's quota.files (%v)", q.Files), "")
	}
}

// path checks where a namespace is. One may be inside another, as a directory of it.
func (k *checker) path(key, p string, taken map[string]string) {
	if !k.given(key) {
		return
	}
	tooLong := slices.ContainsFunc(strings.Split(p, "/"), func(name string) bool { return len(name) > 255 })
	switch first, dup := taken[p]; {
	case p != path.Clean("/"+p) || strings.ContainsRune(p, 0) || tooLong:
		k.complain(key, p, "is not a clean absolute path", "it starts below the mount: /projecta")
	case dup:
		k.complain(key, p, fmt.Sprintf("is already the path of %s on line %d", strings.TrimSuffix(first, ".path"), k.line(first)), "")
	default:
		taken[p] = key
	}
}

func (k *checker) metadata(key string, n *Namespace) {
	for i := range n.Metadata {
		at := fmt.Sprintf("%s[%d]", key, i)
		if k.directory(at, &n.Metadata[i]) {
			k.place(at, n.Metadata[i])
		}
	}
	if len(n.Metadata) > 1 {
		k.complain(key, nil, "has several directories: metadata in several filesystems is not supported yet", "give one directory")
	} else if k.given(key) && len(n.Metadata) == 0 {
		k.complain(key, nil, "is empty", "give one directory")
	}
}

// placement checks that every file has exactly one repo to go to.
func (k *checker) placement(key string, n *Namespace) {
	switch {
	case k.given(key + ".placement"):
		k.placements(key+".placement", n.Placement)
		if last := len(n.Placement) - 1; k.given(key+".repo") && last >= 0 && n.Repo != n.Placement[last].Repo {
			k.complain(key+".repo", n.Repo, fmt.Sprintf("is not the repo of the last placement (%s)", n.Placement[last].Repo),
				"placement alone says where files go: remove repo")
		}
	case k.given(key + ".repo"):
		k.known(key+".repo", n.Repo)
	default:
		k.complain(key+".repo", nil, "is missing", "name the repo of the files' data, or give a placement list")
	}
}

func (k *checker) placements(key string, list []Placement) {
	if len(list) == 0 {
		k.complain(key, nil, "is empty", "the last entry names the repo of the largest files")
	}
	var before Size
	for i, p := range list {
		at := fmt.Sprintf("%s[%d]", key, i)
		k.require(at, "repo")
		k.known(at+".repo", p.Repo)
		sized := k.given(at + ".max_size")
		switch last := i == len(list)-1; {
		case last && sized:
			k.complain(at+".max_size", p.MaxSize, "is given for the last entry", "larger files would have no repo: remove it")
		case !last && !sized:
			k.complain(at+".max_size", nil, "is missing", "only the last entry is without one")
		case !last && p.MaxSize <= before:
			k.complain(at+".max_size", p.MaxSize, fmt.Sprintf("must be more than that of the entry before (%v)", before), "order the entries by max_size")
		}
		before = p.MaxSize
	}
}

// known checks the name of a repo that something refers to.
func (k *checker) known(key, name string) {
	if k.given(key) && k.cfg.repo(name) == nil {
		var names []string
		for _, r := range k.cfg.Repos {
			names = append(names, r.Name)
		}
		k.complain(key, name, "is not the name of a repo", strings.Replace(didYouMean(name, names), "known keys here", "repos", 1))
	}
}

func (c *Config) repo(name string) *Repo {
	for i := range c.Repos {
		if c.Repos[i].Name == name {
			return &c.Repos[i]
		}
	}
	return nil
}

// sizes checks what must fit into what, from a small file to the repo's chunks.
// Defaults give way to what is written: lowering a chunk_size is no mistake.
func (k *checker) sizes(key string, n *Namespace) {
	if n.Stage.MaxFile == 0 {
		return // nothing is staged, so nothing is packed
	}
	if !atLeast(k, key+".stage.max_bytes", n.Stage.MaxBytes, leastStage) {
		return
	}
	limit, whose := n.Stage.MaxBytes, "stage.max_bytes"
	for _, r := range k.packRepos(n) {
		if r.ChunkSize < limit {
			limit, whose = r.ChunkSize, "chunk_size of repo "+r.Name
		}
	}
	target, file := key+".pack.target_size", key+".stage.max_file"
	if !k.given(target) {
		n.Pack.TargetSize = min(n.Pack.TargetSize, n.Stage.MaxBytes/8)
		if k.given(file) {
			n.Pack.TargetSize = max(n.Pack.TargetSize, min(n.Stage.MaxFile, 256<<20))
		}
		n.Pack.TargetSize = min(n.Pack.TargetSize, limit)
	}
	if !k.given(file) {
		n.Stage.MaxFile = min(n.Stage.MaxFile, n.Pack.TargetSize)
	}
	if n.Pack.TargetSize > limit {
		k.complain(target, n.Pack.TargetSize, fmt.Sprintf("is more than %s (%v)", whose, limit),
			"a pack is one object, and the stage must hold all of its files")
	}
	if n.Stage.MaxFile > n.Pack.TargetSize {
		k.complain(file, n.Stage.MaxFile, fmt.Sprintf("is more than pack.target_size (%v)", n.Pack.TargetSize),
			"a staged file must fit into a pack")
	}
}

// packing checks how small files are staged, packed and repacked.
func (k *checker) packing(key string, n *Namespace) {
	oneOf(k, key+".stage.sync", n.Stage.Sync, SyncClose, SyncApplication)
	if atLeast(k, key+".pack.min_files", n.Pack.MinFiles, 1) && n.Pack.MinFiles > objfmt.MaxMembers {
		k.complain(key+".pack.min_files", n.Pack.MinFiles, fmt.Sprintf("is more than a pack holds (%d)", objfmt.MaxMembers), "")
	}
	if b := n.Repack.BelowLive; b < 0 || b >= 1 {
		k.complain(key+".repack.below_live", b, "must be from 0 to below 1", "0.5 rewrites a pack when half of it is dead")
	} else if b > 0.9 {
		k.warn(key+".repack.below_live", b, "rewrites packs of which little is dead: each time at least nine bytes are written to free one", "0.5 rewrites a pack when half of it is dead")
	}
	if n.Stage.MaxFile == 0 {
		return
	}
	k.staged(key+".stage.max_file", n)
	if n.Stage.Sync == SyncApplication {
		k.warn(key+".stage.sync", n.Stage.Sync, "makes close return before a small file is durable: a crash of the node may lose files that were closed, unless their programs call fsync", "close is the default")
	}
	if least := 4 * n.Pack.TargetSize; n.Stage.MaxBytes < least && n.Pack.TargetSize <= n.Stage.MaxBytes {
		k.warn(key+".stage.max_bytes", n.Stage.MaxBytes, fmt.Sprintf("is less than four packs (pack.target_size is %v): writers wait while packs are made", n.Pack.TargetSize),
			"raise it, or lower pack.target_size")
	}
	if n.Pack.MaxAge < n.Stage.Linger {
		k.warn(key+".pack.max_age", n.Pack.MaxAge, fmt.Sprintf("is below stage.linger (%v): a file rests that long before it is packed", n.Stage.Linger), "")
	}
}

// leastStage is the least stage.max_bytes: with less, no pack is worth its name.
const leastStage = 1 << 20

// staged compares a max_file that is given with what the placements pack.
func (k *checker) staged(key string, n *Namespace) {
	if !k.given(key) {
		return
	}
	var limit Size
	for _, p := range n.placements() {
		if !p.Pack {
			break
		}
		if limit = p.MaxSize; limit == 0 {
			limit = n.Stage.MaxFile
		}
	}
	switch {
	case limit == 0:
		k.warn(key, n.Stage.MaxFile, "stages nothing: the placement of the smallest files has pack: false", "max_file: 0 says that nothing is to be staged")
	case limit < n.Stage.MaxFile:
		k.warn(key, n.Stage.MaxFile, fmt.Sprintf("stages files of up to %v only: the placement of larger ones has pack: false", limit), "")
	}
}

// packRepos are the repos that packs of the namespace go to: those whose
// placement takes files small enough to be staged.
func (k *checker) packRepos(n *Namespace) (repos []*Repo) {
	var before Size
	for _, p := range n.placements() {
		if r := k.cfg.repo(p.Repo); r != nil && p.Pack && before < n.Stage.MaxFile {
			repos = append(repos, r)
		}
		before = p.MaxSize
	}
	return repos
}

// memory checks that every repo's share holds what it cannot work without.
func (k *checker) memory() {
	var machine unix.Sysinfo_t
	if err := unix.Sysinfo(&machine); err == nil {
		if have := Size(machine.Totalram) * Size(machine.Unit); k.cfg.Cache.Memory > have {
			k.warn("cache.memory", k.cfg.Cache.Memory, fmt.Sprintf("is more than this machine has (%.1f GiB)", float64(have)/(1<<30)), "a process may take all of it")
		}
	}
	for i, r := range k.cfg.Repos {
		key := fmt.Sprintf("repos[%d]", i)
		if k.badGeometry(key) {
			continue
		}
		share := k.cfg.repoMemory()
		if need := Size(repo.LeastMemory(r.geometry())); share < need {
			k.complain("cache.memory", k.cfg.Cache.Memory, fmt.Sprintf("is too small: %s needs %v for %d+%d, its share is %v", key, need, r.Data, r.Parity, share),
				"raise cache.memory")
			continue
		}
		// A writer fills one stripe while another is sent, and half is for readers.
		if ample := 4 * Size(r.Data+r.Parity) * r.BlockSize; share < ample {
			k.warn("cache.memory", k.cfg.Cache.Memory, fmt.Sprintf("is little: with less than %v for %s, its share is %v, objects get smaller blocks than block_size (%v)", ample, key, share, r.BlockSize),
				"raise cache.memory, or lower the repo's block_size")
		}
	}
}

// geometry is that of new objects.
func (r *Repo) geometry() objfmt.Geometry {
	return objfmt.Geometry{Data: r.Data, Parity: r.Parity, Block: int(r.BlockSize)}
}

// repoMemory is how much of the memory each repo gets for its buffers.
func (c *Config) repoMemory() Size { return c.Cache.Memory / 2 / Size(max(len(c.Repos), 1)) }

func (k *checker) metrics() {
	listen := k.cfg.Metrics.Listen
	if listen == "" {
		return
	}
	_, port, err := net.SplitHostPort(listen)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 {
		k.complain("metrics.listen", listen, "is not host:port", `for example "127.0.0.1:9567"`)
	}
}

// notYet are the keys of a namespace that have no effect in this version, when
// they are given: each with whether it asks for anything that does not happen anyway.
var notYet = []struct {
	key  string
	asks func(n *Namespace) bool
	rule string
}{
	{"quota", func(n *Namespace) bool { return n.Quota != Quota{} }, "quotas are not enforced"},
	{"update_in_place", func(n *Namespace) bool { return n.UpdateInPlace }, "existing content cannot be changed, only written anew"},
}

// inert warns of keys of features that do not exist yet, once for each: a quota
// that is not enforced is a surprise.
func (k *checker) inert() {
	for _, f := range notYet {
		var places []string
		for i := range k.cfg.Namespaces {
			if key := fmt.Sprintf("namespaces[%d].%s", i, f.key); k.given(key) && f.asks(&k.cfg.Namespaces[i]) {
				places = append(places, key)
			}
		}
		k.warnInert(places, f.rule)
	}
	if k.cfg.Metrics.Listen != "" {
		k.warnInert([]string{"metrics.listen"}, "there are no metrics")
	}
}

func (k *checker) warnInert(keys []string, rule string) {
	if len(keys) == 0 {
		return
	}
	rule = "has no effect in this version: " + rule
	if more := len(keys) - 1; more > 0 {
		rule += fmt.Sprintf(" (also given in %d other %s)", more, map[bool]string{true: "place", false: "places"}[more == 1])
	}
	k.warn(keys[0], k.values[keys[0]], rule, "")
}

func oneOf(k *checker, key, v string, allowed ...string) {
	if !slices.Contains(allowed, v) {
		k.complain(key, v, "must be one of "+strings.Join(allowed, ", "), "")
	}
}
