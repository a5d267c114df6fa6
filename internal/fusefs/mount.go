// Package fusefs shows a namespace.FS as a FUSE mount. It is the only importer
// of go-fuse, and translates: each operation of the kernel is one thin method
// that calls the namespace with the caller's identity.
//
// What is decided here and nowhere else: which inode is which node (node.go),
// who the caller is (caller.go), what of a file the kernel may cache (pages.go),
// and which errno an error becomes (errno.go). docs/semantics.md says what each
// POSIX call does as a result.
//
// The kernel checks permissions (default_permissions) on attributes that this
// package gives it, and the namespace runs every call as the caller besides.
package fusefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"marfs/internal/control"
	"marfs/internal/mountinfo"
	"marfs/pkg/namespace"
)

// Options of Mount.
type Options struct {
	Log *slog.Logger
	// Source is what df shows in its first column.
	Source string
	// AllowOther lets users other than the daemon's in.
	AllowOther bool
	// How long the kernel may use attributes, names, and the absence of names,
	// that it has seen, without asking. What this mount changes is known at once.
	AttrTimeout, EntryTimeout, NegativeTimeout time.Duration
	// DirectIO keeps reads out of the page cache: faster for large files that are
	// read once in large pieces, slower for all else, and without MAP_SHARED.
	DirectIO bool
	// Flags are mount(2)'s MS_RDONLY, MS_NOEXEC, MS_NOSUID, MS_NODEV, MS_NOATIME ...
	Flags uintptr
	// Debug logs every request.
	Debug bool
}

const (
	maxRequest = 1 << 20 // bytes of one read or write: the kernel's most
	// maxInflight bounds the memory of the requests being served, most of it data
	// of writes that wait for the stores. More requests wait in the kernel. Answers
	// to reads are not in it: go-fuse has a buffer for each thread that reads at once.
	maxInflight   = 256 << 20
	maxBackground = 128 // read-ahead requests in flight
	typeName      = "marfs"
)

// Capabilities asked of the kernel beside go-fuse's own:
//   - ATOMIC_O_TRUNC: open sees O_TRUNC, so an overwrite is one new content.
//   - DONT_MASK: the umask comes with the request, so that a default ACL can
//     take its place.
//   - HANDLE_KILLPRIV_V2: no getxattr(security.capability) before each write;
//     this package clears set-id bits itself.
//   - READDIRPLUS_AUTO: a plain ls of a large directory does not stat it all.
const capabilities = fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_DONT_MASK | fuse.CAP_HANDLE_KILLPRIV_V2 |
	fuse.CAP_READDIRPLUS_AUTO

// Server is a mount being served.
type Server struct {
	dir     string
	control *control.Server
	done    chan struct{} // closed when the kernel has ended the mount
}

// filesystem is what the nodes of one mount share.
type filesystem struct {
	ns      *namespace.FS
	root    *node
	log     *slog.Logger
	callers *callers
	control *control.Server
	gens    generations
	attrTTL time.Duration
	direct  bool
	// moves is held shared by renames, and alone by who must see the tree of nodes
	// as it is in the namespace.
	moves sync.RWMutex
}

// settled waits for the renames that are under way.
func (fs *filesystem) settled() {
	fs.moves.Lock()
	defer fs.moves.Unlock()
}

// Mount mounts ns at dir and serves it until it is unmounted. The process's
// umask must be 0. When Mount returns, the mount answers.
func Mount(ctx context.Context, dir string, ns *namespace.FS, o Options) (*Server, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil { // not for a dead mount
		dir = real // as mountinfo and umount2 name it
	}
	if err := clearWay(dir); err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	root, ino, err := newRoot(ctx, ns, o)
	if err != nil {
		return nil, fmt.Errorf("root of the mount: %w", err)
	}
	mo := mountOptions(o)
	raw := requests{gofs.NewNodeFS(root, &gofs.Options{
		MountOptions:    mo,
		AttrTimeout:     &o.AttrTimeout,
		EntryTimeout:    &o.EntryTimeout,
		NegativeTimeout: negative(o),
		NullPermissions: true, // mode 0000 means just that
		RootStableAttr:  &gofs.StableAttr{Ino: ino},
		Logger:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}), root.fs}
	fs, err := fuse.NewServer(raw, dir, &mo)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	s := &Server{dir: dir, control: root.fs.control, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		defer s.control.Close()
		fs.Serve()
	}()
	if err := fs.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", dir, err), s.Detach())
	}
	s.widenReadAhead(o.Log)
	return s, nil
}

func newRoot(ctx context.Context, ns *namespace.FS, o Options) (*node, uint64, error) {
	d, err := ns.Root(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer d.Close()
	a, err := d.Stat(ctx, daemon())
	if err != nil {
		return nil, 0, err
	}
	f := &filesystem{ns: ns, log: o.Log, callers: newCallers("/proc"), attrTTL: o.AttrTimeout, direct: o.DirectIO}
	f.root = &node{fs: f}
	f.newControl(ns)
	return f.root, a.Ino, nil
}

func negative(o Options) *time.Duration {
	if o.NegativeTimeout == 0 {
		return nil
	}
	return &o.NegativeTimeout
}

func mountOptions(o Options) fuse.MountOptions {
	options := []string{"default_permissions"}
	if os.Geteuid() != 0 {
		options = append(options, flagNames(o.Flags)...)
	}
	return fuse.MountOptions{
		AllowOther:              o.AllowOther,
		Options:                 options,
		FsName:                  o.Source,
		Name:                    typeName,
		MaxWrite:                maxRequest,
		MaxReadAhead:            maxRequest,
		MaxBackground:           maxBackground,
		MaxInflightRequestBytes: maxInflight,
		EnableAcl:               true,
		DisableSplice:           true, // answers are in memory already
		ExtraCapabilities:       capabilities,
		// Root needs no fusermount; with it, mount flags would be lost.
		DirectMountStrict: os.Geteuid() == 0,
		DirectMountFlags:  o.Flags | unix.MS_MGC_VAL,
		Debug:             o.Debug,
		Logger:            slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
}

// flagNames are mount flags as fusermount takes them; it adds nosuid and nodev itself.
func flagNames(flags uintptr) (names []string) {
	for _, f := range []struct {
		flag uintptr
		name string
	}{{unix.MS_RDONLY, "ro"}, {unix.MS_NOEXEC, "noexec"}, {unix.MS_NOATIME, "noatime"}, {unix.MS_SYNCHRONOUS, "sync"}} {
		if flags&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	return names
}

// widenReadAhead lets the kernel's read-ahead fill whole requests; FUSE starts
// at 128 KiB and only the administrator's file changes it.
func (s *Server) widenReadAhead(log *slog.Logger) {
	m, err := mountinfo.At(s.dir)
	if err == nil {
		err = os.WriteFile("/sys/class/bdi/"+m.Dev+"/read_ahead_kb", []byte("4096"), 0)
	}
	if err != nil && os.Geteuid() == 0 {
		log.Warn("read-ahead stays small", "err", err)
	}
}
