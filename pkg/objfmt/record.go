package objfmt

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of a record. A directory whose xattrs do not fit cannot be recorded whole.
const (
	MaxRecord  = 1 << 20 // bytes, encoded
	MaxPath    = 1 << 16 // bytes of a path: trees deeper than PATH_MAX can be made
	MaxTarget  = 1 << 12 // bytes of a symlink: PATH_MAX
	MaxXattr   = 1 << 16 // bytes of a value: Linux's XATTR_SIZE_MAX
	maxAttr    = 255     // bytes of an xattr's name: Linux's XATTR_NAME_MAX
	maxNode    = 255     // bytes of a node's name
	MaxWhy     = 1 << 12 // bytes of an explanation
	recordHead = "marfs record v"
)

// RecordKind says what a record is about.
type RecordKind string

// The kinds of record.
const (
	RecordFile    RecordKind = "file"    // trash/: a name of a regular file was removed
	RecordDir     RecordKind = "dir"     // trash/: a directory was removed
	RecordSymlink RecordKind = "symlink" // trash/: a symlink was removed
	RecordSpecial RecordKind = "special" // trash/: a fifo, socket or device was removed
	RecordPack    RecordKind = "pack"    // trash/: a pack without live members
	RecordVersion RecordKind = "version" // versions/ and trash/: a replaced content
	RecordWork    RecordKind = "work"    // work/: an unfinished write
)

// Record is one small immutable file of the metadata filesystem's private
// directories. Which fields are set depends on Kind; docs/format.md lists them.
type Record struct {
	Kind    RecordKind
	File    ID        // file, version, work: the file
	Content ID        // version: the replaced content; work: the content being written
	Session ID        // work
	Node    string    // work: who writes; else who recorded
	When    time.Time // when it was made
	Path    string    // as the user saw it, any bytes; relative to the namespace's root
	Why     string    // unlink, rename, overwrite, truncate, rmdir, repack, ...
	By      uint32    // uid of the caller
	Slot    *Slot     // version: the replaced slot
	Object  ObjectID  // work: prefix of every object the session makes; pack: the pack

	// What a removed directory, symlink or special was, to make it again.
	Mode   uint32
	UID    uint32
	GID    uint32
	Rdev   uint64
	MTime  time.Time
	Target string            // symlink
	Xattrs map[string][]byte // directory: user xattrs and ACLs
}

// Encode returns the record's text. It refuses records that ParseRecord would refuse.
func (r Record) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	w := newText(recordHead, "\n")
	w.put("kind", string(r.Kind))
	w.put("when", textTime(r.When))
	w.opt("node", escape(r.Node))
	w.put("by", formatUint(uint64(r.By)))
	w.opt("why", escape(r.Why))
	w.opt("path", escape(r.Path))
	w.opt("file", hexID(r.File))
	w.opt("content", hexID(r.Content))
	w.opt("session", hexID(r.Session))
	if !r.Object.IsZero() {
		w.put("object", r.Object.String())
	}
	if err := r.putSlot(w); err != nil {
		return nil, err
	}
	r.putInode(w)
	b := append(w.close(), '\n')
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("record: %w: %d bytes, want at most %d", ErrFormat, len(b), MaxRecord)
	}
	return b, nil
}

func (r Record) putSlot(w *textWriter) error {
	if r.Slot == nil {
		return nil
	}
	slot, err := r.Slot.Encode()
	if err == nil {
		w.put("slot", formatUint(r.Slot.Gen)+" "+string(slot))
	}
	return err
}

// putInode writes what a removed inode was; zero values are left out.
func (r Record) putInode(w *textWriter) {
	if r.Mode != 0 {
		w.put("mode", strconv.FormatUint(uint64(r.Mode), 8))
	}
	if r.UID != 0 || r.GID != 0 {
		w.put("owner", formatUint(uint64(r.UID))+":"+formatUint(uint64(r.GID)))
	}
	if r.Rdev != 0 {
		w.put("rdev", formatUint(r.Rdev))
	}
	if !r.MTime.IsZero() {
		w.put("mtime", textTime(r.MTime))
	}
	w.opt("target", escape(r.Target))
	putXattrs(w, r.Xattrs)
}

// putXattrs writes a line for each xattr, by name: name in escapes, value in base64url.
func putXattrs(w *textWriter, xattrs map[string][]byte) {
	for _, name := range slices.Sorted(maps.Keys(xattrs)) {
		attr := strings.ReplaceAll(escape(name), " ", "%20")
		w.put("xattr", attr+" "+base64.RawURLEncoding.EncodeToString(xattrs[name]))
	}
}

// ParseRecord reads a record. Times are UTC.
func ParseRecord(b []byte) (Record, error) {
	r, err := parseRecord(b)
	if err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	return r, nil
}

func parseRecord(b []byte) (Record, error) {
	if len(b) > MaxRecord {
		return Record{}, fmt.Errorf("%w: %d bytes, want at most %d", ErrFormat, len(b), MaxRecord)
	}
	t, err := openText(recordHead, "\n", strings.TrimSuffix(string(b), "\n"))
	if err != nil {
		return Record{}, err
	}
	r := Record{Kind: RecordKind(t.need("kind")), When: t.time(t.need("when"))}
	t.opt("node", func(s string) { r.Node = t.unescape(s) })
	r.By = t.uint32(t.need("by"))
	t.opt("why", func(s string) { r.Why = t.unescape(s) })
	t.opt("path", func(s string) { r.Path = t.unescape(s) })
	t.opt("file", func(s string) { r.File = t.hexID(s) })
	t.opt("content", func(s string) { r.Content = t.hexID(s) })
	t.opt("session", func(s string) { r.Session = t.hexID(s) })
	t.opt("object", func(s string) { r.Object, _ = t.object(s) })
	t.opt("slot", func(s string) { r.Slot = t.slot(s) })
	t.opt("mode", func(s string) { r.Mode = t.octal(s) })
	t.opt("owner", func(s string) {
		p := t.list(s, ":", 2, 2)
		r.UID, r.GID = t.uint32(p[0]), t.uint32(p[1])
	})
	t.opt("rdev", func(s string) { r.Rdev = t.uint(s, 64) })
	t.opt("mtime", func(s string) { r.MTime = t.time(s) })
	t.opt("target", func(s string) { r.Target = t.unescape(s) })
	r.Xattrs = t.xattrs()
	if err := t.end(); err != nil {
		return Record{}, err
	}
	return r, canonical(r, b)
}

func (t *textReader) slot(s string) *Slot {
	gen, text, _ := strings.Cut(s, " ")
	slot, err := ParseSlot(t.uint(gen, 64), []byte(text))
	if err != nil && t.err == nil {
		t.err = err
	}
	return &slot
}

// xattrs reads lines written by putXattrs; none is a nil map.
func (t *textReader) xattrs() (xattrs map[string][]byte) {
	for line, ok := t.take("xattr"); ok; line, ok = t.take("xattr") {
		escaped, value, _ := strings.Cut(line, " ")
		if xattrs == nil {
			xattrs = make(map[string][]byte)
		}
		b := make([]byte, base64.RawURLEncoding.DecodedLen(len(value)))
		t.base64(value, b)
		xattrs[t.unescape(escaped)] = b
	}
	return xattrs
}

// check holds what every record must fulfil, whoever wrote it.
func (r Record) check() error {
	var missing string
	switch r.Kind {
	case RecordFile:
		missing = require("file", r.File.IsZero())
	case RecordDir, RecordSpecial:
		missing = require("mode", r.Mode == 0)
	case RecordSymlink:
		missing = require("target", r.Target == "")
	case RecordPack:
		missing = require("object", r.Object.IsZero())
	case RecordVersion:
		missing = require("file", r.File.IsZero()) + require("content", r.Content.IsZero()) + require("slot", r.Slot == nil)
	case RecordWork:
		missing = require("file", r.File.IsZero()) + require("session", r.Session.IsZero())
	default:
		return fmt.Errorf("%w: kind %.40q", ErrFormat, r.Kind)
	}
	if missing != "" {
		return fmt.Errorf("%w: kind %s without%s", ErrFormat, r.Kind, missing)
	}
	if r.Slot != nil && (r.Slot.File != r.File || r.Slot.Content != r.Content) {
		return fmt.Errorf("%w: the slot is of another file or content", ErrFormat)
	}
	if len(r.Path) > MaxPath || len(r.Target) > MaxTarget || len(r.Node) > maxNode || len(r.Why) > MaxWhy {
		return fmt.Errorf("%w: path, target, node or reason too long", ErrFormat)
	}
	return checkXattrs(r.Xattrs)
}

func require(field string, missing bool) string {
	if missing {
		return " " + field
	}
	return ""
}

func checkXattrs(xattrs map[string][]byte) error {
	for name, value := range xattrs {
		if name == "" || len(name) > maxAttr || strings.Contains(name, "\x00") {
			return fmt.Errorf("%w: xattr name %.300q", ErrFormat, name)
		}
		if len(value) > MaxXattr {
			return fmt.Errorf("%w: xattr %q of %d bytes, want at most %d", ErrFormat, name, len(value), MaxXattr)
		}
	}
	return nil
}
