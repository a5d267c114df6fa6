package s3store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/minio/minio-go/v7"

	"marfs/pkg/objstore"
)

const (
	smallBuffer = 128 << 10 // least first buffer of a Put of unknown length
	exactBuffer = 1 << 20   // up to here a buffer as long as the object beats a pooled one
)

// Put implements objstore.Store. Objects up to PartSize are one request; longer
// ones, up to 10000 times PartSize, a multipart upload.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	err := objstore.CheckKey(key)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && size > s.cfg.MaxObject() {
		err = fmt.Errorf("%w: %d bytes are more than %d parts of %d", fs.ErrInvalid, size, maxParts, s.cfg.PartSize)
	}
	if err != nil {
		return s.failed("put", key, err)
	}
	u := &upload{s: s, caller: ctx, key: key, size: size}
	err = u.run(r)
	s.giveBack(u.buf)
	return s.failed("put", key, err)
}

// upload is one Put. Its Write and ReadFrom gather bytes and send full parts.
type upload struct {
	s      *Store
	caller context.Context // of the Put
	key    string
	size   int64 // announced; -1: unknown
	total  int64 // taken so far
	buf    []byte
	multipart
}

func (u *upload) run(r io.Reader) error {
	_, err := io.Copy(u, r)
	if err == nil && u.size >= 0 && u.total != u.size {
		err = fmt.Errorf("%w: reader gave %d bytes, not %d", fs.ErrInvalid, u.total, u.size)
	}
	switch {
	case err == nil && u.id == "":
		err = u.s.putWhole(u.caller, u.key, u.buf)
	case u.id != "":
		err = u.finish(err)
	}
	if err != nil && u.caller.Err() != nil {
		return u.caller.Err()
	}
	return err
}

// Write takes p, which may be used again afterwards.
func (u *upload) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if err := u.room(len(p) - n); err != nil {
			return n, err
		}
		m := copy(u.buf[len(u.buf):cap(u.buf)], p[n:])
		u.buf = u.buf[:len(u.buf)+m]
		n += m
		if err := u.took(m); err != nil {
			return n, err
		}
	}
	return n, nil
}

// ReadFrom reads r straight into the buffer.
func (u *upload) ReadFrom(r io.Reader) (total int64, err error) {
	var probe [512]byte // where the buffer is full, but r may be at its end
	for {
		var n int
		if len(u.buf) < cap(u.buf) {
			n, err = r.Read(u.buf[len(u.buf):cap(u.buf)])
			u.buf = u.buf[:len(u.buf)+n]
			total += int64(n)
			if e := u.took(n); e != nil {
				return total, e
			}
		} else {
			n, err = r.Read(probe[:])
			if _, e := u.Write(probe[:n]); e != nil {
				return total, e
			}
			total += int64(n)
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// took counts n bytes and stops what should not go on.
func (u *upload) took(n int) error {
	u.total += int64(n)
	if u.size >= 0 && u.total > u.size {
		return fmt.Errorf("%w: reader gave more than %d bytes", fs.ErrInvalid, u.size)
	}
	return u.caller.Err()
}

// room makes place in the buffer for some of n more bytes: a larger buffer, or
// the next one when a part is full.
func (u *upload) room(n int) error {
	if len(u.buf) < cap(u.buf) {
		return nil
	}
	part := int(u.s.cfg.PartSize)
	if cap(u.buf) == part {
		return u.ship()
	}
	if want := u.bufferFor(n); want < part {
		u.buf = append(make([]byte, 0, want), u.buf...)
	} else {
		u.buf = append(*u.s.parts.Get().(*[]byte), u.buf...)
	}
	return nil
}

// bufferFor returns how long a buffer has to be for n bytes more. Where the length
// is not known it doubles: most objects are small, and many may be open.
func (u *upload) bufferFor(n int) int {
	switch {
	case u.size > exactBuffer:
		return int(u.s.cfg.PartSize)
	case u.size >= 0 && u.buf == nil:
		return int(max(u.size, 1))
	}
	want := max(smallBuffer, 2*cap(u.buf))
	for want < len(u.buf)+n {
		want *= 2
	}
	return want
}

// MaxObject is the longest object that a Put takes.
func (c Config) MaxObject() int64 { return maxParts * c.withDefaults().PartSize }

// PutMemory is the most bytes that a Put under way holds, whatever its length.
func (c Config) PutMemory() int64 { return c.withDefaults().PartSize }

// giveBack returns a part's buffer to the pool.
func (s *Store) giveBack(buf []byte) {
	if int64(cap(buf)) == s.cfg.PartSize {
		buf = buf[:0]
		s.parts.Put(&buf)
	}
}

// putWhole stores data in one request.
func (s *Store) putWhole(ctx context.Context, key string, data []byte) error {
	return s.send(ctx, data, func(ctx context.Context, body io.Reader, sha string) error {
		_, err := s.core.PutObject(ctx, s.cfg.Bucket, key, body, int64(len(data)), "", sha,
			minio.PutObjectOptions{DisableContentSha256: true})
		return err
	})
}

// send makes a request with data as its body, and with its SHA-256 if payloads are signed.
func (s *Store) send(ctx context.Context, data []byte, request func(context.Context, io.Reader, string) error) error {
	var sha string
	if !s.unsigned {
		sum := sha256.Sum256(data)
		sha = hex.EncodeToString(sum[:])
	}
	return vanished(s.call(ctx, int64(len(data)), func(ctx context.Context) error {
		b := &body{r: bytes.NewReader(data)}
		defer b.end()
		return request(ctx, b, sha)
	}))
}

// body reads a buffer until its request has ended. net/http may go on reading
// after that, when the buffer already holds other bytes: those must never reach
// the service as part of this object.
type body struct {
	mu sync.Mutex // guards r
	r  *bytes.Reader
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.r == nil {
		return 0, fs.ErrClosed
	}
	return b.r.Read(p)
}

func (b *body) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.r = nil
}
