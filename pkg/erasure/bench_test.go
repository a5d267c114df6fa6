package erasure

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"marfs/pkg/objfmt"
)

var sink uint64

// BenchmarkSeal encodes and checksums a stripe in place. Its "of-bare" is the speed
// relative to the same code and checksum over the same cells of contiguous blocks,
// with nothing else done; the two take turns, so that noise hits both.
func BenchmarkSeal(b *testing.B) {
	for _, g := range []objfmt.Geometry{{Data: 4, Parity: 2, Block: 1 << 20}, {Data: 10, Parity: 2, Block: 1 << 20}, {Data: 16, Parity: 4, Block: 1 << 20}} {
		b.Run(fmt.Sprintf("%d+%d", g.Data, g.Parity), func(b *testing.B) {
			s, err := NewStripe(g, g.Block)
			if err != nil {
				b.Fatal(err)
			}
			s.Fill(content(1, int(g.Stripe())))
			bare := bareEncode(b, g)
			var seals, bares []time.Duration
			for b.Loop() {
				start := time.Now()
				if err := s.Seal(objfmt.ID{1}, 3); err != nil {
					b.Fatal(err)
				}
				middle := time.Now()
				bare()
				seals, bares = append(seals, middle.Sub(start)), append(bares, time.Since(middle))
			}
			slices.Sort(seals)
			slices.Sort(bares)
			seal, base := seals[len(seals)/2], bares[len(bares)/2]
			b.ReportMetric(float64(g.Stripe())/seal.Seconds()/1e9, "GB/s")
			b.ReportMetric(base.Seconds()/seal.Seconds(), "of-bare")
		})
	}
}

func bareEncode(b *testing.B, g objfmt.Geometry) func() {
	codec, err := New(g)
	if err != nil {
		b.Fatal(err)
	}
	var blocks [][]byte
	for i := range g.Shards() {
		blocks = append(blocks, content(byte(i), g.Block))
	}
	row := make([][]byte, g.Shards())
	return func() {
		for c := 0; c < g.Block; c += g.Cell() {
			for i := range row {
				row[i] = blocks[i][c : c+g.Cell()]
			}
			if err := codec.rs.Encode(row); err != nil {
				b.Fatal(err)
			}
			for _, cell := range row {
				sink += objfmt.Checksum(cell)
			}
		}
	}
}

// BenchmarkFill copies into a stripe.
func BenchmarkFill(b *testing.B) {
	g := objfmt.Geometry{Data: 4, Parity: 2, Block: 1 << 20}
	s, err := NewStripe(g, g.Block)
	if err != nil {
		b.Fatal(err)
	}
	data := content(1, 1<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if s.Full() {
			s.Reset()
		}
		s.Fill(data)
	}
}
