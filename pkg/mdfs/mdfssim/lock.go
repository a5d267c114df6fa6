package mdfssim

import "golang.org/x/sys/unix"

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

// locked tells whether f has a lock.
func (d *Disk) locked(f *file) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.locks[f.ino][f] != 0
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
	return fp
}

// lockSum is the hash of all locks; whose they are is in the histories of the mounts.
func (d *Disk) lockSum() (sum uint64) {
	for ino, held := range d.locks {
		for f, how := range held {
			sum += mix(mix(ino, f.m.id), uint64(how))
		}
	}
	return sum
}
