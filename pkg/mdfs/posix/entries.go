package posix

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

// direntBuffer is how much of a directory is read at once: a few hundred entries.
const direntBuffer = 32 << 10

var direntBuffers = sync.Pool{New: func() any { return new([direntBuffer]byte) }}

// entries is a directory stream with a descriptor, and so a position, of its
// own. One goroutine at a time uses it.
type entries struct {
	dir  inode
	buf  *[direntBuffer]byte
	rest []byte // of buf: records read and not yet returned
}

var _ mdfs.Entries = (*entries)(nil)

// Entries implements mdfs.Dir.
func (d *dir) Entries() (mdfs.Entries, error) {
	var e *entries
	err := d.call("opendir", "", func(fd int) error {
		n, err := openReadable(fd)
		if err == nil {
			e = &entries{dir: inode{handle: handle{fd: n}, name: d.self.name}}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	e.buf = direntBuffers.Get().(*[direntBuffer]byte)
	return e, nil
}

// Next implements mdfs.Entries.
func (e *entries) Next() (mdfs.Dirent, error) {
	for {
		if len(e.rest) == 0 {
			if err := e.fill(); err != nil {
				return mdfs.Dirent{}, err
			}
		}
		ent, n, ok := parseDirent(e.rest)
		if !ok {
			e.rest = nil
			return mdfs.Dirent{}, &fs.PathError{Op: "readdir", Path: e.dir.name, Err: unix.EIO}
		}
		e.rest = e.rest[n:]
		// Besides "." and "..", leave out what no call could name.
		if checkName(ent.Name) == nil {
			return ent, nil
		}
	}
}

// fill reads the next records; io.EOF if there are none.
func (e *entries) fill() error {
	var n int
	err := e.dir.call("readdir", "", func(fd int) (err error) {
		n, err = unix.Getdents(fd, e.buf[:])
		return err
	})
	if errors.Is(err, unix.ENOENT) || err == nil && n == 0 {
		return io.EOF // ENOENT: the directory is removed, and empty
	}
	if err == nil {
		e.rest = e.buf[:n]
	}
	return err
}

// parseDirent takes the first record off what getdents64(2) filled in, and
// its length. A record that does not fit is refused whatever it says.
func parseDirent(b []byte) (ent mdfs.Dirent, n int, ok bool) {
	const ino, off, reclen, typ, name = 0, 8, 16, 18, 19
	if len(b) < name {
		return ent, 0, false
	}
	n = int(binary.NativeEndian.Uint16(b[reclen:]))
	if n < name || n > len(b) {
		return ent, 0, false
	}
	end := bytes.IndexByte(b[name:n], 0)
	if end < 0 {
		return ent, 0, false
	}
	return mdfs.Dirent{
		Name: string(b[name : name+end]),
		Ino:  binary.NativeEndian.Uint64(b[ino:]),
		Type: fileType(b[typ]),
		Next: int64(binary.NativeEndian.Uint64(b[off:])),
	}, n, true
}

// fileType turns a DT_ constant into S_IFMT bits; what has none is unknown.
func fileType(dt byte) uint32 {
	switch dt {
	case unix.DT_REG, unix.DT_DIR, unix.DT_LNK, unix.DT_CHR, unix.DT_BLK, unix.DT_FIFO, unix.DT_SOCK:
		return uint32(dt) << 12
	}
	return 0
}

// SeekTo implements mdfs.Entries.
func (e *entries) SeekTo(pos int64) error {
	e.rest = nil
	return e.dir.call("seekdir", "", func(fd int) error {
		_, err := unix.Seek(fd, pos, io.SeekStart)
		return err
	})
}

// Close implements mdfs.Entries.
func (e *entries) Close() error {
	err := e.dir.Close()
	if err == nil {
		direntBuffers.Put(e.buf)
		e.buf, e.rest = nil, nil
	}
	return err
}
