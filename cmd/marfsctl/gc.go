package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"marfs/internal/advice"
	"marfs/pkg/config"
	"marfs/pkg/metadata"
	"marfs/pkg/trash"
)

// gcOptions are the flags of gc.
type gcOptions struct {
	namespaces []string
	apply      bool
	list       bool
	workers    int
	rate       int
	maxEntries int64
	maxBytes   config.Size
	maxTime    config.Duration
	log        string
	keepLogs   config.Duration
}

func (a *app) gcCmd() *cobra.Command {
	o := gcOptions{keepLogs: config.Duration(365 * 24 * time.Hour)}
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Destroy what was deleted or replaced long enough ago",
		Long: `gc destroys what has been in trash for longer than trash.keep, what its owner
has purged, and of the rest the oldest while there is more than trash.max_bytes;
never anything younger than trash.grace. It also finishes or undoes what dead
processes have left.

Without --apply it only shows what would go, and changes nothing. With it, each
thing is written to a log first, in log/ of the metadata directory. It reads
queues by day, never the tree, may be killed and run again, and may run on
several hosts at once. Only root or the daemon's user can run it.

A cap (--max-entries, --max-bytes, --max-time) ends a run early: no error.`,
		Example: `  marfsctl gc                                  # what would go
  marfsctl gc --namespace projecta --list      # every entry of it
  marfsctl gc --apply --max-time 50m`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitStart, exitInterrupted),
		Args:        cobra.NoArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.gc(cmd.Context(), o) },
	}
	f := cmd.Flags()
	namespaceFlag(cmd, &o.namespaces)
	f.BoolVar(&o.apply, "apply", false, "destroy, instead of showing what would be")
	f.BoolVar(&o.list, "list", false, "show every entry that would go")
	f.IntVar(&o.workers, "workers", 16, "how many batches are destroyed at once")
	f.IntVar(&o.rate, "rate", 0, "at most so many entries per second; 0: no limit")
	f.Int64Var(&o.maxEntries, "max-entries", 0, "end after so many entries; 0: no limit")
	f.Var(&unitFlag[config.Size]{&o.maxBytes, config.ParseSize}, "max-bytes", "end before more than this `SIZE` of content is destroyed; 0: no limit")
	f.Var(&unitFlag[config.Duration]{&o.maxTime, config.ParseDuration}, "max-time", "begin nothing after this `TIME`, such as 50m; 0: no limit")
	f.StringVar(&o.log, "log", "", "append the log to `FILE` instead of the metadata directory")
	f.Var(&unitFlag[config.Duration]{&o.keepLogs, config.ParseDuration}, "keep-logs", "remove logs in metadata directories older than this `TIME`; 0: never")
	return cmd
}

// unitFlag is a flag whose value has a unit, as in the configuration.
type unitFlag[T fmt.Stringer] struct {
	v     *T
	parse func(string) (T, error)
}

func (u *unitFlag[T]) String() string {
	if u.v == nil {
		return ""
	}
	return (*u.v).String()
}

func (u *unitFlag[T]) Type() string { return "value" }

func (u *unitFlag[T]) Set(text string) error {
	v, err := u.parse(text)
	if err == nil {
		*u.v = v
	}
	return err
}

// check refuses what makes no sense together.
func (o *gcOptions) check() error {
	switch {
	case o.apply && o.list:
		return usageError{errors.New("--list shows what would go; what --apply destroys is in its log")}
	case o.workers < 1 || o.rate < 0 || o.maxEntries < 0:
		return usageError{errors.New("--workers must be at least 1, --rate and --max-entries not negative")}
	}
	return nil
}

// gcRun is one run of gc.
type gcRun struct {
	*app
	o         gcOptions
	cfg       *config.Config
	began     time.Time
	collector *trash.Collector
	progress  *progress // of the namespace in work; nil: a plan
	result    gcResult
	doc       jsonStream // of --list
	names     names
}

func (a *app) gc(ctx context.Context, o gcOptions) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	cfg, err := a.load()
	if err != nil {
		return err
	}
	sys, err := a.openGC(ctx, cfg, o.apply)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sys.Close()) }()
	spaces, err := sys.Garbage(ctx, o.namespaces...)
	if errors.Is(err, config.ErrNoNamespace) {
		return usageError{fmt.Errorf("--namespace: %w", err)}
	}
	if err != nil {
		return startError{err}
	}
	r, err := a.newGC(cfg, o)
	if err != nil {
		return startError{err}
	}
	return r.run(ctx, spaces)
}

// openGC opens no more than it needs: a plan works while stores are away, and
// writes nothing.
func (a *app) openGC(ctx context.Context, cfg *config.Config, apply bool) (*config.System, error) {
	if apply {
		sys, err := a.openOwned(ctx, cfg)
		return sys, gcHint(err)
	}
	sys, err := config.OpenMetadata(ctx, cfg, cfg.Log.Logger(a.err))
	if err != nil {
		return nil, startError{gcHint(err)}
	}
	return sys, nil
}

// gcHint tells whose business gc is.
func gcHint(err error) error {
	return ownersOnly(err, "gc is for root and the user whose the metadata directories are; marfsctl trash purge lets go of what was yours")
}

// ownersOnly adds a hint for whoever may not enter metadata directories: that is as
// it should be.
func ownersOnly(err error, hint string) error {
	if os.Geteuid() != 0 && (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EPERM)) {
		return hinted{err, hint}
	}
	return err
}

func (a *app) newGC(cfg *config.Config, o gcOptions) (*gcRun, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	r := &gcRun{app: a, o: o, cfg: cfg, began: time.Now(), doc: jsonStream{w: a.out}, names: names{}, result: gcResult{Applied: o.apply, Namespaces: []gcNamespace{}}}
	c := trash.Options{Workers: o.workers, MaxEntries: o.maxEntries, MaxBytes: int64(o.maxBytes), From: startAt(host, os.Getpid())}
	if o.apply {
		c.Progress = r.show
	}
	if o.rate > 0 {
		c.Limit = rate.NewLimiter(rate.Limit(o.rate), o.rate)
	}
	if o.maxTime > 0 {
		c.Until = r.began.Add(o.maxTime.Std())
	}
	r.collector = trash.NewCollector(c)
	return r, nil
}

// startAt spreads collectors that run at once over the fan-out directories.
func startAt(host string, pid int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", host, pid))
	return hex.EncodeToString(sum[:1])
}

// show hands progress on.
func (r *gcRun) show(p trash.Progress) {
	r.progress.set(tally{items: p.Entries, total: p.Total, bytes: p.Bytes, failures: p.Failures})
}

func (r *gcRun) run(ctx context.Context, spaces []*config.Garbage) error {
	if r.o.list {
		r.listHead()
	}
	var failures []error
	for _, g := range spaces {
		n, err := r.namespace(ctx, g)
		r.result.Namespaces = append(r.result.Namespaces, n)
		failures = append(failures, n.judge(err)...)
		if ctx.Err() != nil {
			break
		}
	}
	r.result.Capped = r.collector.Capped()
	if ctx.Err() != nil {
		failures = append(failures, errors.New("gc was ended before its end"))
	}
	return errors.Join(errors.Join(failures...), r.print(len(failures) > 0))
}

func (r *gcRun) namespace(ctx context.Context, g *config.Garbage) (gcNamespace, error) {
	if !r.o.apply {
		return r.plan(ctx, g)
	}
	r.progress = r.app.progress("gc of "+g.Namespace, "entries")
	defer r.progress.end()
	return r.applyTo(ctx, g)
}

func (r *gcRun) plan(ctx context.Context, g *config.Garbage) (gcNamespace, error) {
	n := gcNamespace{Name: g.Namespace}
	var each func(trash.Candidate) error
	if r.o.list {
		each = func(c trash.Candidate) error { return r.listEntry(g.Namespace, c) }
	}
	report, err := r.collector.Plan(ctx, g.Trash, each)
	n.add(report)
	if err != nil {
		return n, err
	}
	alive, err := g.Alive(ctx)
	if err != nil {
		return n, err
	}
	report, err = r.collector.Abandoned(ctx, g.Trash, alive, nil)
	n.add(report)
	return n, err
}

func (r *gcRun) applyTo(ctx context.Context, g *config.Garbage) (n gcNamespace, err error) {
	n.Name = g.Namespace
	audit, closeLog, err := r.audit(ctx, g, &n)
	if err != nil {
		return n, err
	}
	r.result.Run = audit.Run
	defer func() { err = errors.Join(err, closeLog()) }()
	report, err := r.collector.Collect(ctx, g.Trash, audit)
	n.add(report)
	if err != nil {
		return n, err
	}
	alive, err := r.alive(ctx, g)
	if err != nil {
		return n, err
	}
	report, err = r.collector.Recover(ctx, g.Trash, audit, alive)
	n.add(report)
	if err != nil {
		return n, err
	}
	return n, trash.PruneLogs(ctx, g.Meta, r.o.keepLogs.Std(), r.began)
}

// alive waits for the heartbeats of other hosts, unless the time is up before.
func (r *gcRun) alive(ctx context.Context, g *config.Garbage) (metadata.Alive, error) {
	wait := ctx
	if r.o.maxTime > 0 {
		var stop context.CancelFunc
		wait, stop = context.WithDeadline(ctx, r.began.Add(r.o.maxTime.Std()))
		defer stop()
	}
	alive, err := g.AwaitAlive(wait, func(nodes []string, until time.Time) {
		r.progress.say("waits until %s to see whether these still live, which have unfinished writes: %s", until.Format(time.TimeOnly), strings.Join(nodes, ", "))
	})
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		return g.Alive(ctx)
	}
	return alive, err
}

// audit is the log of one namespace, in its metadata directory or where --log says.
func (r *gcRun) audit(ctx context.Context, g *config.Garbage, n *gcNamespace) (*trash.Audit, func() error, error) {
	a, done, err := trash.NewAudit(ctx, g.Meta, r.began)
	if err != nil || r.o.log == "" {
		return a, func() error {
			name, err := done()
			if name != "" {
				n.Log = "log/" + name
			}
			return err
		}, err
	}
	var file *os.File
	a.Synced = false
	a.Open = func() (trash.Sink, error) {
		file, err = os.OpenFile(r.o.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		return file, nil
	}
	return a, func() error {
		if file == nil {
			return nil
		}
		n.Log = r.o.log
		return file.Close()
	}, nil
}

// gcResult is the JSON of gc, but for the entries of --list, which come first.
type gcResult struct {
	Run        string        `json:"run,omitempty"` // names it in the log; with Applied
	Applied    bool          `json:"applied"`
	Capped     bool          `json:"capped"`
	Namespaces []gcNamespace `json:"namespaces"`
}

type gcNamespace struct {
	Name     string      `json:"name"`
	Rows     []gcRow     `json:"rows"`
	Dropped  int64       `json:"dropped"` // records of what lives or was gone, which went alone
	Kept     int64       `json:"kept"`    // records that were looked at and stay
	Left     int64       `json:"left"`    // because of a cap; at most
	Failed   int64       `json:"failed"`
	Failures []gcFailure `json:"failures"`
	failures failures
	Log      string `json:"log,omitempty"` // below the metadata directory, or --log
}

type gcRow struct {
	What    string    `json:"what"` // file, version, dir, link, pack, record, abandoned
	Why     string    `json:"why"`  // age, purged, pressure, abandoned
	Entries int64     `json:"entries"`
	Bytes   int64     `json:"bytes"`
	Oldest  time.Time `json:"oldest"`
}

type gcFailure struct {
	Cause   string   `json:"cause"`
	Count   int64    `json:"count"`
	Samples []string `json:"samples"`
}

type gcEntry struct {
	ID      string    `json:"id"`
	What    string    `json:"what"`
	Why     string    `json:"why"`
	Path    string    `json:"path"`                  // in the namespace
	Bytes   []byte    `json:"path_base64,omitempty"` // of a path that is no UTF-8
	Size    int64     `json:"size"`
	UID     uint32    `json:"uid"`
	GID     uint32    `json:"gid"`
	Deleted time.Time `json:"deleted"`
	By      uint32    `json:"deleted_by"`
	How     string    `json:"deleted_how"`
	File    string    `json:"file_id"`    // "" of what is no file
	Content string    `json:"content_id"` // of a version, else ""
}

func (n *gcNamespace) add(r trash.Report) {
	n.Dropped, n.Kept, n.Left, n.Failed = n.Dropped+r.Dropped, n.Kept+r.Kept, n.Left+r.Left, n.Failed+r.Failures.Count
	if n.Rows == nil {
		n.Rows = []gcRow{}
	}
	for _, row := range r.Rows {
		n.Rows = append(n.Rows, gcRow{string(row.What), string(row.Why), row.Entries, row.Bytes, row.Oldest.UTC()})
	}
	n.failures.Merge(r.Failures)
	n.Failures = []gcFailure{}
	for _, g := range n.failures.Groups {
		f := gcFailure{Cause: g.Cause, Count: g.Count, Samples: []string{}}
		for _, s := range g.Samples {
			f.Samples = append(f.Samples, s.Error())
		}
		n.Failures = append(n.Failures, f)
	}
}

// judge returns what went wrong in a namespace.
func (n *gcNamespace) judge(err error) (list []error) {
	if err := n.failures.of("gc, namespace " + n.Name); err != nil {
		list = append(list, err)
	}
	switch {
	case errors.Is(err, metadata.ErrCopied):
		list = append(list, failure{what: "gc", where: "namespace " + n.Name, err: err,
			hint: "another copy may own the objects: nothing of this one is destroyed"})
	case err != nil && !errors.Is(err, context.Canceled):
		list = append(list, failure{what: "gc", where: "namespace " + n.Name, err: err, hint: advice.Of(err, "")})
	}
	return list
}

func (r *gcRun) listHead() {
	if !r.json {
		r.row("DELETED", "SIZE", "WHAT", "OWNER", "BY", "WHY", "ID", "PATH")
	}
}

// listEntry prints one entry at once: there may be millions.
func (r *gcRun) listEntry(namespace string, c trash.Candidate) error {
	id := namespace + "/" + c.ID.String()
	if !r.json {
		r.row(c.Record.When.Local().Format(time.DateTime), bytesText(c.Size), string(c.What), r.names.of(c.UID), r.names.of(c.Record.By), string(c.Why), id, shown(c.Record.Path))
		return nil
	}
	e := gcEntry{ID: id, What: string(c.What), Why: string(c.Why), Path: c.Record.Path, Bytes: trash.PathBytes(c.Record.Path), Size: c.Size, UID: c.UID, GID: c.GID,
		Deleted: c.Record.When.UTC(), By: c.Record.By, How: c.Record.Why, File: idText(c.Record.File), Content: idText(c.Record.Content)}
	return r.doc.add("entries", e)
}

func (r *gcRun) row(deleted, size, what, owner, by, why, id, path string) {
	fmt.Fprintf(r.out, "%-19s  %10s  %-9s  %-8s  %-8s  %-9s  %-*s  %s\n", deleted, size, what, owner, by, why, idWidth(r.cfg), id, path)
}

func (r *gcRun) print(failed bool) error {
	if !r.json {
		return r.table(failed)
	}
	if !r.o.list {
		return r.app.print(r.result)
	}
	return r.doc.end("entries", r.result)
}

// words are the kinds of things for people.
var words = map[string]string{
	string(trash.WhatFile): "files", string(trash.WhatVersion): "versions", string(trash.WhatDir): "directories",
	string(trash.WhatLink): "links and specials", string(trash.WhatPack): "packs", string(trash.WhatRecord): "records only",
	string(trash.WhatAbandoned): "unfinished writes",
}

func (r *gcRun) table(failed bool) error {
	if r.o.list {
		fmt.Fprintln(r.out)
	}
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tWHAT\tWHY\tENTRIES\tBYTES\tOLDEST")
	for _, n := range r.result.Namespaces {
		if len(n.Rows) == 0 {
			fmt.Fprintf(w, "%s\tnothing\t-\t0\t-\t-\n", n.Name)
		}
		for _, row := range n.Rows {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", n.Name, words[row.What], row.Why, row.Entries, bytesText(row.Bytes), row.Oldest.Local().Format(time.DateTime))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range r.result.Namespaces {
		if n.Left > 0 {
			fmt.Fprintf(r.out, "%s: left for another run: at most %d\n", n.Name, n.Left)
		}
		if n.Kept > 0 {
			fmt.Fprintf(r.out, "%s: looked at and kept: %d (open, not old enough, or in the hands of another gc)\n", n.Name, n.Kept)
		}
		if n.Log != "" {
			fmt.Fprintf(r.out, "%s: log: %s\n", n.Name, n.Log)
		}
	}
	return r.lastWord(failed)
}

// lastWord says what the table is.
func (r *gcRun) lastWord(failed bool) error {
	empty := !slices.ContainsFunc(r.result.Namespaces, func(n gcNamespace) bool { return len(n.Rows) > 0 || n.Dropped > 0 })
	word := "this is what would go; marfsctl gc --apply destroys it"
	switch {
	case empty && !failed && !r.o.apply:
		word = "nothing would go"
	case empty && !failed && !r.result.Capped:
		word = "nothing had to go"
	case r.o.apply && r.result.Capped:
		word = "ended by a cap; run again for the rest"
	case r.o.apply && failed:
		word = "not all of it was destroyed"
	case r.o.apply:
		word = "destroyed"
	}
	_, err := fmt.Fprintln(r.out, word)
	return err
}
