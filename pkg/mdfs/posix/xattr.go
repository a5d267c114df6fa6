package posix

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// xattrBuffers are the sizes tried for a value or a list of names. Nearly all
// fit the first, so the size is not asked for before; 64 KiB is the kernel's bound.
var xattrBuffers = [...]int{512, 8 << 10, 64 << 10}

func readXattr(get func(buf []byte) (int, error)) (value []byte, err error) {
	for _, size := range xattrBuffers {
		var n int
		value = make([]byte, size)
		if n, err = get(value); err == nil {
			return value[:n:n], nil
		}
		if err != unix.ERANGE {
			break
		}
	}
	return nil, err
}

// splitNames cuts a list of NUL-terminated names.
func splitNames(list []byte) []string {
	names := make([]string, 0, bytes.Count(list, []byte{0}))
	for len(list) > 0 {
		name, rest, _ := bytes.Cut(list, []byte{0})
		if len(name) > 0 {
			names = append(names, string(name))
		}
		list = rest
	}
	return names
}

// Getxattr implements mdfs.FileXattrs.
func (in *inode) Getxattr(attr string) (value []byte, err error) {
	err = in.call("getxattr", "", func(fd int) error {
		value, err = readXattr(func(buf []byte) (int, error) {
			if in.path {
				return unix.Getxattr(procPath(fd), attr, buf)
			}
			return unix.Fgetxattr(fd, attr, buf)
		})
		return err
	})
	return value, err
}

// Setxattr implements mdfs.FileXattrs.
func (in *inode) Setxattr(attr string, value []byte, flags int) error {
	return in.call("setxattr", "", func(fd int) error {
		if in.path {
			return unix.Setxattr(procPath(fd), attr, value, flags)
		}
		return unix.Fsetxattr(fd, attr, value, flags)
	})
}

// Listxattr implements mdfs.FileXattrs.
func (in *inode) Listxattr() (names []string, err error) {
	err = in.call("listxattr", "", func(fd int) error {
		list, err := readXattr(func(buf []byte) (int, error) {
			if in.path {
				return unix.Listxattr(procPath(fd), buf)
			}
			return unix.Flistxattr(fd, buf)
		})
		names = splitNames(list)
		return err
	})
	return names, err
}

// Removexattr implements mdfs.FileXattrs.
func (in *inode) Removexattr(attr string) error {
	return in.call("removexattr", "", func(fd int) error {
		if in.path {
			return unix.Removexattr(procPath(fd), attr)
		}
		return unix.Fremovexattr(fd, attr)
	})
}

// The calls by name follow the descriptor's link in /proc, then look name up in
// the directory without following it (l...xattr).

// Getxattr implements mdfs.XattrNamer.
func (d *dir) Getxattr(name, attr string) (value []byte, err error) {
	if name == selfName {
		return d.self.Getxattr(attr)
	}
	err = d.entry("getxattr", name, func(fd int) error {
		path := procPath(fd) + "/" + name
		value, err = readXattr(func(buf []byte) (int, error) { return unix.Lgetxattr(path, attr, buf) })
		return err
	})
	return value, err
}

// Setxattr implements mdfs.XattrNamer.
func (d *dir) Setxattr(name, attr string, value []byte, flags int) error {
	if name == selfName {
		return d.self.Setxattr(attr, value, flags)
	}
	return d.entry("setxattr", name, func(fd int) error {
		return unix.Lsetxattr(procPath(fd)+"/"+name, attr, value, flags)
	})
}

// Listxattr implements mdfs.XattrNamer.
func (d *dir) Listxattr(name string) (names []string, err error) {
	if name == selfName {
		return d.self.Listxattr()
	}
	err = d.entry("listxattr", name, func(fd int) error {
		path := procPath(fd) + "/" + name
		list, err := readXattr(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
		names = splitNames(list)
		return err
	})
	return names, err
}

// Removexattr implements mdfs.XattrNamer.
func (d *dir) Removexattr(name, attr string) error {
	if name == selfName {
		return d.self.Removexattr(attr)
	}
	return d.entry("removexattr", name, func(fd int) error {
		return unix.Lremovexattr(procPath(fd)+"/"+name, attr)
	})
}
