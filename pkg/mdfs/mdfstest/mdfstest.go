// Package mdfstest is the conformance suite of mdfs.FS: what every metadata
// filesystem must do that MarFS is to trust, and what its implementations, a
// simulated one and a mount must do alike.
//
//	func TestConformance(t *testing.T) {
//		mdfstest.Run(t, func(t *testing.T) mdfs.FS { ... }, mdfstest.Options{})
//	}
//
// The tests of rights need root. Elsewhere they are skipped, but not where the
// environment says CI, which is to run them.
package mdfstest

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

// Options of Run. The zero value asks for everything.
type Options struct {
	// Skip names tests that are not run ("Identity", "Xattr/Trusted") and says
	// why. A name that no test has is an error.
	Skip map[string]string
	// Names is how many entries the large directory has. 0: 20 000.
	Names int
}

// Run tests the FS that open makes for each test: empty, and closed by t's
// Cleanup if it needs to be.
func Run(t *testing.T, open func(t *testing.T) mdfs.FS, o Options) {
	if o.Names == 0 {
		o.Names = 20_000
	}
	umask := unix.Umask(0) // as every program that uses an FS does
	t.Cleanup(func() { unix.Umask(umask) })
	known := map[string]bool{}
	for _, g := range groups {
		known[g.name] = true
		for _, c := range g.cases {
			known[g.name+"/"+c.name] = true
		}
		t.Run(g.name, func(t *testing.T) { g.run(t, open, o) })
	}
	for name := range o.Skip {
		if !known[name] {
			t.Errorf("Options.Skip: there is no test %q", name)
		}
	}
}

// groups is the suite.
var groups = []group{
	{name: "Dir", cases: dirCases},
	{name: "Name", cases: nameCases},
	{name: "Symlink", cases: symlinkCases},
	{name: "Mode", cases: modeCases},
	{name: "File", cases: fileCases},
	{name: "Hole", cases: holeCases},
	{name: "Link", cases: linkCases},
	{name: "Rename", cases: renameCases},
	{name: "Xattr", cases: xattrCases},
	{name: "Time", cases: timeCases},
	{name: "Entries", cases: entriesCases},
	{name: "As", cases: asCases},
	{name: "Identity", root: true, cases: identityCases},
}

type group struct {
	name  string
	root  bool // every case needs root
	cases []testCase
}

type testCase struct {
	name string
	root bool // needs root
	run  func(e *env)
}

func (g group) run(t *testing.T, open func(t *testing.T) mdfs.FS, o Options) {
	skipIf(t, o.Skip[g.name])
	for _, c := range g.cases {
		t.Run(c.name, func(t *testing.T) {
			skipIf(t, o.Skip[g.name+"/"+c.name])
			if g.root || c.root {
				needRoot(t)
			}
			md := open(t)
			c.run(&env{T: t, FS: md, root: md.Root(), names: o.Names})
		})
	}
}

func skipIf(t *testing.T, why string) {
	if why != "" {
		t.Skip(why)
	}
}

func needRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("CI must run this as root")
	}
	t.Skip("needs root")
}

// env is what one test has: a fresh FS, and helpers that end the test when what
// it takes for granted fails.
type env struct {
	*testing.T
	mdfs.FS
	root  mdfs.Dir
	names int
}

func (e *env) ok(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// fails checks that err is one of the errnos, wrapped as the seam promises.
func (e *env) fails(what string, err error, errnos ...syscall.Errno) {
	e.Helper()
	var path *fs.PathError
	var link *os.LinkError
	if !errors.As(err, &path) && !errors.As(err, &link) {
		e.Errorf("%s: got %v (%T), want a PathError or LinkError with %v", what, err, err, errnos)
		return
	}
	for _, errno := range errnos {
		if errors.Is(err, errno) {
			return
		}
	}
	e.Errorf("%s: got %v, want %v", what, err, errnos)
}

// same checks one figure.
func same[V comparable](e *env, what string, got, want V) {
	e.Helper()
	if got != want {
		e.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// file creates name in d, open for reading and writing until the test ends.
func (e *env) file(d mdfs.Dir, name string, perm uint32) mdfs.File {
	e.Helper()
	return e.open(d, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, perm)
}

func (e *env) open(d mdfs.Dir, name string, flag int, perm uint32) mdfs.File {
	e.Helper()
	f, err := d.OpenFile(name, flag, perm)
	e.ok(err)
	e.Cleanup(func() { f.Close() })
	return f
}

// mkdir makes the directory name in d and opens it until the test ends.
func (e *env) mkdir(d mdfs.Dir, name string, perm uint32) mdfs.Dir {
	e.Helper()
	e.ok(d.Mkdir(name, perm))
	return e.opendir(d, name)
}

func (e *env) opendir(d mdfs.Dir, name string) mdfs.Dir {
	e.Helper()
	sub, err := d.OpenDir(name)
	e.ok(err)
	e.Cleanup(func() { sub.Close() })
	return sub
}

func (e *env) lstat(d mdfs.Dir, name string) mdfs.Stat {
	e.Helper()
	st, err := d.Lstat(name)
	e.ok(err)
	return st
}

// absent checks that d has no entry name.
func (e *env) absent(d mdfs.Dir, name string) {
	e.Helper()
	_, err := d.Lstat(name)
	e.fails("lstat of "+name, err, unix.ENOENT)
}

// write and read are the file's whole content.
func (e *env) write(f mdfs.File, content string) {
	e.Helper()
	_, err := f.WriteAt([]byte(content), 0)
	e.ok(err)
}

func (e *env) read(f mdfs.File) string {
	e.Helper()
	st, err := f.Stat()
	e.ok(err)
	buf := make([]byte, st.Size)
	_, err = f.ReadAt(buf, 0)
	e.ok(err)
	return string(buf)
}

// mode is a stat's permission bits with set-ID and sticky bits.
func mode(st mdfs.Stat) uint32 { return st.Mode & 0o7777 }

// kind is a stat's file type.
func kind(st mdfs.Stat) uint32 { return st.Mode & unix.S_IFMT }

func long(n int) string { return strings.Repeat("n", n) }
