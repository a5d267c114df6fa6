package mdfstest

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

var symlinkCases = []testCase{
	{name: "Readlink", run: symlinkReadlink},
	{name: "Open", run: symlinkOpen},
	{name: "Attributes", run: symlinkAttributes},
	{name: "Names", run: symlinkNames},
	{name: "Xattr", run: symlinkXattr},
	{name: "Trusted", root: true, run: symlinkTrusted},
	{name: "Planted", run: symlinkPlanted},
	{name: "Race", run: symlinkRace},
}

// links makes a file and a directory, and in the directory returned a link to
// each, one to nothing, and one out of the tree.
func (e *env) links() (d mdfs.Dir, names []string) {
	e.Helper()
	e.write(e.file(e.root, "target", 0o640), "untouched")
	e.file(e.mkdir(e.root, "dir", 0o750), "f", 0o640)
	d = e.mkdir(e.root, "links", 0o755)
	for name, target := range map[string]string{
		"file": "../target", "directory": "../dir", "dangling": "../none", "out": "/etc", "self": "self",
	} {
		e.ok(d.Symlink(target, name))
		names = append(names, name)
	}
	return d, names
}

// untouched checks that nothing was done to the targets of links.
func (e *env) untouched() {
	e.Helper()
	file, dir := e.lstat(e.root, "target"), e.lstat(e.root, "dir")
	same(e, "mode of the target", file.Mode, unix.S_IFREG|0o640)
	same(e, "size of the target", file.Size, int64(len("untouched")))
	same(e, "links of the target", uint64(file.Nlink), 1)
	same(e, "mode of the target directory", dir.Mode, unix.S_IFDIR|0o750)
	same(e, "entries of the target directory", len(e.list(e.opendir(e.root, "dir"))), 1)
	e.absent(e.root, "none")
	for _, name := range []string{"target", "dir"} {
		_, err := e.root.Getxattr(name, attr)
		e.fails("xattr of "+name, err, unix.ENODATA)
	}
}

func symlinkReadlink(e *env) {
	// XFS takes 1023 bytes, most others 4095.
	targets := []string{"x", "/", "../..", "\xff\n", long(255), long(256), "/" + long(250) + "/" + long(250), long(1023)}
	for _, target := range targets {
		e.ok(e.root.Symlink(target, "l"))
		got, err := e.root.Readlink("l")
		e.ok(err)
		same(e, "target", got, target)
		same(e, "size", e.lstat(e.root, "l").Size, int64(len(target)))
		e.ok(e.root.Remove("l"))
	}
	e.fails("target that is too long", e.root.Symlink(long(4096), "l"), unix.ENAMETOOLONG)
	e.fails("empty target", e.root.Symlink("", "l"), unix.ENOENT)
	e.fails("target with NUL", e.root.Symlink("a\x00b", "l"), unix.EINVAL)
	e.file(e.root, "f", 0o644)
	_, err := e.root.Readlink("f")
	e.fails("Readlink of a file", err, unix.EINVAL)
}

func symlinkOpen(e *env) {
	d, names := e.links()
	for _, name := range names {
		_, err := d.OpenDir(name)
		e.fails("OpenDir "+name, err, unix.ENOTDIR)
		for what, flag := range map[string]int{
			"O_RDONLY": unix.O_RDONLY, "O_RDWR": unix.O_RDWR, "O_TRUNC": unix.O_WRONLY | unix.O_TRUNC,
			"O_CREAT": unix.O_RDWR | unix.O_CREAT, "O_PATH": unix.O_PATH,
		} {
			e.fails("OpenFile "+what+" "+name, opens(flag)(d, name), unix.ELOOP)
		}
		e.fails("exclusive create of "+name, opens(unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)(d, name), unix.EEXIST)
		e.fails("OpenFile O_DIRECTORY "+name, opens(unix.O_RDONLY|unix.O_DIRECTORY)(d, name), unix.ENOTDIR, unix.ELOOP)
	}
	e.untouched()
}

func symlinkAttributes(e *env) {
	d, names := e.links()
	for _, name := range names {
		same(e, "type of "+name, kind(e.lstat(d, name)), unix.S_IFLNK)
		e.fails("Chmod "+name, d.Chmod(name, 0o777), unix.EOPNOTSUPP)
		when := time.Unix(1e9, 123)
		e.ok(d.Lchtimes(name, mdfs.TimeSet{Time: when}, mdfs.TimeSet{Time: when}))
		same(e, "mtime of "+name, e.lstat(d, name).Mtim.Sec, 1e9)
		e.ok(d.Lchown(name, -1, -1))
	}
	for _, name := range []string{"target", "dir"} {
		if e.lstat(e.root, name).Mtim.Sec == 1e9 {
			e.Errorf("Lchtimes changed the time of %s", name)
		}
	}
	e.untouched()
}

func symlinkNames(e *env) {
	d, names := e.links()
	for _, name := range names {
		ino := e.lstat(d, name).Ino
		e.ok(d.Link(name, d, "hard"))
		same(e, "Link to "+name, e.lstat(d, "hard").Ino, ino)
		e.ok(d.Remove("hard"))
		e.ok(d.Rename(name, d, "moved", 0))
		same(e, "Rename of "+name, e.lstat(d, "moved").Ino, ino)
		e.ok(d.Rename("moved", d, name, 0))
		e.fails("Mkdir over "+name, d.Mkdir(name, 0o755), unix.EEXIST)
		e.fails("Mknod over "+name, d.Mknod(name, unix.S_IFIFO|0o644, 0), unix.EEXIST)
		e.fails("Symlink over "+name, d.Symlink("x", name), unix.EEXIST)
		e.fails("Link over "+name, e.root.Link("target", d, name), unix.EEXIST)
		e.fails("RemoveDir "+name, d.RemoveDir(name), unix.ENOTDIR)
		e.ok(d.Remove(name))
		e.absent(d, name)
	}
	e.ok(d.Symlink("../target", "l"))
	e.file(d, "f", 0o600)
	e.ok(d.Rename("f", d, "l", 0))
	same(e, "type of what replaced a link", kind(e.lstat(d, "l")), unix.S_IFREG)
	e.untouched()
}

// Symlinks have no user xattrs, and those of the target do not shine through.
func symlinkXattr(e *env) {
	d, names := e.links()
	const hidden = attr + ".hidden"
	e.ok(e.root.Setxattr("target", hidden, []byte("v"), 0))
	e.ok(e.root.Setxattr("dir", hidden, []byte("v"), 0))
	for _, name := range names {
		e.fails("Setxattr "+name, d.Setxattr(name, attr, []byte("v"), 0), unix.EPERM)
		_, err := d.Getxattr(name, hidden)
		e.fails("Getxattr "+name, err, unix.ENODATA, unix.EPERM)
		e.fails("Removexattr "+name, d.Removexattr(name, hidden), unix.ENODATA, unix.EPERM)
		list, err := d.Listxattr(name)
		e.ok(err)
		same(e, "user xattrs of "+name, len(userAttrs(list)), 0)
	}
	e.untouched()
}

// Trusted xattrs are set on the link itself.
func symlinkTrusted(e *env) {
	d, names := e.links()
	const trusted = "trusted.mdfstest"
	for _, name := range names {
		e.ok(d.Setxattr(name, trusted, []byte(name), 0))
		value, err := d.Getxattr(name, trusted)
		e.ok(err)
		same(e, "xattr of a link", string(value), name)
	}
	for _, name := range []string{"target", "dir"} {
		_, err := e.root.Getxattr(name, trusted)
		e.fails("xattr of "+name, err, unix.ENODATA)
	}
	e.untouched()
}

// symlinkPlanted: a link takes the place of a directory that is known.
func symlinkPlanted(e *env) {
	d := e.mkdir(e.mkdir(e.root, "a", 0o755), "b", 0o755)
	e.mkdir(e.root, "victim", 0o755)
	a := e.opendir(e.root, "a")
	e.ok(a.Rename("b", a, "was", 0))
	e.ok(a.Symlink("../victim", "b"))
	e.file(d, "f", 0o644)
	e.lstat(e.opendir(a, "was"), "f")
	_, err := mdfs.Walk(e.root, "a/b")
	e.fails("Walk to a link", err, unix.ENOTDIR)
	e.ok(e.root.Rename("a", e.root, "was", 0))
	e.ok(e.root.Symlink("victim", "a"))
	_, err = mdfs.Walk(e.root, "a/b")
	e.fails("Walk through a link", err, unix.ENOTDIR)
	same(e, "entries of the victim", len(e.list(e.opendir(e.root, "victim"))), 0)
}

// symlinkRace swaps a directory and a link for one another while somebody
// walks there and makes files: none is ever made behind the link.
func symlinkRace(e *env) {
	victim := e.mkdir(e.root, "victim", 0o755)
	good := e.mkdir(e.root, "d", 0o755)
	e.ok(e.root.Symlink("victim", "l"))
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := e.root.Rename("d", e.root, "l", unix.RENAME_EXCHANGE); err != nil {
				done <- err
				return
			}
		}
	}()
	refused := 0
	for range 2000 {
		d, err := mdfs.Walk(e.root, "d")
		if errors.Is(err, unix.ENOTDIR) {
			refused++
			continue
		}
		e.ok(err)
		if err := d.Mknod("f", unix.S_IFREG|0o644, 0); err != nil && !errors.Is(err, unix.EEXIST) {
			e.Error(err)
		}
		d.Close()
	}
	close(stop)
	e.ok(<-done)
	e.Logf("met the link %d times in 2000", refused)
	same(e, "entries made behind the link", len(e.list(victim)), 0)
	same(e, "entries made in the directory", len(e.list(good)), 1)
}
