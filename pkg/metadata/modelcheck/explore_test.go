package modelcheck

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/mdfssim"

	"golang.org/x/sys/unix"
)

// toy is a System over one disk, to test the explorer itself.
type toy struct {
	disk  *mdfssim.Disk
	acked []string // what actors were told is durable
	check func(root mdfs.Dir) error
	crash func(root mdfs.Dir, acked []string) error
}

func (s *toy) Hash() uint64    { return s.disk.Hash() }
func (s *toy) Verdict() uint64 { return uint64(len(s.acked)) }
func (s *toy) Check() error {
	if s.check == nil {
		return nil
	}
	return s.check(s.disk.Mount(mdfssim.MountOptions{}).Root())
}
func (s *toy) CheckCrash() error {
	return crashes(s.disk, func(d *mdfssim.Disk) error {
		return s.crash(d.Mount(mdfssim.MountOptions{}).Root(), s.acked)
	})
}

var toyImage = func() *mdfssim.Image {
	d := mdfssim.New(mdfssim.Options{})
	r := d.Mount(mdfssim.MountOptions{}).Root()
	f, err := r.OpenFile("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	if err == nil {
		err = f.Setxattr("user.n", []byte("0"), 0)
	}
	if err != nil {
		panic(err)
	}
	return d.Freeze()
}()

// counter makes actors that each add one to the file's number.
func counter(actors int, set func(r mdfs.Dir, old, value string) error) Program {
	return func(x *Exec) System {
		s := &toy{disk: toyImage.Disk(mdfssim.Options{})}
		for i := range actors {
			x.Go(fmt.Sprint("adder", i), true, func(a *Actor) {
				r := a.Mount(s.disk).Root()
				for range 3 {
					v, _ := r.Getxattr("f", "user.n")
					n, _ := strconv.Atoi(string(v))
					if set(r, string(v), fmt.Sprint(n+1)) == nil {
						s.acked = append(s.acked, a.Name)
						return
					}
				}
			})
		}
		s.check = func(r mdfs.Dir) error {
			v, _ := r.Getxattr("f", "user.n")
			if n, _ := strconv.Atoi(string(v)); n < len(s.acked) {
				return &Violation{"lost update", fmt.Sprintf("%d, but %d were acknowledged", n, len(s.acked))}
			}
			return nil
		}
		return s
	}
}

// plainSet overwrites; lockedSet claims the step from old to the next number exclusively.
func plainSet(r mdfs.Dir, _, value string) error { return r.Setxattr("f", "user.n", []byte(value), 0) }

func lockedSet(r mdfs.Dir, old, value string) error {
	if err := r.Setxattr("f", "user.from"+old, []byte("me"), unix.XATTR_CREATE); err != nil {
		return err
	}
	return plainSet(r, old, value)
}

func claimWithoutCreate(r mdfs.Dir, old, value string) error {
	if _, err := r.Getxattr("f", "user.from"+old); err == nil {
		return unix.EEXIST
	}
	if err := r.Setxattr("f", "user.from"+old, []byte("me"), 0); err != nil {
		return err
	}
	return plainSet(r, old, value)
}

func TestExplorerFindsRaces(t *testing.T) {
	tests := []struct {
		name     string
		set      func(r mdfs.Dir, old, value string) error
		switches int // of the shortest trace; 0: clean
	}{
		{"read, then write", plainSet, 2},
		{"look, then set without XATTR_CREATE", claimWithoutCreate, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, bounds := range [][]int{{0, 1, 2}, {-1}, nil} {
				r := Explore(counter(2, tt.set), Limits{Bounds: bounds, Random: 1000})
				if r.Err == nil || !strings.Contains(r.Err.Error(), "lost update") {
					t.Errorf("bounds %v: %v, want a lost update", bounds, r.Err)
				}
				if r.Switches > tt.switches {
					t.Errorf("bounds %v: trace with %d switches, want %d:\n%s", bounds, r.Switches, tt.switches, r.Trace)
				}
				if !strings.Contains(r.Trace, "setxattr") {
					t.Errorf("trace does not show the calls:\n%s", r.Trace)
				}
			}
		})
	}
}

// TestExplorerClean: what is right is found to be right, under every schedule.
func TestExplorerClean(t *testing.T) {
	r := Explore(counter(2, lockedSet), Limits{Bounds: []int{0, 1, -1}, Kills: 1})
	if r.Err != nil || !r.Exhaustive {
		t.Errorf("exclusive claim: %v, exhaustive %t\n%s", r.Err, r.Exhaustive, r.Trace)
	}
	p := func(x *Exec) System {
		s := &toy{disk: toyImage.Disk(mdfssim.Options{})}
		won := 0
		for i := range 3 {
			x.Go(fmt.Sprint("claimant", i), true, func(a *Actor) {
				if a.Mount(s.disk).Root().Setxattr("f", "user.lock", []byte(a.Name), unix.XATTR_CREATE) == nil {
					won++
				}
			})
		}
		s.check = func(mdfs.Dir) error {
			if won > 1 {
				return &Violation{"two winners", ""}
			}
			return nil
		}
		return s
	}
	r = Explore(p, Limits{Bounds: []int{0, 1, -1}, Kills: 1})
	if r.Err != nil || !r.Exhaustive {
		t.Errorf("%v, exhaustive %t\n%s", r.Err, r.Exhaustive, r.Trace)
	}
}

// TestExplorerKills: a kill between two steps is found, and is the only way to it.
func TestExplorerKills(t *testing.T) {
	p := func(x *Exec) System {
		s := &toy{disk: toyImage.Disk(mdfssim.Options{})}
		x.Go("renamer", true, func(a *Actor) {
			r := a.Mount(s.disk).Root()
			defer func() { _ = r.Link("g", r, "f") }() // a killed actor changes nothing any more
			_ = r.Rename("f", r, "g", 0)
			_ = r.Rename("g", r, "f", 0)
		})
		s.check = func(r mdfs.Dir) error {
			if _, err := r.Lstat("f"); err != nil {
				return &Violation{"f is gone", ""}
			}
			return nil
		}
		return s
	}
	if r := Explore(p, Limits{Bounds: []int{-1}}); r.Err != nil {
		t.Errorf("without kills: %v", r.Err)
	}
	if r := Explore(p, Limits{Bounds: []int{-1}, Kills: 1}); r.Err == nil || !strings.Contains(r.Trace, "KILLED") {
		t.Errorf("with kills: %v\n%s", r.Err, r.Trace)
	}
}

// replaceFile is the usual way to replace a file; skip leaves one sync out.
func replaceFile(r mdfs.Dir, skip string) error {
	f, err := r.OpenFile("tmp", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte("new"), 0); err != nil {
		return err
	}
	if skip != "file" {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if err := r.Rename("tmp", r, "f", 0); err != nil {
		return err
	}
	if skip == "directory" {
		return nil
	}
	return r.Sync()
}

func TestExplorerFindsMissingSync(t *testing.T) {
	for _, skip := range []string{"", "file", "directory"} {
		p := func(x *Exec) System {
			s := &toy{disk: toyImage.Disk(mdfssim.Options{Journal: true})}
			x.Go("writer", false, func(a *Actor) {
				if replaceFile(a.Mount(s.disk).Root(), skip) == nil {
					s.acked = append(s.acked, "new")
				}
			})
			s.crash = func(r mdfs.Dir, acked []string) error {
				f, err := r.OpenFile("f", unix.O_RDONLY, 0)
				if err != nil {
					return &Violation{"file lost", err.Error()}
				}
				b := make([]byte, 8)
				n, _ := f.ReadAt(b, 0)
				if got := string(b[:n]); got != "new" && (got != "" || len(acked) > 0) {
					return &Violation{"wrong content", fmt.Sprintf("%q", got)}
				}
				return nil
			}
			return s
		}
		r := Explore(p, Limits{Bounds: []int{-1}, PowerLoss: true})
		if found := r.Err != nil; found != (skip != "") {
			t.Errorf("without sync of %q: %v\n%s", skip, r.Err, r.Trace)
		}
	}
}

// toyOp is one random call of a toy program.
func toyOp(r mdfs.Dir, op, a, b int) error {
	names := []string{"f", "g", "h"}
	from, to := names[a%3], names[b%3]
	switch op % 8 {
	case 0:
		return r.Rename(from, r, to, 0)
	case 1:
		return r.Link(from, r, to)
	case 2:
		return r.Remove(from)
	case 3:
		return r.Setxattr(from, "user."+to, []byte{byte(a)}, (b%2)*unix.XATTR_CREATE)
	case 4:
		_, err := r.Lstat(from)
		return err
	case 5:
		_, err := r.Listxattr(from)
		return err
	case 6:
		f, err := r.OpenFile(from, unix.O_CREAT|unix.O_RDWR, 0o644)
		if err == nil {
			_, err = f.WriteAt([]byte{byte(b)}, int64(b%2))
		}
		return err
	}
	_, err := r.Entries()
	return err
}

// TestReduction: sleep sets leave no final state out, and save executions.
func TestReduction(t *testing.T) {
	full, reduced := 0, 0
	for seed := range uint64(60) {
		finals := func(plain bool) (map[uint64]bool, Report) {
			got := map[uint64]bool{}
			p := func(x *Exec) System {
				rng := rand.New(rand.NewPCG(seed, 1))
				s := &toy{disk: toyImage.Disk(mdfssim.Options{})}
				for i := range 2 + int(seed%2) {
					var ops [4][3]int
					for k := range ops {
						ops[k] = [3]int{rng.IntN(8), rng.IntN(6), rng.IntN(6)}
					}
					x.Go(fmt.Sprint(i), seed%3 == 0, func(a *Actor) {
						r := a.Mount(s.disk).Root()
						for _, op := range ops[:4-int(seed%2)] {
							_ = toyOp(r, op[0], op[1], op[2])
						}
					})
				}
				s.check = func(mdfs.Dir) error { got[x.hash()] = true; return nil }
				return everyFinal{s, x}
			}
			r := Explore(p, Limits{Bounds: []int{-1}, Kills: 1, NoReduce: plain})
			if r.Err != nil || !r.Exhaustive {
				t.Fatalf("seed %d: %v", seed, r.Err)
			}
			return got, r
		}
		want, fr := finals(true)
		got, rr := finals(false)
		full, reduced = full+fr.Execs, reduced+rr.Execs
		for h := range want {
			if !got[h] {
				t.Fatalf("seed %d: %d of %d final states were left out", seed, len(want)-len(got), len(want))
			}
		}
	}
	t.Logf("%d executions instead of %d", reduced, full)
	if reduced >= full*3/4 {
		t.Error("the reduction saves nothing")
	}
}

// everyFinal has each final state judged, also those that differ in what actors saw only.
type everyFinal struct {
	*toy
	x *Exec
}

func (s everyFinal) Verdict() uint64 { return s.x.hash() }

func BenchmarkSteps(b *testing.B) {
	p := func(x *Exec) System {
		s := &toy{disk: toyImage.Disk(mdfssim.Options{})}
		for i := range 2 {
			x.Go(fmt.Sprint(i), false, func(a *Actor) {
				r := a.Mount(s.disk).Root()
				for k := range 50 {
					_ = r.Setxattr("f", "user.n", []byte{byte(k), byte(i)}, 0)
				}
			})
		}
		return s
	}
	steps := 0
	for i := 0; steps < b.N; i++ {
		steps += len(execute(p, newRandom(uint64(i)), Limits{}, nil).schedule)
	}
	b.ReportMetric(float64(steps)/b.Elapsed().Seconds(), "steps/s")
}
