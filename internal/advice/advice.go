// Package advice prints errors as both programs do: what, where and why on one
// line, and what to do about it on the next.
//
//	marfsctl: error: marfs.yaml:9: repos[0].block_size: 100kB: must be a multiple of 4KiB
//	hint: 1MiB suits large objects
package advice

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Joined returns the parts of an error made by errors.Join, and nil for others,
// also for those that only wrap several errors in one message.
func Joined(err error) []error {
	several, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(several.Unwrap()...).Error() != err.Error() {
		return nil
	}
	return several.Unwrap()
}

// Of is the hint that an error brings itself, or else the general one.
func Of(err error, general string) string {
	var own interface{ Hint() string }
	if errors.As(err, &own) && own.Hint() != "" {
		return own.Hint()
	}
	return general
}

// Print prints an error of a program, and what to do about it if that is known.
func Print(w io.Writer, program string, err error, hint string) {
	fmt.Fprintf(w, "%s: error: %s\n", program, plain(err.Error()))
	PrintHint(w, hint)
}

// PrintHint prints what to do, if it is known.
func PrintHint(w io.Writer, hint string) {
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", plain(hint))
	}
}

// plain is a text on one line, in which a terminal sees nothing but text: errors
// hold names of files, which are any bytes that other users like.
func plain(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '\n':
			b.WriteString("; ")
		case r == utf8.RuneError && n == 1 || !strconv.IsPrint(r):
			q := strconv.Quote(s[:n])
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}
