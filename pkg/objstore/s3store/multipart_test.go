package s3store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"marfs/internal/testenv"
	"marfs/pkg/objstore"
)

// uploads is a fake that takes one multipart upload; a test may answer instead.
type uploads struct {
	instead func(w http.ResponseWriter, r *http.Request, n int) bool

	mu     sync.Mutex
	token  string
	parts  map[string][]byte
	object []byte // nil: not completed
}

func (u *uploads) serve(w http.ResponseWriter, r *http.Request, n int) {
	if u.instead != nil && u.instead(w, r, n) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		reset()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch kind(r) {
	case "POST uploads":
		u.token = r.Header.Get("X-Amz-Meta-Marfs-Upload")
		u.parts = make(map[string][]byte)
		_, _ = io.WriteString(w, `<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>`)
	case "PUT partNumber":
		number := r.URL.Query().Get("partNumber")
		if u.parts == nil { // aborted
			refuse(w, 404, "NoSuchUpload")
			return
		}
		u.parts[number] = body
		w.Header().Set("ETag", `"etag-`+number+`"`)
	case "POST uploadId":
		if u.object != nil || u.parts == nil {
			refuse(w, 404, "NoSuchUpload")
			return
		}
		u.complete()
		_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key><ETag>"e"</ETag></CompleteMultipartUploadResult>`)
	case "HEAD":
		w.Header().Set("X-Amz-Meta-Marfs-Upload", u.token)
		w.Header().Set("Content-Length", fmt.Sprint(len(u.object)))
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
	case "DELETE uploadId":
		u.parts = nil
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(w, 400, "InvalidRequest")
	}
}

func (u *uploads) complete() {
	u.object = []byte{}
	for i := 1; u.parts[fmt.Sprint(i)] != nil; i++ {
		u.object = append(u.object, u.parts[fmt.Sprint(i)]...)
	}
}

// Parts are sent again one by one, and end up in order.
func TestMultipartRetriesParts(t *testing.T) {
	var failed sync.Map // part numbers
	u := &uploads{instead: func(w http.ResponseWriter, r *http.Request, n int) bool {
		if number := r.URL.Query().Get("partNumber"); number != "" {
			if _, again := failed.LoadOrStore(number, true); !again {
				_, _ = io.CopyN(io.Discard, r.Body, 1000)
				reset()
			}
		}
		return false
	}}
	f := newFake(t, u.serve)
	data := pattern(5<<20 + 123)
	if err := f.store(t).Put(t.Context(), "k", bytes.NewReader(data), -1); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(u.object, data) {
		t.Error("another object was stored")
	}
	if f.seen("DELETE uploadId") != 0 {
		t.Error("a good upload was aborted")
	}
}

// Without further buffers a Put sends its parts in turn, from the one it has.
func TestMultipartInOneBuffer(t *testing.T) {
	u := &uploads{}
	cfg := newFake(t, u.serve).config()
	cfg.Buffers = -1
	data := pattern(3<<20 + 1)
	if err := open(t, cfg).Put(t.Context(), "k", bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(u.object, data) {
		t.Error("another object was stored")
	}
}

// A part that cannot be stored ends the Put, and the upload is aborted.
func TestMultipartAborts(t *testing.T) {
	for _, test := range []struct {
		name string
		fail func(w http.ResponseWriter, r *http.Request) bool
		want error
	}{
		{"part", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("partNumber") == "2" {
				refuse(w, 403, "QuotaExceeded")
				return true
			}
			return false
		}, objstore.ErrNoSpace},
		{"complete", func(w http.ResponseWriter, r *http.Request) bool {
			if kind(r) == "POST uploadId" {
				refuse(w, 500, "InternalError")
				return true
			}
			return false
		}, objstore.ErrUnavailable},
		{"complete with an error after 200", func(w http.ResponseWriter, r *http.Request) bool {
			if kind(r) == "POST uploadId" {
				refuse(w, 200, "InternalError")
				return true
			}
			return false
		}, objstore.ErrUnavailable},
		{"complete of an upload that was aborted", func(w http.ResponseWriter, r *http.Request) bool {
			if kind(r) == "POST uploadId" {
				refuse(w, 404, "NoSuchUpload")
				return true
			}
			return false
		}, objstore.ErrUnavailable},
		{"no ETag", func(w http.ResponseWriter, r *http.Request) bool {
			if kind(r) == "PUT partNumber" {
				_, _ = io.Copy(io.Discard, r.Body)
				return true
			}
			return false
		}, objstore.ErrCorrupt},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := &uploads{instead: func(w http.ResponseWriter, r *http.Request, _ int) bool { return test.fail(w, r) }}
			f := newFake(t, u.serve)
			err := f.store(t).Put(t.Context(), "k", bytes.NewReader(pattern(6<<20)), -1)
			if !errors.Is(err, test.want) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("put: %v, want %v", err, test.want)
			}
			if n := f.seen("DELETE uploadId"); n != 1 {
				t.Errorf("upload was aborted %d times, want once", n)
			}
			if u.object != nil {
				t.Error("something was stored")
			}
		})
	}
}

// When the answer to the completion is lost, the object says whether it happened.
func TestMultipartCompletionAnswerLost(t *testing.T) {
	for _, ours := range []bool{true, false} {
		u := &uploads{}
		u.instead = func(w http.ResponseWriter, r *http.Request, n int) bool {
			if kind(r) != "POST uploadId" || n > 1 {
				return false
			}
			u.mu.Lock()
			u.complete()
			if !ours {
				u.token = "of somebody else"
			}
			u.mu.Unlock()
			reset()
			return true
		}
		f := newFake(t, u.serve)
		err := f.store(t).Put(t.Context(), "k", bytes.NewReader(pattern(2<<20)), -1)
		if ours && err != nil {
			t.Errorf("put that was completed: %v", err)
		}
		if !ours && (!errors.Is(err, objstore.ErrUnavailable) || errors.Is(err, fs.ErrNotExist)) {
			t.Errorf("put that another replaced: %v, want ErrUnavailable", err)
		}
	}
}

func TestClean(t *testing.T) {
	server := testenv.StartS3(t, "bucket")
	s := open(t, config(server, "bucket"))
	client, err := minio.NewCore(server.Endpoint[len("http://"):], &minio.Options{
		Creds: credentials.NewStaticV4(server.AccessKey, server.SecretKey, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for i := range 12 {
		key := fmt.Sprintf("%c/%d", "aB"[i%2], i/4) // two uploads of each key; those of B are another's
		if _, err := client.NewMultipartUpload(ctx, "bucket", key, minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		olderThan time.Duration
		want      int
	}{{time.Hour, 0}, {-time.Minute, 6}, {-time.Minute, 0}} {
		if n, err := s.Clean(ctx, step.olderThan); n != step.want || err != nil {
			t.Errorf("Clean(%v): %d, %v; want %d", step.olderThan, n, err, step.want)
		}
	}
}

// uploadList is an answer to ListMultipartUploads: uploads, each "key id age", and
// the markers of the next page, if there is one.
func uploadList(next string, uploads ...string) string {
	var b strings.Builder
	b.WriteString(`<ListMultipartUploadsResult>`)
	if key, id, more := strings.Cut(next, " "); more {
		fmt.Fprintf(&b, `<IsTruncated>true</IsTruncated><NextKeyMarker>%s</NextKeyMarker><NextUploadIdMarker>%s</NextUploadIdMarker>`, key, id)
	}
	for _, u := range uploads {
		var key, id, since string
		_, _ = fmt.Sscan(u, &key, &id, &since) // the age may be missing
		fmt.Fprintf(&b, `<Upload><Key>%s</Key><UploadId>%s</UploadId>`, key, id)
		if age, err := time.ParseDuration(since); err == nil {
			fmt.Fprintf(&b, `<Initiated>%s</Initiated>`, time.Now().Add(-age).UTC().Format(time.RFC3339))
		}
		b.WriteString(`</Upload>`)
	}
	return b.String() + `</ListMultipartUploadsResult>`
}

// Only old uploads of our keys are aborted, all of them, whatever happens to one.
func TestCleanSparesOthers(t *testing.T) {
	var mu sync.Mutex
	var aborted []string
	f := newFake(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		q := r.URL.Query()
		switch {
		case r.Method == http.MethodDelete:
			mu.Lock()
			defer mu.Unlock()
			aborted = append(aborted, q.Get("uploadId"))
			if strings.HasPrefix(q.Get("uploadId"), "bad") {
				refuse(w, 403, "AccessDenied")
				return
			}
			w.WriteHeader(http.StatusNoContent)
		case q.Get("key-marker") == "":
			_, _ = io.WriteString(w, uploadList("ns/b bad2", "Other/key old 50h", "ns/a bad1 50h", "ns/a old1 49h", "ns/a young 47h", "ns/b bad2 50h"))
		default:
			_, _ = io.WriteString(w, uploadList("", "ns/c old2 1000h", "ns/c undated", "ns/c ahead -1h"))
		}
	})
	n, err := f.store(t).Clean(t.Context(), 48*time.Hour)
	if n != 2 || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "2 uploads") {
		t.Errorf("%d uploads aborted, %v; want 2, and 2 that were denied", n, err)
	}
	if have := strings.Join(aborted, " "); have != "bad1 old1 bad2 old2" {
		t.Errorf("to be aborted were %s", have)
	}
}

// A listing of uploads that turns in a circle ends.
func TestCleanEnds(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request, n int) {
		_, _ = io.WriteString(w, uploadList(fmt.Sprintf("ns/a id%d", n%2), "ns/a x 1h"))
	})
	cfg := f.config()
	cfg.Retries = -1
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := open(t, cfg).Clean(ctx, 48*time.Hour); !errors.Is(err, objstore.ErrCorrupt) {
		t.Errorf("after %d pages: %v, want ErrCorrupt", f.seen("GET uploads"), err)
	}
}

// Of a service that aborts nothing not every upload is tried.
func TestCleanGivesUp(t *testing.T) {
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("ns/%d x 50h", i))
	}
	f := newFake(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.Method == http.MethodDelete {
			refuse(w, 403, "AccessDenied")
			return
		}
		_, _ = io.WriteString(w, uploadList("", many...))
	})
	if n, err := f.store(t).Clean(t.Context(), 48*time.Hour); n != 0 || err == nil || f.seen("DELETE uploadId") != 100 {
		t.Errorf("%d aborted, %v, %d requests; want 100", n, err, f.seen("DELETE uploadId"))
	}
}

func TestTooLongForParts(t *testing.T) {
	f := newFake(t, (&uploads{}).serve)
	err := f.store(t).Put(t.Context(), "k", bytes.NewReader(nil), 10001<<20)
	if !errors.Is(err, fs.ErrInvalid) || f.seen("POST uploads") != 0 {
		t.Errorf("put of more than 10000 parts: %v, want ErrInvalid and no request", err)
	}
}
