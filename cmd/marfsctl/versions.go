package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"marfs/internal/control"
)

func (a *app) versionsCmd() *cobra.Command {
	var through bool
	var cat string
	cmd := &cobra.Command{
		Use:   "versions PATH",
		Short: "List the earlier contents of a file, or print one",
		Long: `versions lists the contents that the file at PATH had before it was overwritten,
newest first, with the first digits of their ids, which is what --cat and trash
restore --version take.`,
		Example: `  marfsctl versions /campaign/projecta/notes.txt
  marfsctl versions /campaign/projecta/notes.txt --cat 4c0f31 | diff - /campaign/projecta/notes.txt
  marfsctl trash restore --version 4c0f31 /campaign/projecta/notes.txt`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitStart, exitInterrupted),
		Args:        cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTrash(cmd.Context(), through, func(r *reached) error { return a.versions(cmd.Context(), r, args[0], cat) })
		},
	}
	cmd.Flags().StringVar(&cat, "cat", "", "write the content `VERSION` to stdout")
	throughFlag(cmd, &through)
	return cmd
}

// versionsResult is the JSON of versions.
type versionsResult struct {
	Path     string       `json:"path"`
	Versions []trashEntry `json:"versions"`
}

func (a *app) versions(ctx context.Context, r *reached, path, cat string) error {
	below, err := r.cfg.Inside(path)
	if err != nil {
		return usageError{failure{what: "versions", where: path, err: err}}
	}
	var all []control.Entry
	for e, err := range r.Versions(ctx, below) {
		if err != nil {
			hint := hintOf(err)
			if errors.Is(err, syscall.ENOENT) {
				hint = "contents of a file that was removed: marfsctl trash list --versions " + path
			}
			return failure{what: "versions", where: path, err: err, hint: hint}
		}
		all = append(all, e)
	}
	switch {
	case cat != "":
		return a.catVersion(ctx, r, path, all, cat)
	case a.json:
		result := versionsResult{Path: path, Versions: []trashEntry{}}
		for i := range all {
			result.Versions = append(result.Versions, jsonEntry(r.cfg, &all[i]))
		}
		return a.print(result)
	}
	return a.showVersions(all)
}

func (a *app) showVersions(all []control.Entry) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(a.err, "no earlier contents are kept")
		return err
	}
	digits, who := unique(all), names{}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tREPLACED\tWHY\tBY\tSIZE\tMODIFIED")
	for _, e := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.Version[:min(digits, len(e.Version))], e.When.Local().Format(time.DateTime), shown(e.Why), who.of(e.By),
			bytesText(e.Size), e.MTime.Local().Format(time.DateTime))
	}
	return w.Flush()
}

// unique is how many digits tell the versions apart, 8 at least.
func unique(all []control.Entry) int {
	most := 8
	for _, e := range all {
		most = max(most, len(e.Version))
	}
	for digits := 8; digits < most; digits++ {
		seen := map[string]bool{}
		for _, e := range all {
			seen[e.Version[:min(digits, len(e.Version))]] = true
		}
		if len(seen) == len(all) {
			return digits
		}
	}
	return most
}

func (a *app) catVersion(ctx context.Context, r *reached, path string, all []control.Entry, version string) error {
	var found []control.Entry
	for _, e := range all {
		if strings.HasPrefix(e.Version, version) {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		err := errors.New("no such version")
		if len(found) > 1 {
			err = fmt.Errorf("%d versions begin so", len(found))
		}
		return failure{what: "versions", where: path + ", " + shown(version), err: err, hint: "marfsctl versions " + path + " lists them"}
	}
	return a.trashCat(ctx, r, found[0].ID)
}
