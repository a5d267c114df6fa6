package main

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"marfs/internal/control"
	"marfs/pkg/config"
	"marfs/pkg/namespace"
	"marfs/pkg/trash"
)

// selection is which entries of the trash a verb is about.
type selection struct {
	ids                           []string
	all                           bool
	match, owner, by              string
	older, newer, larger, smaller string
	versions, purged              bool
}

// filterFlags are those that narrow what paths select.
func (s *selection) filterFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.match, "match", "", "only what matches `GLOB`; one without a slash is for the last name")
	f.StringVar(&s.older, "older", "", "only what was removed at least `AGE` ago, as 12h or 30d")
	f.StringVar(&s.newer, "newer", "", "only what was removed in the last `AGE`")
	f.StringVar(&s.larger, "larger", "", "only what has at least `SIZE`, as 10MiB")
	f.StringVar(&s.smaller, "smaller", "", "only what has at most `SIZE`")
	f.StringVar(&s.owner, "owner", "", "only what belonged to `USER`, a name or number")
	f.StringVar(&s.by, "by", "", "only what `USER` removed")
}

func (s *selection) idFlag(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&s.ids, "id", nil, "the entry with this `ID`, which trash list --long shows; repeatable")
}

func (s *selection) versionsFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.versions, "versions", false, "also earlier contents of files")
}

func (s *selection) purgedFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.purged, "purged", false, "also what was purged and is not destroyed yet")
}

// filter reads the flags. Ages count from now.
func (s *selection) filter(now time.Time) (trash.Filter, error) {
	f := trash.Filter{Match: s.match, Versions: s.versions, Purged: s.purged}
	err := errors.Join(
		flag("older", s.older, config.ParseDuration, func(d config.Duration) { f.Until = now.Add(-d.Std()) }),
		flag("newer", s.newer, config.ParseDuration, func(d config.Duration) { f.Since = now.Add(-d.Std()) }),
		flag("larger", s.larger, config.ParseSize, func(n config.Size) { f.MinSize = int64(n) }),
		flag("smaller", s.smaller, atLeastOne, func(n config.Size) { f.MaxSize = int64(n) }),
		flag("owner", s.owner, uidOf, func(id uint32) { f.Owner = &id }),
		flag("by", s.by, uidOf, func(id uint32) { f.By = &id }),
	)
	if wrong := f.Check(); wrong != nil {
		err = errors.Join(err, fmt.Errorf("--match: %w", wrong))
	}
	if err != nil {
		return f, usageError{err}
	}
	return f, nil
}

func flag[T any](name, text string, parse func(string) (T, error), set func(T)) error {
	if text == "" {
		return nil
	}
	v, err := parse(text)
	if err != nil {
		return fmt.Errorf("--%s %q: %w", name, text, err)
	}
	set(v)
	return nil
}

func atLeastOne(s string) (config.Size, error) {
	n, err := config.ParseSize(s)
	if err == nil && n == 0 {
		err = errors.New("must be more than 0B")
	}
	return n, err
}

// uidOf takes a number for what it is, and else a name.
func uidOf(s string) (uint32, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	if err == nil {
		return uint32(id), nil
	}
	u, err := user.Lookup(s)
	if err != nil {
		return 0, err
	}
	id, err = strconv.ParseUint(u.Uid, 10, 32)
	return uint32(id), err
}

// queries makes the requests for paths and ids: one for each path, and one for as
// many ids as fit.
func (s *selection) queries(cfg *config.Config, paths []string) (all []namespace.TrashQuery, err error) {
	f, err := s.filter(time.Now())
	if err != nil {
		return nil, err
	}
	if s.all {
		all = append(all, namespace.TrashQuery{Path: "/", Filter: f})
	}
	for _, p := range paths {
		below, err := cfg.Inside(p)
		if err != nil {
			return nil, usageError{failure{what: "path", where: p, err: err}}
		}
		all = append(all, namespace.TrashQuery{Path: below, Filter: f})
	}
	for ids := range slices.Chunk(s.ids, control.MaxIDs) {
		all = append(all, namespace.TrashQuery{IDs: ids, Filter: f})
	}
	return all, nil
}

// one checks that a verb was told what it is about, and in one way.
func (s *selection) one(paths []string, ways string) error {
	n := 0
	for _, given := range []bool{len(paths) > 0, len(s.ids) > 0, s.all} {
		if given {
			n++
		}
	}
	if n != 1 {
		return usageError{errors.New("want " + ways)}
	}
	return nil
}
