// Package fault names the places between durable steps where a crash, an error
// or a pause can be put, so that tests can show that nothing is lost there.
//
// A step of a protocol is a package variable made by New; Do runs it between
// its two points, <name>.before and <name>.after. Unarmed, a point costs one
// atomic load. The environment variable MARFS_FAULT arms one point of a process:
//
//	MARFS_FAULT=<point>=kill|error|dead|pause[:n]
//
// acts at the n-th arrival at the point (default: the first). kill is SIGKILL to
// the process itself; pause is SIGSTOP, ended by SIGCONT; error makes that one
// arrival fail with ErrInjected; dead makes it and every later arrival at any
// point fail, which is what a killed process leaves behind, without the kill.
package fault

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// ErrInjected is the error of an armed point.
var ErrInjected = errors.New("injected fault")

// Step is one durable step of a protocol.
type Step struct{ before, after string }

var (
	armed atomic.Pointer[plan]

	mu    sync.Mutex // guards names
	names []string
)

// plan is what happens, and when.
type plan struct {
	point string
	act   func() error
	left  atomic.Int64 // arrivals before it happens
	dead  bool         // goes on failing, everywhere
	seen  func(string) // only looks on
	hits  atomic.Int64 // how often it has happened
}

func init() {
	spec := os.Getenv("MARFS_FAULT")
	if spec == "" {
		return
	}
	if _, err := Arm(spec); err != nil {
		fmt.Fprintln(os.Stderr, "MARFS_FAULT:", err)
		os.Exit(2)
	}
}

// New makes the step name and registers its two points.
func New(name string) *Step {
	s := &Step{before: name + ".before", after: name + ".after"}
	mu.Lock()
	defer mu.Unlock()
	names = append(names, s.before, s.after)
	return s
}

// Names returns every registered point, sorted.
func Names() []string {
	mu.Lock()
	defer mu.Unlock()
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	return sorted
}

// Do runs fn between the step's two points. An error of either point is
// returned as if the step itself had failed, done or not.
func (s *Step) Do(fn func() error) error {
	if err := hit(s.before); err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err
	}
	return hit(s.after)
}

func hit(point string) error {
	p := armed.Load()
	if p == nil {
		return nil
	}
	return p.hit(point)
}

func (p *plan) hit(point string) error {
	if p.seen != nil {
		p.seen(point)
		return nil
	}
	if p.dead && p.hits.Load() > 0 {
		return fmt.Errorf("%s: %w", point, ErrInjected)
	}
	if point != p.point || p.left.Add(-1) != 0 {
		return nil
	}
	p.hits.Add(1)
	if err := p.act(); err != nil {
		return fmt.Errorf("%s: %w", point, err)
	}
	return nil
}

// Arm arms one point as MARFS_FAULT does; disarm ends that, and tells whether the
// point was reached. For tests.
func Arm(spec string) (disarm func() (hit bool), err error) {
	point, what, ok := strings.Cut(spec, "=")
	action, count, counted := strings.Cut(what, ":")
	n := int64(1)
	if counted {
		n, err = strconv.ParseInt(count, 10, 64)
	}
	act := actions[action]
	if !ok || act == nil || err != nil || n < 1 {
		return nil, fmt.Errorf("fault %q: want <point>=kill|error|dead|pause[:n]", spec)
	}
	p := &plan{point: point, act: act, dead: action == "dead"}
	p.left.Store(n)
	armed.Store(p)
	return func() bool {
		armed.CompareAndSwap(p, nil)
		return p.hits.Load() > 0
	}, nil
}

// Trace counts arrivals at points until stop, which returns how often each was
// reached. For tests that want to visit them all.
func Trace() (stop func() map[string]int) {
	var mu sync.Mutex
	seen := map[string]int{}
	p := &plan{seen: func(point string) {
		mu.Lock()
		defer mu.Unlock()
		seen[point]++
	}}
	armed.Store(p)
	return func() map[string]int {
		armed.CompareAndSwap(p, nil)
		return seen
	}
}

var actions = map[string]func() error{
	"kill":  func() error { return raise(syscall.SIGKILL) },
	"pause": func() error { return raise(syscall.SIGSTOP) },
	"error": func() error { return ErrInjected },
	"dead":  func() error { return ErrInjected },
}

func raise(sig syscall.Signal) error { return syscall.Kill(os.Getpid(), sig) }
