package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"marfs/pkg/config"
)

func (a *app) configCmd() *cobra.Command {
	cmd := group("config", "Check or show the configuration", "config checks the configuration file, or shows what it amounts to.")
	cmd.AddCommand(a.configCheckCmd(), a.configShowCmd())
	return cmd
}

func (a *app) configCheckCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Report every mistake in the configuration file",
		Long: `check reads the configuration file and reports every mistake in it, each with
its line, what is wrong, and what to do. It looks at the file alone: stores,
metadata directories and credentials are checked by init and status.`,
		Example: `  marfsctl config check
  marfsctl --config marfs.yaml --json config check`,
		Annotations: exits(exitDone, exitUsage),
		Args:        cobra.NoArgs,
		RunE:        func(*cobra.Command, []string) error { return a.configCheck() },
	}
}

// checkResult is the JSON of config check.
type checkResult struct {
	File     string    `json:"file"`
	OK       bool      `json:"ok"`
	Problems []problem `json:"problems"`
	Warnings []problem `json:"warnings"`
}

type problem struct {
	Line  int    `json:"line"`
	Key   string `json:"key"`
	Value string `json:"value"`
	Rule  string `json:"rule"`
	Hint  string `json:"hint"`
}

func problemsOf(ps []config.Problem) []problem {
	out := make([]problem, 0, len(ps))
	for _, p := range ps {
		out = append(out, problem{p.Line, p.Key, p.Value, p.Rule, p.Hint})
	}
	return out
}

func (a *app) configCheck() error {
	file := config.Path(a.configFile)
	cfg, err := a.loadWarned()
	var found config.Problems
	if err != nil && !errors.As(err, &found) { // the file cannot be read
		found = config.Problems{{File: file, Rule: err.Error(), Hint: configHint}}
	}
	if a.json {
		result := checkResult{File: file, OK: err == nil, Problems: problemsOf(found), Warnings: []problem{}}
		if cfg != nil {
			result.Warnings = problemsOf(cfg.Warnings)
		}
		return errors.Join(err, a.print(result))
	}
	if err == nil {
		fmt.Fprintf(a.out, "%s: ok: namespaces %d, repos %d\n", file, len(cfg.Namespaces), len(cfg.Repos))
	}
	return err
}

func (a *app) configShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Print the effective configuration",
		Long: `show prints the configuration as it takes effect: every default filled in,
every path absolute. It holds no secrets. What it prints is itself a
configuration file.`,
		Example: `  marfsctl config show
  marfsctl --json config show | jq '.namespaces[].name'`,
		Annotations: exits(exitDone, exitUsage),
		Args:        cobra.NoArgs,
		RunE:        func(*cobra.Command, []string) error { return a.configShow() },
	}
}

func (a *app) configShow() error {
	cfg, err := a.loadWarned()
	if err != nil {
		return err
	}
	text, err := cfg.Effective()
	if err != nil {
		return err
	}
	if !a.json {
		_, err = a.out.Write(text)
		return err
	}
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		return err
	}
	return a.print(v)
}
