package mdfssim_test

import (
	"testing"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/mdfssim"
	"marfs/pkg/mdfs/mdfstest"
)

// Why the simulation is not like a filesystem in some places: the protocol does
// not come there, or the checker has no use for it.
const (
	noSelf    = `the protocol never names a directory by "." in itself`
	noClosed  = "handles may be used after Close; leaks and uses after Close are found on real filesystems"
	noRights  = "rights are not simulated"
	noSpecial = "opening special files, device numbers and setgid directories are not simulated"
	noNames   = "lengths and bytes of names, and attributes of other classes, are not checked"
	noErrors  = "wrong use is not answered with the error of a filesystem"
)

// TestSuite: what the protocol relies on behaves as on a real filesystem.
func TestSuite(t *testing.T) {
	mdfstest.Run(t, func(t *testing.T) mdfs.FS {
		return mdfssim.New(mdfssim.Options{}).Mount(mdfssim.MountOptions{})
	}, mdfstest.Options{Skip: map[string]string{
		"Dir/Root": noSelf, "Dir/Walk": noSelf, "Name/Self": noSelf, "Mode/Owner": noSelf,
		"Xattr/File": noNames, "Time/Set": noSelf, "Time/OmitAndNow": noSelf,
		"Dir/Closed": noClosed, "Symlink/Readlink": noNames, "Xattr/Name": noNames, "Xattr/Sizes": noNames,
		"Mode/Dir": noSpecial, "Mode/Pinned": noErrors, "Mode/Special": noSpecial, "Mode/Device": noSpecial, "Mode/DefaultACL": noSpecial,
		"File/Flags": noErrors, "Entries/Empty": noErrors,
		"Identity": noRights,
	}})
}
