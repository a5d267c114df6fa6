package metadata

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// maxMarker bounds marfs.json.
const maxMarker = 1 << 16

// privateDirs are made by Init, and makePurged's; what else is below them is made when
// it is needed. Namespaces made before there was a makePurged work without its.
var privateDirs = []string{
	filesName, stagedName, bodiesName, chunksName, packsName, openPacks, residentName, versionName, trashName,
	workName, nodesName, deadName, takenName, repackName, damagedName,
}

// Init makes the private directories and marfs.json; it is idempotent and refuses
// a directory that belongs to another namespace, or that others can enter, unless
// that is empty: then it becomes 0700.
func Init(md mdfs.FS, namespace string) error {
	root := md.Root()
	b, err := readFile(root, markerName, maxMarker)
	if err == nil {
		m, err := objfmt.ParseMarker(b)
		if err != nil {
			return fmt.Errorf("%s: %w", markerName, err)
		}
		if err := checkOwner(m, namespace); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	marked := err == nil
	if err := closeRoot(root); err != nil {
		return err
	}
	if err := makeDirs(root); err != nil {
		return err
	}
	if !marked {
		if err := writeMarker(root, namespace); err != nil {
			return err
		}
	}
	return syncAll(stepInit, md) // every directory's name and the marker's, in one call
}

// closeRoot keeps others out of a new metadata directory.
func closeRoot(root mdfs.Dir) error {
	denied := checkRoot(root)
	if !errors.Is(denied, errRootOpen) {
		return denied
	}
	empty := true
	err := eachEntry(root, "", func(string) (bool, error) { empty = false; return true, nil })
	if err != nil || !empty {
		return errors.Join(denied, err)
	}
	return stepInit.Do(func() error { return root.Chmod(".", 0o700) })
}

// errRootOpen is a metadata directory that others can enter.
var errRootOpen = fmt.Errorf("others can enter it, and could reach the slots of files beside MarFS (chmod 700 closes it): %w", syscall.EPERM)

// checkRoot refuses a metadata directory that others than its owner can enter: in
// tree/ they own files, and a slot that one of them copied to a file of his own
// would have gc delete the objects of another.
func checkRoot(root mdfs.Dir) error {
	st, err := root.Stat()
	if err == nil && st.Mode&0o077 != 0 {
		err = fmt.Errorf("mode %04o, want 0700: %w", st.Mode&0o7777, errRootOpen)
	}
	return err
}

func checkOwner(m objfmt.Marker, namespace string) error {
	if m.Namespace != namespace {
		return fmt.Errorf("%s: the directory belongs to namespace %q, not %q: %w", markerName, m.Namespace, namespace, syscall.EPERM)
	}
	return nil
}

// makeDirs makes tree/, which users own, and the private directories.
func makeDirs(root mdfs.Dir) error {
	if err := ignore(mkdir(stepInit, root, treeName, 0o755), syscall.EEXIST); err != nil {
		return err
	}
	for _, p := range privateDirs {
		if err := makeDir(root, p); err != nil {
			return err
		}
	}
	return makePurged(root)
}

// makePurged makes all that [FS.Purge] needs, so that it is only a rename: it has to
// work on a filesystem that has no inode left, to make room there.
func makePurged(root mdfs.Dir) error {
	const purged = trashName + "/" + PurgedDay
	if err := makeDir(root, purged); err != nil {
		return err
	}
	d, err := mdfs.Walk(root, purged)
	if err != nil {
		return err
	}
	defer d.Close()
	for hh := range 256 {
		err := mkdir(stepInit, d, fmt.Sprintf("%02x", hh), dirMode(purged))
		if err := ignore(err, syscall.EEXIST); err != nil {
			return err
		}
	}
	return nil
}

func makeDir(root mdfs.Dir, p string) error {
	dir, name := path.Split(p)
	d, err := mdfs.Walk(root, strings.TrimSuffix(dir, "/"))
	if err != nil {
		return err
	}
	defer d.Close()
	return ignore(mkdir(stepInit, d, name, 0o700), syscall.EEXIST)
}

// writeMarker is the last step, so a marker means that everything is there.
func writeMarker(root mdfs.Dir, namespace string) error {
	tmp, err := newMarker(root, namespace)
	if err != nil {
		return err
	}
	// Two may initialise at once: the first marker stays.
	err = ignore(link(stepInit, root, tmp, root, markerName), syscall.EEXIST)
	return errors.Join(err, remove(stepInit, root, tmp))
}

// newMarker writes a marker of the directory as it is to a temporary file.
func newMarker(root mdfs.Dir, namespace string) (tmp string, err error) {
	m := objfmt.Marker{Namespace: namespace, UUID: objfmt.NewID(), Created: time.Now().UTC()}
	if m.Tree, err = identity(root, treeName); err != nil {
		return "", err
	}
	if m.Files, err = identity(root, filesName); err != nil {
		return "", err
	}
	b, err := m.Encode()
	if err != nil {
		return "", err
	}
	tmp = markerName + "." + m.UUID.String()
	return tmp, writeFile(stepInit, root, tmp, b, true)
}

// Adopt makes a copied directory the real one (see [ErrCopied]): it writes the
// marker anew. Only for a caller who has checked that no other copy lives, and
// that every home and reference is right: fsck.
func Adopt(md mdfs.FS, namespace string) error {
	root := md.Root()
	b, err := readFile(root, markerName, maxMarker)
	if err != nil {
		return err
	}
	m, err := objfmt.ParseMarker(b)
	if err != nil {
		return fmt.Errorf("%s: %w", markerName, err)
	}
	if err := checkOwner(m, namespace); err != nil {
		return err
	}
	tmp, err := newMarker(root, namespace)
	if err != nil {
		return err
	}
	if err := rename(stepInit, root, tmp, root, markerName, 0); err != nil {
		return err
	}
	return syncAll(stepInit, md)
}

func identity(root mdfs.Dir, name string) (objfmt.Inode, error) {
	st, err := root.Lstat(name)
	return objfmt.Inode{Dev: uint64(st.Dev), Ino: st.Ino}, err
}

// Open checks marfs.json, runs the start-up self-test and takes a node record.
func Open(ctx context.Context, md mdfs.FS, o Options) (*FS, error) {
	f := &FS{md: md, o: o, prefix: objfmt.UserPrefix, live: map[objfmt.ID]bool{}}
	f.defaults()
	f.dirs = newDirs(f)
	if err := f.open(ctx); err != nil {
		f.dirs.close()
		if f.tree != nil {
			f.tree.Close()
		}
		return nil, fmt.Errorf("metadata directory of namespace %q: %w", o.Namespace, err)
	}
	return f, nil
}

func (f *FS) defaults() {
	if f.o.Trusted {
		f.prefix = objfmt.TrustedPrefix
	}
	if f.o.Rand == nil {
		f.o.Rand = rand.Reader
	}
	if f.o.Clock == nil {
		f.o.Clock = time.Now
	}
	f.random(f.instance[:])
}

func (f *FS) open(ctx context.Context) (err error) {
	if f.o.Node == "" || len(f.o.Node) > 255 || strings.ContainsAny(f.o.Node, "/\x00") {
		return fmt.Errorf("node name %q: %w", f.o.Node, syscall.EINVAL)
	}
	if err := f.checkMarker(); err != nil {
		return err
	}
	if err := checkRoot(f.md.Root()); err != nil {
		return err
	}
	if err := f.checkPrivate(); err != nil {
		return err
	}
	if f.tree, err = f.md.Root().OpenDir(treeName); err != nil {
		return err
	}
	if err := f.decideSync(); err != nil {
		return err
	}
	if f.o.LookOnly {
		return nil
	}
	if !f.o.SkipTest {
		if err := f.selfTest(ctx); err != nil {
			return fmt.Errorf("self-test: %w", err)
		}
	}
	f.beat, err = f.startHeartbeat()
	return err
}

// checkMarker refuses another namespace's directory and notices a copied one.
func (f *FS) checkMarker() error {
	root := f.md.Root()
	b, err := readFile(root, markerName, maxMarker)
	if err != nil {
		return err
	}
	m, err := objfmt.ParseMarker(b)
	if err != nil {
		return fmt.Errorf("%s: %w", markerName, err)
	}
	if err := checkOwner(m, f.o.Namespace); err != nil {
		return err
	}
	tree, err := identity(root, treeName)
	if err != nil {
		return err
	}
	files, err := identity(root, filesName)
	if err != nil {
		return err
	}
	// Device numbers of network filesystems change when they are mounted again;
	// the two directories are on one filesystem, so equal devices are enough.
	f.copied = tree.Ino != m.Tree.Ino || files.Ino != m.Files.Ino || tree.Dev != files.Dev
	return nil
}

// checkPrivate refuses private directories that others can enter.
func (f *FS) checkPrivate() error {
	for _, p := range slices.Concat(privateDirs, []string{logName}) {
		err := f.in(p, func(d mdfs.Dir) error {
			st, err := d.Stat()
			if err == nil && (st.Mode&0o077 != 0 || int(st.Uid) != os.Geteuid()) {
				err = fmt.Errorf("mode %04o of uid %d, want 0700 of uid %d: %w", st.Mode&0o7777, st.Uid, os.Geteuid(), syscall.EPERM)
			}
			return err
		})
		if p == logName || p == residentName {
			err = ignore(err, syscall.ENOENT) // made when it is needed
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

func isRoot() bool { return os.Geteuid() == 0 }

// Filesystem types (statfs f_type) of which something is known.
const (
	typeExt   = 0xEF53
	typeXFS   = 0x58465342
	typeBtrfs = 0x9123683E
	typeTmpfs = 0x01021994
	typeNFS   = 0x6969
	typeSMB2  = 0xFE534D42
	typeFUSE  = 0x65735546
)

// decideSync settles whether fsync of an inode covers its new names. ext4 and
// XFS have one journal in order, so it does; elsewhere directories are synced.
func (f *FS) decideSync() error {
	st, err := f.md.Statfs()
	if err != nil {
		return err
	}
	switch f.o.NameSync {
	case NameSyncFile:
		f.covers = true
	case NameSyncNames:
		f.covers = false
	default:
		f.covers = st.Type == typeExt || st.Type == typeXFS || st.Type == typeBtrfs || st.Type == typeTmpfs
	}
	if f.o.Distributed && incoherent(int64(st.Type)) {
		return fmt.Errorf("filesystem type %#x keeps no coherent xattrs between nodes: %w", st.Type, syscall.EOPNOTSUPP)
	}
	return nil
}

// incoherent: other nodes may see old xattrs, or cannot see the filesystem at all.
func incoherent(t int64) bool {
	switch t {
	case typeNFS, typeSMB2, typeFUSE, typeTmpfs:
		return true
	}
	return false
}
