// Command marfs-fuse mounts MarFS.
//
// It is also the helper that mount(8) runs for lines of fstab with the type
// fuse.marfs: then its name is mount.fuse.marfs. Run `marfs-fuse --help`.
package main

import "os"

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}
