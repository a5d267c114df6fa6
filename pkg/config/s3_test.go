package config

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"marfs/internal/testenv"
	"marfs/pkg/objstore/s3store"
)

func TestKeysFromFile(t *testing.T) {
	const secret = "do-not-print"
	tests := []struct {
		name, text string
		mode       os.FileMode
		want       string // of the error; "" for none
	}{
		{"good", "access_key: a\nsecret_key: " + secret + "\n", 0o600, ""},
		{"read-only", "access_key: a\nsecret_key: " + secret + "\nsession_token: t\n", 0o400, ""},
		{"group", "access_key: a\nsecret_key: " + secret + "\n", 0o640, "others may read it (mode 0640): chmod 600 it"},
		{"world", "access_key: a\nsecret_key: " + secret + "\n", 0o604, "others may read it (mode 0604)"},
		{"no secret", "access_key: " + secret + "\n", 0o600, "access_key or secret_key is missing"},
		{"unknown key", "access_key: a\n" + secret + ": b\n", 0o600, ":2: want access_key, secret_key"},
		{"not a mapping", secret, 0o600, ":1: want access_key"},
		{"not YAML", secret + ": [", 0o600, ":1: want access_key"},
		{"alias", "access_key: a\nsecret_key: *" + secret + "\n", 0o600, "key: want access_key"}, // the parser gives no line
		{"anchor", "access_key: a\nsecret_key: &" + secret + "\n", 0o600, ":2: want access_key"},
		{"tag", "access_key: a\nsecret_key: !" + secret + " x\n", 0o600, ":2: want access_key"},
		{"escape", "access_key: a\nsecret_key: \"" + secret + "\\q\"\n", 0o600, "want access_key"},
		{"null", "access_key: a\nsecret_key:\n", 0o600, ":2: want access_key"},
		{"empty", "", 0o600, "key: want access_key"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(file, []byte(test.text), test.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, test.mode); err != nil {
				t.Fatal(err)
			}
			keys, err := keysFromFile(file)
			if test.want == "" {
				if err != nil || keys.AccessKey != "a" || keys.SecretKey != secret {
					t.Errorf("have %v, %v", keys, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), file) {
				t.Errorf("have %v, want %s", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the message holds a secret: %v", err)
			}
		})
	}
}

func TestKeysFromEnv(t *testing.T) {
	t.Setenv("T_ACCESS_KEY", "a")
	s := &S3{Credentials: "env:T"}
	if _, err := s.keys(t.Context()); err == nil || !strings.Contains(err.Error(), "T_SECRET_KEY") {
		t.Errorf("have %v", err)
	}
	t.Setenv("T_SECRET_KEY", "s")
	if keys, err := s.keys(t.Context()); err != nil || keys != (s3store.Credentials{AccessKey: "a", SecretKey: "s"}) {
		t.Errorf("have %v, %v", keys, err)
	}
}

func TestBuckets(t *testing.T) {
	server := testenv.StartS3(t)
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, fmt.Appendf(nil, "access_key: %s\nsecret_key: %s\n", server.AccessKey, server.SecretKey), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, 2, 1)
	c := s.config(t)
	for i := range c.Repos[0].Pods[0].Stores {
		c.Repos[0].Pods[0].Stores[i] = Store{S3: &S3{Endpoint: server.Endpoint, Bucket: fmt.Sprintf("bucket-%d", i), Region: "us-east-1", Credentials: key}}
	}
	if made, err := Init(t.Context(), c); err != nil || len(made) != 4 || !made[0].New || made[0].Where != server.Endpoint+"/bucket-0" {
		t.Fatalf("init: %v, %v", made, err)
	}
	sys, err := Open(t.Context(), c, Interactive, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("bucket"), 100_000)
	write(t, sys, "f", content)
	if have := read(t, sys, "f", len(content)); !bytes.Equal(have, content) {
		t.Error("other bytes")
	}
	if err := sys.Close(); err != nil {
		t.Error(err)
	}

	bucket := filepath.Join(server.Dir, "bucket-1")
	if err := os.Rename(bucket, bucket+"-away"); err != nil {
		t.Fatal(err)
	}
	name := c.Repos[0].Pods[0].Stores[1].String()
	if made, err := Init(t.Context(), c); err == nil || !strings.Contains(hintOf(err), "--replace "+name) || len(made) != 1 {
		t.Errorf("init without a bucket: %v, %v", made, err)
	}
	if _, err := os.Stat(bucket); err == nil {
		t.Error("the bucket was made")
	}
	if made, err := Init(t.Context(), c, name); err != nil || len(made) != 4 || !made[1].New {
		t.Errorf("init with another bucket: %v, %v", made, err)
	}

	if err := os.WriteFile(key, []byte("access_key: marfs\nsecret_key: wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stores, _, err := Status(t.Context(), c)
	if err != nil || stores[0].Health != Wrong {
		t.Errorf("wrong key: %+v, %v", stores[0], err)
	}
}

// TestUploadsFitMemory: what stores hold for the objects being written is bounded.
func TestUploadsFitMemory(t *testing.T) {
	c := newSite(t, 4, 2).config(t)
	if have := c.uploads(); have != maxUploads {
		t.Errorf("directories: %d, want %d", have, maxUploads)
	}
	for i := range c.Repos[0].Pods[0].Stores {
		c.Repos[0].Pods[0].Stores[i] = Store{S3: &S3{Endpoint: "http://h:1", Bucket: "bbb"}}
	}
	for memory, want := range map[Size]int{1 << 20: minUploads, 256 << 20: 5, 1 << 30: 21, 1 << 40: maxUploads} {
		if c.Cache.Memory = memory; c.uploads() != want {
			t.Errorf("six buckets, cache.memory %v: %d, want %d", memory, c.uploads(), want)
		}
	}
}

func TestMissingCredentialsAreNoEmptyStore(t *testing.T) {
	s := newSite(t, 1, 1)
	s.init(t)
	c := s.config(t)
	c.Repos[0].Pods[0].Stores[1] = Store{S3: &S3{Endpoint: "http://127.0.0.1:1", Bucket: "bbb", Region: "r", Credentials: filepath.Join(s.dir, "nokey")}}
	stores, _, err := Status(t.Context(), c)
	if err != nil || stores[1].Health != Wrong || !strings.Contains(stores[1].Err.Error(), "nokey") {
		t.Errorf("have %+v, %v", stores[1], err)
	}
}
