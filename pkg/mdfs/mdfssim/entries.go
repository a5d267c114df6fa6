package mdfssim

import (
	"io"
	"maps"
	"slices"
	"strings"

	"marfs/pkg/mdfs"

	"golang.org/x/sys/unix"
)

// entries is a stream over a directory as it was when the stream was opened.
type entries struct {
	all []mdfs.Dirent
	at  int64
}

func (d *dir) Entries() (mdfs.Entries, error) {
	e := &entries{}
	err := d.m.do(&Call{Op: "entries", dir: d.ino}, func(c *Call) error {
		names := d.m.d.get(d.ino).names
		for i, name := range slices.Sorted(maps.Keys(names)) {
			n := d.m.d.get(names[name])
			e.all = append(e.all, mdfs.Dirent{Name: name, Ino: n.ino, Type: n.kind(), Next: int64(i) + 1})
			c.Result = mix(c.Result, mix(hashString(name), n.ino))
		}
		c.show = e.show
		return nil
	})
	if err != nil {
		return nil, pathError("entries", ".", err)
	}
	return e, nil
}

func (e *entries) show() string {
	var names []string
	for _, d := range e.all {
		names = append(names, d.Name)
	}
	return "[" + strings.Join(names, " ") + "]"
}

func (e *entries) Next() (mdfs.Dirent, error) {
	if e.at >= int64(len(e.all)) {
		return mdfs.Dirent{}, io.EOF
	}
	e.at++
	return e.all[e.at-1], nil
}

func (e *entries) SeekTo(pos int64) error {
	if pos < 0 || pos > int64(len(e.all)) {
		return unix.EINVAL
	}
	e.at = pos
	return nil
}

func (e *entries) Close() error { return nil }
