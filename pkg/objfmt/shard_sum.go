package objfmt

import "encoding/binary"

// SumSize is the length of a checksum behind a cell.
const SumSize = 8

// CellSum computes the checksums of one shard's cells. They are seeded with the
// write id, shard and cell number, so that a cell of another write or from
// another place never passes, and a range read needs no header.
type CellSum struct {
	write uint64
	shard uint64
}

// CellSum returns the checksums of the object's shard.
func (l Layout) CellSum(shard int) CellSum { return NewCellSum(l.WriteID, shard) }

// NewCellSum returns the checksums of a shard of a write.
func NewCellSum(write ID, shard int) CellSum {
	return CellSum{Checksum(write[:]), uint64(shard) << 48}
}

// Sum returns the checksum of the cell.
func (c CellSum) Sum(cell int64, data []byte) uint64 {
	// Within a write the seeds of all places differ: a CRC maps 64 bits one to one.
	var place [8]byte
	binary.BigEndian.PutUint64(place[:], c.shard|uint64(cell))
	return Update(Update(c.write, place[:]), data)
}

// Put writes the cell's checksum to dst[:SumSize].
func (c CellSum) Put(dst []byte, cell int64, data []byte) {
	binary.BigEndian.PutUint64(dst, c.Sum(cell, data))
}

// Verify reports whether stored, data and its checksum, is this very cell.
func (c CellSum) Verify(cell int64, stored []byte) bool {
	data := stored[:len(stored)-SumSize]
	return c.Sum(cell, data) == binary.BigEndian.Uint64(stored[len(data):])
}
