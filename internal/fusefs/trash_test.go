package fusefs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"marfs/internal/control"
	"marfs/internal/testenv"
	"marfs/pkg/namespace"
)

// ctl runs marfsctl as somebody, who finds the mount where the configuration says it is.
type ctl struct {
	t      *testing.T
	config string
	bin    string
}

// reachable makes a configuration for users who ask the daemon of m.
func reachable(t *testing.T, m *testenv.Mount) ctl {
	t.Helper()
	text, err := os.ReadFile(m.Config)
	ok(t, err)
	dir, err := os.MkdirTemp("", "marfs-ctl-")
	ok(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	ok(t, os.Chmod(dir, 0o755))
	c := ctl{t, filepath.Join(dir, "marfs.yaml"), testenv.Binary(t, "marfsctl")}
	ok(t, os.Chmod(filepath.Dir(c.bin), 0o755))
	ok(t, os.WriteFile(c.config, []byte(strings.Replace(string(text), "mount: /marfs", "mount: "+m.Path, 1)), 0o644))
	return c
}

// run returns what was printed, errors too, and the exit code.
func (c ctl) run(who *syscall.Credential, args ...string) (string, int) {
	c.t.Helper()
	cmd := exec.Command(c.bin, args...)
	cmd.Env = []string{"MARFS_CONFIG=" + c.config, "HOME=/", "PATH=" + os.Getenv("PATH")}
	cmd.Dir = "/"
	if who != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		c.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// want runs it, and checks the exit code and each text that must be printed, or
// after a "!" must not.
func (c ctl) want(who *syscall.Credential, code int, args []string, texts ...string) string {
	c.t.Helper()
	out, got := c.run(who, args...)
	if got != code {
		c.t.Errorf("%v: exit code %d, want %d\n%s", args, got, code, out)
	}
	for _, text := range texts {
		if without, not := strings.CutPrefix(text, "!"); not == strings.Contains(out, without) {
			c.t.Errorf("%v: %q\n%s", args, text, out)
		}
	}
	return out
}

func args(a ...string) []string { return append([]string{"trash"}, a...) }

// ids lists the ids of entries at a path.
func (c ctl) ids(who *syscall.Credential, a ...string) (ids []string) {
	c.t.Helper()
	out, code := c.run(who, append([]string{"--json", "trash", "list"}, a...)...)
	var list struct{ Entries []struct{ ID string } }
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
		c.t.Fatalf("exit code %d, %v\n%s", code, err, out)
	}
	for _, e := range list.Entries {
		ids = append(ids, e.ID)
	}
	return ids
}

// TestTrashOfUsers: through the mount, everybody has what was theirs, and root all.
func TestTrashOfUsers(t *testing.T) {
	t.Parallel()
	m := shared(t)
	c := reachable(t, m)
	mustSh(t, m.Path, alice, `umask 022; mkdir alice/d; echo one > alice/d/f; echo secret > alice/s; chmod 600 alice/s; ln -s s alice/l
		rm -r alice/d alice/s alice/l; chmod 777 alice`)
	mustSh(t, m.Path, bob, "echo bob > bob/b; echo there > alice/bobs; rm bob/b")
	mustSh(t, m.Path, alice, "rm -f alice/bobs") // by alice, but it was bob's
	all := m.Join()

	c.want(alice, 0, args("list", all), "/alice/d/f", "/alice/s", "/alice/l", "4 entries", "!bobs", "!/bob/b")
	c.want(bob, 0, args("list", all), "/bob/b", "/alice/bobs", "2 entries", "!/alice/s")
	c.want(nil, 0, args("list", all), "6 entries")
	c.want(nil, 0, args("list", "--through-mount", all), "6 entries")
	c.want(carol, 0, args("list", all), "nothing is in trash there")
	c.want(bob, 0, args("list", all, "--by", "5001"), "/alice/bobs", "1 entry")
	c.want(alice, 0, args("list", m.Join("alice"), "--match", "f", "--owner", "5001"), "/alice/d/f", "1 entry")

	// What is another's is not there: by path, by id.
	secret := c.ids(alice, m.Join("alice/s"))[0]
	c.want(bob, 1, args("restore", m.Join("alice/s")), "nothing of it is in trash")
	c.want(bob, 1, args("restore", "--id", secret), "no such file")
	c.want(bob, 1, args("cat", secret), "no such file", "!secret\n")
	c.want(bob, 1, args("purge", "--id", secret), "no such file")
	c.want(bob, 0, args("purge", m.Join("alice/s")), "purged 0 entries")
	c.want(alice, 0, args("cat", secret), "secret\n")
	c.want(nil, 0, args("cat", secret), "secret\n")

	c.want(alice, 0, args("restore", "--dry-run", m.Join("alice/d")), "would restore 2 entries")
	c.want(alice, 0, args("restore", m.Join("alice/d"), m.Join("alice/s")), "restored 3 entries", m.Join("alice/d/f"))
	if out := mustSh(t, m.Path, nil, "cat alice/d/f alice/s; stat -c '%u %a' alice/s alice/d"); out != "one\nsecret\n5001 600\n5001 755\n" {
		t.Errorf("restored: %q", out)
	}
	denied(t, m.Path, bob, "cat alice/s")

	// Bob may have his file back where he may write.
	mustSh(t, m.Path, alice, "chmod 755 alice")
	c.want(bob, 1, args("restore", m.Join("alice/bobs")), "permission denied", "hint: ")
	c.want(bob, 0, args("restore", m.Join("alice/bobs"), "--to", m.Join("bob")), m.Join("bob/bobs"))
	if out := mustSh(t, m.Path, bob, "cat bob/bobs"); out != "there\n" {
		t.Errorf("restored elsewhere: %q", out)
	}

	// Purged: out of sight, and to be had back for a while.
	c.want(alice, 0, args("purge", "--all", "--dry-run"), "would purge 1 entry")
	c.want(alice, 0, args("purge", "--all"), "purged 1 entry", "gc frees it")
	c.want(alice, 0, args("list", all), "nothing is in trash there")
	c.want(alice, 0, args("list", all, "--purged"), "purged", "/alice/l")
	c.want(bob, 0, args("list", all), "/bob/b", "1 entry")
	c.want(alice, 0, args("restore", m.Join("alice/l"), "--purged"), "restored")
	if out := mustSh(t, m.Path, nil, "readlink alice/l"); out != "s\n" {
		t.Errorf("restored link: %q", out)
	}
}

// TestTrashConflicts: a restore replaces nothing unless told, and what it did is seen
// on the mount at once.
func TestTrashConflicts(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{MountOptions: "attr_timeout=3600,entry_timeout=3600,negative_timeout=3600"})
	c := reachable(t, m)
	name := m.Join("d", "f")
	ok(t, os.Mkdir(m.Join("d"), 0o755))
	write(t, name, []byte("old"))
	ok(t, os.Remove(name))
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err) // and the kernel remembers it
	}
	restore := args("restore", "--through-mount", name)
	c.want(nil, 0, restore, "restored "+name+"\n")
	wantContent(t, name, []byte("old"))

	ok(t, os.Remove(name))
	write(t, name, []byte("newer"))
	_, err := os.Stat(name + ".~1~")
	wantErrno(t, "stat", err, syscall.ENOENT)
	c.want(nil, 0, restore, "restored "+name+" as "+name+".~1~")
	wantContent(t, name+".~1~", []byte("old"))

	ok(t, os.Remove(name+".~1~"))
	wantContent(t, name, []byte("newer"))
	c.want(nil, 0, append(args("restore", "--through-mount", "--force", "--id"), c.ids(nil, name+".~1~")...), "restored")
	c.want(nil, 0, args("list", m.Join()))

	// A tree of which the kernel knows that it is not there.
	ok(t, os.MkdirAll(m.Join("t/a/b"), 0o755))
	write(t, m.Join("t/a/b/f"), []byte("deep"))
	ok(t, os.RemoveAll(m.Join("t")))
	if _, err := os.Stat(m.Join("t/a/b/f")); err == nil {
		t.Error("still there")
	}
	c.want(nil, 0, args("restore", "--through-mount", m.Join("t")), "restored 4 entries")
	wantContent(t, m.Join("t/a/b/f"), []byte("deep"))
}

// TestVersions: earlier contents are listed, read and restored; an open reader sees the
// one restored, whatever the kernel had cached.
func TestVersions(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{MountOptions: "attr_timeout=3600,entry_timeout=3600"})
	c := reachable(t, m)
	name := m.Join("f")
	first, second := content(200_000, 1), content(70_000, 2)
	write(t, name, first)
	write(t, name, second)
	var list struct {
		Versions []struct {
			ID, Version string
			Size        int64
		}
	}
	out, _ := c.run(nil, "--json", "versions", "--through-mount", name)
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Versions) != 1 || list.Versions[0].Size != 200_000 {
		t.Fatalf("%v\n%s", err, out)
	}
	v := list.Versions[0].Version
	c.want(nil, 0, []string{"versions", name}, v[:8], "write")
	if out, _ := c.run(nil, "versions", "--through-mount", name, "--cat", v[:30]); !bytes.Equal([]byte(out), first) {
		t.Errorf("cat: %d bytes that differ", len(out))
	}
	c.want(nil, 1, []string{"versions", name, "--cat", "zz"}, "no such version")
	f, err := os.Open(name)
	ok(t, err)
	defer f.Close()
	buf := make([]byte, len(first))
	if n, _ := f.ReadAt(buf, 0); !bytes.Equal(buf[:n], second) {
		t.Fatal("second content")
	}
	if fi, err := f.Stat(); err != nil || fi.Size() != 70_000 { // after the read, which makes the kernel ask again
		t.Errorf("size %d, %v", fi.Size(), err)
	}
	c.want(nil, 0, args("restore", "--through-mount", "--version", v, name), "restored")
	if n, _ := f.ReadAt(buf, 0); !bytes.Equal(buf[:n], first) {
		t.Errorf("an open reader has %d bytes, others than were restored", n)
	}
	if fi, err := f.Stat(); err != nil || fi.Size() != 200_000 {
		t.Errorf("size %d, %v", fi.Size(), err)
	}
	wantContent(t, name, first)
	c.want(nil, 0, []string{"versions", name}, "68.4 KiB")
}

// TestControlActsAsItsOpener: a descriptor that is handed on acts for who opened it.
func TestControlActsAsItsOpener(t *testing.T) {
	t.Parallel()
	m := shared(t)
	mustSh(t, m.Path, alice, "echo a > alice/a; rm alice/a")
	mustSh(t, m.Path, bob, "echo b > bob/b; rm bob/b")
	child := exec.Command("sh", "-c", `exec 3<>"$0"; echo ready; read -r end`, m.Join(control.Name))
	child.SysProcAttr = &syscall.SysProcAttr{Credential: alice}
	in, err := child.StdinPipe()
	ok(t, err)
	out, err := child.StdoutPipe()
	ok(t, err)
	ok(t, child.Start())
	_, err = out.Read(make([]byte, 9))
	ok(t, err)
	pidfd, err := unix.PidfdOpen(child.Process.Pid, 0)
	ok(t, err)
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, 3, 0)
	ok(t, err)
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(listAll)) // as root
	ok(t, err)
	ok(t, in.Close())
	_ = child.Wait() // the descriptor outlives who opened it
	a, err := readAnswer(fd)
	if err != nil || strings.Count(a, `"entry"`) != 1 || !strings.Contains(a, `"uid":5001`) {
		t.Errorf("got %v\n%s", err, a)
	}
}

// TestTrashIsLarge: more than any buffer holds arrives whole, however slow the reader
// is, and one that is killed leaves nothing behind.
func TestTrashIsLarge(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	const files = 1500
	dir := m.Join(strings.Repeat("d", 200))
	ok(t, os.Mkdir(dir, 0o755))
	for i := range files {
		ok(t, os.Symlink("x", filepath.Join(dir, fmt.Sprint(i))))
	}
	ok(t, os.RemoveAll(dir))
	for range 6 { // two more than there may be
		reader := exec.Command("sh", "-c", `exec 3<>"$0"; printf '%s\n' "$1" >&3; read -r line <&3; echo "$line"; exec sleep 1000`, m.Join(control.Name), strings.TrimSpace(listAll))
		out, err := reader.StdoutPipe()
		ok(t, err)
		ok(t, reader.Start())
		buf := make([]byte, 5)
		if n, err := out.Read(buf); string(buf[:n]) != `{"ver` {
			t.Errorf("got %q, %v", buf[:n], err)
		}
		ok(t, reader.Process.Kill())
		_ = reader.Wait() // killed
		waitFor(t, "the session is over", func() bool { fd, err := openControl(m); unix.Close(fd); return err == nil })
	}
	n := 0
	for e, err := range control.Mounted(m.Path).List(t.Context(), namespace.TrashQuery{Path: "/"}) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; e.UID != uint32(os.Geteuid()) {
			t.Errorf("got %+v", e)
		}
	}
	if n != files+1 {
		t.Errorf("%d entries, want %d", n, files+1)
	}
}

// TestTrashNeedsPermissions: without rm and wm for the mount, it refuses; marfsctl as
// root goes by those for batch.
func TestTrashNeedsPermissions(t *testing.T) {
	t.Parallel()
	m := testenv.NewMount(t, testenv.Options{})
	c := reachable(t, m)
	write(t, m.Join("f"), []byte("x"))
	ok(t, os.Remove(m.Join("f")))
	text, err := os.ReadFile(m.Config)
	ok(t, err)
	allow := func(perms string) {
		t.Helper()
		ok(t, os.WriteFile(m.Config, []byte(string(text)+"    interactive: "+perms+"\n"), 0o644))
		m.Signal(syscall.SIGHUP)
	}
	allow("[rm, rd]")
	waitFor(t, "no wm", func() bool {
		return errors.Is(os.Mkdir(m.Join("d"), 0o755), syscall.EPERM) || os.Remove(m.Join("d")) != nil
	})
	c.want(nil, 0, args("list", "--through-mount", m.Join()), "/f")
	c.want(nil, 1, args("restore", "--through-mount", m.Join("f")), "not permitted", "hint: ")
	c.want(nil, 1, args("purge", "--through-mount", m.Join("f")), "not permitted")
	fd := mustOpenControl(t, m)
	defer unix.Close(fd)
	allow("[wm]")
	waitFor(t, "no rm", func() bool { return strings.Count(m.Log(), "configuration read again") == 2 })
	_, err = unix.Write(fd, []byte(listAll))
	ok(t, err)
	if a, err := readAnswer(fd); err != nil || !strings.Contains(a, `"error":{"errno":1,`) || strings.Contains(a, `"entry"`) {
		t.Errorf("without rm: %v\n%s", err, a)
	}
	c.want(nil, 0, args("restore", m.Join("f")), "restored")
}

// TestTrashOfAnOrdinaryUser: who mounts for themselves needs no mount for their trash, and
// can use it all the same; root does not believe in it without being told.
func TestTrashOfAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("the other tests are this one, when not run as root")
	}
	if fi, err := os.Stat("/dev/fuse"); err != nil || fi.Mode()&0o006 != 0o006 {
		t.Skip("/dev/fuse is root's only")
	}
	const nobody = 65534
	who := &syscall.Credential{Uid: nobody, Gid: nobody}
	m := testenv.NewMount(t, testenv.Options{User: nobody})
	c := reachable(t, m)
	mustSh(t, "/", who, "cd "+m.Path+"; echo x > f; rm f")
	c.want(who, 0, args("list", m.Join()), "/f")
	c.want(who, 0, args("restore", "--through-mount", m.Join("f")), "restored "+m.Join("f"))
	if out := mustSh(t, "/", who, "cat "+m.Join("f")); out != "x\n" {
		t.Errorf("got %q", out)
	}
	c.want(nil, 3, args("list", "--through-mount", m.Join()), "permission denied")
	c.want(alice, 3, args("list", m.Join()), "error: ")
}
