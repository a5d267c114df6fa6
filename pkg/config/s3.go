package config

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"marfs/pkg/objstore/s3store"
)

// connect makes the store of a bucket. The credentials are read once here, so
// that a mistake in them is found at the start, and again by the store every
// minute or so: replacing the file rotates the keys.
func (s *S3) connect() (*s3store.Store, error) {
	if _, err := s.keys(context.Background()); err != nil {
		return nil, err
	}
	trust, err := s.trust()
	if err != nil {
		return nil, err
	}
	c := s.config()
	c.TLS = trust
	return s3store.New(c)
}

// config is the store's, but for what has to be read from files.
func (s *S3) config() s3store.Config {
	return s3store.Config{
		Endpoint:    s.Endpoint,
		Bucket:      s.Bucket,
		Region:      s.Region,
		Credentials: s.keys,
	}
}

// create makes the bucket if it is not there.
func (s *S3) create(ctx context.Context) error {
	st, err := s.connect()
	if err != nil {
		return err
	}
	return errors.Join(st.EnsureBucket(ctx), st.Close())
}

// trust is the client's TLS settings when the servers' certificates are signed
// by an authority of the site's own.
func (s *S3) trust() (*tls.Config, error) {
	if s.CAFile == "" {
		return nil, nil
	}
	pem, err := readLimited(s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificates: %s: no PEM certificate in it", s.CAFile)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, nil
}

// keys returns the credentials from where the configuration says they are.
func (s *S3) keys(context.Context) (s3store.Credentials, error) {
	if prefix, ok := strings.CutPrefix(s.Credentials, "env:"); ok {
		return keysFromEnv(prefix)
	}
	return keysFromFile(s.Credentials)
}

func keysFromEnv(prefix string) (c s3store.Credentials, err error) {
	c.AccessKey = os.Getenv(prefix + "_ACCESS_KEY")
	c.SecretKey = os.Getenv(prefix + "_SECRET_KEY")
	c.SessionToken = os.Getenv(prefix + "_SESSION_TOKEN")
	if c.AccessKey == "" || c.SecretKey == "" {
		return c, fmt.Errorf("credentials: the environment has no %s_ACCESS_KEY or no %s_SECRET_KEY", prefix, prefix)
	}
	return c, nil
}

// secrets is the form of a credentials file.
type secrets struct {
	AccessKey    string `yaml:"access_key"`
	SecretKey    string `yaml:"secret_key"`
	SessionToken string `yaml:"session_token"`
}

// keysFromFile reads a credentials file. No message repeats anything of it.
func keysFromFile(file string) (c s3store.Credentials, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return c, fmt.Errorf("credentials: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return c, fmt.Errorf("credentials: %s: others may read it (mode %04o): chmod 600 it", file, info.Mode().Perm())
	}
	text, err := readLimited(file)
	if err != nil {
		return c, fmt.Errorf("credentials: %w", err)
	}
	var sec secrets
	d := newDecoder(file)
	if root := d.document(text); root != nil {
		d.value(root, reflect.ValueOf(&sec).Elem(), "")
	}
	if len(d.problems) > 0 {
		// A line but no rule: that of a YAML parser quotes what it read.
		where := Problem{File: file, Line: d.problems[0].Line}
		return c, fmt.Errorf("credentials: %w: want access_key, secret_key and, if need be, session_token, each with a plain or quoted value", where)
	}
	if sec.AccessKey == "" || sec.SecretKey == "" {
		return c, errors.New("credentials: " + file + ": access_key or secret_key is missing")
	}
	return s3store.Credentials(sec), nil
}
