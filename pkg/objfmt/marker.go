package objfmt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Marker is marfs.json at the root of a metadata directory: whose it is. Device and
// inode of two directories tell a copied or rolled-back tree from the real one.
type Marker struct {
	Namespace string    `json:"namespace"`
	UUID      ID        `json:"uuid"`
	Created   time.Time `json:"created"` // UTC
	Tree      Inode     `json:"tree"`
	Files     Inode     `json:"files"`
}

// Inode is what stat says of a directory's identity.
type Inode struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// StoreIdentity is the object StoreIdentityKey of each store: which shard of which
// pod it holds, so that swapped, foreign and emptied stores are noticed.
type StoreIdentity struct {
	Repo   string `json:"repo"`
	Pod    string `json:"pod"`
	Index  int    `json:"index"` // 0 to Data+Parity-1
	UUID   ID     `json:"uuid"`
	Data   int    `json:"data"`
	Parity int    `json:"parity"`
}

const (
	jsonFormat = 1
	maxJSON    = 1 << 16 // bytes, encoded
)

// document is the JSON form of both: the sum is that of the body without white space.
type document struct {
	Format int             `json:"format"`
	Kind   string          `json:"kind"`
	Body   json.RawMessage `json:"body"`
	CRC    string          `json:"crc"`
}

const (
	markerKind = "marfs namespace"
	storeKind  = "marfs store"
)

// Encode returns the file's text. It refuses markers that ParseMarker would refuse.
func (m Marker) Encode() ([]byte, error) {
	m.Created = m.Created.UTC()
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("marker: %w", err)
	}
	return encodeDocument(markerKind, m)
}

// ParseMarker reads marfs.json.
func ParseMarker(b []byte) (m Marker, err error) {
	if err = parseDocument(markerKind, b, &m); err == nil {
		err = m.check()
	}
	if err != nil {
		return Marker{}, fmt.Errorf("marker: %w", err)
	}
	return m, nil
}

func (m Marker) check() error {
	if m.UUID.IsZero() {
		return fmt.Errorf("%w: uuid is zero", ErrFormat)
	}
	if m.Created.Location() != time.UTC {
		return fmt.Errorf("%w: created %s is not in UTC", ErrFormat, m.Created)
	}
	return CheckName("namespace", m.Namespace)
}

// Encode returns the object's bytes. It refuses identities that ParseStoreIdentity would refuse.
func (s StoreIdentity) Encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("store identity: %w", err)
	}
	return encodeDocument(storeKind, s)
}

// ParseStoreIdentity reads the object StoreIdentityKey.
func ParseStoreIdentity(b []byte) (s StoreIdentity, err error) {
	if err = parseDocument(storeKind, b, &s); err == nil {
		err = s.check()
	}
	if err != nil {
		return StoreIdentity{}, fmt.Errorf("store identity: %w", err)
	}
	return s, nil
}

func (s StoreIdentity) check() error {
	if err := CheckName("repo", s.Repo); err != nil {
		return err
	}
	if err := CheckName("pod", s.Pod); err != nil {
		return err
	}
	if s.UUID.IsZero() {
		return fmt.Errorf("%w: uuid is zero", ErrFormat)
	}
	g := Geometry{Data: s.Data, Parity: s.Parity, Block: BlockUnit}
	if s.Index < 0 || s.Index >= g.Shards() {
		return fmt.Errorf("%w: index %d of %d+%d stores", ErrFormat, s.Index, s.Data, s.Parity)
	}
	return g.Validate()
}

func encodeDocument(kind string, body any) ([]byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	d := document{Format: jsonFormat, Kind: kind, Body: raw, CRC: text64(Checksum(raw))}
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return append(b, '\n'), nil
}

// parseDocument checks version, kind and checksum, in this order, and reads the body.
func parseDocument(kind string, b []byte, body any) error {
	if len(b) > maxJSON {
		return fmt.Errorf("%w: %d bytes, want at most %d", ErrFormat, len(b), maxJSON)
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if d.Format != jsonFormat {
		return fmt.Errorf("%w: %d, want %d", ErrVersion, d.Format, jsonFormat)
	}
	if d.Kind != kind {
		return fmt.Errorf("%w: kind %.40q, want %q", ErrFormat, d.Kind, kind)
	}
	var raw bytes.Buffer
	if err := json.Compact(&raw, d.Body); err != nil {
		return fmt.Errorf("%w: no body", ErrFormat)
	}
	if have := text64(Checksum(raw.Bytes())); have != d.CRC {
		return fmt.Errorf("%w: have %s, want %.20q", ErrChecksum, have, d.CRC)
	}
	if err := json.Unmarshal(raw.Bytes(), body); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return canonicalDocument(kind, b, body)
}

// canonicalDocument refuses unknown, missing and doubled fields, and any other
// spelling of a value; white space is free.
func canonicalDocument(kind string, b []byte, body any) error {
	again, err := encodeDocument(kind, body)
	if err != nil {
		return err
	}
	var have, want bytes.Buffer
	if json.Compact(&have, b) != nil || json.Compact(&want, again) != nil || !bytes.Equal(have.Bytes(), want.Bytes()) {
		return fmt.Errorf("%w: unknown, missing or doubled fields", ErrFormat)
	}
	return nil
}
