package main

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"marfs/internal/advice"
	"marfs/internal/version"
	"marfs/pkg/config"
)

// The exit codes are an interface for scripts: never renumber them.
const (
	exitDone   = 0 // mounted, or in the foreground: unmounted with everything committed
	exitFailed = 1 // ended with files open or not committed
	exitUsage  = 2
	exitStart  = 3 // not mounted

	// As a helper of mount(8), its codes hold (mount(8), "EXIT STATUS").
	exitMountUsage = 1
	exitMountFail  = 32
)

// usageError is a command line or configuration that cannot be used.
type usageError struct{ error }

// startError is a mount that did not come about.
type startError struct{ error }

func (e usageError) Unwrap() error { return e.error }
func (e startError) Unwrap() error { return e.error }

// run executes a command line and returns the exit code.
func run(args []string, out, errOut io.Writer) int {
	cmd, err := parse(args)
	switch {
	case err != nil:
		err = usageError{err}
	case cmd.help:
		fmt.Fprint(out, usage())
	case cmd.version:
		fmt.Fprintln(out, "marfs-fuse", version.String())
	case cmd.fake:
	case cmd.foreground || isChild():
		err = cmd.serve()
	default:
		err = cmd.daemonise()
	}
	report(errOut, err)
	return exitCode(err, cmd.helper)
}

func exitCode(err error, helper bool) int {
	var u usageError
	var s startError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &u) && helper:
		return exitMountUsage
	case errors.As(err, &u):
		return exitUsage
	case errors.As(err, &s) && helper:
		return exitMountFail
	case errors.As(err, &s):
		return exitStart
	}
	return exitFailed
}

// advised is an error with what to do about it.
type advised struct {
	error
	hint string
}

func (e advised) Unwrap() error { return e.error }

// Hint says what to do.
func (e advised) Hint() string { return e.hint }

// program is what errors begin with.
const program = "marfs-fuse"

// report prints every error that err joins, each with what to do about it.
// errReported was printed by the child.
func report(w io.Writer, err error) { reportAs(w, err, "") }

// reportAs is report for an error of a class with a general hint.
func reportAs(w io.Writer, err error, general string) {
	switch e := err.(type) { //nolint:errorlint // one layer at a time
	case nil:
	case usageError:
		reportAs(w, e.error, "marfs-fuse --help shows what it takes")
	case startError:
		reportAs(w, e.error, general)
	case advised:
		reportAs(w, e.error, e.hint)
	case config.Problems:
		for _, p := range e {
			advice.Print(w, program, p, p.Hint)
		}
	default:
		for _, one := range advice.Joined(err) {
			reportAs(w, one, general)
		}
		if advice.Joined(err) == nil && !errors.Is(err, errReported) {
			advice.Print(w, program, err, hintOf(err, general))
		}
	}
}

// hintOf is the hint that an error brings itself, the general one, or one for its errno.
func hintOf(err error, general string) string {
	hint := advice.Of(err, general)
	switch {
	case hint != "":
		return hint
	case errors.Is(err, syscall.ENOENT):
		return "mount what is not mounted; what is new is made with mkdir (the mount point) and marfsctl init (stores and metadata)"
	case errors.Is(err, syscall.ENODEV):
		return "load the kernel's FUSE module: modprobe fuse"
	}
	return ""
}
