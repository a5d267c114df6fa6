package metadata

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"syscall"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// Degraded records that an object needs rebuilding; cheap, repeated calls for
// one object are one record, which names all the shards reported.
func (f *FS) Degraded(ctx context.Context, d objfmt.Damage) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name := objectName(d.Object)
	return f.in(damagedName, func(dir mdfs.Dir) error {
		old, err := readDamage(dir, name)
		if err == nil {
			shards := append(slices.Clone(old.Shards), d.Shards...)
			slices.Sort(shards)
			if d.Shards = slices.Compact(shards); len(d.Shards) == len(old.Shards) {
				return nil
			}
		} else if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, objfmt.ErrFormat) {
			return err
		}
		return f.putDamage(name, d)
	})
}

// putDamage replaces the record as a whole: readers never see half of one.
func (f *FS) putDamage(name string, d objfmt.Damage) error {
	b, err := d.Encode()
	if err != nil {
		return err
	}
	tmp, err := f.putTemp(stepDamage, true, func(fl mdfs.File) error { return writeAt(stepDamage, fl, b, 0) })
	if err != nil {
		return err
	}
	return f.moveTemp(stepDamage, tmp, damagedName, name, true)
}

// maxDamage bounds what is read as a record of damage.
const maxDamage = 1 << 16

func readDamage(d mdfs.Dir, name string) (objfmt.Damage, error) {
	b, err := readFile(d, name, maxDamage)
	if err != nil {
		return objfmt.Damage{}, err
	}
	return objfmt.ParseDamage(b)
}

// Damaged lists the objects that need rebuilding.
func (f *FS) Damaged(ctx context.Context) iter.Seq2[objfmt.Damage, error] {
	return func(yield func(objfmt.Damage, error) bool) {
		stopped := false
		err := f.in(damagedName, func(d mdfs.Dir) error {
			return eachEntry(d, "", func(name string) (bool, error) {
				damage, err := readDamage(d, name)
				if errors.Is(err, syscall.ENOENT) {
					return false, ctx.Err()
				}
				if err != nil {
					err = fmt.Errorf("%s/%s: %w", damagedName, name, err)
				}
				stopped = !yield(damage, err)
				return stopped, nil
			})
		})
		if err != nil && !stopped {
			yield(objfmt.Damage{}, err)
		}
	}
}

// Repaired drops the record of an object that is whole again.
func (f *FS) Repaired(ctx context.Context, ref objfmt.ObjectRef) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return f.in(damagedName, func(d mdfs.Dir) error { return remove(stepDamage, d, objectName(ref)) })
}

// objectName is how objects are named in degraded/: <object id>[.<chunk>].
func objectName(ref objfmt.ObjectRef) string {
	key := ref.Key("x")
	return key[strings.LastIndexByte(key, '/')+1:]
}
