package config

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/namespace"
)

func TestGone(t *testing.T) {
	mine, err := nodeName(Interactive)
	if err != nil {
		t.Fatal(err)
	}
	where, err := pidSpace()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("true")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		mine: false,
		fmt.Sprintf("a.b.batch.%d.%s.0123", child.Process.Pid, where): true,
		fmt.Sprintf("a.b.batch.%d.other.0123", child.Process.Pid):     false, // another kernel's pid
		"short":                                  false,
		fmt.Sprintf("h.batch.0.%s.0123", where):  false,
		fmt.Sprintf("h.batch.-1.%s.0123", where): false,
	} {
		if have := gone(name); have != want {
			t.Errorf("gone(%q) is %v", name, have)
		}
	}
}

// A process that died in the middle of a write leaves a record and a body; the
// next mount of the same host puts that in order by itself.
func TestAMountRecoversWhatADeadOneLeft(t *testing.T) {
	if site := os.Getenv("MARFS_TEST_DIE_IN"); site != "" {
		dieWriting(t, site)
	}
	s := newSite(t, 2, 1)
	s.init(t)
	child := exec.Command(os.Args[0], "-test.run=^TestAMountRecoversWhatADeadOneLeft$")
	child.Env = append(os.Environ(), "MARFS_TEST_DIE_IN="+s.dir)
	if out, err := child.CombinedOutput(); err == nil || child.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child ended by itself: %v\n%s", err, out)
	}
	work := func() []string {
		m, err := filepath.Glob(filepath.Join(s.dir, "md", "work", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if len(work()) == 0 {
		t.Fatal("the dead process left no work record: the test proves nothing")
	}
	s.open(t)
	for range 100 {
		if len(work()) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("still there: %v", work())
}

func dieWriting(t *testing.T, dir string) {
	s := &site{dir: dir, repo: "r", data: 2}
	for i := range 3 {
		s.stores = append(s.stores, filepath.Join(dir, fmt.Sprintf("s%d", i)))
	}
	sys, _ := s.open(t)
	d, name, err := sys.FS.Walk(t.Context(), namespace.Caller{}, "/a/f")
	if err != nil {
		t.Fatal(err)
	}
	c := namespace.Caller{Cred: mdfs.Cred{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}}
	f, _, err := d.Create(t.Context(), c, name, syscall.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(t.Context(), c, make([]byte, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
