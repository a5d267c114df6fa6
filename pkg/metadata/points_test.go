package metadata

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// changing are the methods of mdfs and Objects that change what is stored.
var changing = map[string]bool{
	"Setxattr": true, "Removexattr": true, "Rename": true, "Link": true, "Remove": true, "RemoveDir": true,
	"Mkdir": true, "Mknod": true, "Symlink": true, "Chmod": true, "Lchown": true, "Chown": true, "Lchtimes": true,
	"Chtimes": true, "WriteAt": true, "Truncate": true, "Allocate": true, "Sync": true, "Delete": true, "DeletePrefix": true,
}

// TestEveryChangeIsAStep: a changing call stands inside a Do of a fault step, so
// that the crash tests and the model checker reach it.
func TestEveryChangeIsAStep(t *testing.T) {
	set := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	inSteps := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		steps := stepBodies(file)
		ast.Inspect(file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || !changing[sel.Sel.Name] || within(sel, steps) {
				inSteps++
				return true
			}
			t.Errorf("%s: %s outside a step", set.Position(sel.Pos()), sel.Sel.Name)
			return true
		})
	}
	if inSteps == 0 {
		t.Error("nothing was looked at")
	}
}

// stepBodies returns the arguments of all calls of a method Do.
func stepBodies(file *ast.File) (bodies []ast.Node) {
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Do" && len(call.Args) == 1 {
			bodies = append(bodies, call.Args[0])
		}
		return true
	})
	return bodies
}

func within(n ast.Node, bodies []ast.Node) bool {
	for _, b := range bodies {
		if b.Pos() <= n.Pos() && n.End() <= b.End() {
			return true
		}
	}
	return false
}

// TestNoHiddenState: what the model checker replays must not depend on the time
// or on randomness that it does not control.
func TestNoHiddenState(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") || f.Name() == "init.go" {
			continue
		}
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, banned := range []string{"time.Now()", "time.Sleep", "time.Since", "objfmt.NewID()", "objfmt.NewObjectID", "rand."} {
			if strings.Contains(string(b), banned) {
				t.Errorf("%s uses %s", f.Name(), banned)
			}
		}
	}
}
