package metadata

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
	"marfs/pkg/objfmt"
)

// Instance identifies this process among those that have staged something.
func (f *FS) Instance() [4]byte { return f.instance }

// InstanceOf is the process that made a content.
func InstanceOf(content objfmt.ID) (instance [4]byte) {
	copy(instance[:], content[8:sessionBytes])
	return instance
}

// claimsName is the file in packs/ whose bytes stand for instances, one each at the
// offset that is its number. It is empty, and made when it is needed.
const claimsName = "claims"

// Claim asks for the right to pack what an instance has staged, until release is
// called or the process ends. It is a courtesy among packers: nothing rests on it,
// and where the filesystem has no locks, or no room for the file, everybody gets it.
func (f *FS) Claim(ctx context.Context, instance [4]byte) (release func(), ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	claims, err := f.openClaims()
	if full(err) {
		return func() {}, true, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("claim: %w", err)
	}
	if ok, err = claimByte(claims, instance); !ok {
		return nil, false, errors.Join(err, claims.Close())
	}
	return func() { claims.Close() }, true, nil
}

func claimByte(claims mdfs.File, instance [4]byte) (ok bool, err error) {
	err = claims.Lock(int64(binary.BigEndian.Uint32(instance[:])), 1)
	if errors.Is(err, syscall.EAGAIN) {
		return false, nil
	}
	if err = ignore(err, errNoLocks...); err != nil {
		return false, fmt.Errorf("claim: %w", err)
	}
	return true, nil
}

func (f *FS) openClaims() (fl mdfs.File, err error) {
	err = f.in(packsName, func(d mdfs.Dir) error {
		for range maxRaces {
			if fl, err = d.OpenFile(claimsName, unix.O_RDWR, 0); !errors.Is(err, syscall.ENOENT) {
				return err
			}
			if fl, err = create(stepClaim, d, claimsName, 0o600); !errors.Is(err, syscall.EEXIST) {
				return err
			}
		}
		return err
	})
	return fl, err
}
