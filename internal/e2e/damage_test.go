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

// spot is a place in a shard's file. Some shards of small objects hold no
// cells: then it is -1.
type spot struct {
	name string
	at   func(h objfmt.ShardHeader, l objfmt.Layout, size int64) int64
}

var spots = []spot{
	{"Header", func(objfmt.ShardHeader, objfmt.Layout, int64) int64 { return 33 }}, // in the write id
	{"Data", func(h objfmt.ShardHeader, l objfmt.Layout, _ int64) int64 {
		if n := l.Cells(h.Shard); n > 0 {
			return l.CellPos(h.Key, n-1) + int64(l.CellLen(h.Shard, n-1))/2
		}
		return -1
	}},
	{"Checksum", func(h objfmt.ShardHeader, l objfmt.Layout, _ int64) int64 {
		if l.Cells(h.Shard) > 0 {
			return l.CellPos(h.Key, 0) + int64(l.CellLen(h.Shard, 0)) + 3
		}
		return -1
	}},
	{"Footer", func(_ objfmt.ShardHeader, _ objfmt.Layout, size int64) int64 { return size - 30 }},
}

// TestRot flips a bit in every shard of two stores, in each part of a shard's
// file: every byte is still read right, and a deep look names each bad shard.
func TestRot(t *testing.T) {
	m := testenv.NewMount(t, edges())
	files := edgeFiles()
	writeFiles(t, m, files)
	for _, s := range spots {
		t.Run(s.name, func(t *testing.T) {
			flipped := map[string]int64{}
			for _, i := range []int{2, 4} {
				for _, f := range filesBelow(t, objectsDir(m, i)) {
					path := filepath.Join(objectsDir(m, i), f)
					if at := s.find(t, path); at >= 0 {
						flipped[path] = at
						flip(t, path, at)
					}
				}
			}
			m.Remount()
			wantFiles(t, m, files)
			wantFound(t, m, files, flipped)
			for path, at := range flipped {
				flip(t, path, at) // back again
			}
			m.Remount()
			wantClean(t, m)
		})
	}
}

// find returns where the spot is in a shard's file.
func (s spot) find(t *testing.T, path string) int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := objfmt.ParseShardHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	f, err := objfmt.ParseShardFooter(b)
	if err != nil {
		t.Fatal(err)
	}
	return s.at(h, objfmt.Layout{Pod: h.Pod, Geometry: h.Geometry, WriteID: h.WriteID, Size: f.Size}, int64(len(b)))
}

// flip changes one bit of a file.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// wantFound checks that a deep look finds exactly the shards that were changed.
func wantFound(t *testing.T, m *testenv.Mount, files map[string][]byte, flipped map[string]int64) {
	t.Helper()
	looked, code := statFiles(t, m, slices.Collect(maps.Keys(files)), "--deep")
	if code != 5 {
		t.Errorf("marfsctl stat --deep: exit code %d, want 5", code)
	}
	found := map[string]bool{}
	for _, f := range looked {
		for _, o := range f.Objects {
			for _, s := range o.not("ok") {
				if s.State != "corrupt" {
					t.Errorf("%s, shard %+v: want it corrupt", o.Key, s)
				}
				found[s.Store+"/"+o.Key] = true
			}
		}
	}
	for path := range flipped {
		if !found[path] {
			t.Errorf("the damage in %s was not found", path)
		}
	}
	if len(found) > len(flipped) {
		t.Errorf("%d bad shards were found, %d are bad", len(found), len(flipped))
	}
}
