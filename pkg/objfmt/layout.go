package objfmt

// Geometry is how an object is erasure coded: Data + Parity shards, striped in
// blocks of Block bytes. It is recorded with each object and never looked up in
// the configuration when reading.
type Geometry struct {
	Data   int // N >= 1
	Parity int // E >= 0
	Block  int // bytes of one shard in one full stripe; a multiple of CellSize
}

// Shards returns N+E.
func (g Geometry) Shards() int { return g.Data + g.Parity }

// Layout says where the shards of one stored object are and how to read them:
// every input of the placement, so a changed configuration never hides old data.
type Layout struct {
	Repo string
	Pod  string
	Geometry
	WriteID ID    // random, of this shard set
	Size    int64 // bytes stored: content and recovery trailer
}

// ObjectRef names one object of a namespace. Chunk numbers the chunks of a multi
// file from 1; 0 is an object on its own (uni, packed).
type ObjectRef struct {
	Object ObjectID
	Chunk  uint32
	Layout
}

// Key returns the object's key in every store of its pod:
// <namespace>/<hh>/<object id>[.<chunk>].
func (r ObjectRef) Key(namespace string) string { return ObjectKey(namespace, r.Object, r.Chunk) }
