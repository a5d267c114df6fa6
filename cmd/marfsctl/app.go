package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"marfs/internal/advice"
	"marfs/internal/version"
	"marfs/pkg/config"
)

// app is one run of the command: the global flags and where output goes.
// Results go to out, everything else to err.
type app struct {
	configFile string
	json       bool
	out, err   io.Writer
	started    bool // a verb's own code has begun: the command line was right
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, out, err io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	results := &output{w: out}
	a := &app{out: results, err: err}
	root := a.root()
	addCompletion(root)
	root.SetArgs(args)
	failure := root.ExecuteContext(ctx)
	switch {
	case failure == nil && results.err != nil:
		failure = fmt.Errorf("writing results: %w", results.err)
	case failure != nil && !a.started:
		failure = usageError{failure}
	case failure != nil && ctx.Err() != nil:
		failure = interrupted{failure}
	}
	report(err, failure)
	return exitCode(failure)
}

func (a *app) root() *cobra.Command {
	root := group("marfsctl", "Administer and inspect MarFS", `marfsctl administers MarFS: file trees whose metadata is in ordinary
filesystems and whose data is in erasure-coded object stores.

The configuration is the file given with --config, else $MARFS_CONFIG, else
/etc/marfs/marfs.yaml. Paths are as users see them, below the configuration's
mount, whether or not it is mounted on this node.`)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.PersistentPreRun = func(*cobra.Command, []string) { a.started = true }
	root.PersistentFlags().StringVarP(&a.configFile, "config", "c", "", "configuration `FILE`")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print results as JSON, for scripts")
	root.SetUsageTemplate(root.UsageTemplate() + "{{with .Annotations.exits}}\nExit codes:\n{{.}}\n{{end}}")
	root.AddCommand(a.configCmd(), a.gcCmd(), a.initCmd(), a.packCmd(), a.repackCmd(), a.statCmd(), a.statusCmd(), a.trashCmd(), a.versionCmd(), a.versionsCmd())
	root.Version = version.String()
	root.SetVersionTemplate(build().String())
	return root
}

// addCompletion adds cobra's verb, which answers an unknown shell with its help.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Args, cmd.RunE = cobra.NoArgs, noVerb
		}
	}
}

// output remembers that a result could not be written (a full disk), so that
// verbs can print without looking each time.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// group is a command that only holds others.
func group(use, short, long string) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args:  cobra.NoArgs,
		RunE:  noVerb,
	}
}

func noVerb(cmd *cobra.Command, _ []string) error {
	return usageError{fmt.Errorf("%s: no verb given", cmd.CommandPath())}
}

// load reads the configuration.
func (a *app) load() (*config.Config, error) {
	cfg, err := config.Load(config.Path(a.configFile))
	if err != nil {
		return nil, configError{err}
	}
	return cfg, nil
}

// loadWarned is load that shows warnings: for the verbs of who writes the
// configuration. Users of the others could do nothing about them.
func (a *app) loadWarned() (*config.Config, error) {
	cfg, err := a.load()
	if err != nil {
		return nil, err
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintf(a.err, "marfsctl: warning: %v\n", w)
		advice.PrintHint(a.err, w.Hint)
	}
	return cfg, nil
}

// open starts the configured system for a batch verb. The caller closes it.
func (a *app) open(ctx context.Context, cfg *config.Config) (*config.System, error) {
	sys, err := config.Open(ctx, cfg, config.Batch, cfg.Log.Logger(a.err))
	if err != nil {
		return nil, startError{err}
	}
	return sys, nil
}

// openOwned is open for verbs of the metadata directories' owner. Anybody else is told
// that first: of stores they would be told that they are to be repaired.
func (a *app) openOwned(ctx context.Context, cfg *config.Config) (*config.System, error) {
	for _, n := range cfg.Namespaces {
		for _, dir := range n.Metadata {
			if err := unix.Access(dir, unix.R_OK|unix.W_OK|unix.X_OK); errors.Is(err, fs.ErrPermission) {
				return nil, startError{fmt.Errorf("metadata of namespace %s, %s: %w", n.Name, dir, err)}
			}
		}
	}
	return a.open(ctx, cfg)
}

// print writes a result as JSON.
func (a *app) print(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// oneLine is print for one value on one line.
func oneLine(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// exits says in a verb's help which codes it returns.
func exits(codes ...int) map[string]string {
	var lines []string
	for _, c := range codes {
		lines = append(lines, fmt.Sprintf("  %d  %s", c, exitText[c]))
	}
	return map[string]string{"exits": strings.Join(lines, "\n")}
}
