package erasure

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"marfs/pkg/objfmt"
)

func content(seed byte, n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

// mul multiplies in GF(2^8) with polynomial 0x11d.
func mul(a, b byte) (p byte) {
	for ; b > 0; b >>= 1 {
		if b&1 == 1 {
			p ^= a
		}
		carry := a&0x80 != 0
		if a <<= 1; carry {
			a ^= 0x1d
		}
	}
	return p
}

func power(a byte, n int) byte {
	p := byte(1)
	for range n {
		p = mul(p, a)
	}
	return p
}

// polynomial returns a code word as docs/format.md defines it, in another way: the
// code's words are the values at 0, 1, 2 … of polynomials of degree below N, so
// parity follows from the data by interpolation.
func polynomial(data []byte, at byte) (sum byte) {
	for i, y := range data {
		num, den := byte(1), byte(1)
		for j := range data {
			if j != i {
				num, den = mul(num, at^byte(j)), mul(den, byte(i)^byte(j))
			}
		}
		sum ^= mul(y, mul(num, power(den, 254))) // den^254 = 1/den
	}
	return sum
}

// Parity is what docs/format.md says, whatever library computes it.
func TestCodeIsSpecified(t *testing.T) {
	for _, g := range []objfmt.Geometry{{Data: 1, Parity: 2, Block: 4096}, {Data: 4, Parity: 2, Block: 4096}, {Data: 10, Parity: 4, Block: 4096}} {
		codec, err := New(g)
		if err != nil {
			t.Fatal(err)
		}
		row := make([][]byte, g.Shards())
		for i := range row {
			row[i] = content(byte(i), 100)
		}
		if err := codec.Encode(row); err != nil {
			t.Fatal(err)
		}
		for x := range 100 {
			var data []byte
			for _, cell := range row[:g.Data] {
				data = append(data, cell[x])
			}
			for i := g.Data; i < g.Shards(); i++ {
				if want := polynomial(data, byte(i)); row[i][x] != want {
					t.Fatalf("%d+%d: byte %d of shard %d is %d, want %d", g.Data, g.Parity, x, i, row[i][x], want)
				}
			}
		}
	}
}

// Any N cells of a row give back all the others.
func TestReconstruct(t *testing.T) {
	g := objfmt.Geometry{Data: 4, Parity: 2, Block: 4096}
	codec, err := New(g)
	if err != nil {
		t.Fatal(err)
	}
	whole := make([][]byte, g.Shards())
	for i := range whole {
		whole[i] = content(byte(i), 1000)
	}
	if err := codec.Encode(whole); err != nil {
		t.Fatal(err)
	}
	if ok, err := codec.Verify(whole); !ok || err != nil {
		t.Fatalf("verify: %v, %v", ok, err)
	}
	for a := range g.Shards() {
		for b := range g.Shards() {
			row, want := append([][]byte{}, whole...), make([]bool, g.Shards())
			row[a], row[b] = make([]byte, 0, 1000), make([]byte, 0, 1000)
			want[a], want[b] = true, true
			if err := codec.Reconstruct(row, want); err != nil || !bytes.Equal(row[a], whole[a]) || !bytes.Equal(row[b], whole[b]) {
				t.Fatalf("reconstruct %d and %d: %v", a, b, err)
			}
		}
	}
	if err := codec.Reconstruct([][]byte{whole[0], nil, nil, nil, whole[4], whole[5]}, []bool{1: true, 5: false}); err == nil {
		t.Error("three cells are enough for 4+2")
	}
	whole[3][7]++
	if ok, _ := codec.Verify(whole); ok {
		t.Error("a changed row verifies")
	}
}

// A stripe of any fill holds the bytes where the layout says, each cell verified,
// each row a code word; and again after a Reset.
func TestStripe(t *testing.T) {
	for _, g := range []objfmt.Geometry{{Data: 4, Parity: 2, Block: 128 << 10}, {Data: 3, Parity: 0, Block: 12 << 10}, {Data: 1, Parity: 1, Block: 64 << 10}} {
		s, err := NewStripe(g, g.Block)
		if err != nil {
			t.Fatal(err)
		}
		n := int(g.Stripe())
		for _, size := range []int{1, 100, 4096, 4097, g.Block - 1, g.Block, g.Block + 1, n / 2, n - g.Block, n - 5000, n - 1, n, 7} {
			t.Run(fmt.Sprintf("%d+%dx%d/%d", g.Data, g.Parity, g.Block, size), func(t *testing.T) {
				size = min(max(size, 1), n)
				data := content(byte(size), size)
				l := objfmt.Layout{Geometry: g, WriteID: objfmt.NewID(), Size: int64(size)}
				fill(t, s, data, 1+size/7)
				if err := s.Seal(l.WriteID, 0); err != nil {
					t.Fatal(err)
				}
				checkStripe(t, s, l, data)
				s.Reset()
				if size < n { // known to be small
					small, err := NewStripe(g, g.LastBlock(int64(size)))
					if err != nil {
						t.Fatal(err)
					}
					fill(t, small, data, size)
					if err := small.Seal(l.WriteID, 0); err != nil {
						t.Fatal(err)
					}
					checkStripe(t, small, l, data)
				}
			})
		}
	}
}

func fill(t *testing.T, s *Stripe, data []byte, piece int) {
	t.Helper()
	for done := 0; done < len(data); {
		n := s.Fill(data[done:min(done+piece, len(data))])
		if n == 0 {
			t.Fatalf("full after %d of %d bytes", done, len(data))
		}
		done += n
	}
	if s.Len() != len(data) {
		t.Fatalf("%d bytes in the stripe, not %d", s.Len(), len(data))
	}
}

func checkStripe(t *testing.T, s *Stripe, l objfmt.Layout, data []byte) {
	t.Helper()
	codec, err := New(l.Geometry)
	if err != nil {
		t.Fatal(err)
	}
	for c := range l.Rows() {
		row := make([][]byte, l.Shards())
		for i := range row {
			row[i] = make([]byte, l.CellLen(0, c))
			n := l.CellLen(i, c)
			if n == 0 {
				continue
			}
			stored := s.Shard(i)[c*int64(l.Cell()+objfmt.SumSize):][:n+objfmt.SumSize]
			if !l.CellSum(i).Verify(c, stored) {
				t.Fatalf("cell %d of shard %d does not verify", c, i)
			}
			copy(row[i], stored[:n])
			if i < l.Data && !bytes.Equal(row[i][:n], data[l.CellOffset(i, c):][:n]) {
				t.Fatalf("cell %d of shard %d holds other bytes", c, i)
			}
		}
		if ok, err := codec.Verify(row); !ok || err != nil {
			t.Fatalf("row %d: %v, %v", c, ok, err)
		}
	}
	for i := range l.Shards() {
		if int64(len(s.Shard(i))) != l.Stored(l.Payload(i)) {
			t.Fatalf("shard %d: %d bytes, want %d", i, len(s.Shard(i)), l.Stored(l.Payload(i)))
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, g := range []objfmt.Geometry{{}, {Data: 300, Block: 4096}, {Data: -1, Parity: 2, Block: 4096}} {
		if _, err := New(g); err == nil {
			t.Errorf("codec of %+v", g)
		}
	}
}
