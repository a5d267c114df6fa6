package mdfstest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

// asCases hold for any process: it may always act as itself.
var asCases = []testCase{
	{name: "Error", run: asError},
	{name: "Panic", run: asPanic},
	{name: "Goexit", run: asGoexit},
	{name: "Unprivileged", run: asUnprivileged},
}

// someone is the identity that As is tried with: root may be anybody.
func someone() mdfs.Cred {
	if os.Geteuid() == 0 {
		return alice
	}
	return mdfs.Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

func asError(e *env) {
	e.ok(e.As(someone(), func() error { return nil }))
	want := errors.New("own")
	if got := e.As(someone(), func() error { return want }); got != want {
		e.Errorf("As: got %v, want the function's own error", got)
	}
}

func asPanic(e *env) {
	cause := errors.New("cause")
	func() {
		defer func() {
			v := recover()
			if err, ok := v.(error); !ok || !errors.Is(err, cause) {
				e.Errorf("recovered %v, want the panic of the function", v)
			}
		}()
		e.As(someone(), func() error { panic(cause) })
	}()
	func() {
		defer func() {
			if v := fmt.Sprint(recover()); !strings.Contains(v, "plain") {
				e.Errorf("recovered %q, want the panic of the function", v)
			}
		}()
		e.As(someone(), func() error { panic("plain") })
	}()
	e.clean()
}

func asGoexit(e *env) {
	done := make(chan bool)
	go func() {
		returned := false
		defer func() { done <- returned }()
		e.As(someone(), func() error { runtime.Goexit(); return nil })
		returned = true
	}()
	if <-done {
		e.Error("As returned from a function that ended its goroutine")
	}
	e.clean()
}

// clean checks that what this process makes now, it makes as itself.
func (e *env) clean() {
	e.Helper()
	for i := range 50 {
		name := fmt.Sprintf("clean%d", i)
		e.ok(e.root.Mkdir(name, 0o755))
		same(e, "owner afterwards", e.lstat(e.root, name).Uid, uint32(os.Geteuid()))
		e.ok(e.root.RemoveDir(name))
	}
}

func asUnprivileged(e *env) {
	if os.Geteuid() == 0 {
		e.Skip("root may act for anybody")
	}
	ran := false
	err := e.As(mdfs.Cred{UID: uint32(os.Geteuid()) + 1}, func() error { ran = true; return nil })
	if !errors.Is(err, unix.EPERM) || ran {
		e.Errorf("As of another user: got %v, ran: %v, want EPERM and nothing run", err, ran)
	}
}
