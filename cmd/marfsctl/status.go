package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"marfs/pkg/config"
)

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show which stores and metadata directories can be used",
		Long: `status looks at every metadata directory and every store of the configuration:
whether it answers, and whether it is the one it should be. It starts nothing,
so it also works when a mount would refuse to start.

ok: in use or ready; unreachable: it does not answer; missing: new, empty or
not mounted; wrong: it is another's, or cannot be used; read-only: its
filesystem is mounted so. FREE is for users other than root.`,
		Example: `  marfsctl status
  marfsctl --json status | jq '.stores[] | select(.health != "ok")'`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitInterrupted),
		Args:        cobra.NoArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context()) },
	}
}

// statusResult is the JSON of status.
type statusResult struct {
	Namespaces []namespaceStatus `json:"namespaces"`
	Stores     []storeStatus     `json:"stores"`
}

type namespaceStatus struct {
	Name     string `json:"name"`
	Path     string `json:"path"`
	Metadata string `json:"metadata"`
	Health   string `json:"health"`
	Error    string `json:"error,omitempty"`
	Total    int64  `json:"metadata_total"` // bytes of the metadata filesystem
	Free     int64  `json:"metadata_free"`
}

type storeStatus struct {
	Repo   string `json:"repo"`
	Pod    string `json:"pod"`
	Shard  int    `json:"shard"` // -1: not known
	Store  string `json:"store"`
	Health string `json:"health"`
	Error  string `json:"error,omitempty"`
	Total  int64  `json:"total,omitempty"` // bytes of the filesystem of a directory
	Free   int64  `json:"free,omitempty"`
}

func (a *app) status(ctx context.Context) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	stores, spaces, err := config.Status(ctx, cfg)
	if err != nil {
		return err
	}
	result := statusResult{Namespaces: []namespaceStatus{}, Stores: []storeStatus{}}
	var failures []error
	for _, n := range spaces {
		result.Namespaces = append(result.Namespaces, namespaceStatus{n.Name, n.Path, n.Metadata, string(n.Health), text(n.Err), int64(n.Total), int64(n.Free)})
		failures = append(failures, unhealthy("metadata of namespace "+n.Name, n.Metadata, n.Health, n.Err))
	}
	for _, s := range stores {
		result.Stores = append(result.Stores, storeStatus{s.Repo, s.Pod, s.Shard, s.Store, string(s.Health), text(s.Err), int64(s.Total), int64(s.Free)})
		failures = append(failures, unhealthy("store of repo "+s.Repo+", pod "+s.Pod, s.Store, s.Health, s.Err))
	}
	return errors.Join(errors.Join(failures...), a.showStatus(result))
}

func unhealthy(what, where string, h config.Health, err error) error {
	switch h {
	case config.Healthy:
		return nil
	case config.Missing:
		return failure{what, where, err, "mount it; if the configuration or this part of it is new: marfsctl init; if it replaces a lost one: marfsctl init --replace " + where}
	}
	return failure{what: what, where: where, err: err}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (a *app) showStatus(r statusResult) error {
	if a.json {
		return a.print(r)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tPATH\tMETADATA\tHEALTH\tFREE\tOF")
	for _, n := range r.Namespaces {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, n.Path, n.Metadata, n.Health, room(n.Free, n.Total), room(n.Total, n.Total))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nREPO\tPOD\tSHARD\tSTORE\tHEALTH\tFREE\tOF")
	for _, s := range r.Stores {
		shard := "?"
		if s.Shard >= 0 {
			shard = strconv.Itoa(s.Shard)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Repo, s.Pod, shard, s.Store, s.Health, room(s.Free, s.Total), room(s.Total, s.Total))
	}
	return w.Flush()
}

// room shows n of the bytes of a filesystem in the unit that fits, since the next
// few bytes do not matter. Of a filesystem that is not known, and of a bucket, it
// shows nothing.
func room(n, total int64) string {
	switch {
	case total == 0:
		return "-"
	case n >= 1<<40:
		return fmt.Sprintf("%.1f TiB", float64(n)/(1<<40))
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
