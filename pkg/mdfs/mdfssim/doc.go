// Package mdfssim simulates a metadata filesystem in memory, for the model
// checker and for tests that need faults.
//
// A [Disk] is what all nodes share; a [FS] is one node's mount of it and
// implements mdfs.FS. A mount made with a [Hook] reports every call that touches
// shared state just before it takes effect, with what it would read and write
// ([Call.Footprint]), so a scheduler can stop, kill or refuse it there, and
// again with its result. One such call is atomic, as it is on every POSIX
// filesystem that MarFS supports.
//
// The state is canonical: inode numbers come from per-mount counters and times
// from the mount's clock, so two schedules that lead to the same state have the
// same [Disk.Hash]. ctime and atime are kept but are no part of it.
//
// With [Options.Journal] the disk also remembers which changes are not yet
// durable. [Disk.Crash] builds what a power failure may leave: every domain (the
// entries of one directory; size, times, mode and xattrs of one inode; the data
// of one inode) keeps a prefix of its changes that is not shorter than what was
// synced, whatever the other domains keep. That is weaker than any one journal
// orders, and so includes what filesystems with several metadata servers leave;
// Options.OneJournal is ext4 and XFS.
//
// Not simulated: permission checks (As only says who owns new inodes), quotas,
// default ACLs, atime.
package mdfssim
