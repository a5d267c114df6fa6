package main

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// shared is a log that is read while others may write to it.
type shared struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// refuse logs n refusals of a user.
func refuse(log *slog.Logger, uid, n int) {
	for range n {
		log.Warn("refused", "op", "write", "uid", uid)
	}
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out shared
		log := limit(slog.New(slog.NewTextHandler(&out, nil)))
		lines := func(with string) int { return strings.Count(out.String(), with) }

		refuse(log, 1, 3000)
		refuse(log, 2, 1)
		if a, b := lines("msg=refused op=write uid=1"), lines("msg=refused op=write uid=2"); a != limitLines || b != 1 {
			t.Fatalf("%d lines of one user, want %d, and %d of another, want 1:\n%s", a, limitLines, b, &out)
		}
		for range 100 { // of no user's doing, or serious
			log.Warn("store cannot be reached")
			log.Error("data path failed", "op", "write")
		}
		if a, b := lines("store cannot"), lines("data path"); a != 100 || b != 100 {
			t.Errorf("%d warnings of no call and %d errors, want 100 of each", a, b)
		}
		time.Sleep(limitWindow + time.Second)
		synctest.Wait()
		if n := lines(`msg="and more like this" more=2995 what=refused op=write uid=1`); n != 1 || lines("and more") != 1 {
			t.Errorf("the rest is said %d times, want once, for one user:\n%s", n, out.String())
		}
		refuse(log, 1, 1) // a new window
		if n := lines("msg=refused op=write uid=1"); n != limitLines+1 {
			t.Errorf("%d lines with one in a new window, want %d", n, limitLines+1)
		}
		time.Sleep(limitWindow + time.Second)
		synctest.Wait()
	})
}

// TestLimitIsBounded: many users neither take memory without end nor fill the log.
func TestLimitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out shared
		log := limit(slog.New(slog.NewTextHandler(&out, nil)))
		for uid := range 10_000 {
			refuse(log, uid, 1)
		}
		counts := log.Handler().(limited).counts
		counts.mu.Lock()
		n := len(counts.kinds)
		counts.mu.Unlock()
		if n > limitKinds+1 {
			t.Errorf("%d kinds are counted, want at most %d", n, limitKinds+1)
		}
		if n := strings.Count(out.String(), "\n"); n > limitKinds+limitLines {
			t.Errorf("%d lines, want at most %d", n, limitKinds+limitLines)
		}
		time.Sleep(limitWindow + time.Second)
		synctest.Wait()
		if want := "what=\"warnings of other kinds\""; !strings.Contains(out.String(), want) {
			t.Errorf("no %q at the end", want)
		}
	})
}
