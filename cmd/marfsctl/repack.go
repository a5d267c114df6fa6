package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"marfs/pkg/config"
	"marfs/pkg/packer"
)

// repackOptions are the flags of repack.
type repackOptions struct {
	namespaces []string
	apply      bool
	list       bool
	below      float64
}

func (a *app) repackCmd() *cobra.Command {
	var o repackOptions
	cmd := &cobra.Command{
		Use:   "repack",
		Short: "Rewrite packs of which much is dead",
		Long: `repack writes what lives of packs with many dead bytes into new packs, and
leaves the old ones to marfsctl gc. A pack is rewritten when less of it lives
than repack.below_live of its namespace says. What gc has destroyed is dead:
what is in trash, and earlier contents, live.

Without --apply it only shows what it would do, and changes nothing. It looks at
each pack again before it acts, may be killed and run again, and may run on
several hosts at once. Only root or the daemon's user can run it.`,
		Example: `  marfsctl repack --list                       # each pack that would be rewritten
  marfsctl repack --namespace projecta --below 0.8 --apply`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitStart, exitInterrupted),
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd.Flags().Changed("below")); err != nil {
				return err
			}
			return a.repack(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	namespaceFlag(cmd, &o.namespaces)
	f.BoolVar(&o.apply, "apply", false, "rewrite, instead of showing what would be")
	f.BoolVar(&o.list, "list", false, "show every pack")
	f.Float64Var(&o.below, "below", 0, "rewrite packs of which less than this `SHARE` lives, instead of repack.below_live")
	return cmd
}

// check refuses what makes no sense. The flag below is 0 when it is not given.
func (o *repackOptions) check(below bool) error {
	switch {
	case below && !(o.below > 0 && o.below <= 1):
		return usageError{errors.New("--below must be above 0 and at most 1")}
	case o.apply && o.list:
		return usageError{errors.New("--list shows what would be rewritten, not what --apply does")}
	}
	return nil
}

// repackResult is the JSON of repack.
type repackResult struct {
	Applied    bool              `json:"applied"`
	Namespaces []repackNamespace `json:"namespaces"`
}

type repackNamespace struct {
	Name    string       `json:"name"`
	Below   float64      `json:"below"` // packs of which less lives; 0: none
	Packs   int64        `json:"packs"` // to be rewritten
	Members int64        `json:"members"`
	Live    int64        `json:"live"`          // of the members
	Bytes   int64        `json:"bytes"`         // of all members
	Alive   int64        `json:"alive"`         // of the live ones
	Dead    int64        `json:"dead"`          // bytes of the others
	Pinned  int64        `json:"pinned"`        // bytes that stay in the old packs until gc has destroyed earlier contents
	List    []repackPack `json:"list,omitzero"` // nil: not asked for
	Done    *repacked    `json:"done,omitempty"`
}

type repackPack struct {
	Object  string `json:"object"`
	Members int    `json:"members"`
	Live    int    `json:"live"`
	Bytes   int64  `json:"bytes"`
	Alive   int64  `json:"alive"`
	Dead    int64  `json:"dead"`
	Pinned  int64  `json:"pinned"`
}

// repacked is what --apply did.
type repacked struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
	Packs int64 `json:"packs"` // made
	Lost  int64 `json:"lost"`  // changed meanwhile, or could not be read
}

func (n *repackNamespace) add(c packer.Candidate, list bool) {
	n.Packs++
	n.Members += int64(c.Members)
	n.Live += int64(c.Live)
	n.Bytes += c.Bytes
	n.Alive += c.Alive
	dead := c.Bytes - c.Alive - c.Pinned
	n.Dead += dead
	n.Pinned += c.Pinned
	if list {
		n.List = append(n.List, repackPack{c.Object.String(), c.Members, c.Live, c.Bytes, c.Alive, dead, c.Pinned})
	}
}

func (a *app) repack(ctx context.Context, o repackOptions) (err error) {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	if o.below > 0 {
		for i := range cfg.Namespaces {
			cfg.Namespaces[i].Repack.BelowLive = o.below
		}
	}
	sys, err := a.openRepack(ctx, cfg, o.apply)
	if err != nil {
		return ownersOnly(err, "repack is for root and the user whose the metadata directories are")
	}
	defer func() { err = errors.Join(err, sys.Close()) }()
	spaces, err := named(sys, o.namespaces)
	if err != nil {
		return err
	}
	result := repackResult{Applied: o.apply, Namespaces: []repackNamespace{}}
	var failures []error
	for _, n := range spaces {
		done, err := a.repackNamespace(ctx, n, o)
		result.Namespaces = append(result.Namespaces, done)
		failures = append(failures, failureOf("repack", n.Name, err))
		if ctx.Err() != nil {
			failures = append(failures, errors.New("repack was ended before its end"))
			break
		}
	}
	return errors.Join(errors.Join(failures...), a.showRepack(result, o))
}

// openRepack opens no more than it needs: a plan works while stores are away, and
// writes nothing.
func (a *app) openRepack(ctx context.Context, cfg *config.Config, apply bool) (*config.System, error) {
	if apply {
		return a.openOwned(ctx, cfg)
	}
	sys, err := config.OpenMetadata(ctx, cfg, cfg.Log.Logger(a.err))
	if err != nil {
		return nil, startError{err}
	}
	return sys, nil
}

func (a *app) repackNamespace(ctx context.Context, space config.Opened, o repackOptions) (repackNamespace, error) {
	n := repackNamespace{Name: space.Name, Below: space.Repack.BelowLive}
	list, err := space.Packer.Plan(ctx)
	if err != nil {
		return n, err
	}
	if o.list {
		n.List = []repackPack{}
	}
	for _, c := range list {
		n.add(c, o.list)
	}
	if !o.apply || len(list) == 0 {
		return n, nil
	}
	p := a.progress("repack of "+n.Name, "files")
	defer p.end()
	r, err := space.Packer.Repack(ctx, list, func(r packer.Result) {
		p.set(tally{items: r.Files + r.Lost, total: max(n.Live, r.Files+r.Lost), bytes: r.Bytes})
	})
	n.Done = &repacked{r.Files, r.Bytes, r.Packs, r.Lost}
	return n, err
}

func (a *app) showRepack(r repackResult, o repackOptions) error {
	if a.json {
		return a.print(r)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	if o.list {
		fmt.Fprintln(w, "NAMESPACE\tPACK\tMEMBERS\tLIVE\tBYTES\tALIVE\tDEAD\tPINNED")
		for _, n := range r.Namespaces {
			for _, p := range n.List {
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\n", n.Name, p.Object, p.Members, p.Live, bytesText(p.Bytes), share(p.Alive, p.Bytes), bytesText(p.Dead), bytesText(p.Pinned))
			}
		}
		fmt.Fprintln(w)
	}
	var packs, lost int64
	fmt.Fprintln(w, "NAMESPACE\tBELOW\tPACKS\tMEMBERS\tLIVE\tBYTES\tALIVE\tDEAD\tPINNED")
	for _, n := range r.Namespaces {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", n.Name, belowText(n.Below), n.Packs, n.Members, n.Live, bytesText(n.Bytes), share(n.Alive, n.Bytes), bytesText(n.Dead), bytesText(n.Pinned))
		packs += n.Packs
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range r.Namespaces {
		if n.Done != nil {
			fmt.Fprintf(a.out, "%s: written anew: %s, %s, in %s; lost: %d\n", n.Name, count(n.Done.Files, "file"), bytesText(n.Done.Bytes), count(n.Done.Packs, "pack"), n.Done.Lost)
			lost += n.Done.Lost
		}
	}
	return a.repackWord(o.apply, packs, lost)
}

// repackWord says what the table is.
func (a *app) repackWord(applied bool, packs, lost int64) error {
	word := "this is what would be rewritten; marfsctl repack --apply does it"
	switch {
	case packs == 0:
		word = "no pack is to be rewritten"
	case applied:
		word = "the old packs go with marfsctl gc, once trash.keep has passed"
	}
	if lost > 0 {
		word = lostMeans + "\n" + word
	}
	_, err := fmt.Fprintln(a.out, word)
	return err
}

func belowText(share float64) string {
	if share == 0 {
		return "never"
	}
	return fmt.Sprintf("%.0f%%", 100*share)
}

// share is n of total for people.
func share(n, total int64) string {
	if total == 0 {
		return "-"
	}
	return fmt.Sprintf("%s (%.0f%%)", bytesText(n), 100*float64(n)/float64(total))
}
