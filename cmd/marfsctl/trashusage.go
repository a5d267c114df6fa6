package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"marfs/internal/control"
	"marfs/pkg/namespace"
	"marfs/pkg/trash"
)

func (a *app) trashUsageCmd() *cobra.Command {
	var through bool
	cmd := &cobra.Command{
		Use:   "usage [PATH]",
		Short: "Show how much is in trash, and whose it is",
		Long: `usage sums up what is in trash at PATH and below it, earlier contents and what
was purged included, by namespace and owner, the most bytes first. Without PATH
it is everything. A file removed by several names counts once for each.`,
		Example: `  marfsctl trash usage
  marfsctl --json trash usage /campaign/projecta | jq '.owners[0]'`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitStart, exitInterrupted),
		Args:        cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTrash(cmd.Context(), through, func(r *reached) error { return a.trashUsage(cmd.Context(), r, args) })
		},
	}
	throughFlag(cmd, &through)
	return cmd
}

// usageResult is the JSON of trash usage.
type usageResult struct {
	Owners []ownerUsage `json:"owners"`
}

type ownerUsage struct {
	Namespace string `json:"namespace"`
	UID       uint32 `json:"uid"`
	Entries   int64  `json:"entries"`
	Bytes     int64  `json:"bytes"`
	Purged    int64  `json:"purged"` // of bytes
	Oldest    string `json:"oldest"`

	oldest time.Time
}

func (a *app) trashUsage(ctx context.Context, r *reached, paths []string) error {
	q := namespace.TrashQuery{Path: "/", Filter: trash.Filter{Versions: true, Purged: true}}
	if len(paths) == 1 {
		below, err := r.cfg.Inside(paths[0])
		if err != nil {
			return usageError{failure{what: "path", where: paths[0], err: err}}
		}
		q.Path = below
	}
	type key struct {
		namespace string
		uid       uint32
	}
	sums := map[key]*ownerUsage{}
	var failed failures
	for e, err := range r.List(ctx, q) {
		if err != nil {
			failed.Add(failure{what: "trash usage", where: shown(cmp.Or(seen(r.cfg, e.Path), r.cfg.Mount)), err: err, hint: hintOf(err)})
			continue
		}
		k := key{e.Namespace, e.UID}
		if sums[k] == nil {
			sums[k] = &ownerUsage{Namespace: e.Namespace, UID: e.UID}
		}
		sums[k].add(&e)
	}
	owners := slices.SortedFunc(maps.Values(sums), func(x, y *ownerUsage) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(y.Bytes, x.Bytes), cmp.Compare(x.UID, y.UID))
	})
	if err := a.showUsage(owners); err != nil {
		return err
	}
	return failed.of("trash usage")
}

func (u *ownerUsage) add(e *control.Entry) {
	u.Entries++
	u.Bytes += e.Size
	if e.Purged {
		u.Purged += e.Size
	}
	if u.oldest.IsZero() || e.When.Before(u.oldest) {
		u.oldest, u.Oldest = e.When, jsonTime(e.When)
	}
}

func (a *app) showUsage(owners []*ownerUsage) error {
	if a.json {
		result := usageResult{Owners: []ownerUsage{}}
		for _, u := range owners {
			result.Owners = append(result.Owners, *u)
		}
		return a.print(result)
	}
	if len(owners) == 0 {
		_, err := fmt.Fprintln(a.err, "nothing is in trash there")
		return err
	}
	who := names{}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tOWNER\tENTRIES\tBYTES\tPURGED\tOLDEST")
	for _, u := range owners {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", u.Namespace, who.of(u.UID), u.Entries, bytesText(u.Bytes), bytesText(u.Purged), u.oldest.Local().Format(time.DateTime))
	}
	return w.Flush()
}
