package trash

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// Bounds of Filter.Match. Each pair of braces multiplies the ways in which a name
// is tried, so patterns come from users with a bound on their product, too.
const (
	MaxPattern      = 4096 // bytes
	maxAlternatives = 1024
)

// Check refuses patterns that are wrong, or that would keep the machine busy: EINVAL.
func (f *Filter) Check() error {
	switch {
	case len(f.Match) > MaxPattern:
		return fmt.Errorf("pattern of %d bytes, want at most %d: %w", len(f.Match), MaxPattern, syscall.EINVAL)
	case !doublestar.ValidatePattern(f.Match):
		return fmt.Errorf("pattern %.100q: %w", f.Match, syscall.EINVAL)
	case alternatives(f.Match) > maxAlternatives:
		return fmt.Errorf("pattern with more than %d alternatives in braces: %w", maxAlternatives, syscall.EINVAL)
	}
	return nil
}

// alternatives counts, at least, in how many ways the braces of a pattern can be
// written out; it stops counting beyond maxAlternatives.
func alternatives(pattern string) int {
	total, commas := 1, 1
	for i := 0; i < len(pattern) && total <= maxAlternatives; i++ {
		switch pattern[i] {
		case '\\':
			i++
		case '{':
			commas++ // inner ones count for the outer, too
		case ',':
			commas++
		case '}':
			total *= commas
		}
	}
	return total
}

// under tells whether p is dir or below it; everything is below "".
func under(p, dir string) bool {
	rest, ok := strings.CutPrefix(p, dir)
	return ok && (dir == "" || rest == "" || rest[0] == '/')
}

// base is the last name of a path.
func base(p string) string { return p[strings.LastIndexByte(p, '/')+1:] }

// parent is the path of the directory that p is in; "" for a name at the root.
func parent(p string) string { return p[:max(strings.LastIndexByte(p, '/'), 0)] }

// record tells whether a record passes, as far as it can tell.
func (f *Filter) record(r *objfmt.Record) bool {
	switch {
	case r.Kind == objfmt.RecordVersion && !f.Versions,
		f.By != nil && r.By != *f.By,
		!f.Since.IsZero() && r.When.Before(f.Since),
		!f.Until.IsZero() && !r.When.Before(f.Until),
		!under(r.Path, f.Under):
		return false
	}
	return f.matches(r.Path)
}

func (f *Filter) matches(p string) bool {
	if f.Match == "" {
		return true
	}
	if !strings.Contains(f.Match, "/") {
		p = base(p)
	}
	return doublestar.MatchUnvalidated(f.Match, p)
}

// entry tells whether an entry passes whose record did.
func (f *Filter) entry(e *Entry) bool {
	return (f.Owner == nil || e.UID == *f.Owner) && e.Size >= f.MinSize && (f.MaxSize == 0 || e.Size <= f.MaxSize)
}

// day tells whether records of a day can pass: they are filed by the UTC day they
// were made, wherever the limits are within it.
func (f *Filter) day(day string) bool {
	if day == metadata.PurgedDay {
		return f.Purged
	}
	begin, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return false
	}
	return (f.Since.IsZero() || begin.AddDate(0, 0, 1).After(f.Since)) && (f.Until.IsZero() || begin.Before(f.Until))
}
