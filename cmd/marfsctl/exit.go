package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"marfs/internal/advice"
	"marfs/pkg/config"
)

// The exit codes are an interface for scripts: never renumber them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitStart       = 3
	exitInterrupted = 4
	exitDamage      = 5
)

var exitText = [...]string{
	exitDone:        "done",
	exitFailed:      "something failed or differs; the rest was done, failures are listed",
	exitUsage:       "wrong usage or configuration",
	exitStart:       "could not start: a store, metadata directory or permission",
	exitInterrupted: "interrupted; run again to resume",
	exitDamage:      "damage found",
}

// configHint is for a configuration file that cannot be read.
const configHint = "name the configuration with --config FILE or $MARFS_CONFIG"

// usageError is a command line that cannot be run.
type usageError struct{ error }

// configError is a configuration file that cannot be used.
type configError struct{ error }

// startError is a system that did not start.
type startError struct{ error }

// interrupted is a verb that a signal ended.
type interrupted struct{ error }

// errDamage is in the error of a verb that found damaged data.
var errDamage = errors.New("damage found")

func (e usageError) Unwrap() error  { return e.error }
func (e configError) Unwrap() error { return e.error }
func (e startError) Unwrap() error  { return e.error }
func (e interrupted) Unwrap() error { return e.error }

// exitCode is the one place that turns errors into codes.
func exitCode(err error) int {
	var usage usageError
	var cfg configError
	var start startError
	var stopped interrupted
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &stopped):
		return exitInterrupted
	case errors.As(err, &usage), errors.As(err, &cfg):
		return exitUsage
	case errors.As(err, &start):
		return exitStart
	case errors.Is(err, errDamage):
		return exitDamage
	default:
		return exitFailed
	}
}

// failure is one thing that a verb could not do.
type failure struct {
	what  string // stat, copy ...
	where string // a path, object or store
	err   error
	hint  string
}

func (f failure) Error() string {
	why := f.err
	if pe, ok := why.(*fs.PathError); ok { //nolint:errorlint // its operation and path would repeat ours; those of one inside say more
		why = pe.Err
	}
	return fmt.Sprintf("%s, %s: %v", f.what, f.where, why)
}

func (f failure) Unwrap() error { return f.err }

// hinted is an error that says what to do about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// Hint says what to do.
func (h hinted) Hint() string { return h.hint }

// program is what errors begin with.
const program = "marfsctl"

// report prints every error that err joins, each with what to do about it.
func report(w io.Writer, err error) { reportAs(w, err, "") }

// reportAs is report for an error of a class with a general hint.
func reportAs(w io.Writer, err error, general string) {
	switch e := err.(type) { //nolint:errorlint // one layer at a time
	case nil:
	case usageError:
		reportAs(w, e.error, "marfsctl --help lists the verbs, marfsctl VERB --help what each takes")
	case configError:
		reportAs(w, e.error, configHint)
	case startError:
		reportAs(w, e.error, general)
	case interrupted:
		reportAs(w, e.error, general)
		advice.PrintHint(w, "it was interrupted: run the same command again")
	case config.Problems:
		for _, p := range e {
			advice.Print(w, program, p, p.Hint)
		}
	case failure:
		advice.Print(w, program, e, e.hint)
	default:
		for _, one := range advice.Joined(err) {
			reportAs(w, one, general)
		}
		if advice.Joined(err) == nil {
			advice.Print(w, program, err, advice.Of(err, general))
		}
	}
}
