package fusefs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"marfs/internal/testenv"
)

var (
	alice = &syscall.Credential{Uid: 5001, Gid: 5001}
	bob   = &syscall.Credential{Uid: 5002, Gid: 5002}
	carol = &syscall.Credential{Uid: 5003, Gid: 5003, Groups: []uint32{5001}} // in alice's group
)

// shared is a mount that users reach, with a directory for each of them.
func shared(t *testing.T) *testenv.Mount {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("CI must run this as root")
		}
		t.Skip("needs root to be several users")
	}
	m := testenv.NewMount(t, testenv.Options{})
	for dir := m.Path; dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
		ok(t, os.Chmod(dir, 0o755))
	}
	for name, c := range map[string]*syscall.Credential{"alice": alice, "bob": bob, "carol": carol} {
		ok(t, os.Mkdir(m.Join(name), 0o755))
		ok(t, os.Chown(m.Join(name), int(c.Uid), int(c.Gid)))
	}
	return m
}

func denied(t *testing.T, dir string, c *syscall.Credential, script string) {
	t.Helper()
	if out, err := sh(t, dir, c, script); err == nil {
		t.Errorf("uid %d: %q worked:\n%s", c.Uid, script, out)
	} else if !strings.Contains(out, "denied") && !strings.Contains(out, "not permitted") {
		t.Errorf("uid %d: %q failed in another way:\n%s", c.Uid, script, out)
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	m := shared(t)
	mustSh(t, m.Path, alice, `
		umask 022
		echo secret > alice/f && chmod 600 alice/f
		echo group > alice/g && chmod 640 alice/g
		mkdir alice/d && echo in > alice/d/f && chmod 700 alice/d
		cat alice/f alice/g alice/d/f
	`)
	// Right after the owner did, with all of it in the kernel's caches.
	for _, s := range []string{"cat alice/f", "cat alice/d/f", "ls alice/d", "echo x >> alice/g", "rm -f alice/f",
		"touch alice/new", "mv alice/f bob/", "chmod 777 alice/f"} {
		denied(t, m.Path, bob, s)
	}
	if protectedLinks() {
		denied(t, m.Path, bob, "ln alice/f bob/link")
	}
	denied(t, m.Path, bob, "chown 5001 bob")
	// By a supplementary group, which is not in the request.
	if out := mustSh(t, m.Path, carol, "cat alice/g"); out != "group\n" {
		t.Errorf("group member read %q", out)
	}
	denied(t, m.Path, carol, "cat alice/f")
	// Files belong to who made them.
	if out := mustSh(t, m.Path, nil, "stat -c '%u %g %a' alice/f alice/d"); out != "5001 5001 600\n5001 5001 700\n" {
		t.Errorf("owners and modes: got %q", out)
	}
	if out := mustSh(t, m.Path, nil, "cat alice/f alice/d/f"); out != "secret\nin\n" {
		t.Errorf("root read %q", out)
	}
}

// protectedLinks reports whether the kernel refuses links to others' files.
func protectedLinks() bool {
	v, err := os.ReadFile("/proc/sys/fs/protected_hardlinks")
	return err == nil && strings.TrimSpace(string(v)) == "1"
}

func TestSharedDirectories(t *testing.T) {
	t.Parallel()
	m := shared(t)
	mustSh(t, m.Path, nil, `
		mkdir sticky team && chmod 1777 sticky
		chgrp 5001 team && chmod 2775 team
	`)
	mustSh(t, m.Path, alice, "echo a > sticky/a; chmod 666 sticky/a")
	denied(t, m.Path, bob, "rm -f sticky/a")
	denied(t, m.Path, bob, "mv sticky/a sticky/b")
	mustSh(t, m.Path, bob, "echo b >> /dev/null; echo b > sticky/mine; rm sticky/mine")
	// A set-group-ID directory hands its group on, to files and directories.
	out := mustSh(t, m.Path, carol, "umask 002; echo x > team/f; mkdir team/d; stat -c '%u %g %a' team/f team/d")
	if want := "5003 5001 664\n5003 5001 2775\n"; out != want {
		t.Errorf("set-group-ID directory: got %q, want %q", out, want)
	}
}

func TestUmaskAndDefaultACL(t *testing.T) {
	t.Parallel()
	m := shared(t)
	out := mustSh(t, m.Path, alice, "umask 027; echo x > alice/f; mkdir alice/d; mkfifo alice/p; stat -c %a alice/f alice/d alice/p")
	if want := "640\n750\n640\n"; out != want {
		t.Errorf("modes under umask 027: got %q, want %q", out, want)
	}
	if _, err := exec.LookPath("setfacl"); err != nil {
		t.Skip("no setfacl")
	}
	mustSh(t, m.Path, alice, "mkdir alice/acl; setfacl -d -m u::rwx,g::rwx,o::-,u:5002:rwx,m::rwx alice/acl; setfacl -m u:5002:rwx alice/acl")
	// The default ACL takes the umask's place.
	out = mustSh(t, m.Path, alice, "umask 077; echo acl > alice/acl/f; mkdir alice/acl/d; stat -c %a alice/acl/f alice/acl/d")
	if want := "660\n770\n"; out != want {
		t.Errorf("modes under a default ACL: got %q, want %q", out, want)
	}
	if out := mustSh(t, m.Path, bob, "cat alice/acl/f; echo more > alice/acl/new; ls alice/acl"); out != "acl\nd\nf\nnew\n" {
		t.Errorf("named user: got %q", out)
	}
	denied(t, m.Path, carol, "cat alice/acl/new")
	mustSh(t, m.Path, alice, "setfacl -x u:5002 alice/acl/f")
	denied(t, m.Path, bob, "cat alice/acl/f")
}

// TestSetID: content changed by somebody unprivileged loses set-user-ID.
func TestSetID(t *testing.T) {
	t.Parallel()
	m := shared(t)
	mustSh(t, m.Path, alice, "echo x > alice/f; chmod 6777 alice/f; echo x > alice/g; chmod 6777 alice/g")
	mustSh(t, m.Path, bob, "echo y > alice/f")
	mustSh(t, m.Path, bob, "truncate -s 0 alice/g")
	if out := mustSh(t, m.Path, nil, "stat -c %a alice/f alice/g"); out != "777\n777\n" {
		t.Errorf("modes after others wrote: got %q", out)
	}
	mustSh(t, m.Path, alice, "chmod 4755 alice/f")
	mustSh(t, m.Path, nil, "echo z > alice/f")
	if out := mustSh(t, m.Path, nil, "stat -c %a alice/f"); out != "4755\n" {
		t.Errorf("mode after root wrote: got %q", out)
	}
}

// TestOrdinaryUser mounts without privilege, by fusermount3.
func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("the other tests are this one, when not run as root")
	}
	if fi, err := os.Stat("/dev/fuse"); err != nil || fi.Mode()&0o006 != 0o006 {
		if os.Getenv("CI") != "" {
			t.Fatal("CI must let ordinary users mount: chmod 666 /dev/fuse")
		}
		t.Skip("/dev/fuse is root's only")
	}
	const nobody = 65534 // fusermount3 wants a user that has a name
	m := testenv.NewMount(t, testenv.Options{User: nobody})
	if out := mustSh(t, "/", &syscall.Credential{Uid: nobody, Gid: nobody}, "cd "+m.Path+"; mkdir d; echo x > d/f; chmod 444 d/f; cat d/f; mv d/f d/g; stat -c %u d/g; rm -rf d; ls"); out != "x\n65534\n" {
		t.Errorf("got %q", out)
	}
	if _, err := os.Stat(m.Path); err == nil {
		t.Error("root got into a user's mount without allow_other")
	}
}
