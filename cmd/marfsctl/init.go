package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"marfs/pkg/config"
)

func (a *app) initCmd() *cobra.Command {
	var replace []string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make metadata directories, stores and buckets",
		Long: `init makes what the configuration describes and is not there yet: metadata
directories, store directories, buckets, and in each store the identity that
says which shard of which pod it holds. It may be run again at any time, for
example after adding a pod or a namespace: what is there is left alone.

A store that is missing or empty while others of its pod are there is not
mounted, or lost: init makes nothing in that repo until the store is back, or
--replace says that an empty one is to take its place. The same holds for the
metadata directory of a namespace that has objects.

It refuses to adopt what belongs to another repo or namespace or holds anything,
and needs every store to be reachable.`,
		Example: `  marfsctl init
  marfsctl init --replace /srv/marfs/pod0/s3   # a new disk is mounted there`,
		Annotations: exits(exitDone, exitUsage, exitStart, exitInterrupted),
		Args:        cobra.NoArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.init(cmd.Context(), replace) },
	}
	cmd.Flags().StringArrayVar(&replace, "replace", nil, "make `STORE` (or a metadata directory) anew: it is lost, not unmounted; repeatable")
	return cmd
}

// initResult is the JSON of init.
type initResult struct {
	Items []initItem `json:"items"`
}

type initItem struct {
	Kind  string `json:"kind"` // store, metadata
	Where string `json:"where"`
	Is    string `json:"is"` // what it is now: "repo r, pod p, index 0", "namespace n"
	Made  bool   `json:"made"`
}

func (a *app) init(ctx context.Context, replace []string) error {
	cfg, err := a.loadWarned()
	if err != nil {
		return err
	}
	made, initErr := config.Init(ctx, cfg, replace...)
	switch {
	case errors.Is(initErr, config.ErrNoPlace):
		return usageError{fmt.Errorf("--replace %w", initErr)}
	case initErr != nil:
		initErr = startError{initErr}
	}
	result := initResult{Items: []initItem{}}
	for _, m := range made {
		result.Items = append(result.Items, initItem{m.Kind, m.Where, m.Is, m.New})
	}
	if a.json {
		if err := a.print(result); err != nil {
			return err
		}
		return initErr
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, it := range result.Items {
		word := "there"
		if it.Made {
			word = "made"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", word, it.Kind, it.Where, it.Is)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return initErr
}
