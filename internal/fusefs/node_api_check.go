package fusefs

import gofs "github.com/hanwen/go-fuse/v2/fs"

// The operations of a node.
var (
	_ = (gofs.NodeLookuper)((*node)(nil))
	_ = (gofs.NodeGetattrer)((*node)(nil))
	_ = (gofs.NodeSetattrer)((*node)(nil))
	_ = (gofs.NodeStatfser)((*node)(nil))
	_ = (gofs.NodeCreater)((*node)(nil))
	_ = (gofs.NodeTmpfiler)((*node)(nil))
	_ = (gofs.NodeOpener)((*node)(nil))
	_ = (gofs.NodeCopyFileRanger)((*node)(nil))
	_ = (gofs.NodeMkdirer)((*node)(nil))
	_ = (gofs.NodeMknoder)((*node)(nil))
	_ = (gofs.NodeSymlinker)((*node)(nil))
	_ = (gofs.NodeReadlinker)((*node)(nil))
	_ = (gofs.NodeLinker)((*node)(nil))
	_ = (gofs.NodeUnlinker)((*node)(nil))
	_ = (gofs.NodeRmdirer)((*node)(nil))
	_ = (gofs.NodeRenamer)((*node)(nil))
	_ = (gofs.NodeOpendirHandler)((*node)(nil))
	_ = (gofs.NodeGetxattrer)((*node)(nil))
	_ = (gofs.NodeSetxattrer)((*node)(nil))
	_ = (gofs.NodeListxattrer)((*node)(nil))
	_ = (gofs.NodeRemovexattrer)((*node)(nil))
	_ = (gofs.NodeOnForgetter)((*node)(nil))
)

// The operations of an open file. Locks are the kernel's own.
var (
	_ = (gofs.FileReader)((*handle)(nil))
	_ = (gofs.FileWriter)((*handle)(nil))
	_ = (gofs.FileFlusher)((*handle)(nil))
	_ = (gofs.FileFsyncer)((*handle)(nil))
	_ = (gofs.FileReleaser)((*handle)(nil))
	_ = (gofs.FileAllocater)((*handle)(nil))
	_ = (gofs.FileLseeker)((*handle)(nil))
)

// The operations of the control file, and of it when open.
var (
	_ = (gofs.NodeGetattrer)((*controlNode)(nil))
	_ = (gofs.NodeSetattrer)((*controlNode)(nil))
	_ = (gofs.NodeOpener)((*controlNode)(nil))
	_ = (gofs.NodeGetxattrer)((*controlNode)(nil))
	_ = (gofs.NodeSetxattrer)((*controlNode)(nil))
	_ = (gofs.NodeListxattrer)((*controlNode)(nil))
	_ = (gofs.NodeRemovexattrer)((*controlNode)(nil))
	_ = (gofs.FileReader)((*controlHandle)(nil))
	_ = (gofs.FileWriter)((*controlHandle)(nil))
	_ = (gofs.FileReleaser)((*controlHandle)(nil))
)

// The operations of an open directory.
var (
	_ = (gofs.FileReaddirenter)((*dirHandle)(nil))
	_ = (gofs.FileSeekdirer)((*dirHandle)(nil))
	_ = (gofs.FileFsyncdirer)((*dirHandle)(nil))
	_ = (gofs.FileReleasedirer)((*dirHandle)(nil))
)
