// Package metadata is a namespace's metadata directory: the users' tree, the
// private directories beside it, and the commit protocol that ties files to
// their objects (docs/design.md, "commit protocol"; docs/format.md for bytes).
//
// Everything it does to a metadata filesystem goes through mdfs.FS, and
// everything it does to objects through Objects, so the model checker can put a
// crash, a pause or another actor between any two steps of the real code. For
// the same reason no decision depends on time, no lock is held across a call of
// mdfs, and identities come from the random source in Options.
//
// # The protocol in short
//
// A regular file is one inode with its names in tree/, one private link (its
// home) named by its id, and slots: xattrs v1, v2, ... of which the highest says
// what the content is and where. Publishing is creating the next slot
// exclusively; nothing else commits anything. What is about to change is on disk
// in a record before it changes: unfinished writes in work/ and packs/open/,
// replaced contents in versions/, removed names in trash/. Whoever cleans up
// takes such a record by renaming it, and only then looks what it means.
//
// # Session and content ids
//
// A session's id is 8 random bytes, 4 of the process that made it (its instance)
// and a counter of 4; the contents it makes have the same first 12 bytes and
// count on. So the bodies, tables and versions of a session are found by its id
// in one directory each, however far it came, and a slot left open tells whose it is.
package metadata

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// Objects is what the protocol needs of the object stores.
type Objects interface {
	// Delete removes an object (every shard of it); a missing one is no error.
	Delete(ctx context.Context, ref objfmt.ObjectRef) error
	// DeletePrefix removes every object that a session or pack made under id,
	// in whatever pod of whatever repo of the namespace, but for the chunks that
	// keep reports (nil: none). For recovery, and packs: it lists.
	DeletePrefix(ctx context.Context, id objfmt.ObjectID, keep func(chunk uint32) bool) error
}

// NameSync says whether fsync of an inode makes its new names durable too.
type NameSync int

// The values of NameSync.
const (
	NameSyncAuto  NameSync = iota // by the type of the filesystem
	NameSyncFile                  // it does: ext4, XFS
	NameSyncNames                 // it does not: directories are synced too
)

// Options of Open.
type Options struct {
	Namespace string        // checked against what Init recorded
	Node      string        // this daemon or tool, unique among the running ones: names its work records and heartbeat
	Grace     time.Duration // floor under every keep time
	Objects   Objects

	Trusted     bool          // slots are trusted.marfs.*, not user.marfs.*: root daemons only
	NameSync    NameSync      // the zero value decides by filesystem type
	Distributed bool          // several nodes use the directory: refuse filesystems whose xattrs are not coherent
	Heartbeat   time.Duration // how often the node's counter moves; 0: never
	SkipTest    bool          // leave the start-up self-test out
	LookOnly    bool          // make no node record and no self-test, so that opening and closing change nothing; for what only looks

	Rand  io.Reader        // source of ids and nonces; nil: crypto/rand
	Clock func() time.Time // nil: time.Now
	Omit  omit.Set         // protocol steps left out: see package omit
}

// FS is an open metadata directory. Safe for concurrent use.
type FS struct {
	md       mdfs.FS
	o        Options
	tree     mdfs.Dir
	dirs     *dirs
	prefix   string  // of slots and notes
	instance [4]byte // of this process: in every session id it makes
	covers   bool    // fsync of an inode makes its new names durable
	copied   bool    // the directory is a copy: nothing is destroyed
	room     int     // bytes that users' xattrs may take; 0: no limit
	beat     *heartbeat
	ledgers  ledgers // what records of removals go into

	randMu sync.Mutex // guards o.Rand

	liveMu sync.Mutex         // guards live
	live   map[objfmt.ID]bool // sessions of this process that have not ended
}

// The private directories and files beside tree/.
const (
	markerName   = "marfs.json"
	treeName     = "tree"
	filesName    = "files"
	stagedName   = "staged"
	bodiesName   = "bodies"
	chunksName   = "chunks"
	packsName    = "packs"
	openPacks    = "packs/open"
	residentName = "packs/resident" // member tables of packs whose bodies wait to be released
	versionName  = "versions"
	trashName    = "trash"
	workName     = "work"
	nodesName    = "nodes"
	deadName     = "dead"
	takenName    = "dead/versions" // <hh>/: version records that somebody has taken
	repackName   = "repack"
	damagedName  = "degraded"
	logName      = "log" // what gc destroyed; made when it is needed
)

// ErrCopied means that marfs.json describes other directories than those beside
// it: the metadata was copied or restored, and another copy may own the objects.
var ErrCopied = errors.New("metadata directory is a copy")

// Tree is the root of the users' tree.
func (f *FS) Tree() mdfs.Dir { return f.tree }

// MD is the metadata filesystem, for what needs no protocol (mkdir, chmod ...).
func (f *FS) MD() mdfs.FS { return f.md }

// Copied reports whether the directory is a copy: until it is adopted, whatever
// destroys objects fails with ErrCopied.
func (f *FS) Copied() bool { return f.copied }

// XattrRoom returns how many bytes of names and values the xattrs of users may
// take on one inode so that slots always fit. 0: any.
func (f *FS) XattrRoom() int { return f.room }

// Close ends the heartbeat and drops the node record. Sessions must have ended.
func (f *FS) Close() error {
	err := errors.Join(f.beat.stop(), f.endLedgers())
	f.dirs.close()
	return errors.Join(err, f.tree.Close())
}

// Reserved reports whether an xattr name belongs to MarFS.
func Reserved(attr string) bool {
	return strings.HasPrefix(attr, objfmt.UserPrefix) || strings.HasPrefix(attr, objfmt.TrustedPrefix)
}

// Who does an operation, and on what, as the records tell it.
type Who struct {
	mdfs.Cred
	Path string // relative to the namespace's root, as the user saw it; for records
}

// instanceName is the instance in file names.
func (f *FS) instanceName() string { return hex.EncodeToString(f.instance[:]) }

func (f *FS) now() time.Time { return f.o.Clock() }

func (f *FS) random(b []byte) {
	f.randMu.Lock()
	defer f.randMu.Unlock()
	if _, err := io.ReadFull(f.o.Rand, b); err != nil {
		// A source of ids that ends would make files share identities.
		panic("metadata: random source: " + err.Error())
	}
}

func (f *FS) newID() (id objfmt.ID) {
	f.random(id[:])
	return id
}

// newNonce returns a random number that is not zero.
func (f *FS) newNonce() uint64 {
	var b [8]byte
	for {
		f.random(b[:])
		if n := binary.BigEndian.Uint64(b[:]); n != 0 {
			return n
		}
	}
}

func (f *FS) newObjectID() (id objfmt.ObjectID) {
	u := ulid.ULID{}
	_ = u.SetTime(ulid.Timestamp(f.now())) // fails after the year 10889
	f.random(u[6:])
	return objfmt.ObjectID(u)
}

// sessionBytes is how much of a session's id its contents share.
const sessionBytes = 12

// newSession returns the id of a new session: random, instance, counter 0.
func (f *FS) newSession() (id objfmt.ID) {
	f.random(id[:8])
	copy(id[8:sessionBytes], f.instance[:])
	return id
}

// sessionOf returns the session that made a content.
func sessionOf(content objfmt.ID) objfmt.ID {
	clear(content[sessionBytes:])
	return content
}

// numbered returns the n-th content id of a session.
func numbered(session objfmt.ID, n uint32) objfmt.ID {
	binary.BigEndian.PutUint32(session[sessionBytes:], n)
	return session
}

// StatOf turns the inode's stat into what users see: st_nlink without the home
// link, blocks from the size, and the owner's right to write as diskMode keeps it.
func StatOf(st *mdfs.Stat) {
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return
	}
	if st.Nlink > 1 { // 1: the home is not made yet
		st.Nlink--
	}
	st.Blocks = (st.Size + 511) / 512
	if st.Mode&syscall.S_ISVTX != 0 {
		st.Mode &^= syscall.S_ISVTX | syscall.S_IWUSR
	}
}

// DiskMode returns the mode bits that a regular file has on disk when users see
// mode. An unprivileged daemon needs the owner's rights to read and write to set
// xattrs, so it keeps them and marks "not writable" with the sticky bit, which
// means nothing on regular files. So users cannot set that bit, and a file of an
// unprivileged daemon is always readable by its owner.
func (f *FS) DiskMode(mode uint32) uint32 {
	mode &^= syscall.S_ISVTX
	if f.o.Trusted || isRoot() {
		return mode
	}
	if mode&syscall.S_IWUSR == 0 {
		mode |= syscall.S_ISVTX
	}
	return mode | syscall.S_IRUSR | syscall.S_IWUSR
}

// fileError is the error of an operation on an inode that may have no name.
func fileError(op string, id objfmt.ID, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: "file " + id.String(), Err: err}
}
