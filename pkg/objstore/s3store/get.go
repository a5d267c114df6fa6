package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"marfs/pkg/objstore"
)

const (
	progress  = 1 << 20  // bytes after which earlier failures of a body are forgiven
	drainable = 64 << 10 // bytes of a body that are cheaper to read than a new connection
	noObject  = 1 << 50  // an offset that no S3 object reaches
)

// Get implements objstore.Store. A body that breaks off is continued with
// another request, if the object is still the same.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := objstore.CheckKey(key); err != nil {
		return nil, s.failed("get", key, err)
	}
	if off < 0 {
		return nil, s.failed("get", key, fmt.Errorf("%w: offset %d", fs.ErrInvalid, off))
	}
	r := &reader{ctx: ctx, s: s, key: key, off: off, left: n}
	if n < 0 {
		r.left = math.MaxInt64
	}
	err := r.first()
	if err != nil {
		return nil, s.failed("get", key, err)
	}
	return r, nil
}

// reader reads a range, through as many requests as it takes.
type reader struct {
	ctx  context.Context
	s    *Store
	key  string
	off  int64 // of the next byte
	left int64 // bytes still to come; before the first answer: asked for

	etag  string // of the object, from the first answer
	total int64  // its size

	body     io.ReadCloser   // nil: broken off, or at the end
	req      context.Context // of the request that body answers
	cancel   context.CancelCauseFunc
	watchdog *time.Timer // cancels the request when the service stalls
	failures int         // since the last progress
	mark     int64       // off at the last failure
	err      error       // sticky
}

// first makes the first request, or only asks whether the object is there when
// no byte is wanted or can exist.
func (r *reader) first() error {
	if r.left > 0 && r.off < noObject {
		return r.s.retry(r.ctx, r.open)
	}
	r.left = 0
	_, err := r.s.head(r.ctx, r.key)
	return err
}

// open asks for what is left of the range. The request lives on, with the
// watchdog stopped, until its body is closed.
func (r *reader) open() error {
	ctx, cancel := context.WithCancelCause(r.ctx)
	r.watchdog = time.AfterFunc(r.s.cfg.Timeout, func() { cancel(errTimeout) })
	body, info, header, err := r.s.core.GetObject(ctx, r.s.cfg.Bucket, r.key, r.options())
	r.watchdog.Stop()
	if err != nil {
		err = timedOut(ctx, r.s.cfg.Timeout, err)
		cancel(nil)
		if isBeyondEnd(err) && r.etag == "" {
			r.left = 0
			return nil
		}
		return err
	}
	r.body, r.req, r.cancel = body, ctx, cancel
	if err := r.accept(info, header); err != nil {
		r.hangUp()
		return err
	}
	return nil
}

// options asks for the range, with its end where that is known, so that the
// answer ends where we do.
func (r *reader) options() (o minio.GetObjectOptions) {
	switch {
	case r.left <= noObject:
		o.Set("Range", fmt.Sprintf("bytes=%d-%d", r.off, r.off+r.left-1))
	case r.off > 0:
		o.Set("Range", fmt.Sprintf("bytes=%d-", r.off))
	}
	return o
}

// isBeyondEnd recognises the answer for a range that begins at the end of the
// object or behind it.
func isBeyondEnd(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) &&
		(answer.StatusCode == http.StatusRequestedRangeNotSatisfiable || answer.Code == minio.InvalidRange)
}

// accept checks that the answer is for the range and the object we want.
func (r *reader) accept(info minio.ObjectInfo, header http.Header) error {
	from, total := int64(0), info.Size
	if ranged := r.off > 0 || r.left <= noObject; ranged {
		var last int64
		got := header.Get("Content-Range")
		if _, err := fmt.Sscanf(got, "bytes %d-%d/%d", &from, &last, &total); err != nil || last-from+1 != info.Size {
			return fmt.Errorf("%w: asked for a range, got %q and %d bytes", objstore.ErrCorrupt, got, info.Size)
		}
	}
	if want := min(r.left, total-r.off); from != r.off || info.Size != want || total < 0 {
		return fmt.Errorf("%w: asked for %d bytes at %d of %d, got %d at %d", objstore.ErrCorrupt, want, r.off, total, info.Size, from)
	}
	if r.etag != "" && (info.ETag != r.etag || total != r.total) {
		return fmt.Errorf("%w: object was replaced while it was read", objstore.ErrUnavailable)
	}
	r.etag, r.total, r.left = info.ETag, total, info.Size
	return nil
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.err == nil && r.left > 0 {
		if r.body == nil {
			r.err = r.resume()
			continue
		}
		r.watchdog.Reset(r.s.cfg.Timeout)
		n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
		r.watchdog.Stop()
		r.off += int64(n)
		r.left -= int64(n)
		if r.left > 0 && err != nil {
			r.hangUp()
			r.fail(timedOut(r.req, r.s.cfg.Timeout, err))
		}
		if n > 0 {
			return n, nil
		}
	}
	if r.err != nil {
		return 0, r.s.failed("read", r.key, r.err)
	}
	return 0, io.EOF
}

// fail counts a failure, and makes it final when there were too many.
func (r *reader) fail(err error) {
	if r.ctx.Err() != nil {
		r.err = r.ctx.Err()
		return
	}
	if r.off-r.mark >= progress {
		r.failures = 0
	}
	r.mark = r.off
	err, again := r.s.judge(err)
	if r.failures++; !again || r.failures > r.s.cfg.Retries {
		r.err = err
	}
}

// resume continues the body after a failure.
func (r *reader) resume() error {
	if err := pause(r.ctx, r.failures); err != nil {
		return err
	}
	if err := r.open(); err != nil {
		r.fail(err)
	}
	return r.err
}

// hangUp ends the request under way.
func (r *reader) hangUp() {
	if r.body == nil {
		return
	}
	r.body.Close()
	r.cancel(nil)
	r.body = nil
}

// Close implements io.Closer. It reads a little that is still to come, because
// that costs less than a new connection.
func (r *reader) Close() error {
	if r.body != nil && r.left <= drainable && r.ctx.Err() == nil {
		r.watchdog.Reset(r.s.cfg.Timeout)
		_, _ = io.CopyN(io.Discard, r.body, r.left)
		r.watchdog.Stop()
	}
	r.hangUp()
	if r.err == nil {
		r.err = fs.ErrClosed
	}
	return nil
}
