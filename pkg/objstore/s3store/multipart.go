package s3store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"marfs/pkg/objstore"
)

const (
	maxParts = 10000 // of a multipart upload, S3's limit
	inFlight = 4     // parts of one Put sent at the same time
	// completeRate is how slow a service may put the parts of an upload together.
	completeRate = 32 // times minRate
	// abortTimeout bounds how long a failed Put goes on to clean up.
	abortTimeout = 5 * time.Second
	// uploadHeader marks an object with the multipart upload that made it.
	uploadHeader = "Marfs-Upload"
)

// errStopped ends the reading of a Put whose upload failed.
var errStopped = errors.New("upload failed")

// multipart is the state of an upload that does not fit in one part.
type multipart struct {
	id     string          // "": not begun
	token  string          // value of uploadHeader
	ctx    context.Context // of the parts: ends at the first failure too
	cancel context.CancelFunc
	group  *errgroup.Group // sends parts
	sent   int             // parts on their way or there

	mu    sync.Mutex // guards etags
	etags []minio.CompletePart
}

// ship sends the full buffer as the next part, beside the reading if there is
// another buffer to read into.
func (u *upload) ship() error {
	if u.id == "" {
		if err := u.begin(); err != nil {
			return err
		}
	}
	if u.ctx.Err() != nil {
		return errStopped
	}
	if u.sent++; u.sent >= maxParts { // the last part is finish's
		return fmt.Errorf("%w: more than %d parts of %d bytes", fs.ErrInvalid, maxParts, u.s.cfg.PartSize)
	}
	number, buf := u.sent, u.buf
	if !u.s.extra.TryAcquire(1) {
		u.buf = buf[:0]
		return u.sendPart(number, buf)
	}
	u.buf = *u.s.parts.Get().(*[]byte)
	u.group.Go(func() error {
		defer u.s.extra.Release(1)
		defer u.s.giveBack(buf)
		return u.sendPart(number, buf)
	})
	return nil
}

func (u *upload) begin() error {
	u.token = rand.Text()
	opts := minio.PutObjectOptions{UserMetadata: map[string]string{uploadHeader: u.token}}
	err := u.s.call(u.caller, 0, func(ctx context.Context) (err error) {
		u.id, err = u.s.core.NewMultipartUpload(ctx, u.s.cfg.Bucket, u.key, opts)
		if err == nil && u.id == "" {
			err = fmt.Errorf("%w: upload without an id", objstore.ErrCorrupt)
		}
		return err
	})
	if err != nil {
		return vanished(err)
	}
	ctx, cancel := context.WithCancel(u.caller)
	u.cancel = cancel
	u.group, u.ctx = errgroup.WithContext(ctx)
	u.group.SetLimit(inFlight)
	return nil
}

// finish ends an upload whose reading ended with err: what is in the buffer is
// its last part. It returns when no part is on its way any more.
func (u *upload) finish(err error) error {
	defer u.cancel()
	if err == nil {
		u.sent++
		err = u.sendPart(u.sent, u.buf)
	}
	if err != nil && !errors.Is(err, errStopped) {
		u.cancel() // the parts on their way are of no use
	}
	if failed := u.group.Wait(); failed != nil && (err == nil || errors.Is(err, errStopped)) {
		err = failed
	}
	if err == nil {
		err = u.complete()
	}
	if err != nil {
		// Best effort, also when the caller's context has ended; Clean does the rest.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(u.caller), abortTimeout)
		defer cancel()
		_ = u.s.abort(ctx, u.key, u.id)
	}
	return err
}

func (u *upload) sendPart(number int, buf []byte) error {
	var etag string
	err := u.s.send(u.ctx, buf, func(ctx context.Context, body io.Reader, sha string) error {
		part, err := u.s.core.PutObjectPart(ctx, u.s.cfg.Bucket, u.key, u.id, number, body, int64(len(buf)),
			minio.PutObjectPartOptions{Sha256Hex: sha, DisableContentSha256: true})
		if err == nil && part.ETag == "" {
			err = fmt.Errorf("%w: part without an ETag", objstore.ErrCorrupt)
		}
		etag = part.ETag
		return err
	})
	switch {
	case err == nil:
		u.mu.Lock()
		defer u.mu.Unlock()
		u.etags = append(u.etags, minio.CompletePart{PartNumber: number, ETag: etag})
	case u.ctx.Err() != nil && u.caller.Err() == nil:
		return errStopped // by another part's failure, which says more
	}
	return err
}

// complete makes the parts an object. Unlike other requests this one cannot
// simply be repeated when its answer got lost: the upload is gone then, and the
// object tells whether it was ours.
func (u *upload) complete() error {
	slices.SortFunc(u.etags, func(a, b minio.CompletePart) int { return cmp.Compare(a.PartNumber, b.PartNumber) })
	attempts := 0
	err := u.s.call(u.caller, u.total/completeRate, func(ctx context.Context) error {
		attempts++
		_, err := u.s.core.CompleteMultipartUpload(ctx, u.s.cfg.Bucket, u.key, u.id, u.etags, minio.PutObjectOptions{})
		if attempts > 1 && code(err) == minio.NoSuchUpload && u.isThere(ctx) {
			return nil
		}
		return err
	})
	return vanished(err)
}

// isThere reports whether the object is what this upload made.
func (u *upload) isThere(ctx context.Context) bool {
	info, err := u.s.core.StatObject(ctx, u.s.cfg.Bucket, u.key, minio.StatObjectOptions{})
	return err == nil && info.Size == u.total && info.UserMetadata[uploadHeader] == u.token
}

// abort gives an upload up and frees its parts. One that is gone is no error.
func (s *Store) abort(ctx context.Context, key, id string) error {
	err := s.call(ctx, 0, func(ctx context.Context) error {
		return s.core.AbortMultipartUpload(ctx, s.cfg.Bucket, key, id)
	})
	if errors.Is(err, fs.ErrNotExist) || code(err) == minio.NoSuchUpload {
		return nil
	}
	return err
}
