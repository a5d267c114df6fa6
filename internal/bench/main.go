// Command bench measures this machine: each figure is a ratio of our code and its
// limit or peer, taken in one run, in turns, as the median of several rounds.
// Absolute figures of a shared machine mean little; ratios travel.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// options of a run.
type options struct {
	bin     string
	dir     string
	rounds  int
	size    int64
	files   int
	entries int
	small   int
	only    string
}

// row is one measured pair.
type row struct {
	name, unit   string
	ours, theirs []float64 // of each round; higher is better
	aim          float64
	note         string
}

// add notes one round.
func (r *row) add(ours, theirs float64) {
	r.ours, r.theirs = append(r.ours, ours), append(r.theirs, theirs)
}

func (r row) ratio() float64 {
	q := make([]float64, len(r.ours))
	for i := range q {
		q[i] = r.ours[i] / r.theirs[i]
	}
	return median(q)
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of marfs-fuse and marfsctl")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "where to work: about six times -size")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each pair")
	flag.Int64Var(&o.size, "size", 2<<30, "bytes of the large file")
	flag.IntVar(&o.files, "files", 3000, "small files of the metadata rates")
	flag.IntVar(&o.entries, "entries", 1_000_000, "entries of the largest trash")
	flag.IntVar(&o.small, "small", 20_000, "files of each tree of small files")
	flag.StringVar(&o.only, "only", "", "one of encode, stream, metadata, small, gc, trash, memory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

// run prints a table of every measurement asked for.
func run(ctx context.Context, o options) error {
	parts := []struct {
		name string
		fn   func(context.Context, options) error
	}{{"encode", encode}, {"stream", stream}, {"metadata", metadata}, {"small", small}, {"gc", gcRate}, {"trash", bigTrash}, {"memory", memory}}
	fmt.Printf("%-34s %12s %12s %-8s %6s %6s\n", "what", "ours", "peer", "unit", "ratio", "aim")
	for _, p := range parts {
		if o.only != "" && o.only != p.name {
			continue
		}
		if err := p.fn(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

func (r row) print() {
	aim := "-"
	if r.aim > 0 {
		aim = fmt.Sprintf("%.2f", r.aim)
	}
	fmt.Printf("%-34s %12.1f %12.1f %-8s %6.2f %6s  %s\n",
		r.name, median(r.ours), median(r.theirs), r.unit, r.ratio(), aim, r.note)
}
