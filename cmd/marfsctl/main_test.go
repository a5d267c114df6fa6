package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"marfs/pkg/config"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"marfsctl": main}) }

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			root, err := os.Getwd()
			e.Setenv("CONFIGS", root+"/../../configs")
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exitsWith, "made": onFiles(makeFile), "emptied": onFiles(makeEmpty), "removed": onFiles(makeAndRemove), "unlinked": onFiles(removeFile), "readable": onFiles(fileIsThere),
		},
	})
}

// exitsWith runs `exits CODE COMMAND...` and checks the exit code.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARGS...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		code = string(rune('0' + exit.ExitCode()))
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}

// TestHelp holds every verb's help to the same form.
func TestHelp(t *testing.T) {
	a := &app{out: os.Stdout, err: os.Stderr}
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		if cmd.HasSubCommands() {
			for _, sub := range cmd.Commands() {
				check(sub)
			}
			return
		}
		if n := strings.Count(cmd.Example, "  marfsctl "); n < 2 {
			t.Errorf("%s: %d examples, want 2", cmd.CommandPath(), n)
		}
		if cmd.Annotations["exits"] == "" {
			t.Errorf("%s: the help does not list the exit codes", cmd.CommandPath())
		}
		for _, line := range strings.Split(cmd.Long, "\n") {
			if len(line) > 80 {
				t.Errorf("%s: help line of %d characters", cmd.CommandPath(), len(line))
			}
		}
		if !strings.HasPrefix(cmd.Long, cmd.Name()+" ") {
			t.Errorf("%s: the help does not begin with the verb", cmd.CommandPath())
		}
	}
	check(a.root())
}

func TestExitCodes(t *testing.T) {
	damaged := failure{"stat", "/x", errDamage, ""}
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{failure{what: "stat", where: "/x", err: os.ErrNotExist}, 1},
		{usageError{errors.New("x")}, 2},
		{configError{config.Problems{{Rule: "x"}}}, 2},
		{startError{os.ErrPermission}, 3},
		{interrupted{context.Canceled}, 4},
		{interrupted{damaged}, 4},
		{damaged, 5},
		{errors.Join(errors.New("x"), errors.Join(damaged)), 5},
	} {
		if have := exitCode(test.err); have != test.want {
			t.Errorf("%v: have %d, want %d", test.err, have, test.want)
		}
	}
}

func TestReport(t *testing.T) {
	inner := errors.Join(
		failure{"stat", "/a", &os.PathError{Op: "open", Path: "a", Err: os.ErrNotExist}, ""},
		failure{"stat", "/b", errDamage, "rebuild it"},
		&config.StoreError{Repo: "r", Pod: "p", Store: "/s", Err: os.ErrPermission},
	)
	var b strings.Builder
	report(&b, interrupted{startError{errors.Join(inner, nil)}})
	want := `marfsctl: error: stat, /a: file does not exist
marfsctl: error: stat, /b: damage found
hint: rebuild it
marfsctl: error: store of repo r, pod p, /s: permission denied
hint: it was interrupted: run the same command again
`
	if b.String() != want {
		t.Errorf("have\n%swant\n%s", b.String(), want)
	}
}

func TestUnwrittenResultsAreAFailure(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	var stderr strings.Builder
	for _, verb := range [][]string{{"config", "check"}, {"config", "show"}, {"--json", "version"}} {
		args := append([]string{"--config", "../../configs/quickstart.yaml"}, verb...)
		if code := run(t.Context(), args, full, &stderr); code != exitFailed {
			t.Errorf("%v: exit code %d", verb, code)
		}
	}
	if !strings.Contains(stderr.String(), "no space left on device") {
		t.Errorf("have %s", stderr.String())
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, err strings.Builder
	if code := run(ctx, []string{"--config", "../../configs/quickstart.yaml", "status"}, &out, &err); code != exitInterrupted {
		t.Errorf("exit code %d\n%s", code, err.String())
	}
	if !strings.Contains(err.String(), "hint: it was interrupted: run the same command again") {
		t.Errorf("have %s", err.String())
	}
}
