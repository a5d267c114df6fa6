package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"marfs/internal/fusefs"
	"marfs/pkg/config"
)

const (
	// busyWait is how long an unmount waits for programs to leave; then the mount
	// is taken out of the tree, and leaveWait is how long those may go on.
	busyWait  = 10 * time.Second
	leaveWait = 20 * time.Second
	busyPoll  = 100 * time.Millisecond
)

// errBusy is a mount that was ended under programs which used it.
var errBusy = errors.New("programs still had files open")

// serve is the daemon: it mounts, and returns when the mount has ended.
func (c *command) serve() (err error) {
	// Modes are the callers' business: their umask comes with each request.
	syscall.Umask(0)
	file, err := filepath.Abs(config.Path(c.configFile)) // it is read again from /
	if err != nil {
		return startError{err}
	}
	cfg, err := config.Load(file)
	if err != nil {
		return usageError{advised{err, "name the configuration with --config FILE or $MARFS_CONFIG"}}
	}
	if err := os.Chdir("/"); err != nil {
		return startError{err}
	}
	w, err := c.openLog()
	if err != nil {
		return usageError{err}
	}
	defer w.Close()
	log := limit(cfg.Log.Logger(w))
	for _, p := range cfg.Warnings {
		log.Warn(p.Error(), "hint", p.Hint)
	}
	if c.mount.Source == "" {
		c.mount.Source = cfg.File
	}
	err = c.mountAndWait(cfg, log, w.reopen)
	if _, seen := w.(terminal); err != nil && !seen { // there it is reported, too
		log.Error("ended", "err", err)
	}
	return err
}

func (c *command) mountAndWait(cfg *config.Config, log *slog.Logger, reopenLog func() error) (err error) {
	signals, hangups := make(chan os.Signal, 4), make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	signal.Notify(hangups, syscall.SIGHUP)
	ctx := context.Background()
	sys, err := open(ctx, cfg, log)
	if err != nil {
		return startError{err}
	}
	defer func() {
		if cerr := sys.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("closing: %w", cerr))
		}
	}()
	c.mount.Log = log
	srv, err := fusefs.Mount(ctx, c.mountPoint, sys.FS, c.mount)
	if err != nil {
		return startError{mountError(err)}
	}
	if err := errors.Join(tellParent(), notifySystemd("READY=1")); err != nil {
		log.Warn("cannot say that the mount is up", "err", err)
	}
	log.Info("mounted", "at", c.mountPoint, "config", cfg.File)
	err = untilEnd(srv, signals, hangups, log, func() {
		if err := reopenLog(); err != nil {
			log.Error("the log file cannot be opened again; the old one goes on", "err", err)
		}
		reload(sys, cfg.File, log)
	})
	log.Info("unmounted", "at", c.mountPoint)
	return err
}

// open starts what cfg describes, unless a signal says to end: stores that hang
// answer only after many seconds.
func open(ctx context.Context, cfg *config.Config, log *slog.Logger) (*config.System, error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	sys, err := config.Open(ctx, cfg, config.Interactive, log)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("told to end while starting: %w", context.Cause(ctx))
	}
	return sys, err
}

// mountError puts a failure of fusermount3, of which go-fuse gives the raw wait
// status and an empty line, in words. The program has said why on stderr.
func mountError(err error) error {
	if where, _, ok := strings.Cut(err.Error(), "fusermount exited with code "); ok {
		return errors.New(where + "fusermount3 failed, its own message says why")
	}
	return err
}

// reload reads the configuration again and applies what can change under a mount.
// One that has mistakes changes nothing.
func reload(sys *config.System, file string, log *slog.Logger) {
	cfg, err := config.Load(file)
	if err != nil {
		log.Error("the changed configuration is refused; the old one goes on", "err", err)
		return
	}
	later := sys.Reload(cfg)
	log.Info("configuration read again: permissions are as it says", "file", file)
	for _, have := range sys.Namespaces {
		if !slices.ContainsFunc(cfg.Namespaces, func(n config.Namespace) bool { return n.Name == have.Name }) {
			log.Warn("namespace is no longer in the configuration: until mounted again it stays, with the permissions it had", "namespace", have.Name)
		}
	}
	if len(later) > 0 {
		log.Warn("these changes take effect when mounted again", "keys", strings.Join(later, ","))
	}
}

// untilEnd serves until the mount is ended by umount(8) or a signal; until then,
// a hangup reloads.
func untilEnd(srv *fusefs.Server, signals, hangups <-chan os.Signal, log *slog.Logger, reload func()) error {
	for {
		select {
		case <-srv.Done():
			return nil
		case <-hangups:
			reload()
		case s := <-signals:
			log.Info("unmounting", "signal", s.String())
			if err := notifySystemd("STOPPING=1"); err != nil {
				log.Warn("cannot say that the mount is ending", "err", err)
			}
			return stop(srv, signals, log)
		}
	}
}

// stop unmounts: cleanly if programs leave in time or at all, else lazily.
// Another signal stops waiting.
func stop(srv *fusefs.Server, signals <-chan os.Signal, log *slog.Logger) error {
	deadline := time.After(busyWait)
	for waiting := true; waiting; {
		err := srv.Unmount()
		if err == nil || errors.Is(err, syscall.EINVAL) {
			break // done, or somebody else has taken it out of the tree
		}
		select {
		case <-srv.Done():
			return nil
		case <-time.After(busyPoll):
		case <-signals:
			waiting = false
		case <-deadline:
			waiting = false
		}
		if !waiting {
			log.Warn("still in use: taken out of the tree, served until its files are closed", "err", err)
			if err := srv.Detach(); err != nil {
				return fmt.Errorf("unmount: %w", err)
			}
		}
	}
	select {
	case <-srv.Done():
		return nil
	case <-signals:
	case <-time.After(leaveWait):
	}
	return errBusy
}
