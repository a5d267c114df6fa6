package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"marfs/pkg/config"
	"marfs/pkg/namespace"
)

const (
	perDir   = 200              // files of a directory
	stepWait = 20 * time.Minute // that a program may take
)

// tree is a directory of directories of small files of one size, of noise.
type tree struct {
	root  string
	dirs  []string // names below root
	files []string // paths below root, in the order of the directories
	size  int      // of each file
}

func (t tree) bytes() int64 { return int64(len(t.files)) * int64(t.size) }

// makeTree makes a tree of n files.
func makeTree(root string, n, size int) (tree, error) {
	t := tree{root: root, size: size}
	b := make([]byte, size)
	for i := range n {
		if i%perDir == 0 {
			t.dirs = append(t.dirs, fmt.Sprintf("d%04d", i/perDir))
			if err := os.MkdirAll(filepath.Join(root, t.dirs[len(t.dirs)-1]), 0o755); err != nil {
				return t, err
			}
		}
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[:], uint64(i+1))
		rand.NewChaCha8(seed).Read(b)
		t.files = append(t.files, filepath.Join(t.dirs[len(t.dirs)-1], fmt.Sprintf("f%03d.dat", i%perDir)))
		if err := os.WriteFile(filepath.Join(root, t.files[i]), b, 0o644); err != nil {
			return t, err
		}
	}
	return t, nil
}

// quietly runs a program and returns what it printed. With an error, that is in it.
func quietly(ctx context.Context, dir, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepWait)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	c.WaitDelay = 10 * time.Second
	out, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, errors.Join(err, ctx.Err()), out[max(0, len(out)-2000):])
	}
	return string(out), nil
}

// inParts calls fn for n parts of a list at once.
func inParts(list []string, n int, fn func(part []string) error) error {
	var g errgroup.Group
	for part := range slices.Chunk(list, (len(list)+n-1)/n) {
		g.Go(func() error { return fn(part) })
	}
	return g.Wait()
}

// cp copies the tree by n processes, each of which has its share of the directories.
func (t tree) cp(ctx context.Context, to string, n int) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	return inParts(t.dirs, n, func(dirs []string) error {
		_, err := quietly(ctx, t.root, "cp", slices.Concat([]string{"-r"}, dirs, []string{to})...)
		return err
	})
}

// cpSync copies it with an fsync of each file, which is what a close of ours promises.
func (t tree) cpSync(ctx context.Context, to string, n int) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	return inParts(t.dirs, n, func(dirs []string) error {
		for _, d := range dirs {
			if err := copyDirSync(ctx, filepath.Join(t.root, d), filepath.Join(to, d)); err != nil {
				return err
			}
		}
		return nil
	})
}

func copyDirSync(ctx context.Context, from, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := copySync(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copySync(from, to string) (err error) {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	return w.Sync()
}

// batch writes the tree through the library, by n goroutines, into packs; to is a
// path below the mount.
func (t tree) batch(ctx context.Context, conf, to string, n int) (err error) {
	ctx, cancel := context.WithTimeout(ctx, stepWait)
	defer cancel()
	cfg, err := config.Load(conf)
	if err != nil {
		return err
	}
	sys, err := config.Open(ctx, cfg, config.Batch, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sys.Close()) }()
	if err := mkdir(ctx, sys.FS, to); err != nil {
		return err
	}
	b := sys.FS.Batch(namespace.Caller{})
	failed := make(chan error, 1) // the first file that did
	err = inParts(t.dirs, n, func(dirs []string) error {
		for _, d := range dirs {
			if err := t.addDir(ctx, sys.FS, b, to, d, failed); err != nil {
				return err
			}
		}
		return nil
	})
	err = errors.Join(err, b.Close(ctx))
	select {
	case e := <-failed:
		err = errors.Join(err, e)
	default:
	}
	return err
}

func mkdir(ctx context.Context, f *namespace.FS, path string) error {
	d, name, err := f.Walk(ctx, namespace.Caller{}, path)
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = d.Mkdir(ctx, namespace.Caller{}, name, 0o755)
	return err
}

// addDir adds one directory of the tree to a batch.
func (t tree) addDir(ctx context.Context, f *namespace.FS, b *namespace.Batch, to, dir string, failed chan<- error) error {
	if err := mkdir(ctx, f, to+"/"+dir); err != nil {
		return err
	}
	d, _, err := f.Walk(ctx, namespace.Caller{}, to+"/"+dir+"/x")
	if err != nil {
		return err
	}
	defer d.Close()
	entries, err := os.ReadDir(filepath.Join(t.root, dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(t.root, dir, e.Name()))
		if err != nil {
			return err
		}
		err = b.Add(ctx, d, namespace.BatchFile{Name: e.Name(), Mode: 0o644}, content, func(err error) {
			if err != nil {
				select {
				case failed <- fmt.Errorf("%s/%s: %w", dir, e.Name(), err):
				default:
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// read reads files of a copy of the tree by n programs, and fails unless every byte came.
func (t tree) read(ctx context.Context, copied string, files []string, n int) error {
	return inParts(files, n, func(part []string) error {
		list, err := os.CreateTemp("", "marfs-bench.list.")
		if err != nil {
			return err
		}
		defer os.Remove(list.Name())
		_, err = list.WriteString(strings.Join(part, "\x00"))
		if err = errors.Join(err, list.Close()); err != nil {
			return err
		}
		out, err := quietly(ctx, copied, "sh", "-c", `xargs -0 -a "$0" cat | wc -c`, list.Name())
		if err != nil {
			return err
		}
		if want := fmt.Sprint(len(part) * t.size); strings.TrimSpace(out) != want {
			return fmt.Errorf("%s: read %s bytes, want %s", copied, strings.TrimSpace(out), want)
		}
		return nil
	})
}

// some are n files of the tree, in no order.
func (t tree) some(n int) []string {
	files := slices.Clone(t.files)
	rnd := rand.New(rand.NewPCG(7, 7))
	rnd.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	return files[:min(n, len(files))]
}

// memoryDir is a directory in memory where there is room for n bytes, else dir.
func memoryDir(dir string, n int64) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &s); err == nil && int64(s.Bavail)*s.Bsize > n {
		return "/dev/shm"
	}
	return dir
}
