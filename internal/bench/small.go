package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// smallSizes are the sizes of the files of the trees, in bytes.
var smallSizes = []int{4 << 10, 100 << 10}

const (
	smallAtOnce = 8    // processes, goroutines, transfers
	smallRandom = 2000 // files that are read in no order
)

// lazily leaves the durability of small files to fsync.
const lazily = "    stage: {sync: application}\n"

// small copies trees of small files into a namespace and reads them again, and
// does the same with a bare directory, and with rclone and the same S3 server. One
// round of each: that many files are their own average.
func small(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		fmt.Println("small files: left out: drops the kernel's caches, which only root may")
		return nil
	}
	for _, size := range smallSizes {
		if err := smallTree(ctx, o, size); err != nil {
			return err
		}
	}
	return nil
}

// smallTree measures one tree, over directories and over S3.
func smallTree(ctx context.Context, o options, size int) error {
	src, err := os.MkdirTemp(memoryDir(o.dir, 4*int64(o.small)*int64(size)), "marfs-bench.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(src)
	t, err := makeTree(src, o.small, size)
	if err != nil {
		return err
	}
	for _, over := range []struct {
		name string
		s3   bool
	}{{"directories", false}, {"S3", true}} {
		fmt.Printf("%d files of %d KiB in directories of %d, over %s, 4+2:\n", len(t.files), size>>10, perDir, over.name)
		if err := smallOver(ctx, o, t, over.s3); err != nil {
			return err
		}
	}
	return nil
}

// smallOver makes a namespace for a tree and measures it.
func smallOver(ctx context.Context, o options, t tree, s3 bool) (err error) {
	base, err := os.MkdirTemp(o.dir, "marfs-bench.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(base)
	s := &smallRun{o: o, tree: t, base: base, stores: filepath.Join(base, "stores")}
	stores := dirStores(base)
	if s3 {
		server, stop, err := startS3(base)
		if err != nil {
			return err
		}
		defer stop()
		if s.rclone, err = newRclone(ctx, server); err != nil {
			return err
		}
		if s.rclone == nil {
			fmt.Println("   rclone is not installed (apt-get install rclone): what it is the peer of is left out")
		}
		s.stores, stores = server.Dir, s3Stores(server)
	}
	if s.conf, err = configureOver(ctx, o.bin, base, stores, ""); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.unmount()) }()
	for _, part := range []func(context.Context) error{s.writes, s.lazyWrites, s.library, s.stored, s.reads} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// smallRun is one tree over one kind of stores.
type smallRun struct {
	o      options
	tree   tree
	base   string // holds all that is made but the tree
	stores string // holds the stores of ours
	conf   string
	mnt    *mount  // nil: not mounted
	rclone *rclone // nil: there is nothing to compare with
	bare   map[int]float64
	files  int // of ours so far
	peak   int64
}

// mountAs mounts with a configuration, and nothing in the kernel's caches.
func (s *smallRun) mountAs(ctx context.Context, conf string) (err error) {
	if err := s.unmount(); err != nil {
		return err
	}
	dropCaches()
	s.mnt, err = mountConf(ctx, s.o.bin, conf)
	return err
}

func (s *smallRun) unmount() error {
	if s.mnt == nil {
		return nil
	}
	s.peak = max(s.peak, s.mnt.usage().peakRSS)
	err := s.mnt.stop()
	s.mnt = nil
	return err
}

// rate times fn and returns how many files of the tree a second that is.
func (s *smallRun) rate(fn func() error) (float64, error) {
	syscall.Sync() // what was before is not to disturb
	start := time.Now()
	err := fn()
	return float64(len(s.tree.files)) / time.Since(start).Seconds(), err
}

func (s *smallRun) row(name string, ours, theirs, aim float64, note string) {
	r := row{name: "   " + name, unit: "files/s", aim: aim, note: note}
	r.add(ours, theirs)
	r.print()
}

// ingested is how fast a copy went, in files/s.
type ingested struct {
	copied float64 // until it was durable
	packed float64 // until everything was in packs, too
	cpu    time.Duration
}

// ingest copies the tree to a directory of the namespace and packs it.
func (s *smallRun) ingest(ctx context.Context, name string, n int) (in ingested, err error) {
	before := s.mnt.usage().cpu
	start := time.Now()
	in.copied, err = s.rate(func() error { return s.tree.cp(ctx, filepath.Join(s.mnt.dir, name), n) })
	if err != nil {
		return in, err
	}
	in.cpu = (s.mnt.usage().cpu - before) / time.Duration(len(s.tree.files))
	s.files += len(s.tree.files)
	if err := s.pack(ctx); err != nil {
		return in, err
	}
	in.packed = float64(len(s.tree.files)) / time.Since(start).Seconds()
	return in, nil
}

// pack returns when nothing is staged any more.
func (s *smallRun) pack(ctx context.Context, flags ...string) error {
	ctx, cancel := context.WithTimeout(ctx, stepWait)
	defer cancel()
	for {
		n, err := countFiles(filepath.Join(s.base, "md", "staged"), nil)
		if err != nil || n == 0 && len(flags) == 0 {
			return err
		}
		if _, _, err := ctl(ctx, s.o, s.conf, append([]string{"pack", "--all"}, flags...)...); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d files are not packed: %w", n, ctx.Err())
		case <-time.After(100 * time.Millisecond): // the mount is packing them
		}
	}
}

// writes compares copies with one and with many processes.
func (s *smallRun) writes(ctx context.Context) error {
	if err := s.mountAs(ctx, s.conf); err != nil {
		return err
	}
	s.bare = map[int]float64{}
	for _, n := range []int{1, smallAtOnce} {
		aim := map[int]float64{1: 0.3, smallAtOnce: 0.5}[n]
		name := fmt.Sprint("cp -r by ", n)
		in, err := s.ingest(ctx, fmt.Sprint("cp", n), n)
		if err != nil {
			return err
		}
		s.bare[n], err = s.rate(func() error { return s.tree.cp(ctx, filepath.Join(s.base, fmt.Sprint("bare", n)), n) })
		if err != nil {
			return err
		}
		durable, err := s.rate(func() error { return s.tree.cpSync(ctx, filepath.Join(s.base, fmt.Sprint("sync", n)), n) })
		if err != nil {
			return err
		}
		s.row(name, in.copied, s.bare[n], aim, fmt.Sprintf("peer: cp -r to the bare metadata filesystem, not durable; CPU of marfs-fuse a file: %v", in.cpu.Round(time.Microsecond)))
		s.row(name+", durable", in.copied, durable, 0, "peer: there, with an fsync of each file")
		if s.rclone == nil {
			continue
		}
		flags := []string{"--transfers", fmt.Sprint(smallAtOnce)}
		if n == 1 {
			flags = nil
		}
		theirs, err := s.rate(func() error {
			return s.rclone.do(ctx, append([]string{"copy", s.tree.root, remote(fmt.Sprint("t", n))}, flags...)...)
		})
		if err != nil {
			return err
		}
		note := "peer: rclone copy to a bucket " + strings.Join(flags, " ")
		s.row(name, in.copied, theirs, 5, note)
		s.row(name+", until packed", in.packed, theirs, 0, note)
	}
	return nil
}

// lazyWrites does it with stage.sync: application.
func (s *smallRun) lazyWrites(ctx context.Context) error {
	text, err := os.ReadFile(s.conf)
	if err != nil {
		return err
	}
	lazy := filepath.Join(filepath.Dir(s.conf), "lazy.yaml")
	if err := os.WriteFile(lazy, append(text, lazily...), 0o644); err != nil {
		return err
	}
	if err := s.mountAs(ctx, lazy); err != nil {
		return err
	}
	for _, n := range []int{1, smallAtOnce} {
		in, err := s.ingest(ctx, fmt.Sprint("lazy", n), n)
		if err != nil {
			return err
		}
		s.row(fmt.Sprint("cp -r by ", n, ", sync: application"), in.copied, s.bare[n], 0, "peer: cp -r to the bare metadata filesystem")
	}
	return nil
}

// library writes packs without a mount.
func (s *smallRun) library(ctx context.Context) error {
	ours, err := s.rate(func() error { return s.tree.batch(ctx, s.conf, "bench/library", smallAtOnce) })
	if err != nil {
		return err
	}
	s.files += len(s.tree.files)
	s.row(fmt.Sprint("library by ", smallAtOnce, ", packed and durable"), ours, s.bare[smallAtOnce], 0, "peer: cp -r to the bare metadata filesystem")
	return nil
}

// stored says what the stores hold for all files so far.
func (s *smallRun) stored(context.Context) error {
	var bytes int64
	objects, err := countFiles(s.stores, func(path string, size int64) bool {
		if !strings.Contains(path, "/bench/") { // of the namespace
			return false
		}
		bytes += size
		return true
	})
	if err != nil {
		return err
	}
	fmt.Printf("   %.5f objects a file (of 6 shards), %.3f bytes stored a byte; peak RSS of marfs-fuse %d MB\n",
		float64(objects)/6/float64(s.files), float64(bytes)/float64(s.files*s.tree.size), s.peak>>20)
	return nil
}

// reads reads a copy with the bodies still in the metadata filesystem, and from packs.
func (s *smallRun) reads(ctx context.Context) error {
	if err := s.read(ctx, "bodies there", false); err != nil {
		return err
	}
	if err := s.pack(ctx, "--release"); err != nil {
		return err
	}
	return s.read(ctx, "from packs", true)
}

// read reads in the order of the directories, and at random, all cold.
func (s *smallRun) read(ctx context.Context, how string, aims bool) error {
	for _, r := range []struct {
		name  string
		files []string
		n     int
		aim   float64
	}{
		{"read in order by 1", s.tree.files, 1, 3},
		{fmt.Sprint("read in order by ", smallAtOnce), s.tree.files, smallAtOnce, 0},
		{"read at random by 1", s.tree.some(smallRandom), 1, 0},
		{fmt.Sprint("read at random by ", smallAtOnce), s.tree.some(smallRandom), smallAtOnce, 0},
	} {
		if err := s.mountAs(ctx, s.conf); err != nil {
			return err
		}
		start := time.Now()
		if err := s.tree.read(ctx, filepath.Join(s.mnt.dir, "cp1"), r.files, r.n); err != nil {
			return err
		}
		ours := float64(len(r.files)) / time.Since(start).Seconds()
		theirs, note, err := s.readPeer(ctx, r.files, r.n)
		if err != nil {
			return err
		}
		if !aims || s.rclone == nil {
			r.aim = 0
		}
		s.row(r.name+", "+how, ours, theirs, r.aim, note)
	}
	return nil
}

// readPeer reads the same with rclone, or a bare copy where there is no rclone.
func (s *smallRun) readPeer(ctx context.Context, files []string, n int) (rate float64, note string, err error) {
	dropCaches()
	if s.rclone == nil {
		start := time.Now()
		err = s.tree.read(ctx, filepath.Join(s.base, "bare1"), files, n)
		return float64(len(files)) / time.Since(start).Seconds(), "peer: the same from the bare metadata filesystem", err
	}
	to, err := os.MkdirTemp(memoryDir(s.o.dir, s.tree.bytes()), "marfs-bench.")
	if err != nil {
		return 0, "", err
	}
	defer os.RemoveAll(to)
	args := []string{"copy", remote("t1"), to, "--transfers", fmt.Sprint(smallAtOnce)}
	if len(files) < len(s.tree.files) {
		list := filepath.Join(s.base, "list")
		if err := os.WriteFile(list, []byte(strings.Join(files, "\n")), 0o644); err != nil {
			return 0, "", err
		}
		args = append(args, "--files-from-raw", list)
	}
	start := time.Now()
	if err := s.rclone.do(ctx, args...); err != nil {
		return 0, "", err
	}
	rate = float64(len(files)) / time.Since(start).Seconds()
	got, err := countFiles(to, nil)
	if err == nil && got != len(files) {
		err = fmt.Errorf("rclone has read %d files of %d", got, len(files))
	}
	return rate, fmt.Sprint("peer: rclone copy --transfers ", smallAtOnce, " to memory"), err
}

// countFiles counts the files below dir that ok (nil: all) says yes to, given
// their path and size.
func countFiles(dir string, ok func(path string, size int64) bool) (n int, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && (ok == nil || ok(path, fi.Size())) {
			n++
		}
		return err
	})
	return n, err
}
