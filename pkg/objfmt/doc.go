// Package objfmt holds every byte that MarFS stores: slots, records, chunk and
// member tables, object keys, shard headers and footers, recovery trailers.
//
// It knows bytes only: no filesystem, no store. docs/format.md is the
// specification; golden files in testdata pin it. Parsers survive any input,
// allocate in proportion to it, and refuse versions they do not know.
package objfmt

import "errors"

var (
	// ErrFormat is input that is not what it should be.
	ErrFormat = errors.New("bad format")
	// ErrVersion is a format version this build does not know. It is never guessed at.
	ErrVersion = errors.New("unknown format version")
	// ErrChecksum is input whose checksum does not match.
	ErrChecksum = errors.New("bad checksum")
)
