package s3store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"marfs/internal/testenv"
	"marfs/pkg/objstore/s3store"
)

const benchSize = 64 << 20

// sink is a service that hashes and stores nothing: what is left is ours.
func sink(b *testing.B) *httptest.Server {
	data := make([]byte, benchSize)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		switch kind(r) {
		case "POST uploads":
			_, _ = io.WriteString(w, `<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>`)
		case "POST uploadId":
			_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><Bucket>bucket</Bucket></CompleteMultipartUploadResult>`)
		case "GET":
			object{data, "e", func(w http.ResponseWriter, body []byte, _ int) { _, _ = w.Write(body) }}.serve(w, r, 0)
		default:
			buf := make([]byte, 1<<20)
			for {
				if _, err := r.Body.Read(buf); err != nil {
					return
				}
			}
		}
	}))
	b.Cleanup(server.Close)
	return server
}

func benchStore(b *testing.B, cfg s3store.Config) *s3store.Store {
	s, err := s3store.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// BenchmarkPut and BenchmarkGet move 64 MiB objects; "raw" is net/http alone.
func BenchmarkPut(b *testing.B) {
	data := make([]byte, benchSize)
	run := func(name string, put func(i int64) error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(benchSize)
			var n atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := put(n.Add(1)); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
	null := sink(b)
	unsigned := true
	cfg := (&fake{Server: null}).config()
	cfg.PartSize, cfg.UnsignedPayload = 8<<20, &unsigned
	store := func(cfg s3store.Config) func(int64) error {
		s := benchStore(b, cfg)
		return func(i int64) error {
			return s.Put(context.Background(), fmt.Sprintf("k%d", i%4), bytes.NewReader(data), -1)
		}
	}
	run("sink/raw", func(int64) error {
		req, _ := http.NewRequest(http.MethodPut, null.URL+"/bucket/k", bytes.NewReader(data))
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
	run("sink/parts", store(cfg))
	cfg.PartSize = benchSize
	run("sink/whole", store(cfg))

	server := testenv.StartS3(b, "bucket")
	cfg = config(server, "bucket")
	cfg.PartSize = 8 << 20
	run("versitygw/signed", store(cfg))
	cfg.UnsignedPayload = &unsigned
	run("versitygw/parts", store(cfg))
	cfg.PartSize = benchSize
	run("versitygw/whole", store(cfg))
}

func BenchmarkGet(b *testing.B) {
	run := func(name string, get func() (io.ReadCloser, error)) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(benchSize)
			b.RunParallel(func(pb *testing.PB) {
				buf := make([]byte, 1<<20)
				for pb.Next() {
					r, err := get()
					if err != nil {
						b.Error(err)
						continue
					}
					for err == nil {
						_, err = r.Read(buf)
					}
					if !errors.Is(err, io.EOF) {
						b.Error(err)
					}
					r.Close()
				}
			})
		})
	}
	get := func(cfg s3store.Config) func() (io.ReadCloser, error) {
		s := benchStore(b, cfg)
		return func() (io.ReadCloser, error) { return s.Get(context.Background(), "k", 0, benchSize) }
	}
	null := sink(b)
	run("sink/raw", func() (io.ReadCloser, error) {
		resp, err := http.Get(null.URL + "/bucket/k")
		if err != nil {
			return nil, err
		}
		return resp.Body, nil
	})
	run("sink/store", get((&fake{Server: null}).config()))
	server := testenv.StartS3(b, "bucket")
	cfg := config(server, "bucket")
	if err := benchStore(b, cfg).Put(b.Context(), "k", bytes.NewReader(make([]byte, benchSize)), benchSize); err != nil {
		b.Fatal(err)
	}
	run("versitygw/store", get(cfg))
}
