package objfmt

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// sampleShards is an object of two full stripes and a short one.
func sampleShards() (key string, l Layout) {
	l = Layout{Pod: "pod0", Geometry: Geometry{Data: 2, Parity: 1, Block: 4096}, WriteID: sampleID(4), Size: 2*8192 + 5000}
	return "projecta/5f/01edj000008na000000000005f", l
}

// sampleShardFile is a whole shard, of bytes that count up.
func sampleShardFile(shard int) ([]byte, error) {
	key, l := sampleShards()
	b, err := l.Header(key, shard).Append(nil)
	for c := range l.Cells(shard) {
		cell := make([]byte, l.CellLen(shard, c)+SumSize)
		for i := range cell[:len(cell)-SumSize] {
			cell[i] = byte(int64(i) + c)
		}
		l.CellSum(shard).Put(cell[len(cell)-SumSize:], c, cell[:len(cell)-SumSize])
		b = append(b, cell...)
	}
	return l.Footer(shard).Append(b), err
}

// TestGoldenShard holds the build to the shards that are stored.
func TestGoldenShard(t *testing.T) {
	key, l := sampleShards()
	for shard := range l.Shards() {
		name := filepath.Join("testdata", fmt.Sprint("shard.", shard))
		b, err := sampleShardFile(shard)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(name, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, golden) || int64(len(b)) != l.ShardSize(key, shard) {
			t.Errorf("shard %d of %d bytes differs from its golden file of %d", shard, len(b), len(golden))
		}
		if h, err := ParseShardHeader(golden); err != nil || h != l.Header(key, shard) {
			t.Errorf("header %+v, %v", h, err)
		}
		if f, err := ParseShardFooter(golden); err != nil || f != l.Footer(shard) {
			t.Errorf("footer %+v, %v", f, err)
		}
		for c := range l.Cells(shard) {
			cell := golden[l.CellPos(key, c):][:l.CellLen(shard, c)+SumSize]
			if !l.CellSum(shard).Verify(c, cell) {
				t.Errorf("shard %d: cell %d does not verify", shard, c)
			}
		}
	}
}

// TestGoldenPlace holds the build to where shards are.
func TestGoldenPlace(t *testing.T) {
	g := Geometry{Data: 4, Parity: 2, Block: 1 << 20}
	for key, want := range map[string]int{"projecta/5f/01edj000008na000000000005f": 0, "a": 4, "b": 4} {
		if got := g.Place(key, 0); got != want {
			t.Errorf("first shard of %s in store %d, want %d", key, got, want)
		}
		if got := g.Place(key, 3); got != (want+3)%6 {
			t.Errorf("shard 3 of %s in store %d", key, got)
		}
	}
}

// A cell is accepted for its own write, shard and place only.
func TestCellSum(t *testing.T) {
	data := make([]byte, 100)
	stored := make([]byte, 100+SumSize)
	NewCellSum(sampleID(1), 3).Put(stored[100:], 7, data)
	if !NewCellSum(sampleID(1), 3).Verify(7, stored) {
		t.Error("a good cell is refused")
	}
	for _, c := range []struct {
		id    ID
		shard int
		cell  int64
	}{{sampleID(2), 3, 7}, {sampleID(1), 4, 7}, {sampleID(1), 3, 8}, {sampleID(1), 7, 3}, {sampleID(1), 3, 7 + 1<<32}} {
		if NewCellSum(c.id, c.shard).Verify(c.cell, stored) {
			t.Errorf("a cell is accepted as %+v", c)
		}
	}
	for i := range stored {
		stored[i] ^= 1
		if NewCellSum(sampleID(1), 3).Verify(7, stored) {
			t.Errorf("a cell with byte %d changed is accepted", i)
		}
		stored[i] ^= 1
	}
	if !NewCellSum(sampleID(1), 3).Verify(0, NewCellSum(sampleID(1), 3).stored(0, nil)) {
		t.Error("an empty cell is refused")
	}
}

func (c CellSum) stored(cell int64, data []byte) []byte {
	b := append(bytes.Clone(data), make([]byte, SumSize)...)
	c.Put(b[len(data):], cell, data)
	return b
}

// TestShardRejects: nothing that Append would not write is taken.
func TestShardRejects(t *testing.T) {
	b, err := sampleShardFile(1)
	if err != nil {
		t.Fatal(err)
	}
	header := b[:shardHeaderSize(38, 4)]
	footer := b[len(b)-ShardFooterSize:]
	for i := range header {
		bad := bytes.Clone(header)
		bad[i]++
		if _, err := ParseShardHeader(bad); err == nil {
			t.Errorf("header with byte %d changed is taken", i)
		}
		if i >= 10 && i < len(header)-SumSize && !keyOrID(i) {
			if h, err := ParseShardHeader(fixShard(bad)); err == nil && mustAppend(t, h) != string(fixShard(bad)) {
				t.Errorf("header with byte %d changed is taken as another", i)
			}
		}
		if _, err := ParseShardHeader(header[:i]); !errors.Is(err, ErrFormat) {
			t.Errorf("header cut at %d: %v", i, err)
		}
	}
	for i := range footer {
		bad := bytes.Clone(footer)
		bad[i]++
		if _, err := ParseShardFooter(bad); err == nil {
			t.Errorf("footer with byte %d changed is taken", i)
		}
	}
	header[9], footer[9] = 2, 2
	if _, err := ParseShardHeader(header); !errors.Is(err, ErrVersion) {
		t.Errorf("header of version 2: %v", err)
	}
	if _, err := ParseShardFooter(footer); !errors.Is(err, ErrVersion) {
		t.Errorf("footer of version 2: %v", err)
	}
}

func keyOrID(i int) bool { return i >= 32 && i < 48+38+4 }

func mustAppend(t *testing.T, h ShardHeader) string {
	t.Helper()
	b, err := h.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fixShard corrects the checksum at the end.
func fixShard(b []byte) []byte {
	if len(b) < SumSize {
		return b
	}
	return resum(b, func(b []byte) []byte { return b })
}

func FuzzParseShardHeader(f *testing.F) {
	seedShards(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, fixShard(b)} {
			h, err := ParseShardHeader(b)
			if err == nil && !bytes.HasPrefix(b, []byte(mustAppend(t, h))) {
				t.Fatalf("%q taken as %+v", b, h)
			}
		}
	})
}

func FuzzParseShardFooter(f *testing.F) {
	seedShards(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, fixShard(b)} {
			got, err := ParseShardFooter(b)
			if err == nil && !bytes.HasSuffix(b, got.Append(nil)) {
				t.Fatalf("%q taken as %+v", b, got)
			}
		}
	})
}

// seedShards adds headers and footers alone: the checksum is at their ends.
func seedShards(f *testing.F) {
	key, l := sampleShards()
	for shard := range l.Shards() {
		b, err := os.ReadFile(filepath.Join("testdata", fmt.Sprint("shard.", shard)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:l.HeaderSize(key)])
		f.Add(b[len(b)-ShardFooterSize:])
	}
}

func genLayout(t *rapid.T) Layout {
	block := rapid.IntRange(1, 16).Draw(t, "block")
	l := Layout{WriteID: sampleID(1), Geometry: Geometry{
		Data: rapid.IntRange(1, 10).Draw(t, "data"), Parity: rapid.IntRange(0, 4).Draw(t, "parity"), Block: block * BlockUnit,
	}}
	if rapid.Bool().Draw(t, "large") {
		l.Block = block * CellSize
	}
	l.Size = rapid.Int64Range(0, 4*l.Stripe()).Draw(t, "size")
	return l
}

// Every byte of an object is in one cell of one shard, in order.
func TestLayoutArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := genLayout(t)
		if err := l.Validate(); err != nil {
			t.Fatal(err)
		}
		var total int64
		covered := make(map[int64]int64) // object offset → length
		for d := range l.Data {
			total += l.Payload(d)
			var inCells int64
			for c := range l.Cells(d) {
				n := int64(l.CellLen(d, c))
				covered[l.CellOffset(d, c)] = n
				inCells += n
			}
			if inCells != l.Payload(d) || l.Payload(d) > l.Payload(0) {
				t.Fatalf("shard %d: %d bytes in cells, %d in all", d, inCells, l.Payload(d))
			}
		}
		if total != l.Size {
			t.Fatalf("shards hold %d bytes of %d", total, l.Size)
		}
		for off := int64(0); off < l.Size; off += covered[off] {
			if covered[off] <= 0 {
				t.Fatalf("byte %d of %d begins no cell", off, l.Size)
			}
		}
		checkRange(t, l)
	})
}

// checkRange checks that the cells of a range are those that overlap it.
func checkRange(t *rapid.T, l Layout) {
	off := rapid.Int64Range(0, l.Size).Draw(t, "off")
	n := rapid.Int64Range(0, l.Size-off).Draw(t, "n")
	for d := range l.Data {
		first, end := l.CellsOf(d, off, n)
		for c := range l.Cells(d) {
			at := l.CellOffset(d, c)
			overlaps := n > 0 && at < off+n && at+int64(l.CellLen(d, c)) > off
			if overlaps != (first <= c && c < end) {
				t.Fatalf("cell %d of shard %d at %d: in [%d, %d) is wrong for range %d+%d", c, d, at, first, end, off, n)
			}
		}
	}
}

// Small objects are small in the stores, too.
func TestShardSizes(t *testing.T) {
	g := Geometry{Data: 4, Parity: 2, Block: 1 << 20}
	for size, want := range map[int64]int64{0: 0, 1: 3 * 9, 4096: 3 * (4096 + 8), 1 << 20: 6 * (256<<10 + 4*8), 4 << 20: 6 * (1<<20 + 16*8)} {
		l := Layout{Geometry: g, WriteID: sampleID(1), Size: size}
		var sum int64
		for i := range g.Shards() {
			sum += l.Stored(l.Payload(i))
		}
		if sum != want {
			t.Errorf("%d bytes take %d in cells, want %d", size, sum, want)
		}
	}
	key := "projecta/5f/01edj000008na000000000005f"
	l := Layout{Pod: "pod0", Geometry: g, WriteID: sampleID(1)}
	if got := l.ShardSize(key, 0); got != 104+56 {
		t.Errorf("an empty shard takes %d bytes", got)
	}
}

func TestGeometryValidate(t *testing.T) {
	for _, g := range []Geometry{
		{}, {Data: 0, Parity: 2, Block: 4096}, {Data: 1, Parity: -1, Block: 4096}, {Data: 200, Parity: 57, Block: 4096},
		{Data: 1 << 40, Parity: 1 << 40, Block: 4096}, {Data: 1, Block: 0}, {Data: 1, Block: 100}, {Data: 1, Block: 4097},
		{Data: 1, Block: 68 << 10}, {Data: 1, Block: 1 << 40}, {Data: 1, Block: -4096},
	} {
		if err := g.Validate(); !errors.Is(err, ErrFormat) {
			t.Errorf("%+v: %v", g, err)
		}
	}
	for range 100 {
		g := Geometry{Data: rand.IntN(200) + 1, Parity: rand.IntN(56), Block: (rand.IntN(100) + 1) * CellSize}
		if err := g.Validate(); err != nil {
			t.Error(err)
		}
	}
}
