package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"marfs/internal/control"
	"marfs/pkg/config"
	"marfs/pkg/trash"
)

// trashEntry is an entry in the JSON of verbs.
type trashEntry struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
	Path      string `json:"path"`
	PathBytes string `json:"path_base64,omitempty"` // of a path that is no UTF-8
	Kind      string `json:"kind"`                  // file, dir, symlink, special, version
	Version   string `json:"version,omitempty"`     // content id of a version
	When      string `json:"when"`
	Why       string `json:"why"`
	By        uint32 `json:"by"`
	Size      int64  `json:"size"`
	MTime     string `json:"mtime"`
	Mode      string `json:"mode"`
	UID       uint32 `json:"uid"`
	GID       uint32 `json:"gid"`
	Purged    bool   `json:"purged"`
	Expires   string `json:"expires"`          // gc destroys it from then on
	Target    string `json:"target,omitempty"` // of a symbolic link
}

func jsonEntry(cfg *config.Config, e *control.Entry) trashEntry {
	p := seen(cfg, e.Path)
	return trashEntry{
		ID: e.ID, Namespace: e.Namespace, Path: p, PathBytes: lossless(p), Kind: e.Kind, Version: e.Version,
		When: jsonTime(e.When), Why: e.Why, By: e.By, Size: e.Size, MTime: jsonTime(e.MTime),
		Mode: fmt.Sprintf("%04o", e.Mode&0o7777), UID: e.UID, GID: e.GID, Purged: e.Purged, Expires: jsonTime(e.Expires), Target: e.Target,
	}
}

func jsonTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// lossless is the base64 of what JSON cannot hold.
func lossless(s string) string {
	if utf8.ValidString(s) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(s))
}

// seen is a path below the mount as users see it; "" where it is not known.
func seen(cfg *config.Config, p string) string {
	if p == "" {
		return ""
	}
	return strings.TrimSuffix(cfg.Mount, "/") + "/" + strings.TrimPrefix(p, "/")
}

// shown is a path for people: quoted when a terminal could take it for something
// else, or a reader for less than it is.
func shown(p string) string {
	odd := func(r rune) bool { return !strconv.IsPrint(r) || r == '"' || r == '\\' || r == utf8.RuneError }
	if p == "" || p != strings.TrimSpace(p) || !utf8.ValidString(p) || strings.ContainsFunc(p, odd) {
		return strconv.Quote(p)
	}
	return p
}

// bytesText shows a size in the unit that fits.
func bytesText(n int64) string {
	for _, u := range []struct {
		factor int64
		name   string
	}{{1 << 50, "PiB"}, {1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.factor {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.factor), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

func entriesText(n int) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}

// names remembers who is who.
type names map[uint32]string

func (n names) of(uid uint32) string {
	name, ok := n[uid]
	if !ok {
		name = strconv.FormatUint(uint64(uid), 10)
		if u, err := user.LookupId(name); err == nil {
			name = u.Username
		}
		n[uid] = name
	}
	return shown(name)
}

// rows prints entries as they come, so its columns have fixed widths.
type rows struct {
	w      io.Writer
	cfg    *config.Config
	long   bool // with ids
	purged bool // there may be purged ones
	names  names
	begun  bool
}

func (r *rows) entry(e *control.Entry) {
	if !r.begun {
		r.begun = true
		r.row("WHEN", "SIZE", "TYPE", "OWNER", "BY", "WHY", "EXPIRES", "ID", "PATH")
	}
	kind := e.Kind
	if e.Purged {
		kind += ", purged"
	}
	r.row(e.When.Local().Format(time.DateTime), bytesText(e.Size), kind, r.names.of(e.UID), r.names.of(e.By), shown(e.Why), leftText(time.Until(e.Expires)), e.ID, shown(seen(r.cfg, e.Path)))
}

func (r *rows) row(when, size, kind, owner, by, why, expires, id, path string) {
	width := len("version")
	if r.purged {
		width = len("version, purged")
	}
	fmt.Fprintf(r.w, "%-19s  %10s  %-*s  %-8s  %-8s  %-9s  %-7s  ", when, size, width, kind, owner, by, why, expires)
	if r.long {
		fmt.Fprintf(r.w, "%-*s  ", idWidth(r.cfg), id)
	}
	fmt.Fprintln(r.w, path)
}

// idWidth is how long ids are: namespace, day, file, random digits, and mostly where
// in a file that records share.
func idWidth(cfg *config.Config) int {
	longest := 0
	for _, n := range cfg.Namespaces {
		longest = max(longest, len(n.Name))
	}
	return longest + len("/2006-01-02/") + 32 + len("-") + 16 + len("+1000000+1000")
}

// leftText is how long there is still, in the largest unit.
func leftText(d time.Duration) string {
	switch {
	case d <= 0:
		return "now"
	case d < time.Minute:
		return "1m"
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// jsonStream writes one document whose list is longer than memory holds.
type jsonStream struct {
	w io.Writer
	n int
}

// add writes an element of the list.
func (s *jsonStream) add(list string, v any) error {
	b, err := oneLine(v)
	if err != nil {
		return err
	}
	s.begin(list)
	sep := ","
	if s.n == 0 {
		sep = ""
	}
	s.n++
	_, err = fmt.Fprintf(s.w, "%s\n    %s", sep, b)
	return err
}

func (s *jsonStream) begin(list string) {
	if s.n == 0 {
		fmt.Fprintf(s.w, "{\n  %q: [", list)
	}
}

// end writes the rest of the document: the fields of the object v.
func (s *jsonStream) end(list string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	s.begin(list)
	if s.n > 0 {
		fmt.Fprint(s.w, "\n  ")
	}
	_, err = fmt.Fprintf(s.w, "],%s\n", strings.TrimPrefix(string(b), "{"))
	return err
}

// failures are those of many entries: each cause is told once, with examples.
type failures struct{ trash.Failures }

// of returns the failures of a verb; what is what it was doing.
func (f *failures) of(what string) error {
	var list []error
	for _, g := range f.Groups {
		var one failure
		complete := errors.As(g.Samples[0], &one) // it says what and where itself
		switch {
		case int(g.Count) > len(g.Samples):
			list = append(list, groupFailure{what, g, one.hint})
		case complete:
			list = append(list, g.Samples...)
		default:
			for _, s := range g.Samples {
				list = append(list, fmt.Errorf("%s: %w", what, s))
			}
		}
	}
	return errors.Join(list...)
}

// groupFailure is what many entries failed by.
type groupFailure struct {
	what string
	trash.FailureGroup
	hint string
}

func (g groupFailure) Error() string {
	samples := make([]string, len(g.Samples))
	for i, s := range g.Samples {
		samples[i] = strings.TrimPrefix(s.Error(), g.what+", ")
	}
	return fmt.Sprintf("%s: %d entries: %s, for example: %s", g.what, g.Count, g.Cause, strings.Join(samples, "; "))
}

func (g groupFailure) Unwrap() error { return g.Samples[0] }

// Hint says what to do about it.
func (g groupFailure) Hint() string { return g.hint }
