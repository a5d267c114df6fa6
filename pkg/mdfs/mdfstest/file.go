package mdfstest

import (
	"bytes"
	"io"

	"golang.org/x/sys/unix"
)

var fileCases = []testCase{
	{name: "ReadWrite", run: fileReadWrite},
	{name: "Flags", run: fileFlags},
	{name: "Truncate", run: fileTruncate},
	{name: "Large", run: fileLarge},
	{name: "Unlinked", run: fileUnlinked},
	{name: "Directory", run: fileDirectory},
	{name: "Flock", run: fileFlock},
	{name: "Lock", run: fileLock},
}

func fileReadWrite(e *env) {
	f := e.file(e.root, "f", 0o644)
	n, err := f.ReadAt(make([]byte, 4), 0)
	if n != 0 || err != io.EOF {
		e.Errorf("ReadAt of an empty file: got %d, %v, want EOF", n, err)
	}
	e.write(f, "hello")
	n, err = f.WriteAt([]byte("world"), 10)
	e.ok(err)
	same(e, "bytes written", n, 5)
	same(e, "content with a gap", e.read(f), "hello\x00\x00\x00\x00\x00world")
	buf := make([]byte, 8)
	n, err = f.ReadAt(buf, 12)
	if n != 3 || err != io.EOF || string(buf[:n]) != "rld" {
		e.Errorf("ReadAt over the end: got %q, %v, want \"rld\" and EOF", buf[:n], err)
	}
	if n, err = f.ReadAt(nil, 3); n != 0 || err != nil {
		e.Errorf("ReadAt of nothing: got %d, %v", n, err)
	}
	_, err = f.ReadAt(buf, -1)
	e.fails("ReadAt before the start", err, unix.EINVAL)
	_, err = f.WriteAt(buf, -1)
	e.fails("WriteAt before the start", err, unix.EINVAL)
	e.ok(f.Sync())
	same(e, "size by name", e.lstat(e.root, "f").Size, 15)
}

func fileFlags(e *env) {
	e.write(e.file(e.root, "f", 0o644), "content")
	e.fails("exclusive create", opens(unix.O_CREAT|unix.O_EXCL|unix.O_RDWR)(e.root, "f"), unix.EEXIST)
	e.ok(opens(unix.O_CREAT|unix.O_RDWR)(e.root, "f"))
	e.fails("O_DIRECTORY of a file", opens(unix.O_RDONLY|unix.O_DIRECTORY)(e.root, "f"), unix.ENOTDIR)
	e.fails("O_APPEND", opens(unix.O_WRONLY|unix.O_APPEND)(e.root, "f"), unix.EINVAL)
	_, err := e.open(e.root, "f", unix.O_RDONLY, 0).WriteAt([]byte("x"), 0)
	e.fails("WriteAt with O_RDONLY", err, unix.EBADF)
	_, err = e.open(e.root, "f", unix.O_WRONLY, 0).ReadAt(make([]byte, 1), 0)
	e.fails("ReadAt with O_WRONLY", err, unix.EBADF)
	same(e, "content", e.read(e.open(e.root, "f", unix.O_RDONLY, 0)), "content")
	e.open(e.root, "f", unix.O_RDWR|unix.O_TRUNC, 0)
	same(e, "size after O_TRUNC", e.lstat(e.root, "f").Size, 0)
}

func fileTruncate(e *env) {
	f := e.file(e.root, "f", 0o644)
	e.write(f, "0123456789")
	e.ok(f.Truncate(4))
	same(e, "content cut", e.read(f), "0123")
	e.ok(f.Truncate(8))
	same(e, "content grown again", e.read(f), "0123\x00\x00\x00\x00")
	e.ok(f.Truncate(0))
	same(e, "content cut to nothing", e.read(f), "")
	e.fails("negative size", f.Truncate(-1), unix.EINVAL)
	e.fails("Truncate with O_RDONLY", e.open(e.root, "f", unix.O_RDONLY, 0).Truncate(1), unix.EINVAL, unix.EBADF)
}

// fileLarge: transfers of several MiB are whole, and offsets 64 bits.
func fileLarge(e *env) {
	f := e.file(e.root, "f", 0o644)
	data := bytes.Repeat([]byte("0123456789abcdef"), 5<<20/16)
	const off = 6<<30 + 7
	n, err := f.WriteAt(data, off)
	e.ok(err)
	same(e, "bytes written", n, len(data))
	same(e, "size", e.lstat(e.root, "f").Size, off+int64(len(data)))
	got := make([]byte, len(data))
	_, err = f.ReadAt(got, off)
	e.ok(err)
	if !bytes.Equal(got, data) {
		e.Error("read back something else")
	}
	_, err = f.ReadAt(got[:100], 1<<30)
	e.ok(err)
	same(e, "bytes of the gap", string(got[:100]), string(make([]byte, 100)))
}

// An open file outlives its name.
func fileUnlinked(e *env) {
	f := e.file(e.root, "f", 0o644)
	e.write(f, "before")
	e.ok(e.root.Remove("f"))
	e.absent(e.root, "f")
	e.write(f, "behind")
	same(e, "content", e.read(f), "behind")
	e.ok(f.Chmod(0o640))
	e.ok(f.Setxattr(attr, []byte("v"), unix.XATTR_CREATE))
	value, err := f.Getxattr(attr)
	e.ok(err)
	same(e, "xattr", string(value), "v")
	e.ok(f.Truncate(2))
	e.ok(f.Sync())
	st, err := f.Stat()
	e.ok(err)
	same(e, "links", uint64(st.Nlink), 0)
	same(e, "mode", mode(st), 0o640)
	same(e, "size", st.Size, 2)
	e.write(e.file(e.root, "f", 0o644), "another")
	same(e, "content beside a new file of the name", e.read(f), "be")
}

// Locks are of open files, not of processes: two of one process exclude each other.
func fileFlock(e *env) {
	a, b := e.file(e.root, "f", 0o644), e.open(e.root, "f", unix.O_RDWR, 0)
	reader := e.open(e.root, "f", unix.O_RDONLY, 0)
	e.ok(a.Flock(unix.LOCK_SH))
	e.ok(b.Flock(unix.LOCK_SH))
	e.fails("LOCK_EX beside another's LOCK_SH", a.Flock(unix.LOCK_EX), unix.EWOULDBLOCK)
	e.ok(a.Flock(unix.LOCK_UN))
	e.ok(b.Flock(unix.LOCK_EX))
	e.ok(b.Flock(unix.LOCK_EX))
	e.fails("LOCK_SH beside LOCK_EX", reader.Flock(unix.LOCK_SH), unix.EWOULDBLOCK)
	e.fails("LOCK_EX beside LOCK_EX", a.Flock(unix.LOCK_EX), unix.EWOULDBLOCK)
	e.ok(b.Flock(unix.LOCK_SH))
	e.ok(reader.Flock(unix.LOCK_SH))
	e.ok(b.Flock(unix.LOCK_UN))
	e.ok(b.Flock(unix.LOCK_UN))
	e.fails("LOCK_EX beside a reader's LOCK_SH", b.Flock(unix.LOCK_EX), unix.EWOULDBLOCK)
	e.ok(e.root.Remove("f"))
	e.ok(reader.Close())
	e.ok(b.Flock(unix.LOCK_EX))
	e.fails("no kind of lock", a.Flock(0), unix.EINVAL)
	e.ok(e.file(e.root, "f", 0o644).Flock(unix.LOCK_EX))
}

// Locks of bytes are of open files too, so another process is as another File.
func fileLock(e *env) {
	a, b := e.file(e.root, "f", 0o644), e.open(e.root, "f", unix.O_RDWR, 0)
	const far = 1<<32 - 1
	e.ok(a.Lock(7, 1))
	e.ok(a.Lock(7, 1))
	e.fails("a byte that is locked", b.Lock(7, 1), unix.EAGAIN)
	e.fails("a range over it", b.Lock(0, 100), unix.EAGAIN)
	e.ok(b.Lock(8, 2))
	e.ok(b.Lock(far, 1))
	e.fails("beside the end of the file", a.Lock(far, 1), unix.EAGAIN)
	e.ok(a.Flock(unix.LOCK_EX))
	e.fails("Flock", b.Flock(unix.LOCK_EX), unix.EWOULDBLOCK)
	same(e, "size", e.lstat(e.root, "f").Size, 0)
	c := e.open(e.root, "f", unix.O_RDWR, 0)
	e.ok(c.Close()) // gives up nothing of the others
	e.fails("after another's Close", b.Lock(7, 1), unix.EAGAIN)
	e.ok(a.Close())
	e.ok(b.Lock(7, 1))
	e.fails("no bytes", b.Lock(20, 0), unix.EINVAL)
	e.fails("negative offset", b.Lock(-1, 1), unix.EINVAL)
	e.fails("open for reading", e.open(e.root, "f", unix.O_RDONLY, 0).Lock(50, 1), unix.EBADF)
}

func fileDirectory(e *env) {
	e.mkdir(e.root, "d", 0o755)
	e.fails("writing a directory", opens(unix.O_RDWR)(e.root, "d"), unix.EISDIR)
	e.fails("creating over a directory", opens(unix.O_CREAT|unix.O_RDWR)(e.root, "d"), unix.EISDIR)
	f := e.open(e.root, "d", unix.O_RDONLY, 0)
	e.ok(f.Chmod(0o711))
	e.ok(f.Sync())
	_, err := f.ReadAt(make([]byte, 1), 0)
	e.fails("reading a directory", err, unix.EISDIR)
	same(e, "mode", mode(e.lstat(e.root, "d")), 0o711)
}
