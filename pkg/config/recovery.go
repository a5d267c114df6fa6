package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/trash"
)

const (
	// heartbeat is how often a process shows other nodes that it lives.
	heartbeat = 10 * time.Second
	// deadAfter is how long a node's heartbeat may stand still before what it
	// left is recovered. It decides when to try; recovery is safe at any time.
	deadAfter = 6 * heartbeat
	// sweepEvery is how often what recovery has put aside is looked at again.
	sweepEvery = time.Hour
)

// recovery finishes or abandons what dead processes have left in a namespace:
// those of this host at once, others when their heartbeats have stopped.
type recovery struct {
	namespace string
	meta      *metadata.FS
	log       *slog.Logger
	watch     *metadata.Watch
	due       time.Time // when to recover though nobody has died
	swept     time.Time
}

// startRecovery watches every namespace until the System closes.
func (s *System) startRecovery(log *slog.Logger) {
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	for _, n := range s.Namespaces {
		r := &recovery{namespace: n.Name, meta: n.Meta, log: log.With("namespace", n.Name), watch: metadata.NewWatch(deadAfter), swept: time.Now()}
		done.Go(func() { r.run(ctx) })
	}
	done.Go(func() { s.cleanStores(ctx, log) })
	s.stopRecovery = func() { stop(); done.Wait() }
}

// abandonedAfter is how old what a writer began in a store must be before it is
// taken for a crashed one's. It is safe by construction: package namespace ends
// every object within 12 hours, however slowly its file is written.
const abandonedAfter = 48 * time.Hour

// cleanStores removes what crashed writers left in the stores, now and every
// sweepEvery.
func (s *System) cleanStores(ctx context.Context, log *slog.Logger) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		for _, st := range s.stores {
			if c, ok := st.Store.(objstore.Cleaner); ok {
				clean(ctx, c, log.With("store", st.Name))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func clean(ctx context.Context, c objstore.Cleaner, log *slog.Logger) {
	n, err := c.Clean(ctx, abandonedAfter)
	if n > 0 {
		log.Info("unfinished objects of crashed writers removed", "objects", n)
	}
	if err != nil && ctx.Err() == nil {
		log.Warn("unfinished objects of crashed writers are not removed", "error", err)
	}
}

func (r *recovery) run(ctx context.Context) {
	t := time.NewTicker(heartbeat)
	defer t.Stop()
	for {
		if err := r.pass(ctx, time.Now()); err != nil && ctx.Err() == nil {
			r.log.Warn("recovery of unfinished writes is incomplete; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// pass looks at the heartbeats, and recovers when one has stopped. It also does so
// at the start, some time after an error, since the records of a dead node may
// outlive the heartbeat that led here, and every sweepEvery: a session of this
// process leaves its record when the file was deleted while it was written.
func (r *recovery) pass(ctx context.Context, now time.Time) error {
	nodes, alive, err := r.look(ctx, now)
	if err != nil {
		return err
	}
	if !now.Before(r.due) || slices.ContainsFunc(nodes, func(n metadata.Node) bool { return !alive(n) }) {
		err = r.meta.Recover(ctx, alive)
		if r.due = now.Add(sweepEvery); err != nil {
			r.due = now.Add(deadAfter)
		}
	}
	if now.Sub(r.swept) >= sweepEvery {
		r.swept = now
		err = errors.Join(err, r.sweep(ctx, now))
	}
	return err
}

// look reads the heartbeats and tells who lives, as far as is known by now.
func (r *recovery) look(ctx context.Context, now time.Time) ([]metadata.Node, metadata.Alive, error) {
	nodes, err := r.meta.Nodes(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read heartbeats: %w", err)
	}
	r.watch.Look(nodes, now)
	lives := r.watch.Alive(now)
	return nodes, func(n metadata.Node) bool { return lives(n) && !gone(n.Name) }, nil
}

// sweep ends what has been put aside for longer than the grace time. What it
// destroys of that a gc had begun with, and was killed; it is written down as gc does.
func (r *recovery) sweep(ctx context.Context, now time.Time) error {
	audit, done, err := trash.NewAudit(ctx, r.meta, now)
	if err != nil {
		return err
	}
	t := &trash.Trash{Namespace: r.namespace, Meta: r.meta}
	err = r.meta.Sweep(ctx, now, func(list []metadata.Doom) error {
		return audit.Doomed(ctx, t, list, func(time.Time) trash.Why { return trash.WhyAbandoned })
	})
	name, e := done()
	if name != "" {
		r.log.Info("destroyed what a gc that was killed had begun with", "log", "log/"+name)
	}
	return errors.Join(err, e)
}

// RecoverRestores gives back what processes of this host were restoring from the
// trash when they died, so that it can be restored at once; recovery does the rest.
func (s *System) RecoverRestores(ctx context.Context) error {
	var errs []error
	for _, n := range s.Namespaces {
		errs = append(errs, n.Meta.RecoverRestores(ctx, func(n metadata.Node) bool { return !gone(n.Name) }))
	}
	return errors.Join(errs...)
}

// nodeName names this process among all that work on a namespace at once:
// <host>.<front end>.<pid>.<where the pid means something>.<random>.
func nodeName(front FrontEnd) (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("host name: %w", err)
	}
	where, err := pidSpace()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s.%s.%d.%s.%.8s", host, front, os.Getpid(), where, objfmt.NewID()), nil
}

// pidSpace identifies the kernel's boot and the process namespace: containers
// may share a host name, and pids come again after a boot.
func pidSpace() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return "", fmt.Errorf("process namespace: %w", err)
	}
	return fmt.Sprintf("%016x", objfmt.Checksum(append(boot, space...))), nil
}

// gone reports whether a node was a process of this host that is no more.
func gone(node string) bool {
	pid, here := pidHere(node)
	return here && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// pidHere is the process that a node is or was, if it is one of this host.
func pidHere(node string) (pid int, here bool) {
	parts := strings.Split(node, ".")
	if len(parts) < 5 {
		return 0, false
	}
	text, where := parts[len(parts)-3], parts[len(parts)-2]
	if mine, err := pidSpace(); err != nil || where != mine {
		return 0, false
	}
	pid, err := strconv.Atoi(text)
	return pid, err == nil && pid > 0
}
