// Package packer makes few large objects of many small files: it gathers what is
// staged in a namespace's metadata filesystem into packs, frees the bodies of what
// is packed when room is wanted, and rewrites packs of which much is dead.
//
// Any number of packers may work on a namespace, on any node, and be killed at any
// time: what a pack is for each of its members is decided by the commit protocol
// of package metadata. That they do not do the same work twice is a courtesy: each
// packs what its own process has staged, and of others only what is theirs no more.
package packer

import (
	"context"
	"io"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/repo"
)

// Policy says what is staged, when it is packed, released, and repacked.
type Policy struct {
	MaxFile    int64         // largest file that is staged; 0: none
	MaxBytes   int64         // bytes in the metadata filesystem, packed or not, that writers are held back for
	Linger     time.Duration // how long a finished file rests before it is packed
	TargetSize int64         // bytes of members in a pack, about
	MinFiles   int           // fewer wait for MaxAge
	MaxAge     time.Duration // a file waits no longer than this
	BelowLive  float64       // share of live bytes below which a pack is rewritten; 0: never
}

// Place is where packs of files of up to MaxSize bytes (0: any) go.
type Place struct {
	MaxSize int64
	Repo    *repo.Repo
	Pack    bool // false: files of this size are not staged
}

// Logger is the part of *slog.Logger that is used.
type Logger interface {
	Info(msg string, args ...any)
	Warn(msg string, args ...any)
	Error(msg string, args ...any)
}

// Config of New.
type Config struct {
	Namespace string
	Meta      *metadata.FS
	Repos     map[string]*repo.Repo // by name: every repo that packs of the namespace may be in
	Places    []Place               // ascending MaxSize, the last without
	Policy    Policy
	// Dead tells whether the process with this instance, which staged something, is
	// gone, so that others pack it. nil: none is.
	Dead func(instance [4]byte) bool
	Log  Logger
}

// Packer works on one namespace. Safe for concurrent use.
type Packer struct {
	c Config
}

// New makes a Packer; it starts nothing.
func New(c Config) *Packer { return &Packer{c: c} }

// Run packs and releases in the background until ctx ends.
func (p *Packer) Run(ctx context.Context) { <-ctx.Done() }

// For writers.

// Limit is the size of the largest file that is staged; 0: none is.
func (p *Packer) Limit() int64 { return 0 }

// Admit is asked before n bytes are staged. It holds the writer back for a moment
// when much is staged already, and says no, without waiting, when there is no room:
// then they go to objects at once.
func (p *Packer) Admit(ctx context.Context, n int64) bool { return p.Limit() > 0 }

// Staged is told of n bytes that were committed as staged.
func (p *Packer) Staged(n int64) {}

// MakeRoom packs and releases at once, because the metadata filesystem is full, and
// waits for it, as long as ctx lives. It reports whether any room came of it.
func (p *Packer) MakeRoom(ctx context.Context) bool { return false }

// For tools.

// Backlog is what waits in the metadata filesystem.
type Backlog struct {
	Files, Bytes int64     // staged: not packed yet
	Oldest       time.Time // of them; zero: there are none
	Packs        int64     // whose members' bodies may not be released yet
	Resident     int64     // bytes of those bodies, at most
}

// Backlog counts it, by listing queues.
func (p *Packer) Backlog(ctx context.Context) (Backlog, error) { return Backlog{}, nil }

// Result is what packing or repacking did.
type Result struct {
	Files, Bytes int64 // packed
	Packs        int64 // made
	Lost         int64 // members that changed meanwhile, or could not be read
	Released     int64 // bytes freed in the metadata filesystem
}

// PackOptions say what Pack packs.
type PackOptions struct {
	All      bool         // also what has not rested yet, and packs that are not full
	Others   bool         // also what processes that live have staged, unless they are packing
	Release  bool         // then free the bodies of all that is packed
	Progress func(Result) // called now and then, with the sums so far
}

// Pack goes through what is staged once.
func (p *Packer) Pack(ctx context.Context, o PackOptions) (Result, error) { return Result{}, nil }

// Candidate is a pack that is to be rewritten.
type Candidate struct {
	Object  objfmt.ObjectID
	Members int   // in the pack
	Live    int   // of them
	Bytes   int64 // of all members
	Alive   int64 // bytes of the live ones
	Pinned  int64 // bytes that stay in the old pack until gc: old versions
}

// Plan lists the packs to rewrite, those with the fewest live bytes first.
func (p *Packer) Plan(ctx context.Context) ([]Candidate, error) { return nil, nil }

// Repack rewrites them into as few packs as there need be, having looked again.
func (p *Packer) Repack(ctx context.Context, list []Candidate, progress func(Result)) (Result, error) {
	return Result{}, nil
}

// Item is a content on its way into a pack.
type Item struct {
	Member  metadata.PackMember // but for its place in the pack, which Write decides
	File    objfmt.TrailerFile  // as far as it is not in Member
	Content io.ReaderAt         // the bytes
	Err     error               // set by Write: why the item is not packed
}

// Write makes one pack of the items in a repo, and publishes them. On return without
// an error the pack is durable, and so is every item without Err.
func (p *Packer) Write(ctx context.Context, r *repo.Repo, items []Item) error { return nil }
