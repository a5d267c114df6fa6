package mdfstest

import (
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

// call is one method that takes a name, for rules that hold for all of them.
// The arguments besides the name are good ones.
type call struct {
	name  string
	makes bool // the name must not be there yet
	self  bool // takes "." for the directory itself
	do    func(d mdfs.Dir, name string) error
}

// attr is an xattr that anybody may set on his own files.
const attr = "user.mdfstest"

var calls = []call{
	{name: "Lstat", self: true, do: func(d mdfs.Dir, name string) error { _, err := d.Lstat(name); return err }},
	{name: "Mkdir", makes: true, do: func(d mdfs.Dir, name string) error { return d.Mkdir(name, 0o700) }},
	{name: "Mknod", makes: true, do: func(d mdfs.Dir, name string) error { return d.Mknod(name, unix.S_IFIFO|0o600, 0) }},
	{name: "Symlink", makes: true, do: func(d mdfs.Dir, name string) error { return d.Symlink("target", name) }},
	{name: "Readlink", do: func(d mdfs.Dir, name string) error { _, err := d.Readlink(name); return err }},
	{name: "Remove", do: mdfs.Dir.Remove},
	{name: "RemoveDir", do: mdfs.Dir.RemoveDir},
	{name: "Chmod", self: true, do: func(d mdfs.Dir, name string) error { return d.Chmod(name, 0o700) }},
	{name: "Lchown", self: true, do: func(d mdfs.Dir, name string) error { return d.Lchown(name, -1, -1) }},
	{name: "Lchtimes", self: true, do: func(d mdfs.Dir, name string) error {
		return d.Lchtimes(name, mdfs.TimeSet{Now: true}, mdfs.TimeSet{Time: time.Unix(1, 0)})
	}},
	{name: "Link", do: func(d mdfs.Dir, name string) error { return d.Link(name, d, "new") }},
	{name: "Link to", makes: true, do: func(d mdfs.Dir, name string) error { return d.Link("there", d, name) }},
	{name: "Rename", do: func(d mdfs.Dir, name string) error { return d.Rename(name, d, "new", 0) }},
	{name: "Rename to", makes: true, do: func(d mdfs.Dir, name string) error {
		return d.Rename("there", d, name, unix.RENAME_NOREPLACE)
	}},
	{name: "Getxattr", self: true, do: func(d mdfs.Dir, name string) error { _, err := d.Getxattr(name, attr); return err }},
	{name: "Setxattr", self: true, do: func(d mdfs.Dir, name string) error { return d.Setxattr(name, attr, []byte("v"), 0) }},
	{name: "Listxattr", self: true, do: func(d mdfs.Dir, name string) error { _, err := d.Listxattr(name); return err }},
	{name: "Removexattr", self: true, do: func(d mdfs.Dir, name string) error { return d.Removexattr(name, attr) }},
	{name: "OpenDir", do: func(d mdfs.Dir, name string) error {
		sub, err := d.OpenDir(name)
		if err == nil {
			sub.Close()
		}
		return err
	}},
	{name: "OpenFile", do: opens(unix.O_RDONLY)},
	{name: "OpenFile O_PATH", do: opens(unix.O_PATH)},
	{name: "OpenFile O_CREAT", makes: true, do: opens(unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY)},
}

// opens is OpenFile with flag, as a call.
func opens(flag int) func(d mdfs.Dir, name string) error {
	return func(d mdfs.Dir, name string) error {
		f, err := d.OpenFile(name, flag, 0o600)
		if err == nil {
			f.Close()
		}
		return err
	}
}
