package s3store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
	"unicode"

	"marfs/internal/testenv"
	"marfs/pkg/objstore"
	"marfs/pkg/objstore/s3store"
)

// fake is an S3 service whose answers a test writes. It counts requests by
// method and by the names of their query parameters: "PUT", "POST uploads".
type fake struct {
	*httptest.Server
	mu    sync.Mutex
	calls map[string]int
}

// newFake serves with answer, which gets the number of the request of its kind, from 1.
func newFake(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, n int)) *fake {
	f := &fake{calls: make(map[string]int)}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, f.count(kind(r)))
	}))
	t.Cleanup(f.Close)
	return f
}

func kind(r *http.Request) string {
	for _, q := range []string{"uploads", "partNumber", "uploadId", "list-type"} {
		if r.URL.Query().Has(q) {
			return r.Method + " " + q
		}
	}
	return r.Method
}

func (f *fake) count(kind string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[kind]++
	return f.calls[kind]
}

func (f *fake) seen(kind string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[kind]
}

func (f *fake) config() s3store.Config {
	return s3store.Config{
		Endpoint: f.URL, Bucket: "bucket", Credentials: s3store.Static("key", "secret"),
		PartSize: 1 << 20, Retries: 2, Timeout: 5 * time.Second,
	}
}

func (f *fake) store(t *testing.T) *s3store.Store { return open(t, f.config()) }

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	if code != "" {
		_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>injected</Message></Error>", code)
	}
}

// reset breaks the connection.
func reset() { panic(http.ErrAbortHandler) }

func TestErrorClasses(t *testing.T) {
	for _, test := range []struct {
		status int
		code   string
		want   error
		tries  int
	}{
		{404, "NoSuchKey", fs.ErrNotExist, 1},
		{404, "", objstore.ErrUnavailable, 3},
		{404, "NoSuchBucket", objstore.ErrUnavailable, 1},
		{404, "NoSuchUpload", objstore.ErrUnavailable, 1},
		{403, "AccessDenied", fs.ErrPermission, 1},
		{403, "SignatureDoesNotMatch", fs.ErrPermission, 1},
		{401, "", fs.ErrPermission, 1},
		{403, "QuotaExceeded", objstore.ErrNoSpace, 1},
		{507, "XMinioStorageFull", objstore.ErrNoSpace, 1},
		{507, "", objstore.ErrNoSpace, 1},
		{409, "ObjectParentIsFile", fs.ErrInvalid, 1},
		{409, "OperationAborted", objstore.ErrUnavailable, 3},
		{503, "SlowDown", objstore.ErrUnavailable, 3},
		{500, "InternalError", objstore.ErrUnavailable, 3},
		{502, "", objstore.ErrUnavailable, 3},
		{429, "", objstore.ErrUnavailable, 3},
		{400, "BadDigest", objstore.ErrUnavailable, 3},
		{501, "NotImplemented", objstore.ErrUnavailable, 1},
		{301, "PermanentRedirect", objstore.ErrUnavailable, 1},
		{0, "", objstore.ErrUnavailable, 3},
	} {
		t.Run(fmt.Sprintf("%d-%s", test.status, test.code), func(t *testing.T) {
			t.Parallel()
			f := newFake(t, func(w http.ResponseWriter, r *http.Request, _ int) {
				if test.status == 0 {
					reset()
				}
				_, _ = io.Copy(io.Discard, r.Body)
				refuse(w, test.status, test.code)
			})
			s := f.store(t)
			check := func(what, kind string, err error, tries int) {
				t.Helper()
				if !errors.Is(err, test.want) {
					t.Errorf("%s: %v, want %v", what, err, test.want)
				}
				if n := f.seen(kind); n != tries {
					t.Errorf("%s: %d requests, want %d", what, n, tries)
				}
			}
			_, err := s.Get(t.Context(), "k", 0, -1)
			check("get", "GET", err, test.tries)
			if errors.Is(test.want, fs.ErrNotExist) {
				return // TestOnlyReadersMiss has the rest
			}
			check("put", "PUT", s.Put(t.Context(), "k", strings.NewReader("data"), 4), test.tries)
			check("delete", "DELETE", s.Delete(t.Context(), "k"), test.tries)
		})
	}
}

// What a service says of its failures is short and of one line in our errors.
func TestErrorTexts(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		want   string // in the text
	}{
		"page":    {503, "<html>\n" + strings.Repeat("<p>Service temporarily unavailable</p>\r\n", 100), `<html>\n<p>Service`},
		"message": {403, "<Error><Code>AccessDenied</Code><Message>" + strings.Repeat("long ", 200_000) + "end</Message></Error>", "long end"},
		"code":    {400, "<Error><Code>" + strings.Repeat("Odd", 200_000) + "</Code></Error>", "Odd"},
		"escapes": {500, "<Error><Code>X</Code><Message>red \u0085\u202e\u2028 \xff</Message></Error>", ""},
		"listing": {200, listing(strings.Repeat("z", 100_000), strings.Repeat("y", 100_000)), "listing has"},
	} {
		cfg := newFake(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.WriteHeader(test.status)
			_, _ = io.WriteString(w, test.body)
		}).config()
		cfg.Retries = -1
		s := open(t, cfg)
		errs := []error{s.Put(t.Context(), "k", strings.NewReader("x"), 1)}
		for _, err := range s.List(t.Context(), "", "") {
			errs = append(errs, err)
		}
		if test.status == 200 {
			errs = errs[1:]
		}
		for _, err := range errs {
			text := err.Error()
			if len(text) > 500 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || !strings.Contains(text, test.want) {
				t.Errorf("%s: %d bytes: %.600q", name, len(text), text)
			}
		}
	}
}

// A 404 of a proxy, and that of a service without the bucket, say nothing about objects.
func TestStray404(t *testing.T) {
	for _, test := range []struct {
		name  string
		serve func(w http.ResponseWriter)
		want  error
		text  string
	}{
		{"html", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(404)
			_, _ = io.WriteString(w, "<html>no such host here</html>")
		}, objstore.ErrUnavailable, "proxy"},
		{"other XML", func(w http.ResponseWriter) {
			w.WriteHeader(404)
			_, _ = io.WriteString(w, "<Code>NoSuchKey</Code>")
		}, objstore.ErrUnavailable, "proxy"},
		{"bucket", func(w http.ResponseWriter) { refuse(w, 404, "NoSuchBucket") }, objstore.ErrUnavailable, "injected"},
		{"object", func(w http.ResponseWriter) { refuse(w, 404, "NoSuchKey") }, fs.ErrNotExist, "injected"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t, func(w http.ResponseWriter, _ *http.Request, _ int) { test.serve(w) })
			cfg := f.config()
			cfg.Retries = -1
			s := open(t, cfg)
			check := func(what string, err, want error) {
				t.Helper()
				missing := errors.Is(err, fs.ErrNotExist)
				if !errors.Is(err, want) || missing != (want == fs.ErrNotExist) || !strings.Contains(err.Error(), test.text) {
					t.Errorf("%s: %v, want %v with %q", what, err, want, test.text)
				}
			}
			_, err := s.Get(t.Context(), "k", 0, 10)
			check("get", err, test.want)
			_, err = s.Get(t.Context(), "k", 0, 0)
			check("get of nothing", err, test.want)
			_, err = s.Stat(t.Context(), "k")
			check("stat", err, test.want)
			if test.want == fs.ErrNotExist {
				return
			}
			check("delete", s.Delete(t.Context(), "k"), test.want)
			check("put", s.Put(t.Context(), "k", strings.NewReader("x"), -1), test.want)
			check("put of parts", s.Put(t.Context(), "k", bytes.NewReader(pattern(2<<20)), -1), test.want)
			for _, err := range s.List(t.Context(), "", "") {
				check("list", err, test.want)
			}
		})
	}
}

// A login page is no answer of S3, though its status says that all went well.
func TestWebPage(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("ETag", `"e"`)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		_, _ = io.WriteString(w, "<html><p>Please log in.</p></html>")
	})
	s := f.store(t)
	_, stat := s.Stat(t.Context(), "k")
	_, get := s.Get(t.Context(), "k", 0, -1)
	_, clean := s.Clean(t.Context(), 0)
	errs := map[string]error{
		"stat": stat, "get": get, "clean": clean, "list": nil,
		"put":    s.Put(t.Context(), "k", strings.NewReader("x"), 1),
		"delete": s.Delete(t.Context(), "k"),
		"bucket": s.EnsureBucket(t.Context()),
	}
	for _, err := range s.List(t.Context(), "", "") {
		errs["list"] = err
	}
	for what, err := range errs {
		if !errors.Is(err, objstore.ErrUnavailable) || !strings.Contains(err.Error(), "web page") {
			t.Errorf("%s: %v, want ErrUnavailable", what, err)
		}
	}
}

// A HEAD that finds no object is not believed when a GET finds it.
func TestStatOfObjectThatHeadMisses(t *testing.T) {
	for _, data := range [][]byte{[]byte("x"), nil} {
		whole := object{data, "e1", func(w http.ResponseWriter, body []byte, _ int) { _, _ = w.Write(body) }}
		f := newFake(t, func(w http.ResponseWriter, r *http.Request, n int) {
			switch {
			case r.Method == http.MethodHead && n < 3:
				refuse(w, 404, "")
			case len(data) == 0 && r.Method == http.MethodGet:
				refuse(w, 416, "InvalidRange")
			default:
				whole.serve(w, r, n)
			}
		})
		if info, err := f.store(t).Stat(t.Context(), "k"); err != nil || info.Size != int64(len(data)) {
			t.Errorf("%d bytes: %+v, %v", len(data), info, err)
		}
	}
}

// Whatever a service says that it misses, a Put and a listing do not say that an
// object is missing.
func TestOnlyReadersMiss(t *testing.T) {
	for _, code := range []string{"NoSuchKey", "NotFound", "NoSuchUpload", "NoSuchBucket"} {
		for _, at := range []string{"PUT", "POST uploads", "PUT partNumber", "POST uploadId", "GET list-type", "GET uploads"} {
			u := &uploads{}
			f := newFake(t, func(w http.ResponseWriter, r *http.Request, n int) {
				if kind(r) == at {
					_, _ = io.Copy(io.Discard, r.Body)
					refuse(w, 404, code)
					return
				}
				u.serve(w, r, n)
			})
			s := f.store(t)
			var err error
			switch at {
			case "PUT":
				err = s.Put(t.Context(), "k", strings.NewReader("x"), 1)
			case "GET list-type":
				for _, err = range s.List(t.Context(), "", "") {
				}
			case "GET uploads":
				_, err = s.Clean(t.Context(), time.Hour)
			default:
				err = s.Put(t.Context(), "k", bytes.NewReader(pattern(2<<20)), -1)
			}
			if !errors.Is(err, objstore.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s answered with %s: %v, want ErrUnavailable", at, code, err)
			}
		}
	}
	own := fmt.Errorf("what is copied: %w", fs.ErrNotExist)
	s := newFake(t, (&uploads{}).serve).store(t)
	if err := s.Put(t.Context(), "k", iotest.ErrReader(own), -1); !errors.Is(err, own) || errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("put of what its reader misses: %v, want the reader's error", err)
	}
}

// What a real service says without the bucket.
func TestMissingBucket(t *testing.T) {
	s := open(t, config(testenv.StartS3(t), "none"))
	_, stat := s.Stat(t.Context(), "k")
	_, get := s.Get(t.Context(), "k", 0, -1)
	for what, err := range map[string]error{
		"stat": stat, "get": get, "delete": s.Delete(t.Context(), "k"),
		"put":      s.Put(t.Context(), "k", strings.NewReader("x"), 1),
		"long put": s.Put(t.Context(), "k", bytes.NewReader(pattern(2*partSize)), -1),
	} {
		if !errors.Is(err, objstore.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "bucket does not exist") {
			t.Errorf("%s: %v, want ErrUnavailable", what, err)
		}
	}
}

// object serves ranges of data as S3 does, through write.
type object struct {
	data  []byte
	etag  string
	write func(w http.ResponseWriter, body []byte, n int)
}

func (o object) serve(w http.ResponseWriter, r *http.Request, n int) {
	body := o.data
	w.Header().Set("ETag", `"`+o.etag+`"`)
	w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
	status := http.StatusOK
	if spec := r.Header.Get("Range"); spec != "" {
		from, last := 0, len(o.data)-1
		if got, _ := fmt.Sscanf(spec, "bytes=%d-%d", &from, &last); got == 0 {
			refuse(w, 400, "InvalidRange")
			return
		}
		last = min(last, len(o.data)-1)
		body, status = o.data[from:last+1], http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, last, len(o.data)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	o.write(w, body, n)
}

func pattern(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	return data
}

func readAll(ctx context.Context, s objstore.Store, off, n int64) ([]byte, error) {
	r, err := s.Get(ctx, "k", off, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// cut sends some of a body and then breaks off, for the first times requests.
func cut(after, times int) func(w http.ResponseWriter, body []byte, n int) {
	return func(w http.ResponseWriter, body []byte, n int) {
		if n > times {
			_, _ = w.Write(body)
			return
		}
		_, _ = w.Write(body[:min(after, len(body))])
		w.(http.Flusher).Flush()
		reset()
	}
}

func TestGetResumes(t *testing.T) {
	data := pattern(5 << 20)
	for _, r := range [][2]int64{{0, -1}, {100, -1}, {0, 4 << 20}, {1000, 3 << 20}} {
		want := data[r[0]:]
		if r[1] >= 0 {
			want = want[:r[1]]
		}
		f := newFake(t, object{data, "e1", cut(100_000, 2)}.serve)
		got, err := readAll(t.Context(), f.store(t), r[0], r[1])
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("range %v: %d bytes, %v; want %d", r, len(got), err, len(want))
		}
		if n := f.seen("GET"); n != 3 {
			t.Errorf("range %v: %d requests, want 3", r, n)
		}
	}
}

// Failures are forgiven as long as there is real progress between them.
func TestGetForgivesAfterProgress(t *testing.T) {
	data := pattern(8 << 20)
	f := newFake(t, object{data, "e1", cut(3<<19, 100)}.serve)
	got, err := readAll(t.Context(), f.store(t), 0, -1)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(data))
	}
	f = newFake(t, object{data, "e1", cut(1000, 100)}.serve)
	got, err = readAll(t.Context(), f.store(t), 0, -1)
	if !errors.Is(err, objstore.ErrUnavailable) || len(got) != 3000 || f.seen("GET") != 3 {
		t.Errorf("without progress: %d bytes, %v, %d requests; want 3000, ErrUnavailable, 3", len(got), err, f.seen("GET"))
	}
}

// The halves of two objects are never put together.
func TestGetOfReplacedObject(t *testing.T) {
	data := pattern(1 << 20)
	f := newFake(t, func(w http.ResponseWriter, r *http.Request, n int) {
		object{data, fmt.Sprintf("e%d", n), cut(1000, 1)}.serve(w, r, n)
	})
	got, err := readAll(t.Context(), f.store(t), 0, -1)
	if !errors.Is(err, objstore.ErrUnavailable) || len(got) != 1000 {
		t.Errorf("%d bytes, %v; want 1000, ErrUnavailable", len(got), err)
	}
}

// A service that stops sending is given up in time, and asked again.
func TestGetStalls(t *testing.T) {
	data := pattern(1 << 20)
	release := make(chan struct{})
	f := newFake(t, object{data, "e1", func(w http.ResponseWriter, body []byte, n int) {
		if n > 1 {
			_, _ = w.Write(body)
			return
		}
		_, _ = w.Write(body[:1000])
		w.(http.Flusher).Flush()
		<-release
	}}.serve)
	defer close(release)
	cfg := f.config()
	cfg.Timeout = 200 * time.Millisecond
	got, err := readAll(t.Context(), open(t, cfg), 0, -1)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(data))
	}
}

// A service that never answers costs Timeout an attempt, and ends at once with
// the caller's context.
func TestHang(t *testing.T) {
	release := make(chan struct{})
	f := newFake(t, func(http.ResponseWriter, *http.Request, int) { <-release })
	defer close(release)
	cfg := f.config()
	cfg.Timeout = 50 * time.Millisecond
	s := open(t, cfg)
	if _, err := s.Stat(t.Context(), "k"); !errors.Is(err, objstore.ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stat: %v, want ErrUnavailable", err)
	}
	if n := f.seen("HEAD"); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer cancel()
	if err := s.Delete(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("delete with a deadline: %v, want only DeadlineExceeded", err)
	}
}

// Answers that are not for the question are refused, whatever they hold.
func TestGetHostileAnswers(t *testing.T) {
	data := pattern(10_000)
	answer := func(contentRange string, body []byte, header ...string) func(http.ResponseWriter, *http.Request, int) {
		return func(w http.ResponseWriter, r *http.Request, _ int) {
			w.Header().Set("ETag", `"e"`)
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			status := http.StatusOK
			if contentRange != "" {
				w.Header().Set("Content-Range", contentRange)
				status = http.StatusPartialContent
			}
			if len(header) == 0 {
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			}
			w.WriteHeader(status)
			_, _ = w.Write(body)
			w.(http.Flusher).Flush()
		}
	}
	for name, serve := range map[string]func(http.ResponseWriter, *http.Request, int){
		"whole object":    answer("", data),
		"other start":     answer("bytes 0-99/10000", data[:100]),
		"too long":        answer("bytes 100-299/10000", data[100:300]),
		"too short":       answer("bytes 100-149/10000", data[100:150]),
		"range is a lie":  answer("bytes 100-199/10000", data[100:300]),
		"no length":       answer("bytes 100-199/10000", data[100:200], "chunked"),
		"nonsense":        answer("bytes x-y/z", data[100:200]),
		"negative total":  answer("bytes 100-199/-1", data[100:200]),
		"total too small": answer("bytes 100-199/150", data[100:200]),
		"unknown total":   answer("bytes 100-199/*", data[100:200]),
	} {
		cfg := newFake(t, serve).config()
		cfg.Retries = -1
		if got, err := readAll(t.Context(), open(t, cfg), 100, 100); !errors.Is(err, objstore.ErrCorrupt) || len(got) != 0 {
			t.Errorf("%s: %d bytes, %v; want ErrCorrupt", name, len(got), err)
		}
	}
}

func TestPutRetries(t *testing.T) {
	data := pattern(700_000)
	var stored atomic.Pointer[[]byte]
	f := newFake(t, func(w http.ResponseWriter, r *http.Request, n int) {
		switch n {
		case 1: // says no before it reads
			refuse(w, 503, "SlowDown")
		case 2: // breaks off in the middle
			_, _ = io.CopyN(io.Discard, r.Body, 300_000)
			reset()
		default:
			body, err := io.ReadAll(r.Body)
			sum := sha256.Sum256(body)
			if got := r.Header.Get("X-Amz-Content-Sha256"); err != nil || got != hex.EncodeToString(sum[:]) {
				t.Errorf("over plain HTTP the payload is signed as %s (%v)", got, err)
			}
			if r.Header.Get("Content-Md5") != "" || len(r.Trailer) != 0 || r.Header.Get("X-Amz-Trailer") != "" {
				t.Errorf("MD5 or trailers: %v", r.Header)
			}
			stored.Store(&body)
			w.Header().Set("ETag", `"e"`)
		}
	})
	if err := f.store(t).Put(t.Context(), "k", bytes.NewReader(data), -1); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(*stored.Load(), data) {
		t.Error("another object was stored")
	}
}

func TestPutOverTLSIsUnsigned(t *testing.T) {
	var sha atomic.Value
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sha.Store(r.Header.Get("X-Amz-Content-Sha256"))
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("ETag", `"e"`)
	}))
	defer server.Close()
	cfg := (&fake{Server: server}).config()
	s := open(t, cfg)
	if err := s.Put(t.Context(), "k", strings.NewReader("x"), 1); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("put to a server with an unknown certificate: %v, want ErrUnavailable", err)
	}
	cfg.TLS = server.Client().Transport.(*http.Transport).TLSClientConfig
	yes, no := true, false
	for _, test := range []struct {
		set  *bool
		want string
	}{{nil, "UNSIGNED-PAYLOAD"}, {&yes, "UNSIGNED-PAYLOAD"}, {&no, hex.EncodeToString(sum("x"))}} {
		cfg.UnsignedPayload = test.set
		if err := open(t, cfg).Put(t.Context(), "k", strings.NewReader("x"), 1); err != nil {
			t.Fatal(err)
		}
		if sha.Load() != test.want {
			t.Errorf("payload signed as %v, want %s", sha.Load(), test.want)
		}
	}
}

func sum(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }

// Expired credentials are read anew; wrong ones are not tried for ever.
func TestCredentialsRotate(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=new/") || r.Header.Get("X-Amz-Security-Token") != "token" {
			refuse(w, 403, "InvalidAccessKeyId")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	var asked atomic.Int32
	cfg := f.config()
	cfg.Credentials = func(context.Context) (s3store.Credentials, error) {
		if asked.Add(1) == 1 {
			return s3store.Credentials{AccessKey: "old", SecretKey: "s", SessionToken: "token"}, nil
		}
		return s3store.Credentials{AccessKey: "new", SecretKey: "s", SessionToken: "token"}, nil
	}
	s := open(t, cfg)
	for range 5 {
		if err := s.Delete(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("credentials were read %d times, want 2", n)
	}
	cfg.Credentials = func(context.Context) (s3store.Credentials, error) {
		return s3store.Credentials{}, errors.New("cannot read the file")
	}
	before := f.seen("DELETE")
	if err := open(t, cfg).Delete(t.Context(), "k"); !errors.Is(err, fs.ErrPermission) || f.seen("DELETE") != before {
		t.Errorf("without credentials: %v, want ErrPermission and no request", err)
	}
}

// listing is an answer to ListObjectsV2.
func listing(keys ...string) string {
	var b strings.Builder
	b.WriteString(`<ListBucketResult><IsTruncated>false</IsTruncated>`)
	for _, key := range keys {
		fmt.Fprintf(&b, `<Contents><Key>%s</Key><Size>1</Size><LastModified>2026-01-02T03:04:05Z</LastModified></Contents>`, key)
	}
	return b.String() + `</ListBucketResult>`
}

func TestListAnswers(t *testing.T) {
	for _, test := range []struct {
		name, body string
		want       string
		err        error
	}{
		{"good", listing("ns/a", "ns/b"), "ns/a ns/b", nil},
		{"foreign names", listing("ns/A", "ns/a b", "ns/c"), "ns/c", nil},
		{"out of order", listing("ns/b", "ns/a"), "", objstore.ErrCorrupt},
		{"twice", listing("ns/a", "ns/a"), "", objstore.ErrCorrupt},
		{"other prefix", listing("ot/a"), "", objstore.ErrCorrupt},
		{"before the start", listing("ns/0"), "", objstore.ErrCorrupt},
		{"no XML", "hello", "", objstore.ErrUnavailable},
		{"cut", listing("ns/a")[:80], "", objstore.ErrCorrupt},
		{"endless", listing("ns/a") + strings.Repeat(" ", 1<<20), "ns/a", nil},
		{"too long", strings.Replace(listing("ns/a"), "ns/a", strings.Repeat("a", 5<<20), 1), "", objstore.ErrCorrupt},
	} {
		f := newFake(t, func(w http.ResponseWriter, r *http.Request, _ int) { _, _ = io.WriteString(w, test.body) })
		var keys []string
		var last error
		cfg := f.config()
		cfg.Retries, cfg.Timeout = -1, time.Minute // parsing much is slow under the race detector
		for info, err := range open(t, cfg).List(t.Context(), "ns/", "ns/9") {
			if last = err; err == nil {
				keys = append(keys, info.Key)
			}
		}
		if errors.Is(last, io.EOF) {
			t.Errorf("%s: %v passes for the end of a file", test.name, last)
		}
		if got := strings.Join(keys, " "); got != test.want || !errors.Is(last, test.err) || (test.err == nil && last != nil) {
			t.Errorf("%s: %q, %v; want %q, %v", test.name, got, last, test.want, test.err)
		}
	}
}

// pages answers ListObjectsV2 as S3 does, a thousand keys at a time.
func pages(w http.ResponseWriter, r *http.Request, sorted []string) {
	i, found := slices.BinarySearch(sorted, r.URL.Query().Get("start-after"))
	if found {
		i++
	}
	page := sorted[i:min(i+1000, len(sorted))]
	answer := listing(page...)
	if i+len(page) < len(sorted) {
		answer = strings.Replace(answer, "false</IsTruncated>", "true</IsTruncated><NextContinuationToken>t</NextContinuationToken>", 1)
	}
	_, _ = io.WriteString(w, answer)
}

// Keys of others, which no key of ours can follow by its name, take up pages like ours.
func TestListPassesForeignKeys(t *testing.T) {
	var keys []string
	for i := range 2500 {
		keys = append(keys, fmt.Sprintf("Photos/IMG_%04d.JPG", i))
	}
	keys = append(keys, "ns/a", "ns/b")
	f := newFake(t, func(w http.ResponseWriter, r *http.Request, _ int) { pages(w, r, keys) })
	s := f.store(t)
	for after, want := range map[string]string{"": "ns/a ns/b", "Photos/IMG_2000": "ns/a ns/b", "ns/a": "ns/b", "ns/aB": "ns/b"} {
		var got []string
		for info, err := range s.List(t.Context(), "", after) {
			if err != nil {
				t.Fatalf("after %q, in request %d: %v", after, f.seen("GET list-type"), err)
			}
			got = append(got, info.Key)
		}
		if have := strings.Join(got, " "); have != want {
			t.Errorf("after %q: %s, want %s", after, have, want)
		}
	}
}

// A service that ignores where a page shall begin cannot make a listing endless.
func TestListOfTheSamePage(t *testing.T) {
	var keys []string
	for i := range 1000 {
		keys = append(keys, fmt.Sprintf("IMG_%04d.JPG", i))
	}
	f := newFake(t, func(w http.ResponseWriter, _ *http.Request, _ int) { _, _ = io.WriteString(w, listing(keys...)) })
	cfg := f.config()
	cfg.Retries = -1
	for _, err := range open(t, cfg).List(t.Context(), "", "") {
		if !errors.Is(err, objstore.ErrCorrupt) || f.seen("GET list-type") > 2 {
			t.Fatalf("%d requests, %v; want 2, ErrCorrupt", f.seen("GET list-type"), err)
		}
		return
	}
	t.Error("the listing ended well")
}

// A crash of the service makes calls fail in time, and they work again after it.
func TestServiceRestarts(t *testing.T) {
	server := testenv.StartS3(t, "bucket")
	cfg := config(server, "bucket")
	cfg.Retries = 1
	s := open(t, cfg)
	data := pattern(2*partSize + 1)
	if err := s.Put(t.Context(), "k", bytes.NewReader(data), -1); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	if _, err := s.Stat(t.Context(), "k"); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("stat without a server: %v, want ErrUnavailable", err)
	}
	if err := s.Put(t.Context(), "k2", strings.NewReader("x"), 1); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("put without a server: %v, want ErrUnavailable", err)
	}
	server.Restart()
	cfg.Bucket = "no-such-bucket"
	if _, err := open(t, cfg).Stat(t.Context(), "k"); !errors.Is(err, objstore.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "bucket does not exist") {
		t.Errorf("stat in a missing bucket: %v, want ErrUnavailable that says so", err)
	}
	if got, err := readAll(t.Context(), s, 0, -1); !bytes.Equal(got, data) || err != nil {
		t.Errorf("after a restart: %d bytes, %v; want %d", len(got), err, len(data))
	}
}

func TestBadConfig(t *testing.T) {
	good := s3store.Config{Endpoint: "http://h:1", Bucket: "b", Credentials: s3store.Static("k", "s")}
	for name, change := range map[string]func(*s3store.Config){
		"no scheme":      func(c *s3store.Config) { c.Endpoint = "h:1" },
		"other scheme":   func(c *s3store.Config) { c.Endpoint = "ftp://h" },
		"path":           func(c *s3store.Config) { c.Endpoint = "http://h/path" },
		"password":       func(c *s3store.Config) { c.Endpoint = "http://u:p@h" },
		"no bucket":      func(c *s3store.Config) { c.Bucket = "" },
		"no credentials": func(c *s3store.Config) { c.Credentials = nil },
	} {
		cfg := good
		change(&cfg)
		if _, err := s3store.New(cfg); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: %v, want an error without secrets", name, err)
		}
	}
}
