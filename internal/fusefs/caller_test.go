package fusefs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"marfs/pkg/mdfs"
	"marfs/pkg/namespace"
)

func someone(pid int, uid, gid uint32) namespace.Caller {
	return namespace.Caller{Cred: mdfs.Cred{UID: uid, GID: gid}, PID: uint32(pid)}
}

// sleeper starts a process with this identity that lives as long as the test.
func sleeper(t *testing.T, c *syscall.Credential) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to be somebody else")
	}
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

func TestGroups(t *testing.T) {
	p := sleeper(t, &syscall.Credential{Uid: 4711, Gid: 4712, Groups: []uint32{4713, 4714}}).Process.Pid
	for _, c := range []struct {
		name   string
		caller namespace.Caller
		want   []uint32
	}{
		{"the caller's", someone(p, 4711, 4712), []uint32{4713, 4714}},
		{"not of another user", someone(p, 4710, 4712), nil},
		{"not of another group", someone(p, 4711, 0), nil},
		{"no process", someone(0, 4711, 4712), nil},
		{"none such", someone(1<<22+1, 4711, 4712), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cs := newCallers("/proc")
			for range 2 { // the second time from memory
				if got := cs.groups(c.caller); !slices.Equal(got, c.want) {
					t.Errorf("groups: got %v, want %v", got, c.want)
				}
			}
		})
	}
}

// Groups give root nothing: it is not looked at, once for each request.
func TestRootNeedsNoGroups(t *testing.T) {
	proc := t.TempDir()
	fakeStatus(t, proc, 5, "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t3 \n")
	if got := newCallers(proc).groups(someone(5, 0, 0)); got != nil {
		t.Errorf("groups of root: %v", got)
	}
}

func TestGroupsEndWithTheProcess(t *testing.T) {
	cmd := sleeper(t, &syscall.Credential{Uid: 4711, Gid: 4712, Groups: []uint32{4713}})
	c := someone(cmd.Process.Pid, 4711, 4712)
	cs := newCallers("/proc")
	if got := cs.groups(c); len(got) != 1 {
		t.Fatalf("groups: got %v, want one", got)
	}
	cmd.Process.Kill()
	cmd.Wait()
	// Whoever gets the number now is somebody else.
	if _, ok := cs.remembered(callerKey{c.PID, c.UID, c.GID}); ok {
		t.Error("the groups of a dead process were remembered")
	}
}

func TestCallersAreBounded(t *testing.T) {
	proc := t.TempDir()
	cs := newCallers(proc)
	for pid := 1; pid <= maxCallers+50; pid++ {
		fakeStatus(t, proc, pid, "Uid:\t1\t1\t1\t1\nGid:\t2\t2\t2\t2\nGroups:\t3 \n")
		if got := cs.groups(someone(pid, 1, 2)); !slices.Equal(got, []uint32{3}) {
			t.Fatalf("groups of %d: got %v", pid, got)
		}
	}
	if n := len(cs.byID); n > maxCallers {
		t.Errorf("%d processes remembered, at most %d wanted", n, maxCallers)
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for k := range cs.byID {
		cs.forget(k)
	}
}

func fakeStatus(t *testing.T, proc string, pid int, status string) {
	t.Helper()
	dir := filepath.Join(proc, fmt.Sprint(pid))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "status"), []byte(status), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestBadStatusGivesNoGroups(t *testing.T) {
	proc := t.TempDir()
	for pid, status := range []string{
		"",
		"Uid:\t1\t1\t1\t1\nGid:\t2\t2\t2\t2\n",
		"Uid:\t1\t1\t1\nGid:\t2\t2\t2\t2\nGroups:\t3\n",
		"Uid:\t1\t1\t1\t1\nGid:\t2\t2\t2\t2\nGroups:\t3 x\n",
		"Uid:\t1\t1\t1\t1\nGid:\t2\t2\t2\t2\nGroups:\t-1\n",
		"Uid:\t1\t1\t1\t1\nGid:\t2\t2\t2\t2\nGroups:\t4294967296\n",
		"Groups:\t3\nUid:\t1\t1\t1\t9\nGid:\t2\t2\t2\t2\n",
	} {
		fakeStatus(t, proc, pid+1, status)
		if got := newCallers(proc).groups(someone(pid+1, 1, 2)); got != nil {
			t.Errorf("status %q: got groups %v, want none", status, got)
		}
	}
}

func TestDying(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	if dying(pid) {
		t.Error("a process that sleeps is not dying")
	}
	cmd.Process.Kill()
	cmd.Wait()
	if !dying(pid) {
		t.Error("a process that is gone is dying")
	}
	for _, c := range []struct {
		set  string
		want bool
	}{{"0000000000000100", true}, {"0000000000000000", false}, {"0000000000004001", false}, {"x", false}} {
		if got := pending([]byte("SigPnd:\t"+c.set+"\n"), "SigPnd:"); got != c.want {
			t.Errorf("pending %s: got %v, want %v", c.set, got, c.want)
		}
	}
}
