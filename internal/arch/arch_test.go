// Package arch checks the structure of the project: which package may import
// which, and that each one says what it is.
package arch

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", "marfs/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// layer of a package: it may import only lower ones of ours (and its own
// subtree). Longest prefix counts; test support may import anything.
var layers = []struct {
	prefix string
	layer  int
}{
	{"marfs/pkg/objfmt", 0},
	{"marfs/internal/fault", 0},
	{"marfs/internal/version", 0},
	{"marfs/internal/advice", 0},
	{"marfs/internal/mountinfo", 0},
	{"marfs/pkg/objstore", 1},
	{"marfs/pkg/mdfs", 1},
	{"marfs/pkg/erasure", 1},
	{"marfs/pkg/repo", 2},
	{"marfs/pkg/metadata", 2},
	{"marfs/pkg/trash", 3},
	{"marfs/pkg/packer", 3},
	{"marfs/pkg/namespace", 4},
	{"marfs/internal/control", 5},
	{"marfs/pkg/config", 5},
	{"marfs/pkg/mover", 5},
	{"marfs/internal/fusefs", 6},
	{"marfs/cmd", 7},
	{"marfs/internal/testenv", 8},
	{"marfs/internal/bench", 9},
	{"marfs/internal/e2e", 8},
	{"marfs/internal/arch", 8},
}

func layerOf(path string) (prefix string, layer int) {
	layer = -1
	for _, l := range layers {
		if (path == l.prefix || strings.HasPrefix(path, l.prefix+"/")) && len(l.prefix) > len(prefix) {
			prefix, layer = l.prefix, l.layer
		}
	}
	return prefix, layer
}

func TestImportsGoOneWay(t *testing.T) {
	for _, p := range packages(t) {
		if strings.HasSuffix(p.ImportPath, "test") || strings.Contains(p.ImportPath, "modelcheck") {
			continue // suites and checkers import what they check
		}
		from, layer := layerOf(p.ImportPath)
		if layer < 0 {
			t.Errorf("%s is in no layer: add it where it belongs", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, "marfs/") {
				continue
			}
			if to, l := layerOf(imp); l >= layer && to != from {
				t.Errorf("%s (layer %d) imports %s (layer %d)", p.ImportPath, layer, imp, l)
			}
		}
	}
}

func TestOnlyFusefsImportsGoFuse(t *testing.T) {
	for _, p := range packages(t) {
		if strings.HasPrefix(p.ImportPath, "marfs/internal/fusefs") || strings.HasPrefix(p.ImportPath, "marfs/internal/bench") {
			continue
		}
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "github.com/hanwen/go-fuse") {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		docs := 0
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc != nil {
				docs++
			}
		}
		if len(p.GoFiles) > 0 && docs != 1 {
			t.Errorf("%s has %d package comments, want 1", p.ImportPath, docs)
		}
	}
}
