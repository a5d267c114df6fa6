package modelcheck

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"marfs/pkg/mdfs/mdfssim"
	"marfs/pkg/objfmt"
)

// Objects is the simulated object store that all actors share. An object is
// durable when its put returns.
type Objects struct {
	held map[objectKey][]byte
	sum  uint64
	gone map[objectKey]bool // deleted at some time: for messages
}

type objectKey struct {
	id    objfmt.ObjectID
	chunk uint32
}

func newObjects() *Objects {
	return &Objects{held: map[objectKey][]byte{}, gone: map[objectKey]bool{}}
}

func (o *Objects) clone() *Objects {
	return &Objects{maps.Clone(o.held), o.sum, maps.Clone(o.gone)}
}

func (o *Objects) set(k objectKey, b []byte) {
	if old, ok := o.held[k]; ok {
		o.sum -= k.hash(old)
		delete(o.held, k)
		o.gone[k] = true
	}
	if b != nil {
		o.held[k] = b
		o.sum += k.hash(b)
	}
}

func (k objectKey) hash(b []byte) uint64 {
	h := mix(k.access(false).Key, uint64(k.chunk))
	for _, c := range b {
		h = h*31 + uint64(c)
	}
	return mix(h, uint64(len(b)))
}

// access is the piece of shared state that all objects of one id are.
func (k objectKey) access(write bool) mdfssim.Access {
	h := uint64(1)
	for _, c := range k.id {
		h = h*0x100000001b3 ^ uint64(c)
	}
	return mdfssim.Access{Key: mix(h, 99), Write: write}
}

// objectStep is one call on the objects.
type objectStep struct {
	op     string
	key    objectKey
	sum    uint64 // of what is put
	write  bool
	result string
}

func (s *objectStep) Footprint(fp []mdfssim.Access) []mdfssim.Access {
	return append(fp, s.key.access(s.write))
}
func (s *objectStep) Digest() uint64 {
	return mix(mix(s.key.access(s.write).Key, uint64(s.key.chunk)), mix(uint64(len(s.op)), s.sum))
}
func (s *objectStep) String() string {
	return fmt.Sprintf("%-11s %s.%d", s.op, s.key.id, s.key.chunk)
}
func (s *objectStep) Outcome() string { return s.result }

// client is one actor's access to the objects; actor nil: unscheduled.
type client struct {
	*Objects
	actor *Actor
}

func (c client) do(s *objectStep, f func() error) error {
	if c.actor != nil {
		c.actor.before(s)
	}
	err := f()
	result := uint64(0)
	if s.result = "ok"; err != nil {
		s.result, result = err.Error(), 1
	}
	if s.op == "list" || s.op == "get" {
		result = mix(result, c.sum) // more than it tells, which is safe
	}
	if c.actor != nil {
		c.actor.after(s, result)
	}
	return err
}

// Put stores an object.
func (c client) Put(id objfmt.ObjectID, chunk uint32, b []byte) error {
	k := objectKey{id, chunk}
	return c.do(&objectStep{op: "put", key: k, sum: k.hash(b), write: true}, func() error {
		c.set(k, bytes.Clone(b))
		return nil
	})
}

// Get reads an object.
func (c client) Get(ref objfmt.ObjectRef) (b []byte, err error) {
	k := objectKey{ref.Object, ref.Chunk}
	err = c.do(&objectStep{op: "get", key: k}, func() error {
		var ok bool
		if b, ok = c.held[k]; !ok {
			return fmt.Errorf("object %s.%d: %w", k.id, k.chunk, fs.ErrNotExist)
		}
		return nil
	})
	return b, err
}

// Delete implements metadata.Objects.
func (c client) Delete(_ context.Context, ref objfmt.ObjectRef) error {
	k := objectKey{ref.Object, ref.Chunk}
	return c.do(&objectStep{op: "delete", key: k, write: true}, func() error {
		c.set(k, nil)
		return nil
	})
}

// DeletePrefix implements metadata.Objects: it lists, and then deletes one by one.
func (c client) DeletePrefix(ctx context.Context, id objfmt.ObjectID, keep func(chunk uint32) bool) error {
	var found []objectKey
	err := c.do(&objectStep{op: "list", key: objectKey{id: id}}, func() error {
		for k := range c.held {
			if k.id == id {
				found = append(found, k)
			}
		}
		return nil
	})
	slices.SortFunc(found, func(a, b objectKey) int { return int(a.chunk) - int(b.chunk) })
	for _, k := range found {
		if err == nil && (keep == nil || !keep(k.chunk)) {
			err = c.Delete(ctx, objfmt.ObjectRef{Object: k.id, Chunk: k.chunk})
		}
	}
	return err
}
