package packer

import "context"

// maxClaims bounds the instances that one pass packs for: each takes a descriptor.
// The others' turn comes with the next pass.
const maxClaims = 64

// claims are the instances whose files a pass may pack, and those it may not.
type claims struct {
	p      *Packer
	others bool // also of instances that live
	known  map[[4]byte]bool
	held   []func()
}

// mine tells whether what an instance has staged is to be packed by this pass.
func (c *claims) mine(ctx context.Context, instance [4]byte) (bool, error) {
	if mine, ok := c.known[instance]; ok {
		return mine, nil
	}
	mine, err := c.ask(ctx, instance)
	if err != nil {
		return false, err
	}
	if c.known == nil {
		c.known = map[[4]byte]bool{}
	}
	if len(c.known) < 1<<16 {
		c.known[instance] = mine
	}
	return mine, nil
}

func (c *claims) ask(ctx context.Context, instance [4]byte) (bool, error) {
	own := instance == c.p.c.Meta.Instance()
	gone := c.p.c.Dead != nil && !own && c.p.c.Dead(instance)
	if !own && !gone && !c.others || len(c.held) >= maxClaims {
		return false, nil
	}
	release, ok, err := c.p.c.Meta.Claim(ctx, instance)
	if ok && err == nil {
		c.held = append(c.held, release)
	}
	return ok && err == nil, err
}

func (c *claims) release() {
	for _, f := range c.held {
		f()
	}
	c.held, c.known = nil, nil
}
