package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// mount is a FUSE filesystem served by a process of its own.
type mount struct {
	dir   string // where files go
	root  string // the mount point
	cmd   *exec.Cmd
	again func(ctx context.Context, options ...string) (*mount, error)
}

// configText is the embedded default over six stores.
const configText = `version: 1
mount: %[1]s/mnt
repos:
  - name: bench
    data: 4
    parity: 2
    pods:
      - name: pod0
        stores:
%[3]snamespaces:
  - name: bench
    path: /bench
    metadata: %[1]s/md
    repo: bench
%[2]s`

// storesText is the YAML of as many stores as the geometry wants.
func storesText(each func(i int) string) string {
	var b strings.Builder
	for i := range 6 {
		fmt.Fprintf(&b, "          - %s\n", each(i))
	}
	return b.String()
}

// dirStores are directories below base.
func dirStores(base string) string {
	return storesText(func(i int) string { return fmt.Sprintf("dir: %s/stores/s%d", base, i) })
}

// configure makes a namespace of our own below base, over directories, with more
// YAML for it.
func configure(ctx context.Context, bin, base, more string) (conf string, err error) {
	return configureOver(ctx, bin, base, dirStores(base), more)
}

// configureOver makes one over any stores.
func configureOver(ctx context.Context, bin, base, stores, more string) (conf string, err error) {
	conf = filepath.Join(base, "marfs.yaml")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(conf, fmt.Appendf(nil, configText, base, more, stores), 0o644); err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(bin, "marfsctl"), "--config", conf, "init").CombinedOutput(); err != nil {
		return "", fmt.Errorf("marfsctl init: %w: %s", err, out)
	}
	return conf, nil
}

// marfs makes and mounts a namespace of our own below base.
func marfs(ctx context.Context, bin, base string) (*mount, error) {
	conf, err := configure(ctx, bin, base, "")
	if err != nil {
		return nil, err
	}
	return mountConf(ctx, bin, conf)
}

// mountConf mounts what was configured.
func mountConf(ctx context.Context, bin, conf string) (*mount, error) {
	mnt := filepath.Join(filepath.Dir(conf), "mnt")
	if err := os.MkdirAll(mnt, 0o755); err != nil {
		return nil, err
	}
	var up func(context.Context, ...string) (*mount, error)
	up = func(ctx context.Context, options ...string) (*mount, error) {
		cmd := exec.Command(filepath.Join(bin, "marfs-fuse"), append(options, "--config", conf, "--foreground", mnt)...)
		return serve(ctx, cmd, mnt, filepath.Join(mnt, "bench"), up)
	}
	return up(ctx)
}

// loopback mounts go-fuse's own example over a directory below base. With -allow-other
// the kernel checks permissions, as it does for ours.
func loopback(ctx context.Context, base string, flags ...string) (*mount, error) {
	bin, mnt, data := filepath.Join(base, "loopback"), filepath.Join(base, "mnt"), filepath.Join(base, "data")
	for _, d := range []string{mnt, data} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "github.com/hanwen/go-fuse/v2/example/loopback").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build loopback: %w: %s", err, out)
	}
	var up func(context.Context, ...string) (*mount, error)
	up = func(ctx context.Context, _ ...string) (*mount, error) {
		return serve(ctx, exec.Command(bin, slices.Concat(flags, []string{"-q", mnt, data})...), mnt, mnt, up)
	}
	return up(ctx)
}

// serve starts cmd and waits until it has mounted mnt.
func serve(ctx context.Context, cmd *exec.Cmd, mnt, dir string, again func(context.Context, ...string) (*mount, error)) (*mount, error) {
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	m := &mount{dir: dir, root: mnt, cmd: cmd, again: again}
	for range 200 {
		if mounted(mnt) {
			return m, nil
		}
		select {
		case <-ctx.Done():
			m.stop()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	m.stop()
	return nil, fmt.Errorf("%s did not mount %s: %s", cmd.Path, mnt, log.Bytes())
}

func mounted(dir string) bool {
	var here, above syscall.Stat_t
	return syscall.Stat(dir, &here) == nil && syscall.Stat(filepath.Dir(dir), &above) == nil && here.Dev != above.Dev
}

// stop unmounts and waits for the process.
func (m *mount) stop() error {
	if m == nil {
		return nil // it could not be mounted again
	}
	err := exec.Command("umount", m.root).Run()
	if err != nil {
		err = exec.Command("fusermount3", "-u", m.root).Run()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.cmd.Wait() // how it ended does not matter here
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		_ = m.cmd.Process.Kill()
		<-done
		_ = exec.Command("umount", "-l", m.root).Run() // nothing may be removed through it
		err = errors.Join(err, errors.New("did not end after unmount"))
	}
	return err
}

// cold stops the mount, drops the page cache and mounts again, ours with options.
func (m *mount) cold(ctx context.Context, options ...string) (*mount, error) {
	if err := m.stop(); err != nil {
		return nil, err
	}
	syscall.Sync()
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) // root only; else reads are warm for both sides
	return m.again(ctx, options...)
}

// usage is what a process has used so far.
type usage struct {
	peakRSS int64         // bytes
	cpu     time.Duration // user and system
}

func (m *mount) usage() (u usage) {
	pid := strconv.Itoa(m.cmd.Process.Pid)
	status, _ := os.ReadFile(filepath.Join("/proc", pid, "status"))
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			u.peakRSS = kb << 10
		}
	}
	stat, _ := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])); len(f) > 12 {
		ut, _ := strconv.ParseInt(f[11], 10, 64)
		st, _ := strconv.ParseInt(f[12], 10, 64)
		u.cpu = time.Duration(ut+st) * 10 * time.Millisecond
	}
	return u
}
