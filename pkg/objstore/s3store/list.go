package s3store

import (
	"context"
	"errors"
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
	return page, vanished(err)
}

// Content returns the key of one object in the bucket, or "" when there is none:
// unlike List it sees also what is no key of ours.
func (s *Store) Content(ctx context.Context) (key string, err error) {
	err = s.call(ctx, 0, func(ctx context.Context) error {
		key = ""
		for o := range s.core.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{MaxKeys: 1, Recursive: true, FetchOwner: new(bool)}) {
			key = o.Key
			return o.Err
		}
		return ctx.Err() // the sequence just ends then
	})
	return key, s.failed("list", "", err)
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

// maxUnaborted is how many uploads that cannot be aborted end a Clean.
const maxUnaborted = 100

// Clean implements objstore.Cleaner: it aborts multipart uploads, whose parts cost
// space. How old one is comes from the service's record of its beginning and this
// host's clock; services refuse requests of hosts whose clock is minutes off.
func (s *Store) Clean(ctx context.Context, olderThan time.Duration) (n int, err error) {
	limit := time.Now().Add(-olderThan)
	var first error
	failures := 0
	for marker := ""; failures < maxUnaborted; {
		page, err := s.uploads(ctx, marker)
		if err != nil {
			return n, errors.Join(first, s.failed("list uploads", "", err))
		}
		for _, u := range page.Uploads {
			if !isStale(u, limit) || failures == maxUnaborted {
				continue
			}
			if err := s.abort(ctx, u.Key, u.UploadID); err == nil {
				n++
			} else if failures++; first == nil {
				first = s.failed("abort upload", u.Key, err)
			}
		}
		if !page.IsTruncated {
			break
		}
		marker = page.NextKeyMarker
	}
	if first != nil {
		first = fmt.Errorf("%d uploads are not aborted; the first: %w", failures, first)
	}
	return n, first
}

// uploads returns a page of the unfinished uploads of keys greater than marker. A
// page may end among several of one key: the others come in another Clean, and
// the marker always grows.
func (s *Store) uploads(ctx context.Context, marker string) (page minio.ListMultipartUploadsResult, err error) {
	err = s.call(ctx, 0, func(ctx context.Context) (err error) {
		page, err = s.core.ListMultipartUploads(ctx, s.cfg.Bucket, "", marker, "", "", pageKeys)
		if err == nil && page.IsTruncated && page.NextKeyMarker <= marker {
			err = fmt.Errorf("%w: listing of uploads goes on with %q after %q", objstore.ErrCorrupt, page.NextKeyMarker, marker)
		}
		return err
	})
	return page, vanished(err)
}

// isStale reports whether an upload is one of ours that began before limit. One
// without a date may have begun just now.
func isStale(u minio.ObjectMultipartInfo, limit time.Time) bool {
	return !u.Initiated.IsZero() && u.Initiated.Before(limit) && objstore.CheckKey(u.Key) == nil
}
