package objfmt

import "github.com/minio/crc64nvme"

// Checksum returns the CRC-64/NVME of b, the one checksum of every MarFS format.
//
// It finds damage, not forgery. 64 bits, because at an exabyte of 1 MiB blocks
// (10^12 of them) a 32-bit sum lets some damage through; and it is the faster
// one: measured on one core, 9.1 GB/s against 6.3 GB/s for CRC-32C.
func Checksum(b []byte) uint64 { return crc64nvme.Checksum(b) }

// Update returns the checksum of a followed by b, where sum is that of a.
// The checksum of nothing is 0.
func Update(sum uint64, b []byte) uint64 { return crc64nvme.Update(sum, b) }
