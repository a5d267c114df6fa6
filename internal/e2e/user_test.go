package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"marfs/internal/testenv"
)

// needFUSEForAll skips a test where only root may mount, but not where CI is set.
func needFUSEForAll(t *testing.T) {
	t.Helper()
	fi, err := os.Stat("/dev/fuse")
	switch {
	case err == nil && fi.Mode()&0o006 == 0o006:
	case os.Getenv("CI") != "":
		t.Fatal("CI must let ordinary users mount: chmod 666 /dev/fuse")
	default:
		t.Skip("/dev/fuse is root's only")
	}
}

// TestOrdinaryUser mounts without any privilege and does the main job, with
// files that their owner must not write to among those that are copied.
func TestOrdinaryUser(t *testing.T) {
	needRoot(t) // to become somebody else
	needFUSEForAll(t)
	const uid = 65534 // nobody: fusermount3 wants a user that has a name
	o := edges()
	o.User = uid
	m := testenv.NewMount(t, o)
	src := filepath.Join(m.Dir, "src")
	if err := copyTree(goSource(t, "archive/tar")[0], src); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "chmod", "-R", "a+rX", src)
	mustRun(t, "chmod", "0444", filepath.Join(src, "reader.go"))
	mustRun(t, "chmod", "0555", filepath.Join(src, "testdata"))
	mustRun(t, "chown", "-R", fmt.Sprint(uid), src)
	as := func(script string, args ...string) {
		t.Helper()
		c := exec.Command("sh", append([]string{"-ec", script}, args...)...)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		c.Dir = "/"
		out, err := c.CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
	as(`cp -a "$0" "$1"`, src, m.Join("copied"))
	as(`mkdir "$1"; tar -C "$0" -cf - . | tar -C "$1" -xpf -`, src, m.Join("untarred"))
	m.Remount()
	for _, copied := range []string{m.Join("copied"), m.Join("untarred")} {
		as(`diff -r "$0" "$1"`, src, copied)
		as(`facts() { cd "$1"; find . -exec stat -c "%n %A %Y %u %h" {} + | sort; }
			a=$(facts "$0"); b=$(facts "$1"); test "$a" = "$b" || { echo "$a"; echo "$b"; }`, src, copied)
		as(`chmod -R u+w "$0"; rm -r "$0"`, copied)
	}
	as(`cd "$0"; echo new > f; echo newer > f; mv f g; test "$(cat g)" = newer; rm g`, m.Path)
}
