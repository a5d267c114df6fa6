package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// refuse logs n refusals of a user.
func refuse(log *slog.Logger, uid, n int) {
	for range n {
		log.Warn("refused", "op", "write", "uid", uid)
	}
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := limit(slog.New(slog.NewTextHandler(&out, nil)))
		lines := func(with string) int { return strings.Count(out.String(), with) }

		refuse(log, 1, 3000)
		refuse(log, 2, 1)
		if a, b := lines("op=write uid=1"), lines("op=write uid=2"); a != limitLines || b != 1 {
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
		if n := lines(`msg="and more like this" more=2995 what=refused op=write uid=1`); n != 1 || lines("and more") != 1 {
			t.Errorf("the rest is said %d times, want once, for one user:\n%s", n, out.String())
		}
		out.Reset()
		refuse(log, 1, 1) // a new window
		if n := lines("op=write uid=1"); n != 1 {
			t.Errorf("%d lines in a new window, want 1", n)
		}
		time.Sleep(limitWindow + time.Second)
	})
}

// TestLimitIsBounded: many users neither take memory without end nor fill the log.
func TestLimitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := limit(slog.New(slog.NewTextHandler(&out, nil)))
		for uid := range 10_000 {
			refuse(log, uid, 1)
		}
		if n := len(log.Handler().(limited).counts.kinds); n > limitKinds+1 {
			t.Errorf("%d kinds are counted, want at most %d", n, limitKinds+1)
		}
		if n := strings.Count(out.String(), "\n"); n > limitKinds+limitLines {
			t.Errorf("%d lines, want at most %d", n, limitKinds+limitLines)
		}
		time.Sleep(limitWindow + time.Second)
		if want := "what=\"warnings of other kinds\""; !strings.Contains(out.String(), want) {
			t.Errorf("no %q at the end", want)
		}
	})
}
