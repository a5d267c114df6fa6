package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"marfs/pkg/objfmt"
)

// trashOwner has one of a hundred entries of a made trash.
const trashOwner = 4242

// bigTrash measures how listing one user's entries, marking a whole day for
// destruction and planning a gc grow with the trash: entries a second that are
// looked at, and the memory it takes.
func bigTrash(ctx context.Context, o options) error {
	type speeds struct{ cold, warm, purge, plan float64 }
	var all []speeds
	fmt.Println("trash, entries/s and peak RSS of marfsctl:")
	for _, n := range []int{o.entries / 100, o.entries / 10, o.entries} {
		err := withTrash(ctx, o, n, func(conf string) error {
			var s speeds
			dropCaches()
			list := []string{"trash", "list", "--owner", fmt.Sprint(trashOwner)}
			for _, m := range []struct {
				what string
				to   *float64
				args []string
			}{
				{"list one user's, cold", &s.cold, list}, {"list one user's, warm", &s.warm, list},
				{"purge a day", &s.purge, []string{"trash", "purge", "--all"}}, {"plan of gc", &s.plan, []string{"gc"}},
			} {
				took, rss, err := ctl(ctx, o, conf, m.args...)
				if err != nil {
					return err
				}
				*m.to = float64(n) / took.Seconds()
				fmt.Printf("   %-24s of %8d: %9.0f entries/s, %4d MB\n", m.what, n, *m.to, rss>>20)
			}
			all = append(all, s)
			return nil
		})
		if err != nil {
			return err
		}
	}
	first, last := all[0], all[len(all)-1]
	fmt.Printf("   a hundred times the entries, each as fast as before (1 = linear): list %.2f cold, %.2f warm, purge %.2f, plan %.2f\n",
		last.cold/first.cold, last.warm/first.warm, last.purge/first.purge, last.plan/first.plan)
	return nil
}

// ctl runs marfsctl as root on the metadata itself and says how long it took and
// its peak memory in bytes.
func ctl(ctx context.Context, o options, conf string, args ...string) (time.Duration, int64, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(o.bin, "marfsctl"), append([]string{"--config", conf}, args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if err != nil {
		return 0, 0, fmt.Errorf("marfsctl %s: %w: %s", strings.Join(args, " "), err, said.Bytes())
	}
	return took, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10, nil
}

func dropCaches() {
	syscall.Sync()
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) // root only; else it is warm
}

// withTrash makes a namespace with n deleted files of one day on a filesystem of
// their own and calls fn with its configuration.
func withTrash(ctx context.Context, o options, n int, fn func(conf string) error) error {
	return withFresh(ctx, o, func(disk string) error {
		conf, err := configure(ctx, o.bin, disk, "")
		if err != nil {
			return err
		}
		if err := fabricate(ctx, filepath.Join(disk, "md"), n); err != nil {
			return err
		}
		return fn(conf)
	}, "-N", fmt.Sprint(2*n+100_000))
}

// fabricate writes what n commits and unlinks leave: for each an empty file with
// nothing but its home, and a record forty days old, in a file that many share.
func fabricate(ctx context.Context, md string, n int) error {
	when := time.Now().Add(-40 * 24 * time.Hour).UTC()
	day := filepath.Join(md, "trash", when.Format(time.DateOnly))
	for i := range 256 {
		for _, dir := range []string{filepath.Join(md, "files"), day} {
			if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("%02x", i)), 0o711); err != nil {
				return err
			}
		}
	}
	var g errgroup.Group
	g.SetLimit(4)
	for first := 0; first < n; first += perLedger {
		g.Go(func() error {
			l := ledger{name: filepath.Join(md, "dead", fmt.Sprint("t.", first))}
			for i := first; i < min(first+perLedger, n) && ctx.Err() == nil; i++ {
				if err := l.fabricate(md, day, i, when); err != nil {
					return err
				}
			}
			return l.end()
		})
	}
	return g.Wait()
}

// perLedger is how many records share a file.
const perLedger = 8000

// ledger is a file of records, to be written when it is full.
type ledger struct {
	name  string
	text  []byte
	names []string // links, each of a record
}

func (l *ledger) end() error {
	if err := os.WriteFile(l.name, l.text, 0o600); err != nil {
		return err
	}
	for _, name := range l.names {
		if err := os.Link(l.name, name); err != nil {
			return err
		}
	}
	return os.Remove(l.name)
}

func (l *ledger) fabricate(md, day string, i int, when time.Time) error {
	owner := 10_000 + i%1000
	if i%100 == 0 {
		owner = trashOwner
	}
	slot := objfmt.Slot{Gen: 1, File: objfmt.NewID(), Content: objfmt.NewID(), State: objfmt.Final, MTime: when, Nonce: 1,
		Source: objfmt.Source{Kind: objfmt.SourceEmpty}}
	text, err := slot.Encode()
	if err != nil {
		return err
	}
	home := filepath.Join(md, "files", slot.File.Fan(), slot.File.String())
	if err := os.WriteFile(home, nil, 0o644); err != nil {
		return err
	}
	if err := unix.Setxattr(home, objfmt.SlotName(objfmt.UserPrefix, 1), text, 0); err != nil {
		return err
	}
	if err := os.Chown(home, owner, owner); err != nil {
		return err
	}
	record := objfmt.Record{Kind: objfmt.RecordFile, File: slot.File, Node: "bench", When: when, Why: "unlink", By: uint32(owner),
		Path: fmt.Sprintf("campaign/run%d/step%d/part-%06d.h5", i%100, i%1000, i), Mode: 0o644, UID: uint32(owner), GID: uint32(owner), MTime: when}
	text, err = record.Encode()
	if err != nil {
		return err
	}
	name := objfmt.RecordPart{Off: int64(len(l.text)), Len: len(text)}.Name(fmt.Sprintf("%s-%016x", slot.File, i))
	l.names = append(l.names, filepath.Join(day, slot.File.Fan(), name))
	l.text = append(l.text, text...)
	return nil
}
