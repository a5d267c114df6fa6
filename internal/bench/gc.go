package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"marfs/pkg/config"
	"marfs/pkg/namespace"
	"marfs/pkg/objstore"
	"marfs/pkg/objstore/dirstore"
)

const (
	gcWorkers = 16 // of marfsctl gc by default; each deletes the shards of an object at once
	gcFile    = 4 << 10
)

// gcRate compares gc, which takes each record, looks, logs and destroys, with a bare
// loop that deletes as many objects from the same stores, with as many calls at once.
func gcRate(ctx context.Context, o options) error {
	r := row{name: "gc of deleted files, 4+2", unit: "files/s", aim: 0.6, note: "peer: the stores' own Delete of as many shards, as many at once"}
	err := withFresh(ctx, o, func(disk string) error {
		for i := range o.rounds {
			v, w, err := gcRound(ctx, o, filepath.Join(disk, fmt.Sprint("round", i)))
			if err != nil {
				return err
			}
			r.add(v, w)
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.print()
	return nil
}

// gcRound makes files twice, deletes those of one half by gc and those of the other
// by the bare loop.
func gcRound(ctx context.Context, o options, base string) (ours, theirs float64, err error) {
	more := fmt.Sprintf(`    trash: {keep: 0s, grace: 0s}
  - {name: peer, path: /peer, metadata: %s/md-peer, repo: bench}
`, base)
	conf, err := configure(ctx, o.bin, base, more)
	if err != nil {
		return 0, 0, err
	}
	if err := populate(ctx, conf, o.files); err != nil {
		return 0, 0, err
	}
	syscall.Sync()
	theirs, err = deleteBare(ctx, base, 6*o.files)
	if err != nil {
		return 0, 0, err
	}
	syscall.Sync()
	took, _, err := ctl(ctx, o, conf, "gc", "--apply", "--namespace", "bench")
	if err != nil {
		return 0, 0, err
	}
	if left := treeSize(filepath.Join(base, "stores", "s0", "bench")); left > 0 {
		return 0, 0, fmt.Errorf("gc has left %d bytes", left)
	}
	return float64(o.files) / took.Seconds(), theirs, nil
}

// populate writes n files in each of the namespaces, and removes those of the first.
func populate(ctx context.Context, conf string, n int) error {
	cfg, err := config.Load(conf)
	if err != nil {
		return err
	}
	sys, err := config.Open(ctx, cfg, config.Batch, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer sys.Close()
	for _, space := range []string{"bench", "peer"} {
		d, _, err := sys.FS.Walk(ctx, namespace.Caller{}, space+"/x")
		if err != nil {
			return err
		}
		defer d.Close()
		var g errgroup.Group
		g.SetLimit(8)
		for i := range n {
			g.Go(func() error {
				name := fmt.Sprint("f", i)
				if err := put(ctx, d, name); err != nil || space == "peer" {
					return err
				}
				return d.Unlink(ctx, namespace.Caller{}, name)
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func put(ctx context.Context, d *namespace.Dir, name string) error {
	f, _, err := d.Create(ctx, namespace.Caller{}, name, syscall.O_WRONLY|syscall.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(ctx, namespace.Caller{}, noise[:gcFile], 0); err == nil {
		err = f.Flush(ctx)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// deleteBare deletes every shard of the namespace peer, and returns how many
// objects a second that is. There must be so many shards.
func deleteBare(ctx context.Context, base string, shards int) (float64, error) {
	type shard struct {
		store *dirstore.Store
		key   string
	}
	var all []shard
	for i := range 6 {
		s, err := dirstore.Open(filepath.Join(base, "stores", fmt.Sprint("s", i)), dirstore.Options{})
		if err != nil {
			return 0, err
		}
		defer s.Close()
		for info, err := range s.List(ctx, "peer/", "") {
			if err != nil {
				return 0, err
			}
			all = append(all, shard{s, info.Key})
		}
	}
	if len(all) != shards {
		return 0, fmt.Errorf("there are %d shards, want %d", len(all), shards)
	}
	slices.SortFunc(all, func(a, b shard) int { return strings.Compare(a.key, b.key) }) // all stores at once
	var g errgroup.Group
	g.SetLimit(6 * gcWorkers)
	start := time.Now()
	for _, s := range all {
		g.Go(func() error { return objstore.Store(s.store).Delete(ctx, s.key) })
	}
	err := g.Wait()
	return float64(shards) / 6 / time.Since(start).Seconds(), err
}
