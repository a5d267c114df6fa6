package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"marfs/pkg/namespace"
)

// Entry is an entry of the trash as an answer tells it.
type Entry struct {
	ID        string // <namespace>/<day>/<name>
	Namespace string
	Path      string // below the mount, any bytes
	Kind      string // file, dir, symlink, special, version
	Version   string // content id of a version; else ""
	When      time.Time
	Why       string // unlink, rename, overwrite ...
	By        uint32 // who removed or replaced it
	Size      int64  // bytes of content
	MTime     time.Time
	Mode      uint32 // with type
	UID, GID  uint32 // owner
	Purged    bool
	Expires   time.Time // gc destroys it from then on
	Target    string    // of a symbolic link
}

// Restored is an entry and what became of it.
type Restored struct {
	Entry
	Where string // below the mount, where it is now or would be; "": it stayed in trash
	Err   error  // why
}

// Error is a failure that the other end told.
type Error struct {
	Errno syscall.Errno
	Text  string
	hint  string
}

func (e *Error) Error() string { return e.Text }

// Unwrap gives the errno.
func (e *Error) Unwrap() error { return e.Errno }

// Hint says what to do about it, if the other end knew.
func (e *Error) Hint() string { return e.hint }

// line is one line of an answer.
type line struct {
	Version int        `json:"version,omitempty"` // of the first
	Entry   *wireEntry `json:"entry,omitempty"`
	Where   []byte     `json:"where,omitempty"` // where the entry was restored
	Error   *wireError `json:"error,omitempty"` // of the entry in the same line, else of something
	Data    int        `json:"data,omitempty"`  // bytes that follow
	Done    bool       `json:"done,omitempty"`  // the last line
}

type wireEntry struct {
	ID        []byte `json:"id"`
	Namespace string `json:"namespace"`
	Path      []byte `json:"path"`
	Kind      string `json:"kind"`
	Version   string `json:"version,omitempty"`
	When      stamp  `json:"when"`
	Why       string `json:"why"`
	By        uint32 `json:"by"`
	Size      int64  `json:"size"`
	MTime     stamp  `json:"mtime"`
	Mode      uint32 `json:"mode"`
	UID       uint32 `json:"uid"`
	GID       uint32 `json:"gid"`
	Purged    bool   `json:"purged,omitempty"`
	Expires   stamp  `json:"expires"`
	Target    []byte `json:"target,omitempty"`
}

type wireError struct {
	Errno int    `json:"errno"`
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
}

func wireOf(e *namespace.TrashEntry) *wireEntry {
	r := &e.Record
	w := &wireEntry{ID: []byte(e.TrashID()), Namespace: e.Namespace, Path: []byte(e.Path), Kind: string(r.Kind),
		When: stamp(r.When), Why: r.Why, By: r.By, Size: e.Size, MTime: stamp(e.MTime), Mode: e.Mode,
		UID: e.UID, GID: e.GID, Purged: e.Purged, Expires: stamp(e.Expires), Target: []byte(r.Target)}
	if e.Version() {
		w.Version = r.Content.String()
	}
	return w
}

func (w *wireEntry) entry() Entry {
	return Entry{ID: string(w.ID), Namespace: w.Namespace, Path: string(w.Path), Kind: w.Kind, Version: w.Version,
		When: time.Time(w.When), Why: w.Why, By: w.By, Size: w.Size, MTime: time.Time(w.MTime), Mode: w.Mode,
		UID: w.UID, GID: w.GID, Purged: w.Purged, Expires: time.Time(w.Expires), Target: string(w.Target)}
}

func wireErrorOf(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{Errno: int(syscall.EIO), Text: strings.ToValidUTF8(cut(err.Error(), maxText), "\uFFFD")}
	var e syscall.Errno
	if errors.As(err, &e) && e != 0 {
		w.Errno = int(e)
	}
	var own interface{ Hint() string }
	if errors.As(err, &own) {
		w.Hint = cut(own.Hint(), maxText)
	}
	return w
}

func cut(s string, most int) string { return s[:min(len(s), most)] }

func (w *wireError) err() error {
	if w == nil {
		return nil
	}
	return &Error{Errno: syscall.Errno(w.Errno), Text: w.Text, hint: w.Hint}
}

// encoder writes an answer, each line with what belongs to it in one piece.
type encoder struct {
	w   io.Writer
	err error // of writing: there is nobody to answer any more
}

func (e *encoder) write(b []byte) bool {
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
	return e.err == nil
}

// line reports whether there is still somebody to answer.
func (e *encoder) line(l line) bool {
	b, err := json.Marshal(l)
	if err == nil && len(b) >= MaxLine {
		err = fmt.Errorf("answer of %d bytes: %w", len(b), syscall.EMSGSIZE)
	}
	if err != nil {
		b, err = json.Marshal(line{Error: wireErrorOf(err)})
	}
	if err != nil {
		e.err = err
		return false
	}
	return e.write(append(b, '\n'))
}

// data sends bytes of content, at most maxData.
func (e *encoder) data(p []byte) bool {
	head := fmt.Appendf(make([]byte, 0, len(p)+32), "{\"data\":%d}\n", len(p))
	return e.write(append(head, p...))
}
