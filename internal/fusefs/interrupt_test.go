package fusefs

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestKillable: a signal that the caller survives does not end its request, one
// that kills it does.
func TestKillable(t *testing.T) {
	caller := exec.Command("sh", "-c", "trap : USR1; echo ready; while :; do sleep 0.1; done")
	out, err := caller.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := caller.Start(); err != nil {
		t.Fatal(err)
	}
	defer caller.Process.Kill()
	if _, err := out.Read(make([]byte, 10)); err != nil { // the trap is set
		t.Fatal(err)
	}
	interrupt := make(chan struct{})
	req := &fuse.Context{Caller: fuse.Caller{Pid: uint32(caller.Process.Pid)}, Cancel: interrupt}
	ctx, stop := killable(req, req.Pid)
	defer stop()

	caller.Process.Signal(syscall.SIGUSR1)
	close(interrupt) // what the kernel does on any signal
	select {
	case <-ctx.Done():
		t.Fatal("a signal that the caller handles ended its request")
	case <-time.After(3 * killPoll):
	}
	caller.Process.Kill()
	caller.Wait()
	select {
	case <-ctx.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the request of a dead process goes on")
	}
}

func TestKillableWithoutSignal(t *testing.T) {
	req := &fuse.Context{Caller: fuse.Caller{Pid: 1}, Cancel: make(chan struct{})}
	ctx, stop := killable(req, 1)
	if ctx.Err() != nil {
		t.Fatal("ended without a signal")
	}
	stop()
	if ctx.Err() == nil {
		t.Fatal("stop left the context open")
	}
}
