package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// documented finds the JSON documents that operations.md shows, indented, after a
// line, and returns the names of their fields.
func documented(t *testing.T, after string) []string {
	t.Helper()
	b, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(b), "\n"+after)
	if !found {
		t.Fatalf("operations.md does not say %q", after)
	}
	_, rest, _ = strings.Cut(rest, "\n\n") // the block is what follows the line
	names := map[string]bool{}
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "    ") {
			break
		}
		for _, m := range regexp.MustCompile(`"(\w+)"\??:`).FindAllStringSubmatch(line, -1) {
			names[m[1]] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// fieldNames adds the names that a type has in JSON.
func fieldNames(t reflect.Type, names map[string]bool) {
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer:
		fieldNames(t.Elem(), names)
	case reflect.Struct:
		for f := range fieldsOf(t) {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
				names[name] = true
			}
			if f.Anonymous || f.Tag.Get("json") != "" && f.Type != reflect.TypeFor[time.Time]() {
				fieldNames(f.Type, names)
			}
		}
	}
}

func fieldsOf(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

// Every field of these documents is in operations.md, and no other.
func TestDocumentedFields(t *testing.T) {
	type entries struct {
		Entries []trashEntry `json:"entries"`
		trashSum
	}
	for after, v := range map[string]any{
		"JSON, written while the entries come:": entries{},
		"`trash restore` adds to each entry":    restoredOnly{},
		"`versions PATH` gives":                 versionsOnly{},
		"`trash usage` gives":                   usageResult{},
		"JSON; `entries` is there with":         gcDocument{},
		"JSON of status:":                       statusResult{},
		"JSON of stat:":                         statResult{},
		"JSON of pack;":                         packResult{},
		"JSON of repack;":                       repackResult{},
	} {
		want := map[string]bool{}
		fieldNames(reflect.TypeOf(v), want)
		if got := documented(t, after); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
			t.Errorf("%s: documented are\n%v, there are\n%v", after, got, slices.Sorted(maps.Keys(want)))
		}
	}
}

type gcDocument struct {
	Entries []gcEntry `json:"entries"`
	gcResult
}

// versionsOnly and restoredOnly are what is not said elsewhere.
type versionsOnly struct {
	Path     string `json:"path"`
	Versions []bool `json:"versions"`
}

type restoredOnly struct {
	Where      string `json:"where"`
	WhereBytes string `json:"where_base64"`
	Error      string `json:"error"`
}

func TestFailuresAreTold(t *testing.T) {
	var f failures
	for i := range 200 {
		f.Add(failure{what: "trash purge", where: fmt.Sprintf("/m/f%d", i), err: fmt.Errorf("mkdir: %w", syscall.ENOSPC), hint: "make room"})
	}
	f.Add(failure{what: "trash purge", where: "/m/x", err: syscall.EPERM})
	f.Add(fmt.Errorf("expire 4c0f: %w", errors.New("odd")))
	var out strings.Builder
	report(&out, f.of("trash purge"))
	want := `marfsctl: error: trash purge: 200 entries: no space left on device, for example: /m/f0: mkdir: no space left on device; /m/f1: mkdir: no space left on device; /m/f2: mkdir: no space left on device
hint: make room
marfsctl: error: trash purge, /m/x: operation not permitted
marfsctl: error: trash purge: expire 4c0f: odd
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
	if err := (&failures{}).of("gc"); err != nil {
		t.Errorf("none is %v", err)
	}
}
