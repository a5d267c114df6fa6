package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"marfs/pkg/config"
	"marfs/pkg/objfmt"
	"marfs/pkg/packer"
)

func TestPackRefusesWrongUse(t *testing.T) {
	in := newInstallation(t)
	for _, args := range [][]string{
		{"pack", "--namespace", "none"}, {"pack", "x"}, {"pack", "--namespaces", "a"},
		{"repack", "--namespace", "none"}, {"repack", "--apply", "--list"}, {"repack", "--below", "0"}, {"repack", "--below", "1.1"},
		{"repack", "--below", "NaN"}, {"repack", "--below", "half"},
	} {
		in.run(t, exitUsage, args...)
	}
}

// What a signal ends is told so, also to scripts.
func TestPackIsInterrupted(t *testing.T) {
	in := newInstallation(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, verb := range [][]string{{"pack"}, {"repack"}, {"repack", "--apply"}} {
		var out, stderr strings.Builder
		if code := run(ctx, append([]string{"--config", in.file}, verb...), &out, &stderr); code != exitInterrupted {
			t.Errorf("%v: exit code %d\n%s%s", verb, code, out.String(), stderr.String())
		}
	}
}

func TestRepackTable(t *testing.T) {
	var n repackNamespace
	n.Name, n.Below = "a", 0.5
	n.add(packer.Candidate{Object: objfmt.ObjectID{15: 1}, Members: 10, Live: 2, Bytes: 1000, Alive: 250, Pinned: 50}, true)
	n.add(packer.Candidate{Object: objfmt.ObjectID{15: 2}, Members: 4, Live: 2, Bytes: 3 << 20, Alive: 1 << 20}, true)
	for _, test := range []struct {
		result repackResult
		list   bool
		want   string
	}{
		{repackResult{Namespaces: []repackNamespace{{Name: "a"}}}, false, `NAMESPACE  BELOW  PACKS  MEMBERS  LIVE  BYTES  ALIVE  DEAD  PINNED
a          never  0      0        0     0 B    -      0 B   0 B
no pack is to be rewritten
`},
		{repackResult{Namespaces: []repackNamespace{n}}, true, `NAMESPACE  PACK                        MEMBERS  LIVE  BYTES    ALIVE          DEAD     PINNED
a          00000000000000000000000001  10       2     1000 B   250 B (25%)    700 B    50 B
a          00000000000000000000000002  4        2     3.0 MiB  1.0 MiB (33%)  2.0 MiB  0 B

NAMESPACE  BELOW  PACKS  MEMBERS  LIVE  BYTES    ALIVE          DEAD     PINNED
a          50%    2      14       4     3.0 MiB  1.0 MiB (33%)  2.0 MiB  50 B
this is what would be rewritten; marfsctl repack --apply does it
`},
		{repackResult{Applied: true, Namespaces: []repackNamespace{{Name: "a", Below: 1, Packs: 1, Done: &repacked{1, 5, 1, 2}}}}, false, `NAMESPACE  BELOW  PACKS  MEMBERS  LIVE  BYTES  ALIVE  DEAD  PINNED
a          100%   1      0        0     0 B    -      0 B   0 B
a: written anew: 1 file, 5 B, in 1 pack; lost: 2
lost are files that changed while they were packed; they stay as they are, and the next time takes them
the old packs go with marfsctl gc, once trash.keep has passed
`},
	} {
		var b strings.Builder
		a := &app{out: &b}
		if err := a.showRepack(test.result, repackOptions{list: test.list, apply: test.result.Applied}); err != nil || b.String() != test.want {
			t.Errorf("%v, have\n%swant\n%s", err, b.String(), test.want)
		}
	}
}

func TestStagingIsShown(t *testing.T) {
	s := &config.Staging{MaxBytes: 64 << 30, Hinted: 3, Dead: 7, Late: true,
		Backlog: packer.Backlog{Files: 1180, Bytes: 10 << 20, Oldest: time.Now().Add(-90 * time.Minute), Packs: 48, Resident: 12 << 30}}
	cfg := &config.Config{Namespaces: []config.Namespace{{Name: "a", Pack: config.Pack{MaxAge: config.Duration(time.Minute)}}}}
	var out, stderr strings.Builder
	a := &app{out: &out, err: &stderr}
	if err := a.showStatus(statusResult{Namespaces: []namespaceStatus{{Name: "a", Staging: stagingOf(s)}, {Name: "away"}}}); err != nil {
		t.Fatal(err)
	}
	want := `
NAMESPACE  STAGED  BYTES     OLDEST  RESIDENT  USED  LIMIT     DEAD
a          1180    10.0 MiB  1h30m   12.0 GiB  19%   64.0 GiB  7 in 3 packs

REPO`
	if !strings.Contains(out.String(), want) {
		t.Errorf("have\n%swant\n%s", out.String(), want)
	}
	a.warnLate(cfg, &config.NamespaceStatus{Name: "a", Staging: s})
	if want := "marfsctl: warning: namespace a: the oldest staged file waits for 1h30m to be packed, pack.max_age is 1m\nhint: mounts of the namespace pack"; !strings.HasPrefix(stderr.String(), want) {
		t.Errorf("have %s", stderr.String())
	}
	stderr.Reset()
	s.Late = false
	a.warnLate(cfg, &config.NamespaceStatus{Name: "a", Staging: s})
	a.warnLate(cfg, &config.NamespaceStatus{Name: "a"})
	if stderr.Len() > 0 {
		t.Errorf("warned: %s", stderr.String())
	}
}

func TestAgeText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 1500 * time.Millisecond: "1s", 61 * time.Second: "1m1s", 3*time.Hour + 5*time.Second: "3h", 50*time.Hour + time.Minute: "2d2h",
	} {
		if have := ageText(d); have != want {
			t.Errorf("%v: have %s, want %s", d, have, want)
		}
	}
}
