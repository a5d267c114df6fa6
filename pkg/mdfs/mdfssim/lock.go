package mdfssim

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Flock implements mdfs.File.
func (f *file) Flock(how int) error {
	return f.do(&Call{Op: "flock", flags: how}, func(*Call, *inode) error { return f.m.d.lock(f, how) })
}

// lock is flock(2) with LOCK_NB, d.mu held. Like Linux it gives an old lock up
// before it takes one of the other kind.
func (d *Disk) lock(f *file, how int) error {
	if how != unix.LOCK_SH && how != unix.LOCK_EX && how != unix.LOCK_UN {
		return unix.EINVAL
	}
	held := d.locks[f.ino]
	if held[f] == how {
		return nil
	}
	delete(held, f)
	if how == unix.LOCK_UN {
		return nil
	}
	for _, other := range held {
		if how == unix.LOCK_EX || other == unix.LOCK_EX {
			return unix.EWOULDBLOCK
		}
	}
	if held == nil {
		held = map[*file]int{}
		d.locks[f.ino] = held
	}
	held[f] = how
	return nil
}

// byteRange is what an open file has locked of its bytes.
type byteRange struct {
	f        *file
	off, end int64
}

// Lock implements mdfs.File.
func (f *file) Lock(off, n int64) error {
	if off < 0 || n <= 0 {
		return pathError("lock", f.name, unix.EINVAL)
	}
	if !f.writable() {
		return pathError("lock", f.name, unix.EBADF)
	}
	return f.do(&Call{Op: "lock", off: off, n: n}, func(*Call, *inode) error { return f.m.d.lockRange(f, off, off+n) })
}

// lockRange: d.mu is held.
func (d *Disk) lockRange(f *file, off, end int64) error {
	for _, r := range d.ranges[f.ino] {
		if r.f != f && r.off < end && off < r.end {
			return unix.EAGAIN
		}
	}
	d.ranges[f.ino] = append(d.ranges[f.ino], byteRange{f, off, end})
	return nil
}

// unlockRanges gives the ranges up of which gone says so; d.mu is held.
func (d *Disk) unlockRanges(ino uint64, gone func(*file) bool) {
	d.ranges[ino] = slices.DeleteFunc(d.ranges[ino], func(r byteRange) bool { return gone(r.f) })
}

// locked tells whether f has a lock.
func (d *Disk) locked(f *file) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.locks[f.ino][f] != 0 || slices.ContainsFunc(d.ranges[f.ino], func(r byteRange) bool { return r.f == f })
}

// Close is a call only when there is a lock to give up.
func (f *file) Close() error {
	if !f.m.d.locked(f) {
		return nil
	}
	return f.do(&Call{Op: "flock", flags: unix.LOCK_UN}, func(*Call, *inode) error {
		f.m.d.unlockRanges(f.ino, func(g *file) bool { return g == f })
		return f.m.d.lock(f, unix.LOCK_UN)
	})
}

// Kill gives the locks of a mount's files up, as the end of its process does.
func (m *FS) Kill() {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	for _, held := range m.d.locks {
		for f := range held {
			if f.m == m {
				delete(held, f)
			}
		}
	}
	for ino := range m.d.ranges {
		m.d.unlockRanges(ino, func(f *file) bool { return f.m == m })
	}
}

// Locks appends what Kill would write.
func (m *FS) Locks(fp []Access) []Access {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	for ino, held := range m.d.locks {
		for f := range held {
			if f.m == m {
				fp = append(fp, access(keyLock, ino, "", true))
			}
		}
	}
	for ino, ranges := range m.d.ranges {
		if slices.ContainsFunc(ranges, func(r byteRange) bool { return r.f.m == m }) {
			fp = append(fp, access(keyLock, ino, "", true))
		}
	}
	return fp
}

// lockSum is the hash of all locks; whose they are is in the histories of the mounts.
func (d *Disk) lockSum() (sum uint64) {
	for ino, held := range d.locks {
		for f, how := range held {
			sum += mix(mix(ino, f.m.id), uint64(how))
		}
	}
	for ino, ranges := range d.ranges {
		for _, r := range ranges {
			sum += mix(mix(ino, r.f.m.id), uint64(r.off)<<8^uint64(r.end))
		}
	}
	return sum
}
