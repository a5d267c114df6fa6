// Package omit names the steps of the commit protocol whose absence loses data
// or leaves litter. Nothing outside the model checker's tests sets them: each is
// left out there alone, and the checker must then find a violation. It is the
// proof that the checker sees what the step is for.
package omit

// Set is a set of steps to leave out; zero leaves out none.
type Set uint64

// The steps.
const (
	// XattrCreate publishes with plain setxattr instead of XATTR_CREATE (R1).
	XattrCreate Set = 1 << iota
	// SameContent retries a publish without asking whether the content is still the base's (R1).
	SameContent
	// RereadBeforeRecord looks for the work record before rereading the top, not after (R1, "in exactly this order").
	RereadBeforeRecord
	// RewriteVersion retries without rewriting the version record from the slot now replaced (R1).
	RewriteVersion
	// AppendNoRetry lets an appender retry its open on a slot that only moved.
	AppendNoRetry
	// Seal bumps an open own slot to final instead of sealed (R4).
	Seal
	// CopyOwnVersion lets a version record say own instead of copying the body (R3).
	CopyOwnVersion
	// TakeVersion looks at a version record before taking it (R5).
	TakeVersion
	// TakeDeletion looks at a deletion record before taking it (R5).
	TakeDeletion
	// RawAgain does not read the link count again once the home is in dead/, nor when
	// it has its name of no return (R5).
	RawAgain
	// MakeMissingVersion drops a lower slot without making the version record that is missing (R2).
	MakeMissingVersion
	// AppendPrefix keeps a lower own slot that is the prefix of a higher one (R2).
	AppendPrefix
	// IgnoreJunk believes a slot below the top whose nonce its successor does not name (R1).
	IgnoreJunk
	// HomeAfterPack does not reread the slot after moving a home to files/ (pack).
	HomeAfterPack
	// HomeAfterSession does not reread the slot after moving a home to files/, nor
	// bring it back to staged/ after a publish that is not archived (stream, change).
	HomeAfterSession
	// HomeAfterRecovery does not put homes where their slots say before a record goes (R4).
	HomeAfterRecovery
	// KeepTakenRecord drops a fenced record at once instead of keeping it for grace (R4).
	KeepTakenRecord
	// FenceBump abandons a session without publishing its file's content again (R4).
	FenceBump
	// FenceBatch leaves the first slot of a new file open when the pack that was to be its content is abandoned (R4).
	FenceBatch
	// RepackRecordFirst repacks without a trash record for the old pack.
	RepackRecordFirst
	// PackHints leaves no hint, or trash record, for members that lost (pack).
	PackHints
	// HomeCheck drops the work record though the home is gone (stream, change).
	HomeCheck
	// RecheckUnlink does not look, after an unlink or rename, whether the record is still there.
	RecheckUnlink
	// OwnRecordOnly takes back another's record when an unlink is refused.
	OwnRecordOnly
	// VersionBody keeps bodies/<content> when the version of it is purged (R5).
	VersionBody
	// SameInodeRename records a deletion for a rename between two links of one inode.
	SameInodeRename
	// ReadRecheck believes a zero block of an own body without rereading the slot (read).
	ReadRecheck
	// VersionRecord publishes over a base without making it a version.
	VersionRecord
	// TableIDs keys the chunk table by file instead of by content.
	TableIDs
	// PackSum packs a body without checking its checksum.
	PackSum
	// RestoreRecordFirst takes a version's record before its own work record exists.
	RestoreRecordFirst
	// Hold destroys a deleted file without asking who holds it (R5).
	Hold
	// BegunName destroys a file whose home still has the name by which it can be given back (R5).
	BegunName

	// SyncPublish acknowledges a publish before the inode is synced.
	SyncPublish
	// SyncHome makes a work record durable before the home of its file.
	SyncHome
	// SyncWork starts a session before its work record is durable.
	SyncWork
	// SyncVersion publishes before the version record is durable.
	SyncVersion
	// SyncTable publishes before the chunk table is durable.
	SyncTable
	// SyncBeforePunch punches or deletes before the slot that allowed it is durable.
	SyncBeforePunch
)

// Has reports whether steps are left out, all of them; it is false for none.
func (s Set) Has(steps Set) bool { return steps != 0 && s&steps == steps }
