package erasure

import "marfs/pkg/objfmt"

// Stripe is one stripe of an object being written, held exactly as the shards
// store it: in each shard's block, cells with room for their checksums between
// them. So bytes are copied once, by Fill, and what Seal leaves is ready to send.
type Stripe struct {
	geometry objfmt.Geometry
	codec    *Codec
	block    int // bytes of one shard; at most geometry.Block
	whole    int // block, before it was shrunk
	stride   int // bytes of buf for one shard
	buf      []byte
	n        int      // bytes of the object in it
	row      [][]byte // scratch of Seal
}

// storedLen returns the bytes of payload and the checksums of its cells.
func storedLen(payload, cell int) int { return payload + (payload+cell-1)/cell*objfmt.SumSize }

// StripeMemory returns the bytes that a stripe of the block size takes.
func StripeMemory(g objfmt.Geometry, block int) int64 {
	return int64(g.Shards()) * int64(storedLen(block, g.Cell()))
}

// NewStripe returns an empty stripe of N blocks of data; block is at most g.Block,
// and less for an object that is known to be small.
func NewStripe(g objfmt.Geometry, block int) (*Stripe, error) {
	codec, err := New(g)
	if err != nil {
		return nil, err
	}
	return &Stripe{
		geometry: g,
		codec:    codec,
		block:    block,
		whole:    block,
		stride:   storedLen(block, g.Cell()),
		buf:      make([]byte, StripeMemory(g, block)),
		row:      make([][]byte, g.Shards()),
	}, nil
}

// Reset empties the stripe for other bytes.
func (s *Stripe) Reset() { s.n, s.block = 0, s.whole }

// Len returns the bytes of the object in the stripe.
func (s *Stripe) Len() int { return s.n }

// Full reports whether nothing more fits.
func (s *Stripe) Full() bool { return s.n == s.geometry.Data*s.block }

// at returns where byte i of the stripe is, and how many follow it in place.
func (s *Stripe) at(i int) (pos, run int) {
	d, x := i/s.block, i%s.block
	cell := s.geometry.Cell()
	return d*s.stride + x + x/cell*objfmt.SumSize, min(cell-x%cell, s.block-x)
}

// Fill copies as much of p as fits and returns how much that is.
func (s *Stripe) Fill(p []byte) int {
	p = p[:min(len(p), s.geometry.Data*s.block-s.n)]
	for done := 0; done < len(p); {
		pos, run := s.at(s.n)
		n := copy(s.buf[pos:pos+run], p[done:])
		done += n
		s.n += n
	}
	return len(p)
}

// Seal ends the stripe, number index of the write: it computes parity and checksums.
// A stripe that is not full is the object's last and gets the smallest block that holds it.
func (s *Stripe) Seal(write objfmt.ID, index int64) error {
	if !s.Full() {
		s.shrink(s.geometry.LastBlock(int64(s.n)))
	}
	cell := s.geometry.Cell()
	sums := make([]objfmt.CellSum, s.geometry.Shards())
	for i := range sums {
		sums[i] = objfmt.NewCellSum(write, i)
	}
	first := index * int64(s.geometry.Block/cell)
	for r := 0; r*cell < s.payload(0); r++ {
		if err := s.sealRow(r, first+int64(r), sums); err != nil {
			return err
		}
	}
	return nil
}

// sealRow encodes one row, and then checksums it while it is still in the cache.
func (s *Stripe) sealRow(r int, number int64, sums []objfmt.CellSum) error {
	cell := s.geometry.Cell()
	size := min(cell, s.payload(0)-r*cell)
	for i := range s.row {
		start := i*s.stride + r*(cell+objfmt.SumSize)
		s.row[i] = s.buf[start : start+size]
		if i < s.geometry.Data {
			clear(s.row[i][s.cellLen(i, r):])
		}
	}
	if err := s.codec.Encode(s.row); err != nil {
		return err
	}
	for i, data := range s.row {
		if n := s.cellLen(i, r); n > 0 {
			sums[i].Put(data[n:n+objfmt.SumSize], number, data[:n])
		}
	}
	return nil
}

// payload returns the bytes of data or parity that the shard has in this stripe.
func (s *Stripe) payload(shard int) int {
	if shard >= s.geometry.Data {
		shard = 0
	}
	return min(max(s.n-shard*s.block, 0), s.block)
}

func (s *Stripe) cellLen(shard, r int) int {
	cell := s.geometry.Cell()
	return min(max(s.payload(shard)-r*cell, 0), cell)
}

// Shard returns what a sealed stripe adds to the shard's file.
func (s *Stripe) Shard(i int) []byte {
	start := i * s.stride
	return s.buf[start : start+storedLen(s.payload(i), s.geometry.Cell())]
}

// shrink moves the bytes to where they belong with a smaller block. None moves
// towards the front, so from the last to the first none is overwritten before it is moved.
func (s *Stripe) shrink(block int) {
	small := *s
	small.block = block
	for end := s.n; end > 0 && block < s.block; {
		// The longest piece that ends at end and is in one place in both forms.
		n := min(end, s.tail(end), small.tail(end))
		from, _ := s.at(end - n)
		to, _ := small.at(end - n)
		copy(s.buf[to:to+n], s.buf[from:from+n])
		end -= n
	}
	s.block = min(block, s.block)
}

// tail returns how many bytes before end are in one place with byte end-1.
func (s *Stripe) tail(end int) int {
	x := (end - 1) % s.block
	return x%s.geometry.Cell() + 1
}
