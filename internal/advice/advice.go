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
	fmt.Fprintf(w, "%s: error: %v\n", program, err)
	PrintHint(w, hint)
}

// PrintHint prints what to do, if it is known.
func PrintHint(w io.Writer, hint string) {
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}
