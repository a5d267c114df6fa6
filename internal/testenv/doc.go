// Package testenv gives tests what they run against: MarFS mounts served by
// processes of their own, and S3 servers.
//
// A mount is checked when its test ends: it must unmount, its log must hold no
// error that the test did not expect, and its metadata must be in order.
package testenv
