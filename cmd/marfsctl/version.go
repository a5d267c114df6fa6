package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"marfs/internal/version"
)

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this build",
		Long:  "version prints which release and revision this binary was built from.",
		Example: `  marfsctl version
  marfsctl --json version`,
		Annotations: exits(exitDone, exitUsage),
		Args:        cobra.NoArgs,
		RunE:        func(*cobra.Command, []string) error { return a.showVersion() },
	}
}

// versionResult is the JSON of version.
type versionResult struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (a *app) showVersion() error {
	v := build()
	if a.json {
		return a.print(v)
	}
	_, err := io.WriteString(a.out, v.String())
	return err
}

func (v versionResult) String() string {
	return fmt.Sprintf("marfsctl %s %s (%s, %s)\n", v.Version, v.Revision, v.Go, v.Platform)
}

// build is what this binary was built from.
func build() versionResult {
	v := versionResult{Version: version.String(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Revision = s.Value
			}
		}
	}
	return v
}
