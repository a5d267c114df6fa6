package packer

import (
	"path"
	"strings"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// maxListed bounds the entries of a directory in which names are looked for.
const maxListed = 1 << 16

// paths finds out what files are called now, from the paths noted when they were
// written. Files come sorted by directory, so one directory is kept.
type paths struct {
	path  string
	dir   mdfs.Dir          // nil: none, or it cannot be opened
	known bool              // path is that of dir
	names map[uint64]string // by inode number; nil: not listed
}

// leadsDown tells whether a path is one below the namespace's root.
func leadsDown(p string) bool {
	return p != "" && !strings.ContainsRune(p, 0) && path.Clean("/" + p)[1:] == p
}

// verify returns the path of the file with this inode number, "" if none was noted
// ([metadata.File.CreationPath]): the noted one if it is there; else, since many programs write under a temporary name, the one it has in
// the same directory; else the noted one all the same.
func (p *paths) verify(tree mdfs.Dir, noted string, ino uint64) string {
	if noted == "" {
		return ""
	}
	dir, name := path.Split(noted)
	p.enter(tree, dir)
	if p.dir == nil {
		return noted
	}
	if st, err := p.dir.Lstat(name); err == nil && st.Ino == ino {
		return noted
	}
	if found, ok := p.list()[ino]; ok && len(dir)+len(found) <= objfmt.MaxPath {
		return dir + found
	}
	return noted
}

// enter makes dir, which ends with a slash if it is not the root, the one that is kept.
func (p *paths) enter(tree mdfs.Dir, dir string) {
	if p.known && p.path == dir {
		return
	}
	p.close()
	p.path, p.known = dir, true
	if d, err := mdfs.Walk(tree, path.Clean("/" + dir)[1:]); err == nil {
		p.dir = d
	}
}

// list reads the directory, once.
func (p *paths) list() map[uint64]string {
	if p.names != nil {
		return p.names
	}
	p.names = map[uint64]string{}
	entries, err := p.dir.Entries()
	if err != nil {
		return p.names
	}
	defer entries.Close()
	for len(p.names) < maxListed {
		e, err := entries.Next()
		if err != nil { // or the end
			break
		}
		p.names[e.Ino] = e.Name
	}
	return p.names
}

func (p *paths) close() {
	if p.dir != nil {
		p.dir.Close()
	}
	*p = paths{}
}
