package objfmt

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// CellSize is the largest unit of checksum: an object's shards are sequences of
// cells of min(Block, CellSize) bytes, each followed by its checksum. 64 KiB keeps
// a row of cells in the processor's cache while it is encoded (3 times the speed of
// 1 MiB), and bounds what a small read must fetch to be verified.
const CellSize = 64 << 10

// BlockUnit is what every block size is a multiple of: a page.
const BlockUnit = 4 << 10

// MaxObject bounds the size of an object (1 PiB), so that no sum of offsets overflows.
const MaxObject = 1 << 50

// Geometry is how an object is erasure coded: Data + Parity shards, striped in
// blocks of Block bytes. It is recorded with each object and never looked up in
// the configuration when reading.
type Geometry struct {
	Data   int // N >= 1
	Parity int // E >= 0
	Block  int // bytes of one shard in one full stripe: a multiple of BlockUnit, and of CellSize if larger
}

// Shards returns N+E.
func (g Geometry) Shards() int { return g.Data + g.Parity }

// Stripe returns the bytes of an object in one full stripe.
func (g Geometry) Stripe() int64 { return int64(g.Data) * int64(g.Block) }

// Cell returns the bytes of a full cell.
func (g Geometry) Cell() int { return min(g.Block, CellSize) }

// StoredBlock returns the bytes that a full block takes in a shard, checksums included.
func (g Geometry) StoredBlock() int { return g.Block + g.Block/g.Cell()*SumSize }

// Validate refuses geometries that no object can have.
func (g Geometry) Validate() error {
	if g.Data < 1 || g.Parity < 0 || g.Data > MaxShards || g.Parity > MaxShards || g.Shards() > MaxShards {
		return fmt.Errorf("%w: geometry %d+%d: want at least 1 data shard and at most %d shards", ErrFormat, g.Data, g.Parity, MaxShards)
	}
	if g.Block < BlockUnit || g.Block > MaxBlock || g.Block%BlockUnit != 0 || g.Block > CellSize && g.Block%CellSize != 0 {
		return fmt.Errorf("%w: block size %d: want a multiple of %d, and of %d when larger", ErrFormat, g.Block, BlockUnit, CellSize)
	}
	return nil
}

// Place returns which store of the pod, counted from 0, keeps the shard: shards
// are rotated by key so that parity and the shards of small objects spread evenly.
// It is part of the format: the rotation is the first 8 bytes of the key's
// SHA-256, as a big-endian number, modulo N+E.
func (g Geometry) Place(key string, shard int) int {
	sum := sha256.Sum256([]byte(key))
	n := uint64(g.Shards())
	return int((binary.BigEndian.Uint64(sum[:])%n + uint64(shard)) % n)
}

// LastBlock returns the block size of the last, partial stripe of rest bytes:
// as small as holds them on N shards, so that small objects cost little parity.
func (g Geometry) LastBlock(rest int64) int {
	per := (rest + int64(g.Data) - 1) / int64(g.Data)
	return int(min(int64(g.Block), (per+BlockUnit-1)/BlockUnit*BlockUnit))
}

// Layout says where the shards of one stored object are and how to read them:
// every input of the placement, so a changed configuration never hides old data.
type Layout struct {
	Repo string
	Pod  string
	Geometry
	WriteID ID    // random, of this shard set
	Size    int64 // bytes stored: content and recovery trailer
}

// Validate refuses layouts that no object can have.
func (l Layout) Validate() error {
	if l.Size < 0 || l.Size > MaxObject {
		return fmt.Errorf("%w: object of %d bytes", ErrFormat, l.Size)
	}
	if l.WriteID.IsZero() {
		return fmt.Errorf("%w: layout without a write id", ErrFormat)
	}
	if len(l.Pod) > maxShardPod {
		return fmt.Errorf("%w: pod name of %d bytes", ErrFormat, len(l.Pod))
	}
	return l.Geometry.Validate()
}

// payloadBefore returns how many of the object's first off bytes data shard d
// holds. Every position in a shard follows from it.
func (l Layout) payloadBefore(d int, off int64) int64 {
	stripe, block := l.Stripe(), int64(l.Block)
	full := off / stripe
	if full == l.Size/stripe {
		block = int64(l.LastBlock(l.Size % stripe))
	}
	return full*int64(l.Block) + min(max(off%stripe-int64(d)*block, 0), block)
}

// Payload returns how many bytes of data (or parity) the shard holds, without
// checksums. Parity is as long as the first data shard, the longest.
func (l Layout) Payload(shard int) int64 {
	if shard >= l.Data {
		shard = 0
	}
	return l.payloadBefore(shard, l.Size)
}

// Rows returns the number of cells in the longest shard. The cells of one number
// in all shards are a row: a code word, after zeros have filled short cells.
func (l Layout) Rows() int64 { return l.cells(l.Payload(0)) }

// Cells returns the number of cells of the shard.
func (l Layout) Cells(shard int) int64 { return l.cells(l.Payload(shard)) }

func (l Layout) cells(payload int64) int64 {
	return (payload + int64(l.Cell()) - 1) / int64(l.Cell())
}

// CellLen returns the bytes of data in the cell of the shard; 0 if it has none.
func (l Layout) CellLen(shard int, cell int64) int {
	return int(min(max(l.Payload(shard)-cell*int64(l.Cell()), 0), int64(l.Cell())))
}

// CellsOf returns the cells [first, end) of data shard d that hold bytes of the
// object's range [off, off+n), which must lie within the object.
func (l Layout) CellsOf(d int, off, n int64) (first, end int64) {
	lo, hi := l.payloadBefore(d, off), l.payloadBefore(d, off+n)
	if lo == hi {
		return 0, 0
	}
	return lo / int64(l.Cell()), l.cells(hi)
}

// CellOffset returns where in the object the cell of data shard d begins.
func (l Layout) CellOffset(d int, cell int64) int64 {
	at := cell * int64(l.Cell())
	full, block := at/int64(l.Block), int64(l.Block)
	if full == l.Size/l.Stripe() {
		block = int64(l.LastBlock(l.Size % l.Stripe()))
	}
	return full*l.Stripe() + int64(d)*block + at%int64(l.Block)
}

// Stored returns the bytes that a payload takes in a shard, checksums included.
func (l Layout) Stored(payload int64) int64 { return payload + l.cells(payload)*SumSize }

// CellPos returns where in a shard's file the cell begins; it needs nothing read before.
func (l Layout) CellPos(key string, cell int64) int64 {
	return l.HeaderSize(key) + cell*int64(l.Cell()+SumSize)
}

// ShardSize returns the bytes of a shard's whole file.
func (l Layout) ShardSize(key string, shard int) int64 {
	return l.HeaderSize(key) + l.Stored(l.Payload(shard)) + ShardFooterSize
}

// HeaderSize returns the bytes of the header of the object's shards.
func (l Layout) HeaderSize(key string) int64 { return int64(shardHeaderSize(len(key), len(l.Pod))) }

// ObjectRef names one object of a namespace. Chunk numbers the chunks of a multi
// file from 0, which an object on its own (uni, packed) has too.
type ObjectRef struct {
	Object ObjectID
	Chunk  uint32
	Layout
}

// Key returns the object's key in every store of its pod:
// <namespace>/<hh>/<object id>[.<chunk>].
func (r ObjectRef) Key(namespace string) string { return ObjectKey(namespace, r.Object, r.Chunk) }
