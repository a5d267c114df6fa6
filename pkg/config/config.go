// Package config reads the configuration file, checks it, and wires what it
// describes: stores into repos, repos and metadata filesystems into namespaces.
//
// The file is YAML and read strictly. Load reports every mistake at once as
// [Problems], each with its file and line, so that one run of `marfsctl config
// check` is enough. Anchors and aliases are refused: a reader of the file sees
// at each place what holds there, and no alias can blow the document up.
//
// [Open] is the only place that makes concrete stores, and with [Init] the only
// one that writes their identities.
package config

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"

	"marfs/pkg/namespace"
	"marfs/pkg/trash"
)

// DefaultPath is read when neither a flag nor $MARFS_CONFIG names a file.
const DefaultPath = "/etc/marfs/marfs.yaml"

// Path returns the configuration file to use: the flag's value, else
// $MARFS_CONFIG, else [DefaultPath].
func Path(flag string) string {
	if flag != "" {
		return flag
	}
	if env := os.Getenv("MARFS_CONFIG"); env != "" {
		return env
	}
	return DefaultPath
}

// Config is a checked configuration: every default is filled in and every path
// absolute. Nobody changes it after Load; a reload makes another.
type Config struct {
	Version    int         `yaml:"version"` // format of the file: 1
	Mount      string      `yaml:"mount"`   // where users' paths start; required
	Repos      []Repo      `yaml:"repos"`
	Namespaces []Namespace `yaml:"namespaces"`
	Cache      Cache       `yaml:"cache"`
	Metrics    Metrics     `yaml:"metrics"`
	Log        Log         `yaml:"log"`

	File     string    `yaml:"-"` // what it was read from
	Warnings []Problem `yaml:"-"` // what works but should be looked at
}

// Inside returns the path below the mount, from "/", of a path as users see it.
// Relative paths start at the working directory. The mount need not be there, and
// the way to it may go through symbolic links; the last name is not followed.
// The error does not repeat the path.
func (c *Config) Inside(p string) (string, error) {
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", err
	}
	mount := c.Mount
	if !within(abs, mount) {
		abs, mount = filepath.Join(resolve(filepath.Dir(abs)), filepath.Base(abs)), resolve(mount)
	}
	if !within(abs, mount) {
		return "", fmt.Errorf("is not below the mount %s", c.Mount)
	}
	return path.Clean("/" + strings.TrimPrefix(abs, mount)), nil
}

// resolve follows the symbolic links of an absolute path, as far as it is there.
func resolve(p string) string {
	if real, err := filepath.EvalSymlinks(p); err == nil || p == "/" {
		return cmp.Or(real, p)
	}
	return filepath.Join(resolve(filepath.Dir(p)), filepath.Base(p))
}

// Repo is erasure-coded storage: pods of data+parity stores.
type Repo struct {
	Name      string `yaml:"name"`       // permanent
	Data      int    `yaml:"data"`       // N, shards that hold content; required
	Parity    int    `yaml:"parity"`     // E, shards that may be lost; required, 0 is none
	BlockSize Size   `yaml:"block_size"` // of one shard in one stripe; default 1MiB
	ChunkSize Size   `yaml:"chunk_size"` // largest object; default 1GiB
	MinWrite  int    `yaml:"min_write"`  // shards durable before a write succeeds; default N+E-1 when E >= 2, else N+E
	Pods      []Pod  `yaml:"pods"`
}

// Pod is a placement group of a repo: one store for each shard.
type Pod struct {
	Name   string  `yaml:"name"`   // permanent
	Weight int     `yaml:"weight"` // share of new objects; default 100, 0: no new ones
	Stores []Store `yaml:"stores"`
}

// Store is a directory or a bucket: exactly one of the two is set.
type Store struct {
	Dir string `yaml:"dir,omitempty"`
	S3  *S3    `yaml:"s3,omitempty"`
}

// S3 is a bucket.
type S3 struct {
	Endpoint    string `yaml:"endpoint"`          // http[s]://host[:port]
	Bucket      string `yaml:"bucket"`            // required
	Region      string `yaml:"region"`            // default us-east-1
	Credentials string `yaml:"credentials"`       // a 0600 file, or env:PREFIX; required
	CAFile      string `yaml:"ca_file,omitempty"` // PEM certificates to trust; default those of the system
}

// Namespace is one file tree: metadata in a directory, data in repos.
type Namespace struct {
	Name          string      `yaml:"name"`                // permanent
	Path          string      `yaml:"path"`                // below the mount: /projecta
	Metadata      Dirs        `yaml:"metadata"`            // its metadata directory
	Repo          string      `yaml:"repo,omitempty"`      // where its data goes: short for placement: [{repo: …}]
	Placement     []Placement `yaml:"placement,omitempty"` // or by size of file
	Stage         Stage       `yaml:"stage"`
	Shared        bool        `yaml:"shared"`          // several nodes use it: refuse metadata filesystems without coherent xattrs; default false
	UpdateInPlace bool        `yaml:"update_in_place"` // allow random writes, appends, truncate and mmap; default true
	Interactive   Perms       `yaml:"interactive"`     // what the mount may do; default all
	Batch         Perms       `yaml:"batch"`           // what marfsctl may do; default all
	Quota         Quota       `yaml:"quota"`
	Trash         Trash       `yaml:"trash"`
	Pack          Pack        `yaml:"pack"`
	Repack        Repack      `yaml:"repack"`
}

// Dirs is one directory or a list of them.
type Dirs []string

// Perms is a set of permissions, written as a list of rm, wm, rd, wd, ud, td.
type Perms namespace.Perm

// Placement sends files to a repo.
type Placement struct {
	MaxSize Size   `yaml:"max_size,omitempty"` // files of up to this many bytes; the last entry has none and takes the rest
	Repo    string `yaml:"repo"`
	Pack    bool   `yaml:"pack"` // put staged small files together into packs; default true
}

// Stage says how small files wait in the metadata filesystem to be packed.
type Stage struct {
	MaxFile  Size     `yaml:"max_file"`  // larger files go to objects at once; default 1MiB, at most pack.target_size; 0: stage nothing
	MaxBytes Size     `yaml:"max_bytes"` // bytes in the metadata filesystem, packed or not, before writers wait and then go to objects; default 64GiB
	Linger   Duration `yaml:"linger"`    // how long a finished file rests before it is packed; default 5s
	// Sync says when a staged file is durable: with close, when it is closed; with
	// application, when the program calls fsync, as on a local filesystem. Default close.
	Sync string `yaml:"sync"`
}

// The values of Stage.Sync.
const (
	SyncClose       = "close"
	SyncApplication = "application"
)

// Quota limits a namespace; 0 is no limit.
type Quota struct {
	Bytes   Size      `yaml:"bytes"`    // default 0
	Files   Count     `yaml:"files"`    // default 0
	PerUser UserQuota `yaml:"per_user"` // for each user
}

// UserQuota limits each user of a namespace; 0 is no limit.
type UserQuota struct {
	Bytes Size  `yaml:"bytes"` // default 0
	Files Count `yaml:"files"` // default 0
}

// Trash says how long deleted files and replaced contents can be restored.
type Trash struct {
	Keep     Duration `yaml:"keep"`      // default 30d
	Grace    Duration `yaml:"grace"`     // floor under keep, for readers on other nodes; default 1h
	MaxBytes Size     `yaml:"max_bytes"` // the oldest go before keep ends when there is more; default 0, no limit
}

func (t Trash) policy() trash.Policy {
	return trash.Policy{Keep: t.Keep.Std(), Grace: t.Grace.Std(), MaxBytes: int64(t.MaxBytes)}
}

// Pack says when staged files become one object.
type Pack struct {
	TargetSize Size     `yaml:"target_size"` // a pack is full at; default 256MiB, or what chunk_size and an eighth of stage.max_bytes allow
	MinFiles   int      `yaml:"min_files"`   // fewer wait for max_age; default 1000
	MaxAge     Duration `yaml:"max_age"`     // a file waits no longer than this; default 1m
}

// Repack says when packs are rewritten without their dead bytes.
type Repack struct {
	BelowLive float64 `yaml:"below_live"` // fraction of live bytes below which it pays; default 0.5, 0: never
}

// Cache bounds memory.
type Cache struct {
	// Memory bounds all data buffers of a process: half is for read-ahead, the
	// other half is shared equally by the repos for encoding and decoding.
	// Default 256MiB.
	Memory Size `yaml:"memory"`
}

// Metrics says where the mount answers GET /metrics.
type Metrics struct {
	Listen string `yaml:"listen"` // host:port; default "", nowhere
}

// Log says what is logged and how.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn or error; default info
	Format string `yaml:"format"` // text (key=value) or json; default text
}

// defaulter is a part of the file whose values differ from zero when not given.
type defaulter interface{ setDefaults() }

func (c *Config) setDefaults() {
	c.Cache.Memory = 256 << 20
	c.Log = Log{Level: "info", Format: "text"}
}

func (r *Repo) setDefaults() {
	r.BlockSize = 1 << 20
	r.ChunkSize = 1 << 30
}

func (p *Pod) setDefaults() { p.Weight = 100 }

func (s *S3) setDefaults() { s.Region = "us-east-1" }

func (n *Namespace) setDefaults() {
	n.Stage = Stage{MaxFile: 1 << 20, MaxBytes: 64 << 30, Linger: 5 * second, Sync: SyncClose}
	n.UpdateInPlace = true
	n.Interactive = AllPerms
	n.Batch = AllPerms
	n.Trash = Trash{Keep: 30 * day, Grace: minGrace}
	n.Pack = Pack{TargetSize: 256 << 20, MinFiles: 1000, MaxAge: 60 * second}
	n.Repack.BelowLive = 0.5
}

func (p *Placement) setDefaults() { p.Pack = true }

// Logger writes log lines to w as the configuration wants them.
func (l Log) Logger(w io.Writer) *slog.Logger {
	var level slog.Level // info, which an unchecked Log without a level means too
	_ = level.UnmarshalText([]byte(l.Level))
	o := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// placements is where the namespace's files go, whichever way it was written.
func (n *Namespace) placements() []Placement {
	if len(n.Placement) > 0 {
		return n.Placement
	}
	return []Placement{{Repo: n.Repo, Pack: true}}
}

// Bounds of how many objects a process writes to at once.
const (
	minUploads = 4
	maxUploads = 64
)

// uploads is how many objects may be written to at once, so that what stores hold
// for them is at most as much again as all other buffers: a bucket holds a part of
// 8 MiB of each.
func (c *Config) uploads() int {
	var most int64
	for _, r := range c.Repos {
		for _, p := range r.Pods {
			var each int64
			for _, s := range p.Stores {
				each += s.putMemory()
			}
			most = max(most, each)
		}
	}
	return int(min(max(int64(c.Cache.Memory)/max(most, 1), minUploads), maxUploads))
}
