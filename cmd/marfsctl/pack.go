package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"marfs/internal/advice"
	"marfs/pkg/config"
	"marfs/pkg/packer"
)

// packOptions are the flags of pack.
type packOptions struct {
	namespaces []string
	all        bool
	release    bool
}

func (a *app) packCmd() *cobra.Command {
	var o packOptions
	cmd := &cobra.Command{
		Use:   "pack",
		Short: "Pack the small files that are staged",
		Long: `pack makes large objects of the small files that are staged in metadata
filesystems, as every mount does in the background, without waiting until there
are many. It packs what has rested for stage.linger, whoever has written it,
unless a mount is packing it at the moment.

It may be killed and run again, and may run on several hosts at once. Only root
or the daemon's user can run it.`,
		Example: `  marfsctl pack                                # before maintenance of the metadata filesystem
  marfsctl pack --namespace projecta --all --release`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitStart, exitInterrupted),
		Args:        cobra.NoArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.pack(cmd.Context(), o) },
	}
	f := cmd.Flags()
	namespaceFlag(cmd, &o.namespaces)
	f.BoolVar(&o.all, "all", false, "also what has not rested yet, and what mounts are packing at the moment")
	f.BoolVar(&o.release, "release", false, "then free the bytes of all that is packed in the metadata filesystem")
	return cmd
}

// namespaceFlag is the flag of verbs that work on whole namespaces.
func namespaceFlag(cmd *cobra.Command, names *[]string) {
	cmd.Flags().StringArrayVarP(names, "namespace", "n", nil, "only this `NAMESPACE`; repeatable")
}

// named finds the namespaces of --namespace.
func named(sys *config.System, names []string) ([]config.Opened, error) {
	spaces, err := sys.Named(names...)
	if err != nil {
		return nil, usageError{fmt.Errorf("--namespace: %w", err)}
	}
	return spaces, nil
}

// packResult is the JSON of pack.
type packResult struct {
	Namespaces []packedNamespace `json:"namespaces"`
}

type packedNamespace struct {
	Name     string `json:"name"`
	Files    int64  `json:"files"`
	Bytes    int64  `json:"bytes"`
	Packs    int64  `json:"packs"`
	Lost     int64  `json:"lost"`     // changed while they were packed, or could not be read
	Released int64  `json:"released"` // bytes freed in the metadata filesystem
	Left     int64  `json:"left"`     // files still staged
}

func (a *app) pack(ctx context.Context, o packOptions) (err error) {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	sys, err := a.openOwned(ctx, cfg)
	if err != nil {
		return ownersOnly(err, "pack is for root and the user whose the metadata directories are; mounts pack by themselves")
	}
	defer func() { err = errors.Join(err, sys.Close()) }()
	spaces, err := named(sys, o.namespaces)
	if err != nil {
		return err
	}
	result := packResult{Namespaces: []packedNamespace{}}
	var failures []error
	for _, n := range spaces {
		done, err := a.packNamespace(ctx, n, o)
		result.Namespaces = append(result.Namespaces, done)
		failures = append(failures, failureOf("pack", n.Name, err))
		if ctx.Err() != nil {
			failures = append(failures, errors.New("pack was ended before its end"))
			break
		}
	}
	return errors.Join(errors.Join(failures...), a.showPacked(result, o.all))
}

// failureOf is what went wrong in a namespace; nil also for what an interrupt ended.
func failureOf(verb, namespace string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return failure{what: verb, where: "namespace " + namespace, err: err, hint: advice.Of(err, "")}
}

func (a *app) packNamespace(ctx context.Context, n config.Opened, o packOptions) (packedNamespace, error) {
	before, err := n.Packer.Backlog(ctx)
	if err != nil {
		return packedNamespace{Name: n.Name}, err
	}
	p := a.progress("pack of "+n.Name, "files")
	defer p.end()
	done := packedNamespace{Name: n.Name}
	for patience := claimTime; ; patience -= claimPause {
		had := done
		r, e := n.Packer.Pack(ctx, packer.PackOptions{All: o.all, Others: true, Release: o.release, Progress: func(r packer.Result) {
			files := had.Files + had.Lost + r.Files + r.Lost
			p.set(tally{items: files, total: max(before.Files, files), bytes: had.Bytes + r.Bytes})
		}})
		done.add(r)
		if err = e; err != nil || !o.all || r.Claimed == 0 || patience <= 0 {
			break
		}
		if r.Files > 0 {
			patience = claimTime
		}
		select { // mounts are at the rest: what they leave is packed here
		case <-ctx.Done():
		case <-time.After(claimPause):
		}
	}
	if ctx.Err() != nil {
		return done, errors.Join(err, ctx.Err())
	}
	after, e := n.Packer.Backlog(ctx)
	done.Left = after.Files
	return done, errors.Join(err, e)
}

// With --all, how long the packers of mounts are waited for when nothing moves, and how
// often it is looked.
const (
	claimTime  = 5 * time.Minute
	claimPause = 500 * time.Millisecond
)

func (n *packedNamespace) add(r packer.Result) {
	n.Files += r.Files
	n.Bytes += r.Bytes
	n.Packs += r.Packs
	n.Lost += r.Lost
	n.Released += r.Released
}

func (a *app) showPacked(r packResult, all bool) error {
	if a.json {
		return a.print(r)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tFILES\tBYTES\tPACKS\tLOST\tRELEASED\tLEFT")
	for _, n := range r.Namespaces {
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%s\t%d\n", n.Name, n.Files, bytesText(n.Bytes), n.Packs, n.Lost, bytesText(n.Released), n.Left)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if slices.ContainsFunc(r.Namespaces, func(n packedNamespace) bool { return n.Lost > 0 }) {
		fmt.Fprintln(a.out, lostMeans)
	}
	if slices.ContainsFunc(r.Namespaces, func(n packedNamespace) bool { return n.Left > 0 }) {
		fmt.Fprintln(a.out, leftMeans(all))
	}
	return nil
}

// leftMeans says which files are still staged.
func leftMeans(all bool) string {
	if all {
		return "left are files that are being written, were written meanwhile, or are told of as errors"
	}
	return "left are files that are being written, have not rested yet, that a mount is packing (--all takes both), or are told of as errors"
}

// lostMeans says what of packs is lost, and that it is no damage.
const lostMeans = "lost are files that changed while they were packed; they stay as they are, and the next time takes them"
