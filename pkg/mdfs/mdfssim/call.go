package mdfssim

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Hook sees every call of a mount that touches shared state.
type Hook interface {
	// Before is called before c takes effect, without any lock held. It may
	// block, end the goroutine, or refuse the call by returning an error, which
	// the caller gets (in a PathError) while nothing is changed.
	Before(c *Call) error
	// After is called with c's result filled in.
	After(c *Call)
}

// Call is one call of a mount.
type Call struct {
	Op string // method name in mdfs, lower case

	disk         *Disk
	dir, to      uint64 // directories
	name, toName string
	ino          uint64 // calls on open files
	path         string // of an open file, as opened
	attr         string
	off, n       int64
	flags        int
	data         []byte

	Err    error
	Result uint64        // hash of everything the caller learned
	show   func() string // the result, for people
}

// Access is one piece of shared state a call reads or writes. Two calls with no
// piece in common that either writes give the same in both orders.
type Access struct {
	Key   uint64
	Write bool
}

// The kinds of pieces.
const (
	keyName  = iota + 1 // one entry of a directory
	keyList             // the set of entries
	keyAttr             // what stat shows
	keyData             // bytes
	keyXattr            // one xattr
	keyXlist            // the set of xattr names
	keyLock             // the locks of an inode
)

func access(kind int, ino uint64, name string, write bool) Access {
	h := mix(uint64(kind), ino)
	if name != "" {
		h = mix(h, hashString(name))
	}
	return Access{h, write}
}

// Footprint appends what c would read and write in the disk's present state.
func (c *Call) Footprint(fp []Access) []Access {
	c.disk.mu.Lock()
	defer c.disk.mu.Unlock()
	return c.footprint(c.disk, fp)
}

// Digest identifies the call, without its result.
func (c *Call) Digest() uint64 {
	h := mix(hashString(c.Op), c.dir)
	h = mix(h, c.to)
	h = mix(h, c.ino)
	h = mix(h, hashString(c.name))
	h = mix(h, hashString(c.toName))
	h = mix(h, hashString(c.attr))
	h = mix(h, uint64(c.off)<<8^uint64(c.n)<<4^uint64(c.flags))
	return mix(h, hashString(string(c.data)))
}

// Changes reports whether footprint fp writes anything.
func Changes(fp []Access) bool {
	for _, a := range fp {
		if a.Write {
			return true
		}
	}
	return false
}

// Conflict reports whether two footprints share a piece that either writes.
func Conflict(a, b []Access) bool {
	for _, x := range a {
		for _, y := range b {
			if x.Key == y.Key && (x.Write || y.Write) {
				return true
			}
		}
	}
	return false
}

func (c *Call) footprint(d *Disk, fp []Access) []Access {
	switch c.Op {
	case "sync", "syncdir", "syncfs":
		return fp
	case "link", "rename":
		return c.footprintMove(d, fp)
	case "entries":
		return append(fp, access(keyList, c.dir, "", false))
	case "statdir":
		return append(fp, access(keyAttr, c.dir, "", false))
	}
	ino := c.ino
	if c.name != "" {
		var there bool
		ino, there = d.get(c.dir).names[c.name]
		if !there {
			return c.footprintAbsent(fp)
		}
		remove := c.Op == "remove" || c.Op == "removedir"
		fp = append(fp, access(keyName, c.dir, c.name, remove))
		if remove {
			fp = append(fp, access(keyList, c.dir, "", true), access(keyAttr, ino, "", true))
		}
		if c.Op == "removedir" {
			fp = append(fp, access(keyAttr, c.dir, "", true), access(keyList, ino, "", false))
		}
	}
	return c.footprintInode(d, ino, fp)
}

// footprintAbsent is that of a call on a name that is not there.
func (c *Call) footprintAbsent(fp []Access) []Access {
	makes := c.Op == "mkdir" || c.Op == "mknod" || c.Op == "symlink" || c.Op == "openfile" && c.flags&unix.O_CREAT != 0
	fp = append(fp, access(keyName, c.dir, c.name, makes))
	if makes {
		fp = append(fp, access(keyList, c.dir, "", true))
	}
	if c.Op == "mkdir" {
		fp = append(fp, access(keyAttr, c.dir, "", true))
	}
	return fp
}

func (c *Call) footprintInode(d *Disk, ino uint64, fp []Access) []Access {
	switch c.Op {
	case "lstat", "stat":
		return append(fp, access(keyAttr, ino, "", false))
	case "chmod", "chown", "chtimes":
		return append(fp, access(keyAttr, ino, "", true))
	case "read", "seek":
		return append(fp, access(keyData, ino, "", false))
	case "write", "truncate", "allocate":
		return append(fp, access(keyData, ino, "", true), access(keyAttr, ino, "", true))
	case "openfile":
		if c.flags&unix.O_TRUNC != 0 {
			fp = append(fp, access(keyData, ino, "", true), access(keyAttr, ino, "", true))
		}
		return fp
	case "flock", "lock":
		return append(fp, access(keyLock, ino, "", true))
	case "getxattr":
		return append(fp, access(keyXattr, ino, c.attr, false))
	case "listxattr":
		return append(fp, access(keyXlist, ino, "", false))
	case "setxattr", "removexattr":
		return c.footprintXattr(d.get(ino), fp)
	}
	return fp
}

func (c *Call) footprintXattr(n *inode, fp []Access) []Access {
	_, there := n.findXattr(c.attr)
	set := c.Op == "setxattr"
	refused := set && (there && c.flags&unix.XATTR_CREATE != 0 || !there && c.flags&unix.XATTR_REPLACE != 0)
	writes := !refused && (set || there)
	fp = append(fp, access(keyXattr, n.ino, c.attr, writes))
	if writes && set != there {
		fp = append(fp, access(keyXlist, n.ino, "", true))
	}
	return fp
}

func (c *Call) footprintMove(d *Disk, fp []Access) []Access {
	ino, there := d.get(c.dir).names[c.name]
	victim, taken := d.get(c.to).names[c.toName]
	idle := !there || there && taken && (c.Op == "link" || ino == victim || c.flags&unix.RENAME_NOREPLACE != 0)
	moves := !idle && c.Op == "rename"
	fp = append(fp, access(keyName, c.dir, c.name, moves), access(keyName, c.to, c.toName, !idle))
	if idle {
		return fp
	}
	fp = append(fp, access(keyList, c.to, "", true))
	if moves {
		fp = append(fp, access(keyList, c.dir, "", true))
	}
	if c.Op == "link" {
		fp = append(fp, access(keyAttr, ino, "", true))
	}
	if taken {
		fp = append(fp, access(keyAttr, victim, "", true), access(keyList, victim, "", false))
	}
	if moves && (d.get(ino).isDir() || taken && d.get(victim).isDir()) {
		fp = append(fp, access(keyAttr, c.dir, "", true), access(keyAttr, c.to, "", true))
	}
	return fp
}

// String shows the call and, once made, its result.
func (c *Call) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-11s %s", c.Op, c.where())
	if c.toName != "" {
		b.WriteString(" -> " + c.disk.pathLocked(c.to, c.toName))
	}
	if c.attr != "" {
		b.WriteString(" " + c.attr)
	}
	b.WriteString(c.args())
	return b.String()
}

// Outcome shows the result of a call that was made.
func (c *Call) Outcome() string {
	if c.Err != nil {
		return errnoName(c.Err)
	}
	if c.show != nil {
		return c.show()
	}
	return "ok"
}

func (c *Call) where() string {
	switch {
	case c.name != "":
		return c.disk.pathLocked(c.dir, c.name)
	case c.path != "":
		return "fd:" + c.path
	case c.dir == 0: // syncfs
		return ""
	}
	return c.disk.pathLocked(c.dir, "")
}

func (c *Call) args() string {
	switch c.Op {
	case "setxattr":
		s := map[int]string{unix.XATTR_CREATE: " CREATE", unix.XATTR_REPLACE: " REPLACE"}[c.flags]
		return s + " " + string(c.data)
	case "openfile":
		return openFlags(c.flags)
	case "read", "write", "allocate", "lock":
		return fmt.Sprintf(" [%d,+%d)", c.off, c.n)
	case "truncate":
		return fmt.Sprintf(" %d", c.n)
	case "flock":
		return map[int]string{unix.LOCK_SH: " SH", unix.LOCK_EX: " EX", unix.LOCK_UN: " UN"}[c.flags]
	}
	return ""
}

func openFlags(flags int) string {
	s := [...]string{" rd", " wr", " rdwr", ""}[flags&unix.O_ACCMODE]
	for _, f := range []struct {
		bit  int
		name string
	}{{unix.O_CREAT, "|creat"}, {unix.O_EXCL, "|excl"}, {unix.O_TRUNC, "|trunc"}} {
		if flags&f.bit != 0 {
			s += f.name
		}
	}
	return s
}

func errnoName(err error) string {
	if s := unix.ErrnoName(errno(err)); s != "" {
		return s
	}
	return err.Error()
}

func (d *Disk) pathLocked(dir uint64, name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.path(dir, name)
}
