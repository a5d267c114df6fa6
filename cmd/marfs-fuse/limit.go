package main

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	limitWindow = 10 * time.Second
	limitLines  = 5   // of a kind in a window
	limitKinds  = 256 // counted apart; further ones are counted together
)

// limited is a log in which no user can drown the rest: of the warnings about
// users' calls it passes on a few of each kind in a window, and then says how many
// more there were. Errors, and what is about no call, always pass.
type limited struct {
	slog.Handler
	counts *counts // shared by what With makes of it
}

func limit(log *slog.Logger) *slog.Logger {
	return slog.New(limited{log.Handler(), &counts{kinds: map[kind]*count{}}})
}

func (l limited) WithAttrs(as []slog.Attr) slog.Handler {
	return limited{l.Handler.WithAttrs(as), l.counts}
}
func (l limited) WithGroup(name string) slog.Handler {
	return limited{l.Handler.WithGroup(name), l.counts}
}

// Handle passes on a record, or counts it.
func (l limited) Handle(ctx context.Context, r slog.Record) error {
	if k, ok := kindOf(r); ok && !l.counts.pass(k, r.Level, l.Handler) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

// kind is which records are counted together: what was refused, to whom.
type kind struct{ what, op, uid string }

// kindOf is the kind of a warning about a user's call, which has an operation or a user.
func kindOf(r slog.Record) (k kind, ok bool) {
	k.what = r.Message
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "op":
			k.op, ok = a.Value.String(), true
		case "uid":
			k.uid, ok = a.Value.String(), true
		}
		return true
	})
	return k, ok && r.Level < slog.LevelError
}

type counts struct {
	mu    sync.Mutex // guards kinds and what they point at
	kinds map[kind]*count
}

type count struct{ lines, more int }

// pass reports whether one more record of a kind may pass; a window begins with
// the first, and to says at its end what did not.
func (c *counts) pass(k kind, level slog.Level, to slog.Handler) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.kinds[k]
	if n == nil && len(c.kinds) >= limitKinds {
		k = kind{what: "warnings of other kinds"}
		n = c.kinds[k]
	}
	if n == nil {
		n = &count{}
		c.kinds[k] = n
		time.AfterFunc(limitWindow, func() { c.end(k, level, to) })
	}
	if n.lines < limitLines {
		n.lines++
		return true
	}
	n.more++
	return false
}

// end ends the window of a kind.
func (c *counts) end(k kind, level slog.Level, to slog.Handler) {
	c.mu.Lock()
	more := c.kinds[k].more
	delete(c.kinds, k)
	c.mu.Unlock()
	if more == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), level, "and more like this", 0)
	r.Add("more", more, "what", k.what, "op", k.op, "uid", k.uid)
	_ = to.Handle(context.Background(), r) // as for any other line, nobody can be told
}
