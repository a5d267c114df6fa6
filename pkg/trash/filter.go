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

// Bounds of Filter.Match, in bytes. A name is tried with each way in which the braces
// can be written out, and each way takes time in proportion to its length. Patterns
// come from users, and what is being matched cannot be interrupted.
const (
	MaxPattern = 4096
	maxWritten = 4096 // of a pattern with braces, written out in all ways
)

// Check refuses patterns that are wrong, or that would keep the machine busy: EINVAL.
func (f *Filter) Check() error {
	switch {
	case len(f.Match) > MaxPattern:
		return fmt.Errorf("pattern of %d bytes, want at most %d: %w", len(f.Match), MaxPattern, syscall.EINVAL)
	case !doublestar.ValidatePattern(f.Match):
		return fmt.Errorf("pattern %.100q: %w", f.Match, syscall.EINVAL)
	}
	if n := alternatives(f.Match); n > 1 && n*len(f.Match) > maxWritten {
		return fmt.Errorf("pattern of %d bytes with %d alternatives in braces, want a product of at most %d: %w",
			len(f.Match), n, maxWritten, syscall.EINVAL)
	}
	return nil
}

// alternatives counts in how many ways the braces of a valid pattern can be written
// out; it stops counting beyond maxWritten.
func alternatives(pattern string) int {
	type group struct{ done, open int } // ways of the alternatives before the last, and of it
	groups := []group{{open: 1}}
	for i := 0; i < len(pattern); i++ {
		top := &groups[len(groups)-1]
		switch pattern[i] {
		case '\\':
			i++
		case '[': // braces in a class are none
			for i++; i < len(pattern) && pattern[i] != ']'; i++ {
				if pattern[i] == '\\' {
					i++
				}
			}
		case '{':
			groups = append(groups, group{open: 1})
		case ',':
			if len(groups) > 1 {
				top.done, top.open = top.done+top.open, 1
			}
		case '}':
			if len(groups) > 1 {
				groups = groups[:len(groups)-1]
				groups[len(groups)-1].open *= top.done + top.open
			}
		}
		if top = &groups[len(groups)-1]; top.done+top.open > maxWritten {
			return top.done + top.open
		}
	}
	return groups[0].open
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
