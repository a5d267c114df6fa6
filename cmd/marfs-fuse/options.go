package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"marfs/internal/fusefs"
)

// command is a parsed command line.
type command struct {
	configFile string
	logFile    string
	mountPoint string // absolute
	foreground bool
	help       bool
	version    bool
	helper     bool // called by mount(8)
	fake       bool // mount -f: everything but the mount
	mount      fusefs.Options
}

const synopsis = `marfs-fuse mounts MarFS: file trees whose metadata is in ordinary filesystems and
whose data is in erasure-coded object stores.

Usage:
  marfs-fuse [--config FILE] [-o OPTION[,OPTION...]] [--foreground] MOUNTPOINT
  mount -t fuse.marfs FILE MOUNTPOINT -o OPTION[,OPTION...]

It goes to the background when the mount answers, and says nothing unless there
is something to warn of. SIGTERM finishes what is being written and unmounts.
SIGHUP reads the configuration again, and opens the log file again.

Flags:
%s
Options of -o:
  config=FILE               as --config
  log_file=FILE             as --log-file
  allow_other               let other users in: default for root
  noallow_other             do not
  direct_io                 read around the page cache: for nodes that only move large files
  attr_timeout=SECONDS      how long the kernel trusts attributes: default 1
  entry_timeout=SECONDS     how long it trusts names: default 1
  negative_timeout=SECONDS  how long it trusts that a name is missing: default 0
  fsname=NAME               the first column of df: default the configuration file
  ro, noexec, nosuid, nodev, noatime and what else mount(8) knows

Examples:
  marfs-fuse --config /etc/marfs/marfs.yaml /campaign
  marfs-fuse --foreground -o ro,allow_other /campaign
  /etc/marfs/marfs.yaml /campaign fuse.marfs defaults,_netdev 0 0   (a line of /etc/fstab)

Exit codes:
  0  mounted; with --foreground: unmounted, every file closed and committed, also
     when programs left only after the mount was taken out of the tree
  1  ended with files open or not committed
  2  wrong usage or configuration
  3  could not start: a store, a metadata directory, the mount, a signal
`

func usage() string {
	var c command
	flags, _ := c.flags()
	return fmt.Sprintf(synopsis, flags.FlagUsages())
}

func (c *command) flags() (flags *pflag.FlagSet, options *[]string) {
	f := pflag.NewFlagSet("marfs-fuse", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVarP(&c.configFile, "config", "c", "", "configuration `FILE` (default $MARFS_CONFIG, then /etc/marfs/marfs.yaml)")
	f.StringVar(&c.logFile, "log-file", "", "log to `FILE` (default stderr in the foreground, else syslog)")
	f.BoolVar(&c.foreground, "foreground", false, "stay in the foreground")
	f.BoolVar(&c.mount.Debug, "debug", false, "log every request")
	f.BoolVarP(&c.help, "help", "h", false, "show this")
	f.BoolVar(&c.version, "version", false, "show the version")
	return f, f.StringArrayP("options", "o", nil, "mount `OPTIONS`")
}

// parse reads a command line, the program's name first.
func parse(args []string) (command, error) {
	c := command{mount: fusefs.Options{
		AllowOther:   os.Geteuid() == 0,
		AttrTimeout:  time.Second,
		EntryTimeout: time.Second,
		Flags:        unix.MS_NOSUID | unix.MS_NODEV,
	}}
	if rest, ok := helperArgs(args); ok {
		c.helper = true
		return c, c.parseHelper(rest)
	}
	flags, options := c.flags()
	if err := flags.Parse(args[1:]); err != nil {
		return c, err
	}
	if c.help || c.version {
		return c, nil
	}
	if flags.NArg() != 1 {
		return c, errors.New("one mount point is needed")
	}
	for _, o := range *options {
		if err := c.options(o); err != nil {
			return c, err
		}
	}
	return c, c.place(flags.Arg(0))
}

// helperArgs reports whether mount(8) calls us: by a link named mount.fuse.marfs,
// or by the script of that name, which says so with its first argument.
func helperArgs(args []string) ([]string, bool) {
	if len(args) > 1 && args[1] == "--helper" {
		return args[2:], true
	}
	return args[1:], strings.HasPrefix(filepath.Base(args[0]), "mount.")
}

// parseHelper reads what mount(8) gives its helpers:
// SPEC DIR [-sfnv] [-N namespace] [-o options] [-t type].
func (c *command) parseHelper(args []string) error {
	f := pflag.NewFlagSet("mount.fuse.marfs", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.BoolVarP(&c.fake, "fake", "f", false, "")
	for _, ignored := range []string{"s", "n", "v"} { // sloppy, no mtab, verbose
		f.BoolP("ignored-"+ignored, ignored, false, "")
	}
	f.StringP("namespace", "N", "", "")
	f.StringP("type", "t", "", "")
	options := f.StringArrayP("options", "o", nil, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 2 {
		return errors.New("a configuration and a mount point are needed")
	}
	spec := f.Arg(0)
	c.mount.Source = spec
	if filepath.IsAbs(spec) {
		c.configFile = spec
	}
	for _, o := range *options {
		if err := c.options(o); err != nil {
			return err
		}
	}
	return c.place(f.Arg(1))
}

// place makes the paths absolute: a daemon works in /.
func (c *command) place(mountPoint string) (err error) {
	for _, p := range []*string{&c.configFile, &c.logFile, &mountPoint} {
		if *p != "" && err == nil {
			*p, err = filepath.Abs(*p)
		}
	}
	c.mountPoint = mountPoint
	return err
}

// options reads one argument of -o.
func (c *command) options(list string) error {
	for o := range strings.SplitSeq(list, ",") {
		name, value, valued := strings.Cut(o, "=")
		if err := c.option(name, value, valued); err != nil {
			return fmt.Errorf("option %q: %w", o, err)
		}
	}
	return nil
}

func (c *command) option(name, value string, valued bool) error {
	if set, ok := values(c)[name]; ok {
		if !valued || value == "" {
			return errors.New("needs a value")
		}
		return set(value)
	}
	if tolerated(name) {
		return nil
	}
	if valued {
		return errors.New("not known")
	}
	if f, ok := mountFlags[name]; ok {
		c.mount.Flags = c.mount.Flags&^f.clear | f.set
		return nil
	}
	switch name {
	case "allow_other":
		c.mount.AllowOther = true
	case "noallow_other":
		c.mount.AllowOther = false
	case "direct_io":
		c.mount.DirectIO = true
	case "remount":
		return errors.New("unmount and mount again")
	default:
		return errors.New("not known")
	}
	return nil
}

// values are the options name=value.
func values(c *command) map[string]func(string) error {
	text := func(p *string) func(string) error {
		return func(v string) error { *p = v; return nil }
	}
	seconds := func(p *time.Duration) func(string) error {
		return func(v string) error {
			s, err := strconv.ParseFloat(v, 64)
			if err != nil || !(s >= 0 && s <= 1<<30) {
				return errors.New("want a number of seconds")
			}
			*p = time.Duration(s * float64(time.Second))
			return nil
		}
	}
	return map[string]func(string) error{
		"config":           text(&c.configFile),
		"log_file":         text(&c.logFile),
		"fsname":           text(&c.mount.Source),
		"attr_timeout":     seconds(&c.mount.AttrTimeout),
		"entry_timeout":    seconds(&c.mount.EntryTimeout),
		"negative_timeout": seconds(&c.mount.NegativeTimeout),
	}
}

// flagChange is what an option does to the flags of mount(2).
type flagChange struct{ clear, set uintptr }

var mountFlags = map[string]flagChange{
	"defaults":   {},
	"ro":         {0, unix.MS_RDONLY},
	"rw":         {unix.MS_RDONLY, 0},
	"suid":       {unix.MS_NOSUID, 0},
	"nosuid":     {0, unix.MS_NOSUID},
	"dev":        {unix.MS_NODEV, 0},
	"nodev":      {0, unix.MS_NODEV},
	"exec":       {unix.MS_NOEXEC, 0},
	"noexec":     {0, unix.MS_NOEXEC},
	"atime":      {unix.MS_NOATIME, 0},
	"noatime":    {0, unix.MS_NOATIME},
	"diratime":   {unix.MS_NODIRATIME, 0},
	"nodiratime": {0, unix.MS_NODIRATIME},
	"sync":       {0, unix.MS_SYNCHRONOUS},
	"async":      {unix.MS_SYNCHRONOUS, 0},
	"dirsync":    {0, unix.MS_DIRSYNC},
}

// tolerated are options that are for mount(8) and systemd, or are always so here.
func tolerated(name string) bool {
	switch name {
	case "", "auto", "noauto", "user", "users", "nouser", "owner", "group", "nofail", "_netdev", "netdev",
		"relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "loud", "silent",
		"comment", "uhelper", "subtype", "default_permissions", "nonempty":
		return true
	}
	return strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-")
}
