// Command marfsctl administers MarFS: one verb for each thing to do or to see.
// Run `marfsctl --help` for the verbs, and `marfsctl VERB --help` for what each
// takes, two examples, and the exit codes that scripts can rely on.
package main

import (
	"context"
	"os"
	"syscall"
)

func main() {
	syscall.Umask(0) // modes are said in full, as pkg/mdfs/posix wants it
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
