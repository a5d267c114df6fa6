package packer

import (
	"context"

	"marfs/pkg/objfmt"
)

// Candidate is a pack that is to be rewritten.
type Candidate struct {
	Object  objfmt.ObjectID
	Members int   // in the pack
	Live    int   // of them
	Bytes   int64 // of all members
	Alive   int64 // bytes of the live ones
	Pinned  int64 // bytes that stay in the old pack until gc: old versions
}

// Plan lists the packs to rewrite, those with the fewest live bytes first.
func (p *Packer) Plan(ctx context.Context) ([]Candidate, error) { return nil, nil }

// Repack rewrites them into as few packs as there need be, having looked again.
func (p *Packer) Repack(ctx context.Context, list []Candidate, progress func(Result)) (Result, error) {
	return Result{}, nil
}
