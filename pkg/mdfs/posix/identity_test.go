package posix

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

var user = mdfs.Cred{UID: 70001, GID: 80001, Groups: []uint32{80001, 90001}}

// The main thread cannot end; the runtime only parks it for good. Keep it out of
// these tests by locking the main goroutine to it.
func init() { runtime.LockOSThread() }

func rootProcess(t testing.TB) process {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("CI must run this as root")
		}
		t.Skip("needs root")
	}
	p, err := currentProcess()
	if err != nil {
		t.Fatal(err)
	}
	if !p.switches {
		t.Fatal("root without CAP_SETUID and CAP_SETGID")
	}
	return p
}

// forget makes this thread lose the right to become root again.
func forget() error { return setCaps(capabilities{}) }

func TestThreadThatCannotComeBackDies(t *testing.T) {
	p := rootProcess(t)
	for what, end := range map[string]func(){
		"return": func() {},
		"panic":  func() { panic("fn") },
		"goexit": runtime.Goexit,
	} {
		t.Run(what, func(t *testing.T) {
			var tid int
			ended := make(chan error, 1)
			go func() {
				defer func() { recover(); ended <- nil }()
				err := p.as(user, func() error {
					tid = unix.Gettid()
					if err := forget(); err != nil {
						t.Error(err)
					}
					end()
					return nil
				})
				if err != nil {
					t.Errorf("what fn did is done, but As says %v", err)
				}
			}()
			<-ended
			waitGone(t, tid)
			allThreadsClean(t)
		})
	}
}

// waitGone waits until the runtime has destroyed a thread.
func waitGone(t *testing.T, tid int) {
	t.Helper()
	task := fmt.Sprintf("/proc/self/task/%d", tid)
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		if _, err := os.Stat(task); errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("thread %d lives on with another identity", tid)
		}
	}
}

// allThreadsClean looks at the fsuid and fsgid of every thread.
func allThreadsClean(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(files) == 0 {
		t.Fatalf("threads: %v, %v", files, err)
	}
	for _, file := range files {
		status, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		for line := range strings.Lines(string(status)) {
			f := strings.Fields(line)
			if (f[0] == "Uid:" || f[0] == "Gid:") && f[4] != "0" {
				t.Errorf("%s: %s", file, line)
			}
		}
	}
}

// setfsuid(2) does not report that it did nothing.
func TestSwitchWithoutEffectIsNoticed(t *testing.T) {
	rootProcess(t)
	for _, lost := range []uint32{unix.CAP_SETUID, unix.CAP_SETGID} {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends here
			caps, err := getCaps()
			if err == nil {
				caps[0].Effective &^= 1 << lost
				caps[0].Permitted &^= 1 << lost
				err = setCaps(caps)
			}
			if err != nil {
				t.Error(err)
			}
			done <- setIDs(user.UID, user.GID, nil)
		}()
		if err := <-done; !errors.Is(err, unix.EPERM) {
			t.Errorf("without capability %d: got %v, want EPERM", lost, err)
		}
	}
	allThreadsClean(t)
}

func TestCapabilitiesAreGoneAndComeBack(t *testing.T) {
	p := rootProcess(t)
	before, err := getCaps()
	if err != nil {
		t.Fatal(err)
	}
	err = p.as(user, func() error {
		caps, err := getCaps()
		if caps[0].Effective != 0 || caps[1].Effective != 0 {
			t.Errorf("effective capabilities of a user: %#x, %#x", caps[0].Effective, caps[1].Effective)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = p.as(mdfs.Cred{GID: 7}, func() error {
		caps, err := getCaps()
		if caps != before {
			t.Errorf("capabilities of root: %+v, want %+v", caps, before)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if after, err := getCaps(); after != before {
		t.Errorf("capabilities afterwards: %+v, %v, want %+v", after, err, before)
	}
	allThreadsClean(t)
}

func TestIsRoot(t *testing.T) {
	p := process{groups: []int{4, 5}, switches: true}
	for _, c := range []struct {
		cred mdfs.Cred
		want bool
	}{
		{mdfs.Cred{}, true},
		{mdfs.Cred{Groups: []uint32{0}}, true},
		{mdfs.Cred{Groups: []uint32{0, 5, 4}}, true},
		{mdfs.Cred{Groups: []uint32{6}}, false},
		{mdfs.Cred{GID: 5}, false},
		{mdfs.Cred{UID: 1}, false},
	} {
		if got := p.isRoot(c.cred); got != c.want {
			t.Errorf("%+v: got %v, want %v", c.cred, got, c.want)
		}
	}
	p.uid = 1
	if p.isRoot(mdfs.Cred{UID: 1}) {
		t.Error("a user with capabilities must be switched: they would stay")
	}
}

func BenchmarkAs(b *testing.B) {
	p := rootProcess(b)
	many := user
	many.Groups = make([]uint32, 16)
	for i := range many.Groups {
		many.Groups[i] = uint32(90016 - i)
	}
	for _, c := range []struct {
		name string
		cred mdfs.Cred
	}{
		{"root", mdfs.Cred{}}, {"user", mdfs.Cred{UID: 70001, GID: 80001}}, {"groups=16", many},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := p.as(c.cred, func() error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
