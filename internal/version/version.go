// Package version holds the version that the build stamps into the programs.
package version

import "runtime/debug"

// Version is set by the linker (see the Makefile).
var Version = ""

// String is the stamped version, or what the Go toolchain knows of the build.
func String() string {
	if Version != "" {
		return Version
	}
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "devel"
}
