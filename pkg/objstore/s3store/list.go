package s3store

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"marfs/pkg/objstore"
)

// pageKeys is how many keys a listing asks for at once, the most that S3 gives.
const pageKeys = 1000

// List implements objstore.Store. Each page begins after the last key of the
// one before, so a failed page is asked for again and nothing is kept on the server.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		if !objstore.CheckPrefix(prefix) {
			return
		}
		for last := after[:keyLength(after)]; ; {
			page, err := s.page(ctx, prefix, last)
			if err != nil {
				yield(objstore.Info{}, s.failed("list", prefix, err))
				return
			}
			for _, info := range page {
				last = info.Key
				if info.Key > after && objstore.CheckKey(info.Key) == nil && !yield(info, nil) {
					return
				}
			}
			if len(page) < pageKeys {
				return
			}
		}
	}
}

// page returns up to pageKeys objects after start, foreign ones too; fewer only
// at the end. Each key is greater than the one before, so a listing goes on.
func (s *Store) page(ctx context.Context, prefix, start string) (page []objstore.Info, err error) {
	err = s.call(ctx, 0, func(ctx context.Context) error {
		page = page[:0]
		for o := range s.core.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{
			Prefix: prefix, StartAfter: start, MaxKeys: pageKeys, Recursive: true, FetchOwner: new(bool),
		}) {
			if o.Err != nil {
				return o.Err
			}
			prev := start
			if len(page) > 0 {
				prev = page[len(page)-1].Key
			}
			if o.Key <= prev || !strings.HasPrefix(o.Key, prefix) || o.Size < 0 {
				return fmt.Errorf("%w: listing has %q (%d bytes) after %q", objstore.ErrCorrupt, o.Key, o.Size, prev)
			}
			if page = append(page, objstore.Info{Key: o.Key, Size: o.Size, ModTime: o.LastModified}); len(page) == pageKeys {
				return nil
			}
		}
		return ctx.Err() // the sequence just ends then
	})
	return page, err
}

// keyLength returns how many bytes at the start of s could be a key's.
func keyLength(s string) int {
	for i := range len(s) {
		if s[i] != '/' && s[i] != '.' && !objstore.ValidComponent(s[i:i+1]) {
			return i
		}
	}
	return len(s)
}

// CleanUploads aborts multipart uploads of keys with the prefix that began more
// than olderThan ago, by the service's clock, and returns how many: crashed
// writers leave them, and their parts cost space that no listing shows.
func (s *Store) CleanUploads(ctx context.Context, prefix string, olderThan time.Duration) (n int, err error) {
	limit := time.Now().Add(-olderThan)
	var keyMarker, idMarker string
	for {
		var page minio.ListMultipartUploadsResult
		err := s.call(ctx, 0, func(ctx context.Context) (err error) {
			page, err = s.core.ListMultipartUploads(ctx, s.cfg.Bucket, prefix, keyMarker, idMarker, "", pageKeys)
			return err
		})
		if err != nil {
			return n, s.failed("list uploads", prefix, err)
		}
		for _, u := range page.Uploads {
			if !u.Initiated.Before(limit) || !strings.HasPrefix(u.Key, prefix) {
				continue
			}
			if err := s.abort(ctx, u.Key, u.UploadID); err != nil {
				return n, s.failed("abort upload", u.Key, err)
			}
			n++
		}
		if !page.IsTruncated {
			return n, nil
		}
		if page.NextKeyMarker < keyMarker || (page.NextKeyMarker == keyMarker && page.NextUploadIDMarker == idMarker) {
			err := fmt.Errorf("%w: listing of uploads does not go on after %q", objstore.ErrCorrupt, keyMarker)
			return n, s.failed("list uploads", prefix, err)
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
}
