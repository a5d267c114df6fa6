// Package packer makes few large objects of many small files: it gathers what is
// staged in a namespace's metadata filesystem into packs, frees the bodies of what
// is packed when room is wanted, and rewrites packs of which much is dead.
//
// Any number of packers may work on a namespace, on any node, and be killed at any
// time: what a pack is for each of its members is decided by the commit protocol
// of package metadata. That they do not do the same work twice is a courtesy: each
// packs what its own process has staged, and of others only what is theirs no more.
//
// # One pass
//
// A pass lists staged/, and keeps a window of what it may pack: a hundred bytes
// for each of at most 2^17 files. A full window is sorted, so that a pack has
// neighbours in it, and cut into packs; what does not fill one stays for the next
// window. Only the files of the pack that is being written are known in full. So
// ten million staged files take no more memory than a hundred thousand.
package packer

import (
	"context"
	"io"
	"math"
	"sync"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/repo"
)

// Policy says what is staged, when it is packed, released, and repacked.
type Policy struct {
	MaxFile    int64         // largest file that is staged; 0: none
	MaxBytes   int64         // bytes in the metadata filesystem, packed or not, that writers are held back for; 0: no limit
	Linger     time.Duration // how long a finished file rests before it is packed
	TargetSize int64         // bytes of members in a pack, about; 0: 256 MiB
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
	c     Config
	limit int64
	turn  chan struct{} // holds an element while somebody packs or releases: one at a time
	wake  chan struct{} // something was staged
	hurry chan struct{} // room is wanted
	room  room

	// Of whoever has the turn.
	troubled troubled
	foreign  map[objfmt.ID]bool   // staged files that are others'
	paused   map[*repo.Repo]pause // whose stores failed
	looked   time.Time            // when it was last looked what others have done

	single, general seldom // messages

	mu       sync.Mutex       // guards what follows
	resident []resident       // packs whose bodies are still there, oldest first
	undone   []*metadata.Pack // packs whose Abort failed
	making   *flight          // the MakeRoom that is going on
}

// New makes a Packer; it starts nothing.
func New(c Config) *Packer {
	if c.Log == nil {
		c.Log = silent{}
	}
	if c.Policy.TargetSize <= 0 {
		c.Policy.TargetSize = 256 << 20
	}
	p := &Packer{c: c, limit: limit(c), turn: make(chan struct{}, 1),
		wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		troubled: troubled{}, foreign: map[objfmt.ID]bool{}, paused: map[*repo.Repo]pause{}}
	p.room.max, p.room.most = c.Policy.MaxBytes, maxPacks
	p.room.free.Store(math.Float64bits(1)) // until somebody looks
	return p
}

type silent struct{}

func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}

// limit is that of the policy, as far as every size up to it is to be packed.
func limit(c Config) int64 {
	most := int64(0)
	for _, p := range c.Places {
		if !p.Pack {
			break
		}
		if most = p.MaxSize; most == 0 {
			most = c.Policy.MaxFile
		}
	}
	return min(most, c.Policy.MaxFile)
}

// Limit is the size of the largest file that is staged; 0: none is.
func (p *Packer) Limit() int64 { return p.limit }

// TargetSize is how many bytes of members a pack has, about.
func (p *Packer) TargetSize() int64 { return p.c.Policy.TargetSize }

// place is the index of where packs of contents of n bytes go, and whether there is one.
func (p *Packer) place(n int64) (int, bool) {
	for i, pl := range p.c.Places {
		if (pl.MaxSize == 0 || n <= pl.MaxSize) && pl.Repo != nil {
			return i, true
		}
	}
	return 0, false
}

// largest is the largest content that is packed. The configuration sees to it that
// an object of TargetSize may be; a file that has grown since it was staged, or was
// staged under another limit, may be a little larger.
func (p *Packer) largest() int64 { return p.c.Policy.TargetSize + p.c.Policy.TargetSize/4 }

// take waits for the turn to pack or release.
func (p *Packer) take(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Packer) give() { <-p.turn }

// Result is what packing or repacking did.
type Result struct {
	Files, Bytes int64 // packed
	Packs        int64 // made
	Lost         int64 // members that changed meanwhile, or could not be read
	Claimed      int64 // files that another packer is packing
	Released     int64 // bytes freed in the metadata filesystem
}

// PackOptions say what Pack packs.
type PackOptions struct {
	All      bool         // also what has not rested yet, and packs that are not full
	Others   bool         // also what processes that live have staged, unless they are packing
	Release  bool         // then free the bodies of all that is packed
	Progress func(Result) // called now and then, with the sums so far
}

// Item is a content on its way into a pack.
type Item struct {
	Member  metadata.PackMember // but for its place in the pack, which Write decides
	File    objfmt.TrailerFile  // as far as it is not in Member
	Content io.ReaderAt         // the bytes; closed after they were read, if it is an io.Closer
	Err     error               // set by Write: why the item is not packed
}
