package mdfstest

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

var modeCases = []testCase{
	{name: "File", run: modeFile},
	{name: "Dir", run: modeDir},
	{name: "Pinned", run: modePinned},
	{name: "Special", run: modeSpecial},
	{name: "Device", root: true, run: modeDevice},
	{name: "Owner", root: true, run: modeOwner},
	{name: "DefaultACL", run: modeDefaultACL},
}

var modes = []uint32{0, 0o400, 0o644, 0o666, 0o755, 0o777, 0o4755, 0o2755, 0o1644, 0o6755, 0o7777}

func modeFile(e *env) {
	for _, m := range modes {
		name := fmt.Sprintf("%o", m)
		f := e.file(e.root, name, m)
		same(e, "mode created "+name, mode(e.lstat(e.root, name)), m)
		e.ok(e.root.Chmod(name, 0o600))
		same(e, "mode after Chmod", mode(e.lstat(e.root, name)), 0o600)
		e.ok(e.root.Chmod(name, m))
		same(e, "mode by Chmod "+name, mode(e.lstat(e.root, name)), m)
		e.ok(f.Chmod(0o600))
		e.ok(f.Chmod(m))
		st, err := f.Stat()
		e.ok(err)
		same(e, "mode by Chmod of the open file "+name, mode(st), m)
	}
}

func modeDir(e *env) {
	for _, m := range modes {
		name := fmt.Sprintf("%o", m)
		e.ok(e.root.Mkdir(name, m))
		same(e, "mode made "+name, mode(e.lstat(e.root, name)), m&0o1777)
		e.ok(e.root.Chmod(name, m))
		same(e, "mode by Chmod "+name, mode(e.lstat(e.root, name)), m)
	}
	d := e.mkdir(e.root, "setgid", 0o755)
	e.ok(e.root.Chmod("setgid", 0o2755))
	e.ok(d.Mkdir("sub", 0o700))
	same(e, "mode in a setgid directory", mode(e.lstat(d, "sub")), 0o2700)
	e.file(d, "f", 0o640)
	same(e, "mode of a file in a setgid directory", mode(e.lstat(d, "f")), 0o640)
}

// modePinned: O_PATH reaches an inode that nobody may open.
func modePinned(e *env) {
	e.file(e.root, "f", 0)
	f := e.open(e.root, "f", unix.O_PATH, 0)
	e.ok(f.Chmod(0o4710))
	e.ok(f.Chown(-1, -1))
	e.ok(f.Chmod(0o4710))
	e.ok(f.Chtimes(mdfs.TimeSet{Omit: true}, mdfs.TimeSet{Time: time.Unix(77, 0)}))
	e.ok(f.Setxattr(attr, []byte("v"), unix.XATTR_CREATE))
	value, err := f.Getxattr(attr)
	e.ok(err)
	same(e, "xattr", string(value), "v")
	list, err := f.Listxattr()
	e.ok(err)
	same(e, "xattrs", len(userAttrs(list)), 1)
	e.ok(f.Removexattr(attr))
	st := e.lstat(e.root, "f")
	same(e, "mode", mode(st), 0o4710)
	same(e, "mtime", st.Mtim.Sec, 77)
	_, err = f.ReadAt(make([]byte, 1), 0)
	e.fails("ReadAt", err, unix.EBADF)
	e.ok(e.root.Remove("f"))
	st, err = f.Stat()
	e.ok(err)
	same(e, "links when the name is gone", uint64(st.Nlink), 0)
}

// modeSpecial: opening a FIFO never waits for the other end.
func modeSpecial(e *env) {
	for name, m := range map[string]uint32{
		"fifo": unix.S_IFIFO | 0o640, "socket": unix.S_IFSOCK | 0o4600, "file": unix.S_IFREG | 0o444,
	} {
		e.ok(e.root.Mknod(name, m, 0))
		same(e, "mode of "+name, e.lstat(e.root, name).Mode, m)
	}
	opened := make(chan [2]error, 1)
	go func() {
		opened <- [2]error{opens(unix.O_RDONLY)(e.root, "fifo"), opens(unix.O_WRONLY)(e.root, "fifo")}
	}()
	select {
	case errs := <-opened:
		e.ok(errs[0])
		e.fails("opening a FIFO that nobody reads", errs[1], unix.ENXIO)
	case <-time.After(10 * time.Second):
		e.Fatal("opening a FIFO blocks")
	}
	e.fails("opening a socket", opens(unix.O_RDONLY)(e.root, "socket"), unix.ENXIO)
}

func modeDevice(e *env) {
	dev := unix.Mkdev(1, 3)
	e.ok(e.root.Mknod("null", unix.S_IFCHR|0o666, dev))
	st := e.lstat(e.root, "null")
	same(e, "mode", st.Mode, unix.S_IFCHR|0o666)
	same(e, "device", uint64(st.Rdev), dev)
	e.ok(e.root.Mknod("disk", unix.S_IFBLK|0o600, unix.Mkdev(259, 70000)))
	same(e, "device", uint64(e.lstat(e.root, "disk").Rdev), unix.Mkdev(259, 70000))
	e.fails("Mknod of a device number over 32 bits", e.root.Mknod("big", unix.S_IFCHR|0o600, 1<<32), unix.EINVAL)
}

func modeOwner(e *env) {
	f := e.file(e.root, "f", 0o644)
	owner := func(uid, gid uint32) {
		e.Helper()
		st := e.lstat(e.root, "f")
		same(e, "uid", st.Uid, uid)
		same(e, "gid", st.Gid, gid)
	}
	e.ok(e.root.Lchown("f", 1001, 1002))
	owner(1001, 1002)
	e.ok(e.root.Lchown("f", -1, 1003))
	owner(1001, 1003)
	e.ok(f.Chown(1004, -1))
	owner(1004, 1003)
	e.ok(e.root.Lchown("f", 4294967294, 4294967294))
	owner(4294967294, 4294967294)
	e.ok(e.root.Symlink("f", "l"))
	e.ok(e.root.Lchown("l", 1005, 1006))
	same(e, "uid of the link", e.lstat(e.root, "l").Uid, 1005)
	owner(4294967294, 4294967294)
	d := e.mkdir(e.root, "d", 0o755)
	e.ok(d.Lchown(".", 1007, 1008))
	same(e, "uid of .", e.lstat(e.root, "d").Uid, 1007)
}

// modeDefaultACL: with a default ACL on the directory, it and the mode asked for
// decide, whatever the umask.
func modeDefaultACL(e *env) {
	const access, byDefault = "system.posix_acl_access", "system.posix_acl_default"
	d := e.mkdir(e.root, "d", 0o755)
	acl := packACL(aclEntry{aclUserObj, 7, none}, aclEntry{aclUser, 7, uint32(os.Getuid() + 4711)},
		aclEntry{aclGroupObj, 5, none}, aclEntry{aclMask, 7, none}, aclEntry{aclOther, 0, none})
	e.ok(d.Setxattr(".", byDefault, acl, 0))

	e.file(d, "f", 0o666)
	same(e, "mode of a file", mode(e.lstat(d, "f")), 0o660)
	got, err := d.Getxattr("f", access)
	e.ok(err)
	want := packACL(aclEntry{aclUserObj, 6, none}, aclEntry{aclUser, 7, uint32(os.Getuid() + 4711)},
		aclEntry{aclGroupObj, 5, none}, aclEntry{aclMask, 6, none}, aclEntry{aclOther, 0, none})
	same(e, "ACL of a file", fmt.Sprintf("%x", got), fmt.Sprintf("%x", want))

	e.ok(d.Mkdir("sub", 0o777))
	same(e, "mode of a directory", mode(e.lstat(d, "sub")), 0o770)
	got, err = d.Getxattr("sub", byDefault)
	e.ok(err)
	same(e, "default ACL of a directory", fmt.Sprintf("%x", got), fmt.Sprintf("%x", acl))

	e.ok(d.Removexattr(".", byDefault))
	e.file(d, "plain", 0o666)
	same(e, "mode without the ACL", mode(e.lstat(d, "plain")), 0o666)
}

// The xattr form of POSIX ACLs (linux/posix_acl_xattr.h), little-endian: version
// 2, then tag, permissions and id of each entry.
type aclEntry struct {
	tag, perm uint16
	id        uint32
}

const (
	aclUserObj, aclUser, aclGroupObj = 1, 2, 4
	aclMask, aclOther                = 16, 32
	none                             = 1<<32 - 1
)

func packACL(entries ...aclEntry) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, a := range entries {
		b = binary.LittleEndian.AppendUint16(b, a.tag)
		b = binary.LittleEndian.AppendUint16(b, a.perm)
		b = binary.LittleEndian.AppendUint32(b, a.id)
	}
	return b
}
