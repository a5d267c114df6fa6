package mdfs

import "strings"

// Walk opens the directory at path below dir, one OpenDir per component, so
// that no symlink on the way is followed and every component is checked with
// the rights of the moment. Path is relative, its components are separated by
// single slashes; "" is dir itself. The Dir returned is to be closed on its own.
func Walk(dir Dir, path string) (Dir, error) {
	at, err := dir.Again()
	for more := path != ""; more && err == nil; {
		var name string
		name, path, more = strings.Cut(path, "/")
		at, err = step(at, name)
	}
	return at, err
}

// step opens name in at and closes at.
func step(at Dir, name string) (Dir, error) {
	defer at.Close()
	return at.OpenDir(name)
}
