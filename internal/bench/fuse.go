package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// pair mounts ours and the loopback side by side on one disk, or on a filesystem
// just made on it.
func pair(ctx context.Context, o options, newFS bool, fn func(ours, peer **mount) error) (err error) {
	base, err := os.MkdirTemp(o.dir, "marfs-bench.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(base)
	disk, done := base, func() {}
	if newFS {
		if disk, done, err = fresh(ctx, base); err != nil {
			return err
		}
	}
	defer done()
	dirs := [2]string{filepath.Join(disk, "marfs"), filepath.Join(disk, "loopback")}
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	ours, err := marfs(ctx, o.bin, dirs[0])
	if err != nil {
		return err
	}
	defer func() { ours.stop() }()
	peer, err := loopback(ctx, dirs[1])
	if err != nil {
		return err
	}
	defer func() { peer.stop() }()
	return fn(&ours, &peer)
}

// withFresh calls fn with a directory on a filesystem just made, with these options.
func withFresh(ctx context.Context, o options, fn func(disk string) error, mkfs ...string) error {
	base, err := os.MkdirTemp(o.dir, "marfs-bench.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(base)
	disk, done, err := fresh(ctx, base, mkfs...)
	if err != nil {
		return err
	}
	defer done()
	return fn(disk)
}

// fresh mounts a new ext4 of its own, made with these options, for metadata rates, when run by root:
// on one in use, ext4 looks through all inodes freed of late, by whomever, before
// it gives out a new one. Otherwise base itself has to do.
func fresh(ctx context.Context, base string, options ...string) (dir string, done func(), err error) {
	if os.Geteuid() != 0 {
		return base, func() {}, nil
	}
	image, dir := filepath.Join(base, "ext4.img"), filepath.Join(base, "ext4")
	for _, cmd := range [][]string{
		{"truncate", "-s", "16G", image}, slices.Concat([]string{"mkfs.ext4", "-q"}, options, []string{image}), {"mkdir", dir}, {"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.CommandContext(ctx, cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			return "", nil, fmt.Errorf("%s: %w: %s", cmd[0], err, out)
		}
	}
	return dir, func() { exec.Command("umount", dir).Run() }, nil
}

// noise is data that no layer can make smaller.
var noise = func() []byte {
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

func writeFile(path string, size int64) (float64, error) {
	start := time.Now()
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	for n := int64(0); n < size; n += int64(len(noise)) {
		if _, err := f.Write(noise); err != nil {
			f.Close()
			return 0, err
		}
	}
	if err := f.Sync(); err != nil { // both sides durable: ours is so at close anyway
		f.Close()
		return 0, err
	}
	return rate(size, start), f.Close()
}

func readFile(path string, size int64) (float64, error) {
	buf := make([]byte, 1<<20)
	start := time.Now()
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
	if err == nil && n != size {
		err = fmt.Errorf("%s: read %d bytes of %d", path, n, size)
	}
	return rate(size, start), err
}

// stream measures sequential writes, durable at the end, and cold reads.
func stream(ctx context.Context, o options) error {
	w := row{name: "FUSE sequential write, 4+2", unit: "MB/s", aim: 0.6, note: "with fsync; peer: go-fuse loopback, same disk, 2/3 of our bytes"}
	r := row{name: "FUSE sequential cold read", unit: "MB/s", aim: 0.8, note: "peer: go-fuse loopback"}
	d := row{name: "FUSE cold read, -o direct_io", unit: "MB/s", note: "ours around the page cache; peer as above"}
	var stored, cpu float64
	err := pair(ctx, o, false, func(ours, peer **mount) error {
		for i := range o.rounds {
			for _, s := range []struct {
				m    **mount
				w, r *[]float64
			}{{ours, &w.ours, &r.ours}, {peer, &w.theirs, &r.theirs}} {
				name := fmt.Sprint("big", i)
				v, err := writeFile(filepath.Join((*s.m).dir, name), o.size)
				if err != nil {
					return err
				}
				*s.w = append(*s.w, v)
				used := (*s.m).usage()
				if *s.m, err = (*s.m).cold(ctx); err != nil {
					return err
				}
				if v, err = readFile(filepath.Join((*s.m).dir, name), o.size); err != nil {
					return err
				}
				*s.r = append(*s.r, v)
				if s.m == ours {
					cpu = (used.cpu + (*s.m).usage().cpu).Seconds() / (2 * float64(o.size) / 1e9)
					if v, err = directRead(ctx, s.m, name, o.size); err != nil {
						return err
					}
					d.ours = append(d.ours, v)
					stored = float64(treeSize(filepath.Join(filepath.Dir((*s.m).root), "stores"))) / float64(i+1)
				} else if err := os.Remove(filepath.Join((*s.m).dir, name)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.theirs = r.theirs
	w.print()
	r.print()
	d.print()
	fmt.Printf("   bytes stored per byte written: %.3f; CPU seconds of marfs-fuse per GB moved: %.2f\n", stored/float64(o.size), cpu)
	return nil
}

// directRead reads a file cold around the page cache, and leaves m mounted as it was.
func directRead(ctx context.Context, m **mount, name string, size int64) (v float64, err error) {
	if *m, err = (*m).cold(ctx, "-o", "direct_io"); err != nil {
		return 0, err
	}
	if v, err = readFile(filepath.Join((*m).dir, name), size); err != nil {
		return 0, err
	}
	*m, err = (*m).cold(ctx)
	return v, err
}

// treeSize is the room that a tree takes on disk, in bytes.
func treeSize(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if fi, err := e.Info(); err == nil {
				n += fi.Sys().(*syscall.Stat_t).Blocks * 512
			}
		}
		return nil
	})
	return n
}

// attrTimeout is longer than both sides let the kernel cache attributes.
const attrTimeout = 1100 * time.Millisecond

// metadata measures creates, stats and unlinks of empty files, one at a time,
// with nothing in the kernel's caches. The kernel has ours check the directory's
// permissions anew for each unlink, a request that a loopback for one user does
// without; so there is a second peer, which serves everybody as ours does.
func metadata(ctx context.Context, o options) error {
	rows := []*row{{name: "create", aim: 0.5}, {name: "stat", aim: 0.9}, {name: "unlink", aim: 0.5}}
	shared := []*row{{}, {}, {name: "unlink, peer for all users too", aim: 0.5, unit: "files/s", note: "peer: go-fuse loopback -allow-other"}}
	for _, r := range rows {
		r.unit, r.note = "files/s", "peer: go-fuse loopback"
	}
	ops := []func(string) error{
		func(p string) error {
			f, err := os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		},
		func(p string) error { _, err := os.Lstat(p); return err },
		os.Remove,
	}
	err := pair(ctx, o, true, func(ours, peer **mount) error {
		other, err := loopback(ctx, filepath.Join(filepath.Dir(filepath.Dir((*peer).root)), "loopback-all"), "-allow-other")
		if err != nil {
			return err
		}
		defer other.stop()
		// One operation after the other over all rounds: nobody's creates are to
		// follow anybody's unlinks (see fresh).
		for k, op := range ops {
			time.Sleep(attrTimeout) // so that no side is answered by the kernel's cache
			for round := range 2*o.rounds + 1 {
				var rates [3]float64
				for i, m := range []*mount{*ours, *peer, other} {
					if rates[i], err = eachFile(op, filepath.Join(m.dir, fmt.Sprint("d", round)), o.files); err != nil {
						return err
					}
				}
				rows[k].add(rates[0], rates[1])
				shared[k].add(rates[0], rates[2])
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range append(rows, shared[2]) {
		r.print()
	}
	return nil
}

// eachFile does op to n files of a directory, and returns how many a second.
func eachFile(op func(string) error, dir string, n int) (float64, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	start := time.Now()
	for i := range n {
		if err := op(filepath.Join(dir, fmt.Sprint("f", i))); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// memory writes and reads eight files at once and prints the daemon's peak memory.
func memory(ctx context.Context, o options) error {
	base, err := os.MkdirTemp(o.dir, "marfs-bench.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(base)
	m, err := marfs(ctx, o.bin, base)
	if err != nil {
		return err
	}
	defer func() { m.stop() }()
	const streams = 8
	each := func(fn func(string, int64) (float64, error)) (time.Duration, error) {
		var g errgroup.Group
		start := time.Now()
		for i := range streams {
			g.Go(func() error { _, err := fn(filepath.Join(m.dir, fmt.Sprint("m", i)), o.size); return err })
		}
		err := g.Wait()
		return time.Since(start), err
	}
	wrote, err := each(writeFile)
	if err != nil {
		return err
	}
	up := m.usage()
	if m, err = m.cold(ctx); err != nil {
		return err
	}
	read, err := each(readFile)
	if err != nil {
		return err
	}
	down := m.usage()
	total := float64(streams*o.size) / 1e6
	fmt.Printf("%d streams of %.1f GB at once: write %.0f MB/s, peak RSS %d MB; cold read %.0f MB/s, peak RSS %d MB (bound: 1024 MB)\n",
		streams, float64(o.size)/1e9, total/wrote.Seconds(), up.peakRSS/1e6, total/read.Seconds(), down.peakRSS/1e6)
	return nil
}
