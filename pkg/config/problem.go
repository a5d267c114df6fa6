package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Problem is one mistake in a configuration file, or one warning about it.
type Problem struct {
	File  string
	Line  int    // from 1; 0 when it is about the whole file
	Key   string // where in the document: namespaces[0].trash.grace; "" for all of it
	Value string // what is written there, shortened; "" when nothing is
	Rule  string // what it breaks
	Hint  string // what to do, or ""
}

// Error is `file:line: key: value: rule`, without the parts that are empty.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	for _, part := range []string{p.Key, shown(p.Value), p.Rule} {
		if part != "" {
			b.WriteString(": ")
			b.WriteString(part)
		}
	}
	return b.String()
}

// Problems is every mistake of a file, in the order of its lines.
type Problems []Problem

// Error is one line for each problem, followed by its hint.
func (ps Problems) Error() string {
	lines := make([]string, 0, len(ps))
	for _, p := range ps {
		lines = append(lines, p.Error())
		if p.Hint != "" {
			lines = append(lines, "hint: "+p.Hint)
		}
	}
	return strings.Join(lines, "\n")
}

// maxShown bounds how much of a value or key a message repeats.
const maxShown = 80

// shown makes what the file says safe and short enough for a terminal.
func shown(s string) string {
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	for _, r := range s {
		if !strconv.IsPrint(r) || r == '�' {
			return strconv.Quote(s)
		}
	}
	return s
}
