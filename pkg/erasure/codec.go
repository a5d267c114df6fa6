// Package erasure turns stripes of an object into shards and lost cells back into data.
//
// The unit of coding is a row: the cells of one number in all N+E shards, at most
// objfmt.CellSize bytes each. A row stays in the processor's cache while parity and
// checksums are computed, so each byte comes from memory once.
package erasure

import (
	"fmt"
	"sync"

	"github.com/klauspost/reedsolomon"

	"marfs/pkg/objfmt"
)

// Codec computes parity and lost cells of rows of N+E cells. Safe for concurrent use.
type Codec struct {
	data, parity int
	rs           reedsolomon.Encoder
}

// codecs keeps one codec per (N, E): the matrices take longer to make than a
// small object to encode. Valid geometries bound its size.
var codecs sync.Map // [2]int → *Codec

// New returns the codec for a geometry; its block size does not matter.
func New(g objfmt.Geometry) (*Codec, error) {
	if c, ok := codecs.Load([2]int{g.Data, g.Parity}); ok {
		return c.(*Codec), nil
	}
	if err := g.Validate(); err != nil {
		return nil, err
	}
	// One goroutine: a repo works on many rows at once, and a cell is too small to split.
	rs, err := reedsolomon.New(g.Data, g.Parity, reedsolomon.WithMaxGoroutines(1))
	if err != nil {
		return nil, fmt.Errorf("codec %d+%d: %w", g.Data, g.Parity, err)
	}
	c, _ := codecs.LoadOrStore([2]int{g.Data, g.Parity}, &Codec{g.Data, g.Parity, rs})
	return c.(*Codec), nil
}

// Encode computes the parity cells from the data cells. All N+E have one length.
func (c *Codec) Encode(row [][]byte) error {
	if c.parity == 0 {
		return nil
	}
	if err := c.rs.Encode(row); err != nil {
		return fmt.Errorf("encode %d+%d: %w", c.data, c.parity, err)
	}
	return nil
}

// Reconstruct computes the cells that want names from any N others. Cells of
// length 0 are missing; a wanted one is written into its capacity if that is enough.
// The others have one length.
func (c *Codec) Reconstruct(row [][]byte, want []bool) error {
	if err := c.rs.ReconstructSome(row, want); err != nil {
		return fmt.Errorf("reconstruct %d+%d: %w", c.data, c.parity, err)
	}
	return nil
}

// Verify reports whether the parity cells are those of the data cells.
func (c *Codec) Verify(row [][]byte) (bool, error) {
	if c.parity == 0 {
		return true, nil
	}
	return c.rs.Verify(row)
}
