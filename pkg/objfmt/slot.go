package objfmt

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxSlot is the longest encoded slot in bytes. Two or three slots, user xattrs and
// ACLs share the 4 KiB that ext4 gives the xattrs of an inode.
const MaxSlot = 448

// Prefixes of the xattrs that belong to MarFS.
const (
	UserPrefix    = "user.marfs."
	TrustedPrefix = "trusted.marfs." // by configuration, for root daemons
)

// State says who may change the content that a slot names.
type State string

// The states of a slot.
const (
	Open   State = "open"   // its session is still writing
	Final  State = "final"  // complete
	Sealed State = "sealed" // complete; an own body that must never be appended to again
)

// SourceKind says where the bytes of a content are.
type SourceKind string

// The kinds of source.
const (
	SourceEmpty SourceKind = "empty" // no bytes
	SourceOwn   SourceKind = "own"   // the body of the metadata file itself
	SourceBody  SourceKind = "body"  // bodies/<content id>
	SourceObj   SourceKind = "obj"   // one object (uni), or a range of one (packed)
	SourceTable SourceKind = "table" // chunks/<file id>/<content id>, perhaps with a tail in bodies/<tail>
)

// Source locates a content. Bytes of the file beyond Stored read as zeros.
type Source struct {
	Kind   SourceKind
	Stored int64  // bytes of content the source holds
	Sum    uint64 // own, body, obj: CRC-64/NVME of the Stored bytes; table: of the table file

	Object ObjectRef // obj
	Packed bool      // obj: the object is a pack, this content a range of it
	Offset int64     // obj, packed: where the content begins in the object

	Chunks int // table: records in it
	Tail   ID  // table: the content id whose body in bodies/ holds the bytes after the last chunk; zero: none
}

// Slot is one published state of a file: the value of the xattr user.marfs.v<Gen>.
// Encoded it is printable ASCII of at most MaxSlot bytes.
type Slot struct {
	Gen     uint64 // from the xattr's name, not part of the value
	File    ID     // for life
	Content ID     // changes when bytes change
	State   State
	Session ID // Open: the session that may write; zero otherwise
	Size    int64
	MTime   time.Time
	Nonce   uint64 // random
	Prev    uint64 // nonce of slot Gen-1; 0 for none
	Source  Source
}

// SlotName returns the name of the xattr that holds slot gen: <prefix>v<gen>.
func SlotName(prefix string, gen uint64) string {
	return prefix + "v" + strconv.FormatUint(gen, 10)
}

// ParseSlotName tells whether attr names a slot, and which. Anything but the name
// that [SlotName] makes of a generation from 1 is no slot.
func ParseSlotName(prefix, attr string) (gen uint64, ok bool) {
	digits, ok := strings.CutPrefix(attr, prefix+"v")
	if !ok {
		return 0, false
	}
	gen, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || gen == 0 || SlotName(prefix, gen) != attr {
		return 0, false
	}
	return gen, true
}

// Encode returns the xattr's value. It refuses slots that ParseSlot would refuse.
func (s Slot) Encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("slot: %w", err)
	}
	w := newText("v", " ")
	w.put("f", textID(s.File))
	w.put("c", textID(s.Content))
	if s.State == Open {
		w.put("s", string(s.State)+","+textID(s.Session))
	} else {
		w.put("s", string(s.State))
	}
	w.put("z", strconv.FormatInt(s.Size, 10))
	w.put("t", textTime(s.MTime))
	w.put("n", text64(s.Nonce)+","+text64(s.Prev))
	s.Source.put(w)
	b := w.close()
	if len(b) > MaxSlot {
		return nil, fmt.Errorf("slot: %w: %d bytes, want at most %d", ErrFormat, len(b), MaxSlot)
	}
	return b, nil
}

// ParseSlot reads the value of the xattr that holds slot gen. Times are UTC.
func ParseSlot(gen uint64, b []byte) (Slot, error) {
	s, err := parseSlot(gen, b)
	if err != nil {
		return Slot{}, fmt.Errorf("slot %d: %w", gen, err)
	}
	return s, nil
}

func parseSlot(gen uint64, b []byte) (Slot, error) {
	if len(b) > MaxSlot {
		return Slot{}, fmt.Errorf("%w: %d bytes, want at most %d", ErrFormat, len(b), MaxSlot)
	}
	r, err := openText("v", " ", string(b))
	if err != nil {
		return Slot{}, err
	}
	s := Slot{Gen: gen, File: r.id(r.need("f")), Content: r.id(r.need("c"))}
	state, session, open := strings.Cut(r.need("s"), ",")
	s.State = State(state)
	if open {
		s.Session = r.id(session)
	}
	s.Size = r.int64(r.need("z"))
	s.MTime = r.time(r.need("t"))
	nonces := r.list(r.need("n"), ",", 2, 2)
	s.Nonce, s.Prev = r.uint64(nonces[0]), r.uint64(nonces[1])
	s.Source = r.source()
	if err := r.end(); err != nil {
		return Slot{}, err
	}
	return s, canonical(s, b)
}

// check holds what every slot must fulfil, whoever wrote it.
func (s Slot) check() error {
	switch {
	case s.File.IsZero():
		return fmt.Errorf("%w: no file id", ErrFormat)
	case s.Content.IsZero() && s.Source.Kind != SourceEmpty:
		return fmt.Errorf("%w: no content id", ErrFormat)
	case s.State != Open && s.State != Final && s.State != Sealed:
		return fmt.Errorf("%w: state %.40q", ErrFormat, s.State)
	case (s.State == Open) == s.Session.IsZero():
		return fmt.Errorf("%w: state %s with session %s", ErrFormat, s.State, s.Session)
	case s.Size < 0:
		return fmt.Errorf("%w: size %d", ErrFormat, s.Size)
	case s.Nonce == 0:
		return fmt.Errorf("%w: no nonce", ErrFormat)
	}
	return s.Source.check()
}
