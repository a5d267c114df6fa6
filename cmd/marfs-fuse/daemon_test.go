package main

import (
	"os"
	"syscall"
	"testing"
	"time"


	"marfs/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in 30 s", what)
		}
	}
}

// ended reports whether the daemon of m has ended.
func ended(m *testenv.Mount) bool {
	select {
	case <-m.Ended():
		return true
	default:
		return false
	}
}

// TestHangupWhileEnding: somebody who rotates logs does not end the wait for
// programs that still have files open.
func TestHangupWhileEnding(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	f, err := os.Create(m.Join("f"))
	ok(t, err)
	defer f.Close()
	m.Signal(syscall.SIGTERM)
	waitFor(t, "the daemon unmounts", func() bool { return m.LogContains("unmounting") })
	for range 3 {
		m.Signal(syscall.SIGHUP)
		time.Sleep(3 * busyPoll)
	}
	if m.LogContains("taken out of the tree") || ended(m) {
		t.Fatal("SIGHUP ended the wait for an open file")
	}
	ok(t, f.Close())
	if code := m.Wait(); code != exitDone {
		t.Errorf("exit code %d, want %d", code, exitDone)
	}
}
