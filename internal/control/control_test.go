package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/namespace"
	"marfs/pkg/objfmt"
	"marfs/pkg/trash"
)

// fake is a trash with entries that are made up.
type fake struct {
	entries int
	path    string // of each, with a number
	err     error  // of every third
	asked   []any
	given   int
}

func (f *fake) all() iter.Seq2[namespace.TrashEntry, error] {
	return func(yield func(namespace.TrashEntry, error) bool) {
		for i := range f.entries {
			e := namespace.TrashEntry{Namespace: "ns", Path: fmt.Sprint(f.path, i)}
			e.ID = trash.ID{Day: "2026-11-25", Name: fmt.Sprint(i)}
			e.Record = objfmt.Record{Kind: objfmt.RecordFile, When: time.Unix(1e9, 7), Why: "unlink", By: 3}
			e.Size, e.MTime, e.Mode, e.UID = int64(i), time.Unix(1<<40, 1), syscall.S_IFREG|0o640, 1000
			var err error
			if f.err != nil && i%3 == 2 {
				err = f.err
			}
			f.given++
			if !yield(e, err) {
				return
			}
		}
	}
}

func (f *fake) Trash(_ context.Context, c namespace.Caller, q namespace.TrashQuery) iter.Seq2[namespace.TrashEntry, error] {
	f.asked = append(f.asked, c.UID, q)
	return f.all()
}

func (f *fake) PurgeTrash(_ context.Context, c namespace.Caller, q namespace.TrashQuery) iter.Seq2[namespace.TrashEntry, error] {
	f.asked = append(f.asked, c.UID, q)
	return f.all()
}

func (f *fake) RestoreTrash(_ context.Context, c namespace.Caller, r namespace.TrashRestoration) iter.Seq2[namespace.RestoredEntry, error] {
	f.asked = append(f.asked, c.UID, r)
	return func(yield func(namespace.RestoredEntry, error) bool) {
		for e, err := range f.all() {
			d := namespace.RestoredEntry{TrashEntry: e, Err: err}
			if err == nil {
				d.Where = e.Path + ".~1~"
			}
			if !yield(d, nil) {
				return
			}
		}
	}
}

func (f *fake) Versions(context.Context, namespace.Caller, string) (all []namespace.TrashEntry, err error) {
	for e := range f.all() {
		e.Record.Kind = objfmt.RecordVersion
		all = append(all, e)
	}
	return all, f.err
}

func (f *fake) RestoreVersion(_ context.Context, c namespace.Caller, path, version string) (namespace.TrashEntry, error) {
	f.asked = append(f.asked, c.UID, path, version)
	return namespace.TrashEntry{Namespace: "ns", Path: path}, f.err
}

func (f *fake) OpenTrash(context.Context, namespace.Caller, string) (*namespace.Content, error) {
	return nil, f.err
}

func user(uid uint32) namespace.Caller { return namespace.Caller{Cred: mdfs.Cred{UID: uid}} }

func serve(t *testing.T, f *fake, o Options) *Server {
	t.Helper()
	s := NewServer(f, o)
	t.Cleanup(s.Close)
	return s
}

func TestEntriesArriveWhole(t *testing.T) {
	odd := "/a/\xff\x00 \n\u2028<é" + strings.Repeat("x", 60<<10)
	f := &fake{entries: 5, path: odd, err: fmt.Errorf("read %q: %w", "\xfe", syscall.EACCES)}
	c := Local(serve(t, f, Options{}), user(1000))
	owner := uint32(7)
	q := namespace.TrashQuery{Path: "/\xffp", Filter: trash.Filter{Match: "*.\xfe", Owner: &owner, Since: time.Unix(5, 6).UTC(), MinSize: 1, MaxSize: 2, Versions: true, Purged: true}}
	var got []Entry
	failed := 0
	for e, err := range c.List(t.Context(), q) {
		if err != nil {
			failed++
			if !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), "read ") {
				t.Errorf("got %v", err)
			}
			continue
		}
		got = append(got, e)
	}
	if len(got) != 4 || failed != 1 {
		t.Fatalf("got %d entries and %d errors", len(got), failed)
	}
	want := Entry{ID: "ns/2026-11-25/3", Namespace: "ns", Path: odd + "3", Kind: "file", When: time.Unix(1e9, 7), Why: "unlink", By: 3,
		Size: 3, MTime: time.Unix(1<<40, 1), Mode: syscall.S_IFREG | 0o640, UID: 1000, Expires: got[2].Expires}
	if got[2] != want {
		t.Errorf("got %.200v", got[2])
	}
	asked := f.asked[1].(namespace.TrashQuery)
	if asked.Path != q.Path || asked.Filter.Match != q.Filter.Match || *asked.Filter.Owner != 7 || !asked.Filter.Since.Equal(q.Filter.Since) ||
		!asked.Filter.Until.IsZero() || asked.Filter.MaxSize != 2 || !asked.Filter.Versions || !asked.Filter.Purged || f.asked[0] != uint32(1000) {
		t.Errorf("asked %+v", f.asked)
	}
}

func TestRestoreTellsChanges(t *testing.T) {
	f := &fake{entries: 3, path: "/f", err: syscall.EEXIST}
	var changes []Change
	c := Local(serve(t, f, Options{Changed: func(ch Change) { changes = append(changes, ch) }}), user(1))
	var out []string
	for d, err := range c.Restore(t.Context(), namespace.TrashRestoration{TrashQuery: namespace.TrashQuery{Path: "/"}, To: "/to", Force: true}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s %s %v", d.Path, d.Where, errors.Is(d.Err, syscall.EEXIST)))
	}
	if got := strings.Join(out, "; "); got != "/f0 /f0.~1~ false; /f1 /f1.~1~ false; /f2  true" {
		t.Errorf("got %s", got)
	}
	if r := f.asked[1].(namespace.TrashRestoration); r.To != "/to" || !r.Force || r.DryRun {
		t.Errorf("asked %+v", r)
	}
	if len(changes) != 2 || changes[1] != (Change{Path: "/f1.~1~"}) {
		t.Errorf("changes %+v", changes)
	}
	changes = nil
	f.err = nil
	for d, err := range c.Revert(t.Context(), "/f", "ab") {
		if err != nil || d.Where != "/f" {
			t.Errorf("got %+v, %v", d, err)
		}
	}
	if len(changes) != 1 || changes[0] != (Change{Path: "/f", Content: true}) {
		t.Errorf("changes %+v", changes)
	}
	for range c.Restore(t.Context(), namespace.TrashRestoration{TrashQuery: namespace.TrashQuery{Path: "/"}, DryRun: true}) {
	}
	if len(changes) != 1 {
		t.Error("a dry run told of changes")
	}
}

func TestErrorsAreTheOthers(t *testing.T) {
	c := Local(serve(t, &fake{err: advised{syscall.EPERM, "ask"}}, Options{}), user(1))
	err := c.Read(t.Context(), "x/y/z", io.Discard)
	var e *Error
	if !errors.As(err, &e) || e.Errno != syscall.EPERM || e.Hint() != "ask" {
		t.Errorf("got %v", err)
	}
	for _, err := range c.Versions(t.Context(), "/f") {
		if !errors.Is(err, syscall.EPERM) {
			t.Errorf("got %v", err)
		}
	}
}

// bytesAt reads as a Content does.
type bytesAt []byte

func (b bytesAt) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(b).ReadAt(p, off)
}

func TestData(t *testing.T) {
	for _, size := range []int{0, 1, maxData, maxData + 1, 3*maxData + 5} {
		want := bytes.Repeat([]byte("line\n{\"done\":true}\n\n"), size/20+1)[:size]
		var wire, got bytes.Buffer
		e := &encoder{w: &wire}
		e.line(line{Version: Version})
		if err := send(t.Context(), bytesAt(want), e); err != nil {
			t.Fatal(err)
		}
		e.line(line{Done: true})
		c := Client{Dial: func(context.Context) (Conn, error) { return &canned{r: &wire}, nil }}
		if err := c.Read(t.Context(), "id", &got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("size %d: got %d bytes", size, got.Len())
		}
	}
}

// canned is a server that answers with what it has.
type canned struct{ r io.Reader }

func (c *canned) Write(p []byte) (int, error)                   { return len(p), nil }
func (c *canned) Read(_ context.Context, p []byte) (int, error) { return c.r.Read(p) }
func (c *canned) Close()                                        {}

func TestHostileAnswers(t *testing.T) {
	const hello = `{"version":1}` + "\n"
	for _, c := range []struct{ answer, want string }{
		{"", "no end"},
		{"hello\n", "none of MarFS"},
		{`{"version":2}` + "\n", "version 2"},
		{hello, "no end"},
		{hello + `{"entry":{}}`, "no end"},
		{hello + `{"more":1}` + "\n", "none of MarFS"},
		{hello + `{"data":3}` + "\nab", "no end"},
		{hello + `{"data":999999999}` + "\n", "none of MarFS"},
		{hello + strings.Repeat("x", MaxLine+1), "none of MarFS"},
	} {
		client := Client{Dial: func(context.Context) (Conn, error) { return &canned{r: strings.NewReader(c.answer)}, nil }}
		if err := client.Read(t.Context(), "id", io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: got %v, want %s", c.answer, err, c.want)
		}
	}
}

func TestRequestsAreRefused(t *testing.T) {
	for _, c := range []struct{ request, want string }{
		{"\n", "no request"},
		{"GET / HTTP/1.1\n", "no request"},
		{`{"do":"list"}` + "\n", "no request"},
		{`{"version":2,"do":"list"}` + "\n", "version 2"},
		{`{"version":1,"do":"list","path":"Lw==","all":true}` + "\n", "unknown field"},
		{`{"version":1,"do":"list","path":"Lw=="}{}` + "\n", "no request"},
		{`{"version":1,"do":"destroy","path":"Lw=="}` + "\n", "does not know"},
		{`{"version":1,"do":"purge"}` + "\n", "without path or id"},
		{`{"version":1,"do":"purge","filter":{}}` + "\n", "without path or id"},
		{`{"version":1,"do":"list","path":"AA=="}` + "\n", "zero byte"},
		{`{"version":1,"do":"list","path":"Lw==","filter":{"min_size":-1}}` + "\n", "below 0"},
		{`{"version":1,"do":"list","path":"Lw==","filter":{"since":[0,-1]}}` + "\n", "nanoseconds"},
		{`{"version":1,"do":"list","ids":[` + strings.Repeat(`"a",`, MaxIDs) + `"a"]}` + "\n", "101 ids"},
		{`{"version":1,"do":"read","ids":["a","b"]}` + "\n", "without path or id"},
		{`{"version":1,"do":"revert","path":"Lw=="}` + "\n", "without path or id"},
	} {
		f := &fake{}
		s, err := serve(t, f, Options{}).Open(user(1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte(c.request)); err != nil {
			t.Errorf("%.50q: %v", c.request, err)
		}
		answer, err := io.ReadAll(reader{t.Context(), s})
		if err != nil || !strings.Contains(string(answer), c.want) || !strings.HasSuffix(string(answer), "\n{\"done\":true}\n") || f.asked != nil {
			t.Errorf("%.50q: got %s, %v", c.request, answer, err)
		}
		s.Close()
	}
}

// reader reads until the end, without empty lines.
type reader struct {
	ctx context.Context
	s   *Session
}

func (r reader) Read(p []byte) (int, error) {
	n, err := r.s.Read(r.ctx, p)
	if n == 1 && p[0] == '\n' {
		n = 0
	}
	return n, err
}

func TestOneRequest(t *testing.T) {
	s, err := serve(t, &fake{}, Options{}).Open(user(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(t.Context(), make([]byte, 9)); err != syscall.EINVAL {
		t.Errorf("read before a request: %v", err)
	}
	for _, part := range []string{`{"version":1,`, `"do":"list","path":"Lw=="}`} {
		if _, err := s.Write([]byte(part)); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Write([]byte("\n{}")); err != syscall.EINVAL {
		t.Errorf("more than a line: %v", err)
	}
	if _, err := s.Write(make([]byte, MaxRequest)); err != syscall.EMSGSIZE {
		t.Errorf("long: %v", err)
	}
	if _, err := s.Write([]byte("\n")); err != nil {
		t.Error(err)
	}
	if _, err := s.Write([]byte("{}\n")); err != syscall.EINVAL {
		t.Errorf("a second request: %v", err)
	}
	if a, err := io.ReadAll(reader{t.Context(), s}); string(a) != "{\"version\":1}\n{\"done\":true}\n" {
		t.Errorf("got %q, %v", a, err)
	}
}

func TestTooManySessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(&fake{}, Options{PerUser: 2, Total: 3})
		defer s.Close()
		open := func(uid uint32, want error) *Session {
			t.Helper()
			n, err := s.Open(user(uid))
			if err != want {
				t.Errorf("uid %d: got %v, want %v", uid, err, want)
			}
			return n
		}
		first := open(1, nil)
		open(1, nil)
		open(1, syscall.EAGAIN)
		open(2, nil)
		open(3, syscall.EAGAIN)
		open(0, nil) // root is not kept out by users
		open(0, nil)
		open(0, syscall.EAGAIN)
		first.Close()
		synctest.Wait()
		open(3, nil)
		time.Sleep(2 * time.Minute) // nobody asks
		synctest.Wait()
		open(4, nil)
		if len(s.users) != 1 || s.total != 1 {
			t.Errorf("%d users, %d sessions are left", len(s.users), s.total)
		}
		if _, err := first.Write([]byte("x")); err == nil {
			t.Error("wrote to a closed session")
		}
	})
}

// TestSlowReader: the server waits for a reader, in bounded memory; one that
// does not read at all is given up.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{entries: 1 << 30, path: "/"}
		server := NewServer(f, Options{})
		defer server.Close()
		s, _ := server.Open(user(1))
		ask(t, s)
		synctest.Wait()
		first := f.given
		if first == 0 || len(s.out.buf) > buffered {
			t.Errorf("%d entries, %d bytes wait", first, len(s.out.buf))
		}
		buf := make([]byte, buffered)
		for range 10 {
			time.Sleep(14 * time.Minute)
			if n, err := s.Read(t.Context(), buf); n == 0 || err != nil {
				t.Fatalf("read %d, %v", n, err)
			}
		}
		synctest.Wait()
		if f.given < 9*first {
			t.Errorf("%d entries after the first %d", f.given, first)
		}
		time.Sleep(16 * time.Minute)
		synctest.Wait()
		given := f.given
		_, err := io.Copy(io.Discard, reader{t.Context(), s})
		if err != syscall.ETIMEDOUT || f.given != given {
			t.Errorf("got %v; %d more entries", err, f.given-given)
		}
	})
}

func ask(t *testing.T, s *Session) {
	t.Helper()
	if _, err := s.Write([]byte(`{"version":1,"do":"list","path":"Lw=="}` + "\n")); err != nil {
		t.Fatal(err)
	}
}

// blocked is a trash that does nothing until it is cancelled.
type blocked struct {
	fake
	cancelled bool
}

func (b *blocked) Trash(ctx context.Context, _ namespace.Caller, _ namespace.TrashQuery) iter.Seq2[namespace.TrashEntry, error] {
	return func(func(namespace.TrashEntry, error) bool) { <-ctx.Done(); b.cancelled = true }
}

func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &blocked{}
		server := NewServer(b, Options{})
		defer server.Close()
		s, _ := server.Open(user(1))
		ask(t, s)
		buf := make([]byte, 100)
		if n, err := s.Read(t.Context(), buf); string(buf[:n]) != "{\"version\":1}\n" {
			t.Errorf("got %q, %v", buf[:n], err)
		}
		if n, err := s.Read(t.Context(), buf); string(buf[:n]) != "\n" {
			t.Errorf("got %q, %v", buf[:n], err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := s.Read(ctx, buf); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		s.Close()
		synctest.Wait()
		if !b.cancelled {
			t.Error("the work goes on after close")
		}
	})
}

// TestClientIsCancelled: a client that is interrupted leaves although nothing comes.
func TestClientIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := NewServer(&blocked{}, Options{})
		defer server.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var last error
		for _, err := range Local(server, user(1)).List(ctx, namespace.TrashQuery{Path: "/"}) {
			last = err
		}
		if !errors.Is(last, context.DeadlineExceeded) {
			t.Errorf("got %v", last)
		}
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &blocked{}
		server := NewServer(b, Options{})
		waiting, _ := server.Open(user(1))
		s, _ := server.Open(user(1))
		ask(t, s)
		synctest.Wait()
		server.Close()
		if _, err := io.Copy(io.Discard, reader{t.Context(), s}); err != syscall.ESHUTDOWN || !b.cancelled {
			t.Errorf("got %v", err)
		}
		if _, err := waiting.Read(t.Context(), make([]byte, 9)); err != syscall.ESHUTDOWN {
			t.Errorf("got %v", err)
		}
		if _, err := server.Open(user(1)); err != syscall.ESHUTDOWN {
			t.Errorf("got %v", err)
		}
	})
}

// FuzzRequest: any bytes are refused, or make a request that means the same when it
// is written and read again.
func FuzzRequest(f *testing.F) {
	owner := uint32(1)
	for _, r := range []request{
		{Do: List, Path: []byte("/\xff"), Filter: &filter{Match: []byte("*.o"), Owner: &owner, Since: stampOf(time.Unix(1, 2)), MaxSize: 5}},
		{Do: Restore, IDs: []string{"ns/2026-11-25/x"}, To: []byte("/d"), Force: true},
		{Do: Revert, Path: []byte("/f"), Content: "ab"},
		{Do: Read, IDs: []string{"x"}},
	} {
		b, err := r.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"version":1,"do":"list","path":null,"ids":[]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseRequest(line)
		if err != nil {
			if !errors.Is(err, syscall.EINVAL) {
				t.Errorf("%v", err)
			}
			return
		}
		b, err := r.encode()
		if err != nil {
			t.Skip(err) // escaping made it too long
		}
		again, err := parseRequest(b)
		if err != nil || fmt.Sprint(again.Do, again.IDs, again.query().Path, again.Content, again.To) != fmt.Sprint(r.Do, r.IDs, r.query().Path, r.Content, r.To) {
			t.Errorf("%s\n%+v\n%+v, %v", line, r, again, err)
		}
	})
}

func TestMountsThatAreNotAsked(t *testing.T) {
	for dir, want := range map[string]string{"/proc": "no MarFS but proc", t.TempDir(): "nothing is mounted there", "/nonexistent": "no such file"} {
		for _, err := range Mounted(dir).List(t.Context(), namespace.TrashQuery{Path: "/"}) {
			var a advised
			if !errors.As(err, &a) || !strings.Contains(err.Error(), want) || !strings.Contains(a.hint, "mount it") {
				t.Errorf("%s: got %v", dir, err)
			}
		}
	}
}
