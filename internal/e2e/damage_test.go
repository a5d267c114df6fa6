package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"marfs/internal/testenv"
	"marfs/pkg/objfmt"
)

// shard is a shard's file as it should be.
type shard struct {
	path  string
	bytes []byte
}

func readShards(t *testing.T, m *testenv.Mount, stores ...int) (shards []shard) {
	t.Helper()
	for _, i := range stores {
		for _, f := range filesBelow(t, objectsDir(m, i)) {
			path := filepath.Join(objectsDir(m, i), f)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			shards = append(shards, shard{path, b})
		}
	}
	return shards
}

// place returns where in the file something is, for a shard of this header and
// layout; -1 if it has no such place.
type place func(h objfmt.ShardHeader, l objfmt.Layout) int64

// flipped returns the file with one bit turned at a place, or nil.
func (s shard) flipped(t *testing.T, at place) []byte {
	t.Helper()
	h, err := objfmt.ParseShardHeader(s.bytes)
	if err != nil {
		t.Fatal(err)
	}
	f, err := objfmt.ParseShardFooter(s.bytes)
	if err != nil {
		t.Fatal(err)
	}
	i := at(h, objfmt.Layout{Pod: h.Pod, Geometry: h.Geometry, WriteID: h.WriteID, Size: f.Size})
	if i < 0 {
		return nil
	}
	b := slices.Clone(s.bytes)
	b[i] ^= 0x10
	return b
}

func inHeader(objfmt.ShardHeader, objfmt.Layout) int64 { return 33 } // its write id

func inData(h objfmt.ShardHeader, l objfmt.Layout) int64 {
	n := l.Cells(h.Shard)
	if n == 0 {
		return -1 // small objects leave some shards empty
	}
	return l.CellPos(h.Key, n-1) + int64(l.CellLen(h.Shard, n-1))/2
}

func inChecksum(h objfmt.ShardHeader, l objfmt.Layout) int64 {
	if l.Cells(h.Shard) == 0 {
		return -1
	}
	return l.CellPos(h.Key, 0) + int64(l.CellLen(h.Shard, 0)) + 3
}

func inFooter(h objfmt.ShardHeader, l objfmt.Layout) int64 {
	return l.ShardSize(h.Key, h.Shard) - 30
}

// TestDamage spoils every shard of two stores in many ways: every byte is still
// read right, and a deep look names each bad shard.
func TestDamage(t *testing.T) {
	m := testenv.NewMount(t, edges())
	files := edgeFiles()
	writeFiles(t, m, files)
	shards := readShards(t, m, 2, 4)
	for _, c := range []struct {
		name  string
		spoil func(i int) []byte // nil: not this one
	}{
		{"BitInHeader", func(i int) []byte { return shards[i].flipped(t, inHeader) }},
		{"BitInData", func(i int) []byte { return shards[i].flipped(t, inData) }},
		{"BitInChecksum", func(i int) []byte { return shards[i].flipped(t, inChecksum) }},
		{"BitInFooter", func(i int) []byte { return shards[i].flipped(t, inFooter) }},
		{"Half", func(i int) []byte { return shards[i].bytes[:len(shards[i].bytes)/2] }},
		{"Empty", func(int) []byte { return []byte{} }},
		{"Zeros", func(i int) []byte { return make([]byte, len(shards[i].bytes)) }},
		{"Longer", func(i int) []byte { return append(slices.Clip(shards[i].bytes), 0) }},
		{"OfAnotherObject", func(i int) []byte { return shards[(i+1)%len(shards)].bytes }},
	} {
		t.Run(c.name, func(t *testing.T) {
			spoiled := map[string]bool{}
			for i, s := range shards {
				if b := c.spoil(i); b != nil {
					mustWrite(t, s.path, b)
					spoiled[s.path] = true
				}
			}
			m.Remount()
			wantFiles(t, m, files)
			wantFound(t, m, files, spoiled)
		})
		for _, s := range shards {
			mustWrite(t, s.path, s.bytes)
		}
	}
	m.Remount()
	wantClean(t, m)
}

// wantFound checks that a deep look finds exactly the shards that were spoiled.
func wantFound(t *testing.T, m *testenv.Mount, files map[string][]byte, spoiled map[string]bool) {
	t.Helper()
	looked, code := statFiles(t, m, slices.Collect(maps.Keys(files)), "--deep")
	if code != 5 {
		t.Errorf("marfsctl stat --deep: exit code %d, want 5", code)
	}
	found := 0
	for _, f := range looked {
		for _, o := range f.Objects {
			for _, s := range o.Shards {
				if bad := spoiled[filepath.Join(s.Store, o.Key)]; bad == (s.State == "ok") {
					t.Errorf("%s of %s: %+v", o.Key, f.Path, s)
				} else if bad {
					found++
				}
			}
		}
	}
	if found != len(spoiled) {
		t.Errorf("%d of %d bad shards were found", found, len(spoiled))
	}
}
