package main

import (
	"cmp"
	"context"
	"fmt"
	"iter"

	"github.com/spf13/cobra"

	"marfs/internal/control"
	"marfs/pkg/namespace"
)

func (a *app) trashCmd() *cobra.Command {
	cmd := group("trash", "List, restore and purge what was removed", `trash shows and handles what was removed from namespaces, or replaced in them:
files, directories, symbolic links, and earlier contents of files.

Everybody has the trash of what belonged to them, whoever removed it; root has
all of it. It stays for trash.keep, a time that the configuration sets.`)
	cmd.AddCommand(a.trashListCmd(), a.trashRestoreCmd(), a.trashPurgeCmd(), a.trashCatCmd(), a.trashUsageCmd())
	return cmd
}

func (a *app) trashListCmd() *cobra.Command {
	var s selection
	var through, long bool
	cmd := &cobra.Command{
		Use:   "list [PATH]",
		Short: "List what was removed at and below a path",
		Long: `list shows what was removed at PATH and everything below it, the oldest days
first. Without PATH it is the current directory, or where that is outside the
mount, everything.`,
		Example: `  marfsctl trash list /campaign/projecta --newer 2d
  marfsctl trash list --match '*.h5' --larger 1GiB --versions
  marfsctl --json trash list | jq '.entries[] | select(.by != .uid)'`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitStart, exitInterrupted),
		Args:        cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTrash(cmd.Context(), through, func(r *reached) error { return a.trashList(cmd.Context(), r, &s, args, long) })
		},
	}
	s.filterFlags(cmd)
	s.versionsFlag(cmd)
	s.purgedFlag(cmd)
	cmd.Flags().BoolVarP(&long, "long", "l", false, "show the id of each entry too")
	throughFlag(cmd, &through)
	return cmd
}

func (a *app) trashList(ctx context.Context, r *reached, s *selection, paths []string, long bool) error {
	if len(paths) == 0 {
		paths = []string{"."}
		if _, err := r.cfg.Inside("."); err != nil {
			paths, s.all = nil, true
		}
	}
	queries, err := s.queries(r.cfg, paths)
	if err != nil {
		return err
	}
	table := &rows{w: a.out, cfg: r.cfg, long: long, purged: s.purged, names: names{}}
	sum, err := a.tell(r, each(ctx, queries, r.List), "list", table.entry)
	if err != nil || a.json {
		return err
	}
	if sum.Count == 0 {
		_, err = fmt.Fprintln(a.err, "nothing is in trash there")
		return err
	}
	_, err = fmt.Fprintf(a.out, "%s, %s\n", entriesText(sum.Count), bytesText(sum.Bytes))
	return err
}

// each runs the queries one after the other.
func each(ctx context.Context, queries []namespace.TrashQuery, ask func(context.Context, namespace.TrashQuery) iter.Seq2[control.Entry, error]) iter.Seq2[control.Entry, error] {
	return func(yield func(control.Entry, error) bool) {
		for _, q := range queries {
			for e, err := range ask(ctx, q) {
				if !yield(e, err) {
					return
				}
			}
		}
	}
}

// trashSum ends the JSON of verbs on entries.
type trashSum struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
}

// tell prints entries as they come: in JSON, or by show. Failures are its error.
func (a *app) tell(r *reached, entries iter.Seq2[control.Entry, error], verb string, show func(*control.Entry)) (sum trashSum, err error) {
	var failed failures
	doc := &jsonStream{w: a.out}
	for e, err := range entries {
		if err != nil {
			failed.Add(failure{what: "trash " + verb, where: shown(cmp.Or(seen(r.cfg, e.Path), e.ID, r.cfg.Mount)), err: err, hint: hintOf(err)})
			continue
		}
		sum.Count++
		sum.Bytes += e.Size
		if !a.json {
			show(&e)
		} else if err := doc.add("entries", jsonEntry(r.cfg, &e)); err != nil {
			return sum, err
		}
	}
	if a.json {
		if err := doc.end("entries", sum); err != nil {
			return sum, err
		}
	}
	return sum, failed.of("trash " + verb)
}

func (a *app) trashPurgeCmd() *cobra.Command {
	var s selection
	var through, dry bool
	cmd := &cobra.Command{
		Use:   "purge PATH... | --id ID... | --all",
		Short: "Let go of what was removed, before its time",
		Long: `purge lets go of what was removed at each PATH and everything below it, or of
single entries. marfsctl gc destroys it once trash.grace has passed since it was
removed; until then trash list and trash restore have it with --purged.`,
		Example: `  marfsctl trash purge /campaign/projecta/scratch --older 7d
  marfsctl trash purge --all --versions --dry-run`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitStart, exitInterrupted),
		PreRunE: func(_ *cobra.Command, args []string) error {
			return s.one(args, "one of PATH..., --id ID..., --all")
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTrash(cmd.Context(), through, func(r *reached) error { return a.trashPurge(cmd.Context(), r, &s, args, dry) })
		},
	}
	s.filterFlags(cmd)
	s.idFlag(cmd)
	s.versionsFlag(cmd)
	cmd.Flags().BoolVar(&s.all, "all", false, "everything that is yours; as root, of everybody")
	cmd.Flags().BoolVarP(&dry, "dry-run", "n", false, "only say what it would be")
	throughFlag(cmd, &through)
	return cmd
}

func (a *app) trashPurge(ctx context.Context, r *reached, s *selection, paths []string, dry bool) error {
	queries, err := s.queries(r.cfg, paths)
	if err != nil {
		return err
	}
	ask, word := r.Purge, "purged"
	if dry {
		ask, word = r.List, "would purge"
	}
	sum, err := a.tell(r, each(ctx, queries, ask), "purge", func(e *control.Entry) {
		fmt.Fprintf(a.out, "%s %s\n", word, shown(seen(r.cfg, e.Path)))
	})
	if a.json || sum.Count == 0 && err != nil {
		return err
	}
	after := ""
	if sum.Count > 0 && !dry {
		after = "; marfsctl gc frees it once trash.grace has passed since it was removed"
	}
	fmt.Fprintf(a.out, "%s %s, %s%s\n", word, entriesText(sum.Count), bytesText(sum.Bytes), after)
	return err
}

func (a *app) trashCatCmd() *cobra.Command {
	var through bool
	cmd := &cobra.Command{
		Use:   "cat ID",
		Short: "Print what a removed file or an earlier content holds",
		Long: `cat writes the content of an entry to stdout, without restoring it. The ids are
those of trash list --long; earlier contents of a file are also to be had with
marfsctl versions PATH --cat VERSION.`,
		Example: `  marfsctl trash cat projecta/2026-11-25/3f01… > saved
  marfsctl trash list --long --match notes.txt`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitStart, exitInterrupted),
		Args:        cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTrash(cmd.Context(), through, func(r *reached) error { return a.trashCat(cmd.Context(), r, args[0]) })
		},
	}
	throughFlag(cmd, &through)
	return cmd
}

func (a *app) trashCat(ctx context.Context, r *reached, id string) error {
	if err := r.Read(ctx, id, a.out); err != nil {
		return failure{what: "trash cat", where: shown(id), err: err, hint: hintOf(err)}
	}
	return nil
}
