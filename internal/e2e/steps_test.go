package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"marfs/internal/fault"
	"marfs/internal/testenv"
	_ "marfs/pkg/metadata" // its fault points
)

// ledger holds, for each name, what a crash may leave under it: what the last
// acknowledged call made of it, and what the calls under way may make of it. nil
// is no file.
type ledger map[string][][]byte

// try does one thing to a name, after which it is want. It returns an error when
// the daemon is dead, and then the name is as it was or as wanted.
func (l ledger) try(name string, want []byte, do func() error) error {
	if l[name] == nil {
		l[name] = [][]byte{nil}
	}
	l[name] = append(l[name], want)
	if err := do(); err != nil {
		return err
	}
	l[name] = [][]byte{want}
	return nil
}

// check reads every file and takes what it finds as its content from now on.
func (l ledger) check(t *testing.T, m *testenv.Mount) {
	t.Helper()
	for name, may := range l {
		got, err := os.ReadFile(m.Join(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err != nil {
			got = nil
		}
		found := slices.ContainsFunc(may, func(b []byte) bool { return bytes.Equal(b, got) && (b == nil) == (err != nil) })
		// Of a file whose first content was never acknowledged the name may stay.
		unborn := may[0] == nil && err == nil && len(got) == 0
		if !found && !unborn {
			t.Errorf("%s: %d bytes (%v), want one of %s", name, len(got), err, sizes(may))
		}
		l[name] = [][]byte{got}
	}
}

func sizes(contents [][]byte) string {
	var s []string
	for _, c := range contents {
		s = append(s, fmt.Sprint(len(c), " bytes, there: ", c != nil))
	}
	return strings.Join(s, "; ")
}

// work does what users do, step after step, until the daemon dies. round makes
// the contents different from those of earlier rounds.
func (l ledger) work(m *testenv.Mount, round int) error {
	seed := uint64(round) * 100
	small, large := noisy(seed, 5*kib), noisy(seed+1, 200*kib)
	write := func(name string, b []byte) func() error {
		return func() error { return writeFile(m.Join(name), b) }
	}
	for _, step := range []func() error{
		func() error { return l.try("small", small, write("small", small)) },
		func() error { return l.try("large", large, write("large", large)) },
		func() error { return l.log(m, "log", large) },
		func() error { return l.try("temp", large, write("temp", large)) },
		func() error { return l.rename(m, "temp", "saved") },
		func() error { return l.rename(m, "small", "moved") },
		func() error { return l.truncate(m, "large", 70*kib) },
		func() error { return l.truncate(m, "saved", 0) },
		func() error { return l.try("empty", []byte{}, write("empty", nil)) },
		func() error { return l.try("moved", nil, func() error { return os.Remove(m.Join("moved")) }) },
		func() error { return l.try("log", nil, func() error { return os.Remove(m.Join("log")) }) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// log writes a file in pieces, each durable by fsync before the next.
func (l ledger) log(m *testenv.Mount, name string, content []byte) error {
	if err := l.try(name, nil, func() error { return ignoreAbsent(os.Remove(m.Join(name))) }); err != nil {
		return err
	}
	f, err := os.Create(m.Join(name))
	if err != nil {
		return err
	}
	defer f.Close()
	for n := 0; n < len(content); n += 50 * kib {
		piece := content[n:min(n+50*kib, len(content))]
		err := l.try(name, content[:n+len(piece)], func() error {
			if _, err := f.Write(piece); err != nil {
				return err
			}
			return f.Sync()
		})
		if err != nil {
			return err
		}
	}
	return f.Close()
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// rename replaces a file by another: afterwards one of both names has the content.
func (l ledger) rename(m *testenv.Mount, from, to string) error {
	content := l[from][0]
	return l.try(to, content, func() error {
		return l.try(from, nil, func() error { return os.Rename(m.Join(from), m.Join(to)) })
	})
}

func (l ledger) truncate(m *testenv.Mount, name string, n int) error {
	content := l[name][0]
	return l.try(name, content[:n], func() error { return os.Truncate(m.Join(name), int64(n)) })
}

// TestKilledAtEachStep kills the daemon before and after each durable step of
// the commit protocol that work takes.
func TestKilledAtEachStep(t *testing.T) {
	m := testenv.NewMount(t, edges())
	l := ledger{}
	if err := l.work(m, 0); err != nil {
		t.Fatal(err)
	}
	hit, round := 0, 0
	for _, point := range fault.Names() {
		if !onTheWay(point) {
			continue
		}
		for n := 1; n <= often(1, 4); n++ {
			round++
			m.Setenv(fmt.Sprintf("MARFS_FAULT=%s=kill:%d", point, n))
			m.Remount()
			err := l.work(m, round)
			m.Setenv()
			if err == nil {
				break // the step is not taken so often
			}
			if code := m.Wait(); code != -1 {
				t.Fatalf("%s: %v, but the daemon was not killed: exit code %d", point, err, code)
			}
			hit++
			m.Remount()
			t.Run(fmt.Sprint(point, n), func(t *testing.T) { l.check(t, m) })
		}
	}
	if hit < 15 {
		t.Errorf("only %d steps were reached", hit)
	}
	m.Remount()
	l.check(t, m)
	if err := l.work(m, round+1); err != nil {
		t.Error(err)
	}
	wantClean(t, m)
}

// onTheWay leaves out the steps of background work, and in a short run those
// before a step: they differ little from those after the step before it.
func onTheWay(point string) bool {
	for _, other := range []string{"gc.", "pack.", "release.", "restore.", "fence.", "init.", "heal.", "node.", "syncfs."} {
		if strings.HasPrefix(point, "metadata."+other) {
			return false
		}
	}
	return *long || strings.HasSuffix(point, ".after")
}
