package mdfstest

import (
	"bytes"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

var holeCases = []testCase{
	{name: "Seek", run: holeSeek},
	{name: "Punch", run: holePunch},
	{name: "Allocate", run: holeAllocate},
}

// unit is a multiple of the blocks of any filesystem to be expected.
const unit = 1 << 20

func (e *env) fill(f mdfs.File, off, n int64) {
	e.Helper()
	_, err := f.WriteAt(bytes.Repeat([]byte("x"), int(n)), off)
	e.ok(err)
}

func (e *env) seek(f mdfs.File, off int64, whence int, want int64) {
	e.Helper()
	got, err := f.Seek(off, whence)
	e.ok(err)
	if got != want {
		e.Errorf("seek from %d (whence %d): got %d, want %d", off, whence, got, want)
	}
}

func holeSeek(e *env) {
	f := e.file(e.root, "f", 0o644)
	e.fill(f, 0, unit)
	e.fill(f, 4*unit, unit)
	e.ok(f.Truncate(8 * unit))
	e.seek(f, 0, unix.SEEK_DATA, 0)
	e.seek(f, 0, unix.SEEK_HOLE, unit)
	e.seek(f, unit, unix.SEEK_DATA, 4*unit)
	e.seek(f, 4*unit, unix.SEEK_HOLE, 5*unit)
	_, err := f.Seek(5*unit, unix.SEEK_DATA)
	e.fails("SEEK_DATA in the last hole", err, unix.ENXIO)
	_, err = f.Seek(8*unit, unix.SEEK_HOLE)
	e.fails("SEEK_HOLE at the end", err, unix.ENXIO)
	e.fill(f, 7*unit, unit)
	e.seek(f, 7*unit, unix.SEEK_HOLE, 8*unit) // the end is a hole
	e.seek(f, 0, unix.SEEK_END, 8*unit)
}

// holePunch: a punched file keeps its size, reads as zeros there, and gives the
// room back.
func holePunch(e *env) {
	f := e.file(e.root, "f", 0o644)
	e.fill(f, 0, 4*unit)
	e.ok(f.Sync())
	before := e.lstat(e.root, "f").Blocks
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	e.ok(f.Allocate(punch, unit, 2*unit))
	same(e, "size", e.lstat(e.root, "f").Size, 4*unit)
	want := make([]byte, 4*unit)
	copy(want, bytes.Repeat([]byte("x"), unit))
	copy(want[3*unit:], bytes.Repeat([]byte("x"), unit))
	if e.read(f) != string(want) {
		e.Error("a punched file reads as something else")
	}
	e.seek(f, 0, unix.SEEK_HOLE, unit)
	e.seek(f, unit, unix.SEEK_DATA, 3*unit)
	e.ok(f.Sync())
	if after := e.lstat(e.root, "f").Blocks; after >= before {
		e.Errorf("blocks: %d before the punch, %d after", before, after)
	}
	e.ok(f.Allocate(punch, 0, 4*unit))
	same(e, "size when all is punched", e.lstat(e.root, "f").Size, 4*unit)
	_, err := f.Seek(0, unix.SEEK_DATA)
	e.fails("SEEK_DATA when all is punched", err, unix.ENXIO)
}

func holeAllocate(e *env) {
	f := e.file(e.root, "f", 0o644)
	e.ok(f.Allocate(unix.FALLOC_FL_KEEP_SIZE, 0, unit))
	same(e, "size", e.lstat(e.root, "f").Size, 0)
	e.ok(f.Allocate(0, 0, unit))
	same(e, "size", e.lstat(e.root, "f").Size, unit)
	same(e, "content", e.read(f), string(make([]byte, unit)))
	e.fails("nothing to allocate", f.Allocate(0, 0, 0), unix.EINVAL)
	e.fails("negative offset", f.Allocate(0, -1, unit), unix.EINVAL)
	e.fails("Allocate with O_RDONLY", e.open(e.root, "f", unix.O_RDONLY, 0).Allocate(0, 0, unit), unix.EBADF)
}
