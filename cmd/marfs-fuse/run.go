package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

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

// report prints what went wrong and what to do about it. errReported was printed
// by the child.
func report(w io.Writer, err error) {
	var problems config.Problems
	switch {
	case err == nil, errors.Is(err, errReported):
	case errors.As(err, &problems):
		for _, p := range problems {
			fmt.Fprintf(w, "marfs-fuse: error: %v\n", p)
			hint(w, p.Hint)
		}
	default:
		fmt.Fprintf(w, "marfs-fuse: error: %v\n", err)
		hint(w, hintFor(err))
	}
}

func hint(w io.Writer, text string) {
	if text != "" {
		fmt.Fprintf(w, "hint: %s\n", text)
	}
}

func hintFor(err error) string {
	var u usageError
	switch {
	case errors.As(err, &u) && errors.Is(err, os.ErrNotExist):
		return "name the configuration with --config FILE or $MARFS_CONFIG"
	case errors.As(err, &u):
		return "marfs-fuse --help shows what it takes"
	case errors.Is(err, syscall.ENOENT):
		return "make what is missing: the mount point with mkdir, stores and metadata with marfsctl init"
	case errors.Is(err, syscall.ENODEV):
		return "load the kernel's FUSE module: modprobe fuse"
	}
	return ""
}
