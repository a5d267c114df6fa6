package mountinfo

import (
	"errors"
	"io/fs"
	"testing"
)

const table = `22 1 8:1 / / rw - ext4 /dev/sda1 rw
40 22 0:51 / /c\040d rw,nosuid - fuse.marfs /etc/marfs\040x.yaml rw,user_id=0,group_id=0,allow_other
41 22 0:52 / /c\040d rw - fuse.marfs x rw,user_id=1000,group_id=1000
broken
`

func TestNewest(t *testing.T) {
	if m, ok := newest(table, "/c d"); !ok || m != (Mount{"0:52", FUSE, 1000}) {
		t.Errorf("got %+v", m)
	}
	if m, ok := newest(table, "/"); !ok || m != (Mount{"8:1", "ext4", -1}) {
		t.Errorf("got %+v", m)
	}
	if _, ok := newest(table, "/c"); ok {
		t.Error("found what is not mounted")
	}
}

func TestAt(t *testing.T) {
	if _, err := At("/"); err != nil {
		t.Error(err)
	}
	if _, err := At(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
