package s3store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"marfs/internal/testenv"
	"marfs/pkg/objstore"
	"marfs/pkg/objstore/objstoretest"
	"marfs/pkg/objstore/s3store"
)

const partSize = 5 << 20 // the smallest that S3 takes

func config(server *testenv.S3, bucket string) s3store.Config {
	return s3store.Config{
		Endpoint:    server.Endpoint,
		Bucket:      bucket,
		Credentials: s3store.Static(server.AccessKey, server.SecretKey),
		PartSize:    partSize,
		Timeout:     20 * time.Second,
	}
}

func open(t *testing.T, cfg s3store.Config) *s3store.Store {
	t.Helper()
	s, err := s3store.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestContent(t *testing.T) {
	server := testenv.StartS3(t, "bucket")
	s := open(t, config(server, "bucket"))
	if have, err := s.Content(t.Context()); have != "" || err != nil {
		t.Errorf("empty bucket: have %q, %v", have, err)
	}
	if err := os.WriteFile(filepath.Join(server.Dir, "bucket", "IMG 1.JPG"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if have, err := s.Content(t.Context()); have != "IMG 1.JPG" || err != nil {
		t.Errorf("somebody's bucket: have %q, %v", have, err)
	}
	if have, err := open(t, config(server, "nobucket")).Content(t.Context()); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("no bucket: have %q, %v", have, err)
	}
}

func TestConformance(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("versitygw", func(t *testing.T) {
		server := testenv.StartS3(t)
		var buckets atomic.Int32
		objstoretest.Run(t, func(t *testing.T) objstore.Store {
			cfg := config(server, fmt.Sprintf("bucket-%d", buckets.Add(1)))
			unsigned := buckets.Load()%2 == 0 // both ways are for plain HTTP too
			cfg.UnsignedPayload = &unsigned
			s := open(t, cfg)
			for range 2 {
				if err := s.EnsureBucket(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			t.Cleanup(func() {
				if n, err := s.Clean(context.Background(), -time.Hour); n != 0 || err != nil {
					t.Errorf("%d uploads are left, %v", n, err)
				}
			})
			return s
		}, objstoretest.Options{PartSize: partSize})
	})
}
