package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"marfs/internal/advice"
	"marfs/pkg/config"
)

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show which stores and metadata directories can be used, and what is staged",
		Long: `status looks at every metadata directory and every store of the configuration:
whether it answers, and whether it is the one it should be. It starts nothing,
so it also works when a mount would refuse to start.

STAGED are files whose bytes are in the metadata filesystem alone and wait to be
packed, or are being written; RESIDENT are bytes there of what is packed too.
USED is the share of stage.max_bytes (LIMIT) that both take. DEAD is how many
contents in packs are known to be dead: marfsctl repack frees their bytes.

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
	Name     string         `json:"name"`
	Path     string         `json:"path"`
	Metadata string         `json:"metadata"`
	Health   string         `json:"health"`
	Error    string         `json:"error,omitempty"`
	Total    int64          `json:"metadata_total"` // bytes of the metadata filesystem
	Free     int64          `json:"metadata_free"`
	Staging  *stagingStatus `json:"staging,omitempty"`
}

type stagingStatus struct {
	Files    int64   `json:"files"`
	Bytes    int64   `json:"bytes"`
	Oldest   string  `json:"oldest,omitempty"`
	Late     bool    `json:"late"`     // the oldest waits longer than a packer that runs would let it
	Packs    int64   `json:"packs"`    // whose files' bytes are still in the metadata filesystem
	Resident int64   `json:"resident"` // those bytes, at most
	MaxBytes int64   `json:"max_bytes"`
	Used     float64 `json:"used"`            // share of max_bytes
	Hinted   int     `json:"packs_with_dead"` // packs in which contents are known to be dead
	Dead     int     `json:"dead_contents"`   // those contents

	oldest time.Time
}

func stagingOf(s *config.Staging) *stagingStatus {
	if s == nil || s.Err != nil {
		return nil
	}
	j := &stagingStatus{Files: s.Files, Bytes: s.Bytes, Late: s.Late, Packs: s.Packs, Resident: s.Resident, MaxBytes: int64(s.MaxBytes),
		Used: math.Round(s.Used()*1e4) / 1e4, Hinted: s.Hinted, Dead: s.Dead, oldest: s.Oldest}
	if !s.Oldest.IsZero() {
		j.Oldest = jsonTime(s.Oldest)
	}
	return j
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
		result.Namespaces = append(result.Namespaces, namespaceStatus{n.Name, n.Path, n.Metadata, string(n.Health), text(n.Err), int64(n.Total), int64(n.Free), stagingOf(n.Staging)})
		if n.Staging != nil && n.Staging.Err != nil {
			failures = append(failures, failure{what: "what is staged in namespace " + n.Name, where: n.Metadata, err: n.Staging.Err})
		}
		a.warnLate(cfg, &n)
		failures = append(failures, unhealthy("metadata of namespace "+n.Name, n.Metadata, n.Health, n.Err))
	}
	for _, s := range stores {
		result.Stores = append(result.Stores, storeStatus{s.Repo, s.Pod, s.Shard, s.Store, string(s.Health), text(s.Err), int64(s.Total), int64(s.Free)})
		failures = append(failures, unhealthy("store of repo "+s.Repo+", pod "+s.Pod, s.Store, s.Health, s.Err))
	}
	return errors.Join(errors.Join(failures...), a.showStatus(result))
}

// warnLate tells that files wait longer than they should, and for what.
func (a *app) warnLate(cfg *config.Config, n *config.NamespaceStatus) {
	if n.Staging == nil || !n.Staging.Late {
		return
	}
	var maxAge config.Duration
	for _, have := range cfg.Namespaces {
		if have.Name == n.Name {
			maxAge = have.Pack.MaxAge
		}
	}
	fmt.Fprintf(a.err, "%s: warning: namespace %s: the oldest staged file waits for %s to be packed, pack.max_age is %v\n", program, n.Name, ageText(time.Since(n.Staging.Oldest)), maxAge)
	advice.PrintHint(a.err, "mounts of the namespace pack: one must be up and reach the stores, and its log says what fails; marfsctl pack --namespace "+n.Name+" packs now. A file that a program holds open and has not synced waits, too")
}

// ageText is a time in its two largest units.
func ageText(d time.Duration) string {
	unit := time.Second
	switch {
	case d >= 24*time.Hour:
		unit = time.Hour
	case d >= time.Hour:
		unit = time.Minute
	}
	return config.Duration(max(d, 0).Truncate(unit)).String()
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
	if err := showStaging(w, r.Namespaces); err != nil {
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

// showStaging prints what is staged in the namespaces that could be looked at.
func showStaging(w *tabwriter.Writer, spaces []namespaceStatus) error {
	head := "\nNAMESPACE\tSTAGED\tBYTES\tOLDEST\tRESIDENT\tUSED\tLIMIT\tDEAD\n"
	for _, n := range spaces {
		s := n.Staging
		if s == nil {
			continue
		}
		oldest, dead := "-", "-"
		if !s.oldest.IsZero() {
			oldest = ageText(time.Since(s.oldest))
		}
		if s.Hinted > 0 {
			dead = fmt.Sprintf("%d in %s", s.Dead, count(int64(s.Hinted), "pack"))
		}
		fmt.Fprintf(w, "%s%s\t%d\t%s\t%s\t%s\t%.0f%%\t%s\t%s\n", head, n.Name, s.Files, bytesText(s.Bytes), oldest, bytesText(s.Resident), 100*s.Used, bytesText(s.MaxBytes), dead)
		head = ""
	}
	return w.Flush()
}

// count says how many things there are.
func count(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
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
