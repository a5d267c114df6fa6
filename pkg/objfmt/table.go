package objfmt

// ChunkTable is the immutable list of a multi file's chunks, in order of offset,
// without gaps or overlaps, from 0.
type ChunkTable struct {
	File    ID
	Content ID
	Chunks  []Chunk
}

// Chunk is one object of a multi file: Length bytes of it are content, from the
// object's start, for the file's bytes from Offset.
type Chunk struct {
	Offset int64
	Length int64
	Object ObjectRef
	Sum    uint64 // CRC-64/NVME of the Length bytes
}

// Damage says which shards of an object are missing, bad or stale.
type Damage struct {
	Object ObjectRef
	Shards []int
	Why    string
}
