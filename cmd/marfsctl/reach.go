package main

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"marfs/internal/control"
	"marfs/pkg/config"
)

// reached is the trash within reach: of a mount, or of the metadata directories.
type reached struct {
	control.Client
	cfg   *config.Config
	close func() error
}

// throughFlag is the flag of verbs that can go either way.
func throughFlag(cmd *cobra.Command, through *bool) {
	cmd.Flags().BoolVar(through, "through-mount", false, "ask the daemon of the mount, also as a user who could do without")
}

// reach finds the way to the trash: root and the user whose the metadata directories
// are go there themselves; others ask the daemon that serves the mount.
func (a *app) reach(ctx context.Context, through bool) (*reached, error) {
	cfg, err := a.load()
	if err != nil {
		return nil, err
	}
	if through || !direct(cfg, os.Geteuid()) {
		c := control.Mounted(cfg.Mount)
		dial := c.Dial
		c.Dial = func(ctx context.Context) (control.Conn, error) {
			conn, err := dial(ctx)
			if err != nil {
				return nil, startError{err}
			}
			return conn, nil
		}
		return &reached{c, cfg, func() error { return nil }}, nil
	}
	caller, err := self()
	if err != nil {
		return nil, startError{err}
	}
	sys, err := a.open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := sys.RecoverRestores(ctx); err != nil {
		return nil, errors.Join(startError{err}, sys.Close())
	}
	server := control.NewServer(sys.FS, control.Options{})
	return &reached{control.Local(server, caller), cfg, func() error { server.Close(); return sys.Close() }}, nil
}

// direct reports whether the user can work in the metadata directories.
func direct(cfg *config.Config, uid int) bool {
	if uid == 0 {
		return true
	}
	for _, n := range cfg.Namespaces {
		var st syscall.Stat_t
		if err := syscall.Stat(n.Metadata[0], &st); err != nil || int(st.Uid) != uid {
			return false
		}
	}
	return true
}

// with runs fn on the trash within reach.
func (a *app) withTrash(ctx context.Context, through bool, fn func(*reached) error) (err error) {
	r, err := a.reach(ctx, through)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	return fn(r)
}
