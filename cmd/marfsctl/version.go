package main

import (
	"fmt"
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
	v := versionResult{Version: version.String(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Revision = s.Value
			}
		}
	}
	if a.json {
		return a.print(v)
	}
	_, err := fmt.Fprintf(a.out, "marfsctl %s %s (%s, %s)\n", v.Version, v.Revision, v.Go, v.Platform)
	return err
}
