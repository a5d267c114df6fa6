package objfmt

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// ID is a random 128-bit identity: of a file (for life), of a content, of a
// write (one shard set), or of a session. Its text form is 32 lower-case hex digits.
type ID [16]byte

// NewID returns a new random ID from the system's random source.
func NewID() (id ID) {
	rand.Read(id[:]) // never fails: crypto/rand aborts the program instead
	return id
}

// ParseID reads the text form written by [ID.String].
func ParseID(s string) (id ID, err error) {
	if len(s) != 2*len(id) || strings.ToLower(s) != s {
		return ID{}, fmt.Errorf("%w: id %q: want 32 lower-case hex digits", ErrFormat, s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("%w: id %q: want 32 lower-case hex digits", ErrFormat, s)
	}
	return id, nil
}

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText makes ids hexadecimal in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseID.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}

// IsZero reports whether id is unset.
func (id ID) IsZero() bool { return id == ID{} }

// Fan returns the two hex digits that name the fan-out directory of id.
func (id ID) Fan() string { return hex.EncodeToString(id[:1]) }

// ObjectID names an object: 48 bits of creation time (ms) and 80 random bits,
// a ULID. Its text form is 26 lower-case Crockford base-32 digits.
type ObjectID [16]byte

// NewObjectID returns a new id for an object created at t.
func NewObjectID(t time.Time) ObjectID {
	return ObjectID(ulid.MustNew(ulid.Timestamp(t), rand.Reader))
}

// ParseObjectID reads the text form written by [ObjectID.String].
func ParseObjectID(s string) (ObjectID, error) {
	u, err := ulid.ParseStrict(s)
	if err != nil || strings.ToLower(s) != s {
		return ObjectID{}, fmt.Errorf("%w: object id %q: want 26 lower-case base-32 digits", ErrFormat, s)
	}
	return ObjectID(u), nil
}

func (id ObjectID) String() string { return strings.ToLower(ulid.ULID(id).String()) }

// MarshalText makes object ids what keys show in JSON.
func (id ObjectID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseObjectID.
func (id *ObjectID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseObjectID(string(b))
	return err
}

// IsZero reports whether id is unset.
func (id ObjectID) IsZero() bool { return id == ObjectID{} }

// Time returns when the object was created, to the millisecond.
func (id ObjectID) Time() time.Time { return ulid.Time(ulid.ULID(id).Time()) }

// Fan returns the two hex digits that spread keys: they come from the random part.
func (id ObjectID) Fan() string { return hex.EncodeToString(id[15:]) }
