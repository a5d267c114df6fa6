package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"syscall"

	"github.com/spf13/cobra"

	"marfs/internal/advice"
	"marfs/internal/control"
	"marfs/pkg/namespace"
)

// restoreOptions are the flags of trash restore.
type restoreOptions struct {
	selection
	to      string
	version string
	force   bool
	dry     bool
	through bool
}

func (a *app) trashRestoreCmd() *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore PATH... | --id ID...",
		Short: "Put back what was removed",
		Long: `restore puts back what was removed at each PATH and everything below it, with
owner, mode and times, or single entries. It never replaces anything: where a
name is taken, what comes gets a number, as in a.~1~, and it says so. With
--force, what is there now goes to trash instead.

With --version it makes an earlier content of the file at PATH its content; what
it has now becomes an earlier content in turn.

You need the rights to make these names where they go.`,
		Example: `  marfsctl trash restore /campaign/projecta/run1
  marfsctl trash restore --newer 1h /campaign/projecta    # what was removed in the last hour
  marfsctl trash restore --newer 1h --match '*.h5' --to /campaign/projecta/saved /campaign/projecta
  marfsctl trash restore --version 4c0f31 /campaign/projecta/notes.txt`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitStart, exitInterrupted),
		PreRunE:     func(_ *cobra.Command, args []string) error { return o.check(args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTrash(cmd.Context(), o.through, func(r *reached) error { return a.trashRestore(cmd.Context(), r, &o, args) })
		},
	}
	o.filterFlags(cmd)
	o.idFlag(cmd)
	o.purgedFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&o.to, "to", "", "put it into `DIR`, of the same namespace, instead of where it was")
	f.StringVar(&o.version, "version", "", "make the earlier content `VERSION` the content of PATH; the first digits will do")
	f.BoolVar(&o.force, "force", false, "move what is there now to trash, instead of taking another name")
	f.BoolVarP(&o.dry, "dry-run", "n", false, "only say what it would be")
	throughFlag(cmd, &o.through)
	return cmd
}

func (o *restoreOptions) check(paths []string) error {
	if o.version != "" && (len(paths) != 1 || o.to != "" || o.dry || o.force) {
		return usageError{errors.New("--version goes with one PATH, and without --to, --force and --dry-run")}
	}
	return o.one(paths, "one of PATH..., --id ID...")
}

func (a *app) trashRestore(ctx context.Context, r *reached, o *restoreOptions, paths []string) error {
	queries, err := o.queries(r.cfg, paths)
	if err != nil {
		return err
	}
	to := o.to
	if to != "" {
		if to, err = r.cfg.Inside(to); err != nil {
			return usageError{failure{what: "--to", where: o.to, err: err}}
		}
	}
	t := &telling{a: a, r: r, doc: jsonStream{w: a.out}, dry: o.dry, version: o.version != ""}
	for i, q := range queries {
		all := r.Restore(ctx, namespace.TrashRestoration{TrashQuery: q, To: to, Force: o.force, DryRun: o.dry})
		what := "--id"
		if q.IDs == nil {
			what = paths[i]
		}
		if o.version != "" {
			all = r.Revert(ctx, q.Path, o.version)
		}
		if err := t.all(what, all); err != nil {
			return err
		}
	}
	return t.end()
}

// restoredEntry is an entry in the JSON of trash restore.
type restoredEntry struct {
	trashEntry
	Where      string `json:"where"` // "": it stayed in trash
	WhereBytes string `json:"where_base64,omitempty"`
	Error      string `json:"error,omitempty"`
}

// telling prints what was restored as it comes.
type telling struct {
	a       *app
	r       *reached
	doc     jsonStream
	dry     bool
	version bool // of earlier contents
	sum     trashSum
	failed  failures
}

// all tells what became of the entries at a path.
func (t *telling) all(path string, entries iter.Seq2[control.Restored, error]) error {
	found := false
	for d, err := range entries {
		found = true
		if err != nil {
			hint := hintOf(err)
			if hint == "" && t.version {
				hint = "marfsctl versions " + shown(path) + " lists them"
			}
			t.failed.Add(failure{what: "trash restore", where: shown(path), err: err, hint: hint})
			continue
		}
		if err := t.one(&d); err != nil {
			return err
		}
	}
	if !found {
		t.failed.Add(failure{what: "trash restore", where: shown(path), err: errors.New("nothing of it is in trash"), hint: "marfsctl trash list shows what is; with --purged also what was let go"})
	}
	return nil
}

func (t *telling) one(d *control.Restored) error {
	from := seen(t.r.cfg, d.Path)
	out := restoredEntry{trashEntry: jsonEntry(t.r.cfg, &d.Entry)}
	if d.Err != nil {
		out.Error = d.Err.Error()
		t.failed.Add(failure{what: "trash restore", where: shown(from), err: d.Err, hint: hintOf(d.Err)})
	} else {
		t.sum.Count++
		t.sum.Bytes += d.Size
		out.Where = seen(t.r.cfg, d.Where)
		out.WhereBytes = lossless(out.Where)
	}
	switch {
	case t.a.json:
		return t.doc.add("entries", out)
	case d.Err == nil && out.Where != from:
		_, _ = fmt.Fprintf(t.a.out, "%s %s as %s\n", t.word(), shown(from), shown(out.Where))
	case d.Err == nil:
		_, _ = fmt.Fprintf(t.a.out, "%s %s\n", t.word(), shown(from))
	}
	return nil
}

func (t *telling) word() string {
	if t.dry {
		return "would restore"
	}
	return "restored"
}

func (t *telling) end() error {
	if t.a.json {
		if err := t.doc.end("entries", t.sum); err != nil {
			return err
		}
		return t.failed.of("trash restore")
	}
	if t.sum.Count > 1 || t.sum.Count == 1 && t.failed.Count > 0 {
		fmt.Fprintf(t.a.out, "%s %s, %s\n", t.word(), entriesText(t.sum.Count), bytesText(t.sum.Bytes))
	}
	return t.failed.of("trash restore")
}

// hintOf says what to do about a failure of the trash.
func hintOf(err error) string {
	for _, h := range []struct {
		err  error
		hint string
	}{
		{syscall.EACCES, "you need the right to make names in the directory where it goes; --to names another"},
		{syscall.EPERM, "it takes the owner of the file or root, and the namespace's permissions for this front end"},
		{syscall.EBUSY, "somebody is writing it: try again when it is closed"},
		{syscall.ESHUTDOWN, "the mount is ending: run it again when it is back"},
		{syscall.ETIMEDOUT, "nobody read the answer for a long time: run it again"},
	} {
		if errors.Is(err, h.err) {
			return advice.Of(err, h.hint)
		}
	}
	return advice.Of(err, "")
}
