// Package control is how people reach the trash of mounted and unmounted
// namespaces: one request, and its answer as a stream.
//
// A Server opens a Session for each request, which acts as the caller it was
// opened for. A front end carries bytes to and from it: the mount through the file
// Name in its root, marfsctl within its own process. A Client speaks to either.
//
// # On the wire
//
// The request is one line: a JSON object, of at most MaxRequest bytes. The answer is
// lines of JSON, each of at most MaxLine bytes: first the version, then an event for each
// entry or error as it comes, last {"done":true}. A line that says data is
// followed by so many bytes as they are. An empty line means that the server
// is at work. Paths are any bytes, so they are base64.
//
// Both ends refuse versions and fields that they do not know.
package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"marfs/pkg/namespace"
	"marfs/pkg/trash"
)

// Name of the control file in the root of a mount. It shadows a file of that name.
const Name = ".marfs.control"

// Version of the protocol.
const Version = 1

// Limits of both ends.
const (
	MaxRequest = 128 << 10 // bytes of a request with its newline
	MaxLine    = 256 << 10 // bytes of a line of the answer: two paths of 64 KiB in base64
	MaxIDs     = 100       // of one request
	maxID      = 1 << 10   // bytes of one
	maxMatch   = 4 << 10   // bytes of a pattern
	maxData    = 256 << 10 // bytes that follow one line
	maxText    = 4 << 10   // bytes of an error's text
)

// Verb is what a request asks for.
type Verb string

// The verbs.
const (
	List     Verb = "list"     // entries that the query selects
	Purge    Verb = "purge"    // let them go
	Restore  Verb = "restore"  // put them back
	Versions Verb = "versions" // of the file at path
	Revert   Verb = "revert"   // make a version of the file at path its content
	Read     Verb = "read"     // what the entry with the one id holds
)

// request is what travels. Filter.Under is not in it: path takes its place.
type request struct {
	Version int      `json:"version"`
	Do      Verb     `json:"do"`
	Path    []byte   `json:"path,omitempty"` // below the mount
	IDs     []string `json:"ids,omitempty"`
	Filter  *filter  `json:"filter,omitempty"`
	To      []byte   `json:"to,omitempty"`
	Force   bool     `json:"force,omitempty"`
	DryRun  bool     `json:"dry_run,omitempty"`
	Content string   `json:"content,omitempty"` // a version's id, or its first digits
}

type filter struct {
	Match    []byte  `json:"match,omitempty"`
	Owner    *uint32 `json:"owner,omitempty"`
	By       *uint32 `json:"by,omitempty"`
	Since    *stamp  `json:"since,omitempty"`
	Until    *stamp  `json:"until,omitempty"`
	MinSize  int64   `json:"min_size,omitempty"`
	MaxSize  int64   `json:"max_size,omitempty"`
	Versions bool    `json:"versions,omitempty"`
	Purged   bool    `json:"purged,omitempty"`
}

// stamp is a time as [seconds, nanoseconds]: RFC 3339 ends with the year 9999,
// which a file's time may be beyond.
type stamp time.Time

// MarshalJSON writes [seconds, nanoseconds] since 1970.
func (s stamp) MarshalJSON() ([]byte, error) {
	t := time.Time(s)
	return fmt.Appendf(nil, "[%d,%d]", t.Unix(), t.Nanosecond()), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *stamp) UnmarshalJSON(b []byte) error {
	var v [2]int64
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	if v[1] < 0 || v[1] >= 1e9 {
		return fmt.Errorf("nanoseconds %d", v[1])
	}
	*s = stamp(time.Unix(v[0], v[1]))
	return nil
}

func stampOf(t time.Time) *stamp {
	if t.IsZero() {
		return nil
	}
	return (*stamp)(&t)
}

func (s *stamp) time() time.Time {
	if s == nil {
		return time.Time{}
	}
	return time.Time(*s)
}

func filterOf(f trash.Filter) *filter {
	return &filter{Match: []byte(f.Match), Owner: f.Owner, By: f.By, Since: stampOf(f.Since), Until: stampOf(f.Until),
		MinSize: f.MinSize, MaxSize: f.MaxSize, Versions: f.Versions, Purged: f.Purged}
}

func (f *filter) trash() trash.Filter {
	if f == nil {
		return trash.Filter{}
	}
	return trash.Filter{Match: string(f.Match), Owner: f.Owner, By: f.By, Since: f.Since.time(), Until: f.Until.time(),
		MinSize: f.MinSize, MaxSize: f.MaxSize, Versions: f.Versions, Purged: f.Purged}
}

// encode returns the line of a request.
func (r request) encode() ([]byte, error) {
	r.Version = Version
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(b) >= MaxRequest {
		return nil, fmt.Errorf("request of %d bytes: %w", len(b), syscall.EMSGSIZE)
	}
	return append(b, '\n'), nil
}

// parseRequest reads what encode writes. It survives any bytes.
func parseRequest(line []byte) (r request, err error) {
	if len(line) > MaxRequest {
		return r, invalid("request of %d bytes, at most %d", len(line), MaxRequest)
	}
	var v struct{ Version *int }
	if err := json.Unmarshal(line, &v); err != nil || v.Version == nil {
		return r, invalid("no request of marfsctl")
	}
	if *v.Version != Version {
		return r, invalid("request of version %d; this daemon knows version %d", *v.Version, Version)
	}
	if err := decodeStrictly(line, &r); err != nil {
		return r, invalid("request: %v", err)
	}
	return r, r.check()
}

// decodeStrictly reads one JSON value and nothing else.
func decodeStrictly(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, syscall.EINVAL)...)
}

func (r *request) check() error {
	one := len(r.Path) > 0 || len(r.IDs) > 0
	needs := map[Verb]bool{
		List: one, Purge: one, Restore: one,
		Versions: len(r.Path) > 0, Revert: len(r.Path) > 0 && r.Content != "", Read: len(r.IDs) == 1,
	}
	switch selected, known := needs[r.Do]; {
	case !known:
		return invalid("request to %.20q, which this daemon does not know", r.Do)
	case !selected:
		return invalid("request to %s without path or id", r.Do)
	case bytes.IndexByte(r.Path, 0) >= 0 || bytes.IndexByte(r.To, 0) >= 0:
		return invalid("path with a zero byte")
	case len(r.IDs) > MaxIDs:
		return invalid("%d ids, at most %d", len(r.IDs), MaxIDs)
	case len(r.Content) > maxID:
		return invalid("version of %d bytes", len(r.Content))
	}
	for _, id := range r.IDs {
		if len(id) > maxID {
			return invalid("id of %d bytes", len(id))
		}
	}
	if f := r.Filter; f != nil && (f.MinSize < 0 || f.MaxSize < 0 || len(f.Match) > maxMatch) {
		return invalid("size below 0, or pattern of more than %d bytes", maxMatch)
	}
	return nil
}

func (r *request) query() namespace.TrashQuery {
	return namespace.TrashQuery{Path: string(r.Path), IDs: r.IDs, Filter: r.Filter.trash()}
}
