package testenv

import (
	"strings"
	"testing"
)

// check looks at a file system that is not mounted any more: nothing may be out
// of order, whatever the test did to it. It does so once marfsctl has fsck.
func check(t testing.TB, m *Mount) {
	t.Helper()
	if t.Failed() {
		return // the test's own failure is the news
	}
	if help, _ := m.TryCtl("--help"); !strings.Contains(help, "\n  fsck ") {
		return
	}
	if out, code := m.TryCtl("fsck"); code != 0 {
		t.Errorf("marfsctl fsck: exit code %d\n%s", code, out)
	}
}
