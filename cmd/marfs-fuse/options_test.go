package main

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	const safe = unix.MS_NOSUID | unix.MS_NODEV
	for _, c := range []struct {
		args  []string
		want  command
		flags uintptr
	}{
		{[]string{"marfs-fuse", "/m"}, command{mountPoint: "/m"}, safe},
		{[]string{"marfs-fuse", "/m", "--config", "/c", "--foreground"},
			command{mountPoint: "/m", configFile: "/c", foreground: true}, safe},
		{[]string{"marfs-fuse", "-o", "ro,config=/c", "-o", "noexec,log_file=/l", "/m"},
			command{mountPoint: "/m", configFile: "/c", logFile: "/l"}, safe | unix.MS_RDONLY | unix.MS_NOEXEC},
		{[]string{"marfs-fuse", "-o", "suid,dev,rw,defaults,noauto,_netdev,nofail,user=me,x-systemd.automount,x-a=b,comment=c", "/m"},
			command{mountPoint: "/m"}, 0},
		{[]string{"/sbin/mount.fuse.marfs", "/c", "/m", "-sn", "-o", "rw,noatime", "-t", "fuse.marfs"},
			command{mountPoint: "/m", configFile: "/c", helper: true}, safe | unix.MS_NOATIME},
		{[]string{"marfs-fuse", "--helper", "marfs", "/m", "-f", "-v", "-o", "config=/c"},
			command{mountPoint: "/m", configFile: "/c", helper: true, fake: true}, safe},
	} {
		got, err := parse(c.args)
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
			continue
		}
		if got.mount.Flags != c.flags {
			t.Errorf("%q: mount flags %#x, want %#x", c.args, got.mount.Flags, c.flags)
		}
		got.mount = c.want.mount
		if got != c.want {
			t.Errorf("%q: got %+v, want %+v", c.args, got, c.want)
		}
	}
}

func TestParseTimesAndUsers(t *testing.T) {
	c, err := parse([]string{"marfs-fuse", "-o", "attr_timeout=0,entry_timeout=2.5,negative_timeout=3,noallow_other,fsname=x", "/m"})
	if err != nil {
		t.Fatal(err)
	}
	m := c.mount
	if m.AttrTimeout != 0 || m.EntryTimeout != 2500*time.Millisecond || m.NegativeTimeout != 3*time.Second || m.AllowOther || m.Source != "x" {
		t.Errorf("got %+v", m)
	}
	c, err = parse([]string{"marfs-fuse", "/m"})
	if err != nil {
		t.Fatal(err)
	}
	if want := os.Geteuid() == 0; c.mount.AllowOther != want {
		t.Errorf("allow_other by default: got %v, want %v", c.mount.AllowOther, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"marfs-fuse"},
		{"marfs-fuse", "/a", "/b"},
		{"marfs-fuse", "--nonsense", "/m"},
		{"marfs-fuse", "-o", "nonsense", "/m"},
		{"marfs-fuse", "-o", "nonsense=1", "/m"},
		{"marfs-fuse", "-o", "config", "/m"},
		{"marfs-fuse", "-o", "attr_timeout=soon", "/m"},
		{"marfs-fuse", "-o", "attr_timeout=-1", "/m"},
		{"marfs-fuse", "-o", "attr_timeout=nan", "/m"},
		{"marfs-fuse", "-o", "remount,ro", "/m"},
		{"mount.fuse.marfs", "/m"},
	} {
		if c, err := parse(args); err == nil {
			t.Errorf("%q: got %+v, want an error", args, c)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err            error
		direct, helper int
	}{
		{nil, 0, 0},
		{usageError{os.ErrNotExist}, 2, 1},
		{startError{os.ErrNotExist}, 3, 32},
		{errBusy, 1, 1},
	} {
		if got := exitCode(c.err, false); got != c.direct {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.direct)
		}
		if got := exitCode(c.err, true); got != c.helper {
			t.Errorf("%v as a helper: exit code %d, want %d", c.err, got, c.helper)
		}
	}
}
