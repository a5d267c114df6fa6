package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"
)

// tally is how far a verb has come.
type tally struct {
	items, total int64 // total: 0 while it is not known
	bytes        int64
	failures     int64
}

// progress shows how far a verb has come: a bar when out is a terminal, else a line
// a minute. Its methods must not be called at once.
type progress struct {
	what  string // is being done, and where
	unit  string // of what items are
	out   io.Writer
	now   func() time.Time
	began time.Time
	told  time.Time // when the last line was written

	mu   sync.Mutex // guards last: the bar draws by itself
	last tally

	bars *mpb.Progress // nil: no terminal
	bar  *mpb.Bar
}

// tellEvery is how often a line is written where there is no terminal.
const tellEvery = time.Minute

// progress begins to show one on stderr. The caller ends it.
func (a *app) progress(what, unit string) *progress {
	p := &progress{what: what, unit: unit, out: a.err, now: time.Now}
	p.began = p.now()
	p.told = p.began
	if isTerminal(a.err) {
		p.bars = mpb.New(mpb.WithOutput(a.err), mpb.WithWidth(30))
		p.bar = p.bars.New(0, mpb.BarStyle(), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(what+" ")),
			mpb.AppendDecorators(decor.CountersNoUnit(" %d/%d "+unit), decor.Any(func(decor.Statistics) string { return ", " + p.rates() }),
				decor.AverageETA(decor.ET_STYLE_GO, decor.WCSyncSpace)))
	}
	return p
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// set shows where the verb is now.
func (p *progress) set(t tally) {
	p.mu.Lock()
	p.last = t
	p.mu.Unlock()
	if p.bar != nil {
		p.bar.SetTotal(t.total, false)
		p.bar.SetCurrent(t.items)
		return
	}
	if now := p.now(); now.Sub(p.told) >= tellEvery {
		p.told = now
		fmt.Fprintf(p.out, "%s: %s: %s\n", program, p.what, p.text())
	}
}

// say prints a line beside the bar.
func (p *progress) say(format string, args ...any) {
	line := fmt.Sprintf("%s: %s: %s\n", program, p.what, fmt.Sprintf(format, args...))
	if p.bars != nil {
		_, _ = p.bars.Write([]byte(line))
		return
	}
	fmt.Fprint(p.out, line)
}

// end removes the bar.
func (p *progress) end() {
	if p.bar != nil {
		p.bar.Abort(true)
		p.bars.Wait()
	}
}

func (p *progress) at() tally {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// text is where the verb is, in words.
func (p *progress) text() string {
	t := p.at()
	s := fmt.Sprintf("%d %s", t.items, p.unit)
	if t.total > 0 {
		s = fmt.Sprintf("%d of %d %s", t.items, t.total, p.unit)
	}
	s += ", " + p.rates()
	if left := p.left(); left > 0 {
		s += fmt.Sprintf(", about %v left", left)
	}
	return s
}

// rates is what was moved, how fast, and what failed.
func (p *progress) rates() string {
	t := p.at()
	perSecond := float64(t.items) / max(p.now().Sub(p.began).Seconds(), 1e-3)
	s := fmt.Sprintf("%s, %.0f/s", bytesText(t.bytes), perSecond)
	if t.failures > 0 {
		s += fmt.Sprintf(", %d failed", t.failures)
	}
	return s
}

// left is how long it may take until the total; 0: not known.
func (p *progress) left() time.Duration {
	t := p.at()
	if t.items <= 0 || t.total <= t.items {
		return 0
	}
	gone := p.now().Sub(p.began)
	return time.Duration(float64(gone) / float64(t.items) * float64(t.total-t.items)).Round(time.Second)
}
