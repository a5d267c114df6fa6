package objfmt

import "time"

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
