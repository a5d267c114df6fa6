package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"marfs/pkg/config"
	"marfs/pkg/mdfs"
	"marfs/pkg/namespace"
	"marfs/pkg/objfmt"
	"marfs/pkg/repo"
)

func (a *app) statCmd() *cobra.Command {
	var deep bool
	cmd := &cobra.Command{
		Use:   "stat PATH...",
		Short: "Show a file's state, and where each of its shards is",
		Long: `stat shows what a file is and where its bytes are: its type (empty, own, body,
uni, packed or multi), its ids, and for each object its repo, pod and geometry
and every shard with the store that keeps it and how it is there; for a packed
file also how much of the pack is live.

Bytes are staged (some are only in the metadata filesystem), resident (archived,
and still there too) or released (archived only).

By default it looks at each shard's presence, size, header and footer; with
--deep it reads and verifies every byte. It never follows symbolic links.`,
		Example: `  marfsctl stat /campaign/projecta/run1/out.h5
  marfsctl --json stat --deep /campaign/projecta/run1/*.h5`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitStart, exitInterrupted, exitDamage),
		Args:        cobra.MinimumNArgs(1),
		RunE:        func(cmd *cobra.Command, paths []string) error { return a.stat(cmd.Context(), paths, deep) },
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "read and verify every byte of every shard")
	return cmd
}

func (a *app) stat(ctx context.Context, paths []string, deep bool) (err error) {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	inside := map[string]string{}
	var failures []error
	for _, p := range paths {
		below, err := cfg.Inside(p)
		if err != nil {
			failures = append(failures, failure{what: "stat", where: p, err: err})
			continue
		}
		inside[p] = below
	}
	if len(inside) == 0 {
		return usageError{errors.Join(failures...)}
	}
	sys, err := a.openOwned(ctx, cfg)
	if err != nil {
		return ownersOnly(err, "stat is for root and the user whose the metadata directories are")
	}
	defer func() { err = errors.Join(err, sys.Close()) }()
	caller, err := self()
	if err != nil {
		return startError{err}
	}
	result := statResult{Files: []statFile{}}
	for _, p := range paths {
		below, ok := inside[p]
		if !ok {
			continue
		}
		l, err := layout(ctx, sys, caller, below, deep)
		if err != nil {
			failures = append(failures, failure{what: "stat", where: p, err: err})
			continue
		}
		f := statOf(p, l)
		result.Files = append(result.Files, f)
		failures = append(failures, f.judge())
	}
	return errors.Join(errors.Join(failures...), a.showStat(result))
}

// self is the caller whose rights the command has: whoever runs it.
func self() (namespace.Caller, error) {
	groups, err := os.Getgroups()
	if err != nil {
		return namespace.Caller{}, fmt.Errorf("groups: %w", err)
	}
	c := namespace.Caller{Cred: mdfs.Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, PID: uint32(os.Getpid())}
	for _, g := range groups {
		c.Groups = append(c.Groups, uint32(g))
	}
	return c, nil
}

func layout(ctx context.Context, sys *config.System, c namespace.Caller, path string, deep bool) (namespace.Layout, error) {
	d, name, err := sys.FS.Walk(ctx, c, path)
	if err != nil {
		return namespace.Layout{}, err
	}
	defer d.Close()
	return d.Layout(ctx, c, name, deep)
}

// statResult is the JSON of stat.
type statResult struct {
	Files []statFile `json:"files"`
}

type statFile struct {
	Path      string       `json:"path"`
	Namespace string       `json:"namespace"` // "" above all namespaces
	Type      string       `json:"type"`
	Size      int64        `json:"size"`
	Mode      string       `json:"mode"` // octal, without the type
	UID       uint32       `json:"uid"`
	GID       uint32       `json:"gid"`
	MTime     time.Time    `json:"mtime"`
	File      string       `json:"file_id"`    // "" when it was never committed, and for what is no regular file
	Content   string       `json:"content_id"` // likewise
	State     string       `json:"state"`      // open, final, sealed; likewise ""
	Residence string       `json:"residence"`  // staged, resident, released; "" without content
	Objects   []statObject `json:"objects"`
	Pack      *statPack    `json:"pack,omitempty"` // that a packed file is in
}

type statPack struct {
	Object    string `json:"object"`
	Offset    int64  `json:"offset"` // of the file's bytes in the pack
	Length    int64  `json:"length"`
	Members   int    `json:"members"` // 0: it is not finished, and what follows not known
	Bytes     int64  `json:"bytes"`   // of all members
	Dead      int    `json:"dead"`    // members that are known to be dead
	DeadBytes int64  `json:"dead_bytes"`
}

type statObject struct {
	Key    string      `json:"key"`
	Repo   string      `json:"repo"`
	Pod    string      `json:"pod"`
	Data   int         `json:"data"`
	Parity int         `json:"parity"`
	Block  int         `json:"block_size"`
	Size   int64       `json:"size"`   // bytes of the object, its recovery trailer included
	Offset int64       `json:"offset"` // in the file
	Length int64       `json:"length"` // bytes of the file that are in it; 0: cut off by truncate
	Shards []statShard `json:"shards"`
}

type statShard struct {
	Index int    `json:"index"`
	Store string `json:"store"`
	Bytes int64  `json:"bytes"`
	State string `json:"state"` // ok, missing, corrupt, stale, unavailable
	Error string `json:"error,omitempty"`
}

func statOf(path string, l namespace.Layout) statFile {
	f := statFile{
		Path: path, Namespace: l.Namespace, Type: l.Type, Size: l.Attr.Size, Mode: fmt.Sprintf("%04o", l.Attr.Mode&0o7777),
		UID: l.Attr.Uid, GID: l.Attr.Gid, MTime: time.Unix(l.Attr.Mtim.Unix()).UTC(),
		File: idText(l.Slot.File), Content: idText(l.Slot.Content), State: string(l.Slot.State),
		Residence: string(l.Residence), Objects: []statObject{},
	}
	if p := l.Pack; p != nil {
		f.Pack = &statPack{p.Object.String(), p.Offset, p.Length, p.Members, p.Bytes, p.Dead, p.DeadBytes}
	}
	for _, o := range l.Objects {
		obj := statObject{
			Key: o.Key, Repo: o.Ref.Repo, Pod: o.Ref.Pod, Data: o.Ref.Data, Parity: o.Ref.Parity, Block: o.Ref.Block,
			Size: o.Ref.Size, Offset: o.Offset, Length: o.Length, Shards: []statShard{},
		}
		for _, s := range o.Shards {
			shard := statShard{Index: s.Index, Store: s.Store, Bytes: s.Size, State: string(s.State)}
			if s.Err != nil {
				shard.Error = s.Err.Error()
			}
			obj.Shards = append(obj.Shards, shard)
		}
		f.Objects = append(f.Objects, obj)
	}
	return f
}

func idText(id objfmt.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

// judge returns what is wrong with the shards of a file, or nil.
func (f *statFile) judge() error {
	var bad, away int
	for _, o := range f.Objects {
		for _, s := range o.Shards {
			switch repo.ShardState(s.State) {
			case repo.ShardOK:
			case repo.ShardUnavailable:
				away++
			default:
				bad++
			}
		}
	}
	switch {
	case bad > 0:
		return failure{"stat", f.Path, fmt.Errorf("%w: shards %d", errDamage, bad), "copy the file and rename the copy over it: that writes all shards anew"}
	case away > 0:
		return failure{"stat", f.Path, fmt.Errorf("shards not looked at: %d", away), "marfsctl status shows which stores cannot be reached"}
	}
	return nil
}

func (a *app) showStat(r statResult) error {
	if a.json {
		return a.print(r)
	}
	for i, f := range r.Files {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		if err := f.table(a.out); err != nil {
			return err
		}
	}
	return nil
}

// residenceText says where the bytes are, for people.
func residenceText(r string) string {
	switch namespace.Residence(r) {
	case namespace.Staged:
		return "staged: in the metadata filesystem"
	case namespace.Resident:
		return "archived, resident: in objects, and still in the metadata filesystem"
	case namespace.Released:
		return "released: in objects alone"
	}
	return ""
}

// table prints a file for people: its facts, then each object with its shards.
func (f *statFile) table(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"path", fmt.Sprintf("%q", f.Path)}, {"namespace", f.Namespace}, {"type", f.Type}, {"size", fmt.Sprint(f.Size)},
		{"mode", fmt.Sprintf("%s, uid %d, gid %d", f.Mode, f.UID, f.GID)}, {"mtime", f.MTime.Format(time.RFC3339Nano)},
		{"file id", f.File}, {"content id", f.Content}, {"state", f.State}, {"bytes", residenceText(f.Residence)},
	} {
		if row[1] != "" {
			fmt.Fprintf(w, "%s:\t%s\n", row[0], row[1])
		}
	}
	if p := f.Pack; p != nil {
		fmt.Fprintf(w, "pack:\t%s, bytes %d to %d\n", p.Object, p.Offset, p.Offset+p.Length)
		if p.Members > 0 {
			fmt.Fprintf(w, "pack holds:\t%s, %s; dead: %d, %s\n", count(int64(p.Members), "file"), bytesText(p.Bytes), p.Dead, bytesText(p.DeadBytes))
		}
	}
	for _, o := range f.Objects {
		fmt.Fprintf(w, "\nobject:\t%s\n", o.Key)
		fmt.Fprintf(w, "holds:\t%d bytes of the file from %d\n", o.Length, o.Offset)
		fmt.Fprintf(w, "in:\trepo %s, pod %s, %d+%d blocks of %v, %d bytes\n", o.Repo, o.Pod, o.Data, o.Parity, config.Size(o.Block), o.Size)
		for _, s := range o.Shards {
			fmt.Fprintf(w, "shard %d:\t%s\n", s.Index, strings.TrimSpace(fmt.Sprintf("%-11s %12d  %s  %s", s.State, s.Bytes, s.Store, s.Error)))
		}
	}
	return w.Flush()
}
