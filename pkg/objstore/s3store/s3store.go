// Package s3store keeps objects in a bucket of an S3 service.
//
// It asks little of the service: single and multipart PUT, ranged GET, HEAD,
// DELETE, ListObjectsV2 in key order (so not S3 Express), and nothing atomic
// beyond a PUT being whole or absent.
//
// # Integrity
//
// Callers keep checksums in what they store, so a request carries no MD5 and no
// checksum trailer (several services refuse those), and its body is hashed for
// the signature only over plain HTTP. Answers are not trusted: a body of another
// range or length than asked for, a listing out of order, an upload without an
// ETag are errors.
//
// # Memory
//
// A body must be sendable twice, so a Put gathers it in one buffer: as long as
// the object when that is known and small; else one that doubles as the object
// grows, up to PartSize. Objects beyond it go up in parts. To send one part while
// the next is filled, a Put may take further buffers out of a common allowance
// (Config.Buffers); it never waits for one, so Puts that depend on each other
// cannot block each other.
//
// # Failures
//
// One place decides on retries: each request is tried 1+Retries times with
// growing random pauses when the failure may pass. minio-go's own retries are off.
package s3store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/semaphore"

	"marfs/pkg/objstore"
)

// Config of a store. Zero values get the defaults given.
type Config struct {
	Endpoint string // http://host[:port] or https://host[:port]
	Bucket   string
	Region   string // us-east-1

	// Credentials is asked when requests need signing, about once a minute, and
	// at once when the service says that they expired. See [Static].
	Credentials func(context.Context) (Credentials, error)

	// PathStyle puts the bucket in the path for every service. Without it only
	// services known to want it get it in the host name.
	PathStyle bool
	// UnsignedPayload leaves the body out of the signature. nil: over TLS only,
	// where the connection protects it.
	UnsignedPayload *bool
	// TLS, when set, replaces the default client settings (TLS 1.2, system roots).
	TLS *tls.Config

	PartSize int64         // bytes of a part; S3 wants at least 5 MiB. 8 MiB
	Buffers  int           // part buffers beyond one for each Put under way; negative: none. 2
	MaxConns int           // connections. 64
	Timeout  time.Duration // of a request, beside a second for each MiB it carries; and of each read of a body. 30s
	Retries  int           // attempts after the first; negative: none. 4
}

// Credentials of an S3 account.
type Credentials struct {
	AccessKey, SecretKey string
	SessionToken         string // of temporary credentials
}

// Static returns a Config.Credentials of keys that never change.
func Static(accessKey, secretKey string) func(context.Context) (Credentials, error) {
	return func(context.Context) (Credentials, error) {
		return Credentials{AccessKey: accessKey, SecretKey: secretKey}, nil
	}
}

// Store is an objstore.Store in one bucket.
type Store struct {
	cfg      Config
	unsigned bool // payloads
	core     *minio.Core
	creds    *credentials.Credentials
	conns    *http.Transport
	extra    *semaphore.Weighted // part buffers beyond one a Put
	parts    sync.Pool           // of *[]byte with room for a part
}

var (
	_ objstore.Store   = (*Store)(nil)
	_ objstore.Cleaner = (*Store)(nil)
)

// New returns a store of cfg. It sends no request.
func New(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	endpoint, err := url.Parse(cfg.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("s3 endpoint: %w", err)
	}
	if (endpoint.Scheme != "http" && endpoint.Scheme != "https") || endpoint.Host == "" ||
		endpoint.User != nil || (endpoint.Path != "" && endpoint.Path != "/") || endpoint.RawQuery != "" {
		return nil, fmt.Errorf("s3 endpoint %q: %w: want http://host:port or https://host:port", endpoint.Redacted(), fs.ErrInvalid)
	}
	if cfg.Bucket == "" || cfg.Credentials == nil {
		return nil, fmt.Errorf("s3 endpoint %s: %w: bucket and credentials are needed", cfg.Endpoint, fs.ErrInvalid)
	}
	secure := endpoint.Scheme == "https"
	s := &Store{
		cfg:      cfg,
		unsigned: secure,
		creds:    credentials.New(&provider{get: cfg.Credentials}),
		conns:    newTransport(cfg),
		extra:    semaphore.NewWeighted(int64(max(cfg.Buffers, 0))),
	}
	if cfg.UnsignedPayload != nil {
		s.unsigned = *cfg.UnsignedPayload
	}
	s.parts.New = func() any { b := make([]byte, 0, cfg.PartSize); return &b }
	lookup := minio.BucketLookupAuto
	if cfg.PathStyle {
		lookup = minio.BucketLookupPath
	}
	s.core, err = minio.NewCore(endpoint.Host, &minio.Options{
		Creds:        s.creds,
		Secure:       secure,
		Transport:    answers{s.conns},
		Region:       cfg.Region,
		BucketLookup: lookup,
		MaxRetries:   1,
	})
	if err != nil {
		return nil, fmt.Errorf("s3 endpoint %s: %w", cfg.Endpoint, err)
	}
	return s, nil
}

func (c Config) withDefaults() Config {
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	if c.PartSize == 0 {
		c.PartSize = 8 << 20
	}
	if c.Buffers == 0 {
		c.Buffers = 2
	}
	if c.MaxConns == 0 {
		c.MaxConns = 64
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Retries == 0 {
		c.Retries = 4
	}
	return c
}

// Close closes idle connections. No call may follow.
func (s *Store) Close() error {
	s.conns.CloseIdleConnections()
	return nil
}

// EnsureBucket makes the bucket if it does not exist.
func (s *Store) EnsureBucket(ctx context.Context) error {
	err := s.call(ctx, 0, func(ctx context.Context) error {
		ok, err := s.core.BucketExists(ctx, s.cfg.Bucket)
		if err != nil || ok {
			return err
		}
		err = s.core.MakeBucket(ctx, s.cfg.Bucket, minio.MakeBucketOptions{Region: s.cfg.Region})
		if code(err) == "BucketAlreadyOwnedByYou" {
			return nil // another node's init was faster
		}
		return err
	})
	return s.failed("make bucket", "", err)
}

// Stat implements objstore.Store.
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	info, err := s.head(ctx, key)
	if err != nil {
		return objstore.Info{}, s.failed("stat", key, err)
	}
	return objstore.Info{Key: key, Size: info.Size, ModTime: info.LastModified}, nil
}

func (s *Store) head(ctx context.Context, key string) (info minio.ObjectInfo, err error) {
	if err := objstore.CheckKey(key); err != nil {
		return info, err
	}
	err = s.call(ctx, 0, func(ctx context.Context) error {
		info, err = s.core.StatObject(ctx, s.cfg.Bucket, key, minio.StatObjectOptions{})
		if isStray404(err) {
			err = s.whyMissing(ctx, key)
		}
		if err == nil && info.Size < 0 {
			err = fmt.Errorf("%w: answer without a length", objstore.ErrCorrupt)
		}
		return err
	})
	return info, err
}

// whyMissing asks for a byte of an object that HEAD answered with 404. That answer
// has no body, so it tells neither whether S3 gave it nor whether the bucket is there.
func (s *Store) whyMissing(ctx context.Context, key string) error {
	var o minio.GetObjectOptions
	o.Set("Range", "bytes=0-0")
	body, _, _, err := s.core.GetObject(ctx, s.cfg.Bucket, key, o)
	if err == nil {
		body.Close()
	}
	if err == nil || isBeyondEnd(err) {
		return errors.New("HEAD found no object, GET did")
	}
	return err
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return s.failed("delete", key, err)
	}
	err := s.call(ctx, 0, func(ctx context.Context) error {
		return s.core.RemoveObject(ctx, s.cfg.Bucket, key, minio.RemoveObjectOptions{})
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return s.failed("delete", key, err)
}

// failed gives err the name of what it happened to; nil stays nil.
func (s *Store) failed(op, key string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: s.cfg.Bucket + "/" + key, Err: err}
}
