package trash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	account "os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// Sink is where an audit log is written. Each Write is whole lines.
type Sink interface {
	Write(p []byte) (int, error)
	Sync() error
}

// Audit writes down what a run destroys in one namespace, before it does: a line of
// JSON for each thing (docs/operations.md).
type Audit struct {
	Run, Host, User string               // who; the same in every line
	Open            func() (Sink, error) // called before the first line
	Synced          bool                 // the sink is on the metadata filesystem: the sync before destruction covers it
	Clock           func() time.Time     // nil: time.Now

	mu    sync.Mutex // guards what is below
	sink  Sink
	lines int // that tell of something
}

// logTime is how runs, and the names of their logs after "gc-", begin.
const logTime = "20060102T150405Z"

// NewAudit makes the log of a run of this process that begins now, in log/ of a
// metadata directory; elsewhere, if Open and Synced are changed. done closes it, and
// returns its name; "": there is none, since nothing was to be told.
func NewAudit(ctx context.Context, meta *metadata.FS, now time.Time) (a *Audit, done func() (name string, err error), err error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, nil, err
	}
	a = &Audit{Host: host, User: strconv.Itoa(os.Geteuid()), Synced: true,
		Run: fmt.Sprintf("%s-%s-%d", now.UTC().Format(logTime), strings.ReplaceAll(host, "/", "_"), os.Getpid())}
	if u, err := account.LookupId(a.User); err == nil {
		a.User = u.Username
	}
	var l *metadata.Log
	name := "gc-" + a.Run + ".jsonl"
	a.Open = func() (Sink, error) {
		l, err = meta.CreateLog(ctx, name)
		if err != nil {
			return nil, err
		}
		return l, nil
	}
	return a, func() (string, error) {
		if l == nil {
			return "", nil
		}
		err := l.Close()
		if a.lines == 0 {
			return "", errors.Join(err, meta.RemoveLog(context.WithoutCancel(ctx), name))
		}
		return name, err
	}, nil
}

// LogError means that the audit log cannot be written, so nothing is destroyed.
type LogError struct{ Err error }

func (e *LogError) Error() string { return "audit log: " + e.Err.Error() }

// Unwrap makes the cause visible to errors.Is.
func (e *LogError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *LogError) Hint() string {
	return "nothing is destroyed without a log: --log FILE writes it elsewhere, on a filesystem that has room"
}

// line is one line of the log. Fields stay as they are named.
type line struct {
	Time      time.Time    `json:"time"`
	Run       string       `json:"run"`
	Host      string       `json:"host"`
	User      string       `json:"user"`
	Namespace string       `json:"namespace"`
	Event     string       `json:"event"` // begin, destroy, spared, recover or failed
	Why       Why          `json:"why,omitempty"`
	Kind      string       `json:"kind,omitempty"` // of the record
	Path      string       `json:"path,omitempty"`
	PathBytes []byte       `json:"path_base64,omitempty"` // of a path that is no UTF-8
	File      string       `json:"file,omitempty"`
	Contents  []string     `json:"contents,omitempty"`
	Objects   []lineObject `json:"objects,omitempty"`
	Size      int64        `json:"size,omitempty"` // bytes of content
	Owner     *uint32      `json:"owner,omitempty"`
	Group     *uint32      `json:"group,omitempty"`
	When      *time.Time   `json:"deleted,omitempty"`
	By        *uint32      `json:"deleted_by,omitempty"`
	How       string       `json:"deleted_how,omitempty"`
	Node      string       `json:"deleted_on,omitempty"`
	Place     string       `json:"place,omitempty"` // in the metadata directory, of leftovers
	Error     string       `json:"error,omitempty"`
}

// lineObject is one object, or with Chunks several of consecutive chunk numbers,
// of which Key is the first.
type lineObject struct {
	Repo   string `json:"repo,omitempty"`
	Key    string `json:"key"`
	Chunks int    `json:"chunks,omitempty"`
}

// PathBytes is what JSON cannot hold as a string: a path that is no UTF-8. Of others
// it is nil.
func PathBytes(p string) []byte {
	if utf8.ValidString(p) {
		return nil
	}
	return []byte(p)
}

// write appends lines and, unless the caller's next step does so, makes them durable.
func (a *Audit) write(namespace string, durable bool, lines ...line) error {
	if len(lines) == 0 {
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	now := time.Now
	if a.Clock != nil {
		now = a.Clock
	}
	for i := range lines {
		l := &lines[i]
		l.Time, l.Run, l.Host, l.User, l.Namespace = now().UTC(), a.Run, a.Host, a.User, namespace
		if err := e.Encode(l); err != nil {
			return &LogError{err}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.append(b.Bytes(), durable); err != nil {
		return &LogError{err}
	}
	if lines[0].Event != "begin" {
		a.lines += len(lines)
	}
	return nil
}

// begin makes sure that the log can be written, before anything is taken that would
// have to be given back.
func (a *Audit) begin(namespace string) error {
	a.mu.Lock()
	begun := a.sink != nil
	a.mu.Unlock()
	if begun {
		return nil
	}
	return a.write(namespace, false, line{Event: "begin"})
}

func (a *Audit) append(b []byte, durable bool) (err error) {
	if a.sink == nil {
		if a.sink, err = a.Open(); err != nil {
			a.sink = nil
			return err
		}
	}
	if _, err := a.sink.Write(b); err != nil {
		return err
	}
	if durable && !a.Synced {
		return a.sink.Sync()
	}
	return nil
}

// sync makes everything durable.
func (a *Audit) sync() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sink == nil {
		return nil
	}
	if err := a.sink.Sync(); err != nil {
		return &LogError{err}
	}
	return nil
}

// Doomed writes down what is about to be destroyed, or was, and is spared; why tells the reason by the time
// of the record.
func (a *Audit) Doomed(ctx context.Context, t *Trash, list []metadata.Doom, why func(when time.Time) Why) error {
	lines := make([]line, len(list))
	for i := range list {
		var err error
		if lines[i], err = doomLine(ctx, t, &list[i], why(list[i].Record.When)); err != nil {
			return err
		}
	}
	return a.write(t.Namespace, true, lines...)
}

// doomLine describes what is about to be destroyed.
func doomLine(ctx context.Context, t *Trash, d *metadata.Doom, why Why) (line, error) {
	l := lineOf(&d.Record)
	l.Event, l.Why, l.Size, l.Owner, l.Group = "destroy", why, d.Size, &d.UID, &d.GID
	if d.Spared { // what stays is not listed; and the context may be over
		l.Event, l.Why = "spared", ""
		return l, nil
	}
	for _, s := range d.Slots {
		if !s.Content.IsZero() {
			l.Contents = append(l.Contents, s.Content.String())
		}
		objects, err := objectsOf(ctx, t, s)
		if err != nil {
			return l, err
		}
		l.Objects = append(l.Objects, objects...)
	}
	if !d.Record.Object.IsZero() {
		l.Objects = append(l.Objects, lineObject{Key: objfmt.ObjectKey(t.Namespace, d.Record.Object, 0)})
	}
	return l, nil
}

func lineOf(r *objfmt.Record) line {
	l := line{Kind: string(r.Kind), Path: r.Path, PathBytes: PathBytes(r.Path), How: r.Why, Node: r.Node}
	if !r.File.IsZero() {
		l.File = r.File.String()
	}
	if r.Kind != "" {
		when := r.When.UTC()
		l.When, l.By = &when, &r.By
	}
	return l
}

// objectsOf lists the objects of a content. A pack's members are no objects: the
// pack goes when none is left. Chunks that other contents of the file use stay.
func objectsOf(ctx context.Context, t *Trash, s objfmt.Slot) ([]lineObject, error) {
	switch {
	case s.Source.Kind == objfmt.SourceObj && !s.Source.Packed:
		o := s.Source.Object
		return []lineObject{{Repo: o.Repo, Key: o.Key(t.Namespace)}}, nil
	case s.Source.Kind != objfmt.SourceTable:
		return nil, nil
	}
	table, err := t.Meta.TableOf(ctx, s)
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []lineObject
	var next objfmt.ObjectRef // that would go on where the last entry ends
	for _, c := range table.Chunks {
		o := c.Object
		if n := len(list); n > 0 && o.Object == next.Object && o.Chunk == next.Chunk && o.Repo == next.Repo {
			list[n-1].Chunks++
		} else {
			list = append(list, lineObject{Repo: o.Repo, Key: o.Key(t.Namespace), Chunks: 1})
		}
		next = o
		next.Chunk++
	}
	return list, nil
}

// logName is how the names of logs in a metadata directory begin: the rest is where
// and by which process.
const logName = "gc-" + logTime

// PruneLogs removes logs of a metadata directory that were begun longer ago than
// keep; 0: none. Other names are left alone.
func PruneLogs(ctx context.Context, meta *metadata.FS, keep time.Duration, now time.Time) error {
	if keep <= 0 {
		return nil
	}
	names, err := meta.Logs(ctx)
	errs := []error{err}
	for _, name := range names {
		began, err := time.Parse(logName, name[:min(len(name), len(logName))])
		if err == nil && now.Sub(began) > keep {
			errs = append(errs, meta.RemoveLog(ctx, name))
		}
	}
	return errors.Join(errs...)
}
