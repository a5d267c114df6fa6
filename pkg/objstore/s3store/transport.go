package s3store

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"marfs/pkg/objstore"
)

const (
	maxAnswer   = 4 << 20     // bytes of an answer that is not an object: a listing page of the longest keys has less than 2 MiB
	writeBuffer = 64 << 10    // of a connection
	credsMaxAge = time.Minute // before they are asked for again
)

// newTransport returns a pool of HTTP/1.1 connections. (HTTP/2 would put all
// requests on one of them, which is slower for bulk data.)
func newTransport(cfg Config) *http.Transport {
	dialer := &net.Dialer{Timeout: min(10*time.Second, cfg.Timeout), KeepAlive: 30 * time.Second}
	tlsConfig := cfg.TLS
	if tlsConfig == nil {
		tlsConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: min(10*time.Second, cfg.Timeout),
		MaxConnsPerHost:     cfg.MaxConns,
		MaxIdleConnsPerHost: cfg.MaxConns,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
		WriteBufferSize:     writeBuffer,
	}
}

// errWebPage is an answer of something between us and the service, or instead of it.
var errWebPage = fmt.Errorf("%w: answered with a web page, as no S3 service does", objstore.ErrUnavailable)

// answers refuses web pages that pass for success, and bounds the answers that
// minio-go reads whole into memory: all but the bodies of objects.
type answers struct{ http.RoundTripper }

func (a answers) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := a.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		resp.Body.Close()
		return nil, errWebPage
	}
	if req.Method != http.MethodGet || req.URL.RawQuery != "" {
		resp.Body = &limitedBody{resp.Body, maxAnswer}
	}
	return resp, nil
}

type limitedBody struct {
	io.ReadCloser
	left int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("%w: answer of more than %d bytes", objstore.ErrCorrupt, maxAnswer)
	}
	return n, err
}

// provider gives minio-go the configured credentials, some time old at most.
type provider struct {
	get     func(context.Context) (Credentials, error)
	expires time.Time // minio-go serialises the calls
}

func (p *provider) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	ctx := context.Background()
	if cc != nil && cc.Context != nil {
		ctx = cc.Context
	}
	c, err := p.get(ctx)
	if err != nil {
		return credentials.Value{}, fmt.Errorf("%w: credentials: %w", fs.ErrPermission, err)
	}
	p.expires = time.Now().Add(credsMaxAge)
	return credentials.Value{
		AccessKeyID:     c.AccessKey,
		SecretAccessKey: c.SecretKey,
		SessionToken:    c.SessionToken,
		SignerType:      credentials.SignatureV4,
	}, nil
}

func (p *provider) Retrieve() (credentials.Value, error) { return p.RetrieveWithCredContext(nil) }

func (p *provider) IsExpired() bool { return time.Now().After(p.expires) }
