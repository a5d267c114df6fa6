package s3store

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/minio/minio-go/v7"

	"marfs/pkg/objstore"
)

const (
	minRate  = 1 << 20 // bytes per second that a request may be slow to carry
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second
	maxText  = 300 // bytes of an error's text, about
)

var errTimeout = errors.New("no answer in time")

// errStray404 replaces what minio-go makes of a 404 without an S3 error in it: a
// missing object, or bucket.
var errStray404 = errors.New("answer 404 without an S3 error: it may come from a proxy, or the endpoint is no S3 service")

// call makes one request for n bytes, with a deadline, until it succeeds, fails
// for good, or its attempts are used up.
func (s *Store) call(ctx context.Context, n int64, request func(context.Context) error) error {
	return s.retry(ctx, func() error {
		limit := s.cfg.Timeout + time.Duration(n/minRate)*time.Second
		ctx, cancel := context.WithTimeoutCause(ctx, limit, errTimeout)
		defer cancel()
		return timedOut(ctx, limit, request(ctx))
	})
}

// timedOut replaces the error of a request that our deadline ended, so that it
// does not pass for the end of the caller's context.
func timedOut(ctx context.Context, limit time.Duration, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errTimeout) {
		return fmt.Errorf("%w (%v)", errTimeout, limit)
	}
	return err
}

// retry is the one place that repeats requests. Its errors have their class.
func (s *Store) retry(ctx context.Context, attempt func() error) error {
	for failures := 0; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := attempt()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err, again := s.judge(err)
		if failures++; !again || failures > s.cfg.Retries {
			return err
		}
		if pause(ctx, failures) != nil {
			return ctx.Err()
		}
	}
}

// pause waits before the attempt after the given number of failures: half to all
// of a time that doubles, so that clients do not come back in step.
func pause(ctx context.Context, failures int) error {
	d := min(minPause<<min(failures-1, 10), maxPause)
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// judge wraps the error of a request in its class and says whether to try again.
func (s *Store) judge(err error) (error, bool) {
	if isStray404(err) {
		err = errStray404
	}
	class, again := classOf(err)
	switch code(err) {
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidAccessKeyId", "InvalidClientTokenId":
		// They may have been rotated since we read them.
		s.creds.Expire()
		again = true
	}
	if errors.Is(err, io.EOF) { // to a caller that would be the end of the object
		err = fmt.Errorf("%w: %s", io.ErrUnexpectedEOF, err.Error())
	}
	if !errors.Is(err, class) {
		err = fmt.Errorf("%w: %w", class, err)
	}
	return clipped{err}, again
}

// clipped is an error whose text may come from the service, at any length.
type clipped struct{ err error }

func (c clipped) Unwrap() error { return c.err }

// Error returns the text without its middle when it is long, and with what is
// not printable escaped: it goes into logs, lines and terminals.
func (c clipped) Error() string {
	text := c.err.Error()
	if len(text) > maxText {
		text = text[:maxText*2/3] + " ... " + text[len(text)-maxText/3:]
	}
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// classOf returns the class of an error, which it may carry already.
func classOf(err error) (class error, again bool) {
	var answer minio.ErrorResponse
	var badCert *tls.CertificateVerificationError
	var badXML *xml.SyntaxError
	for _, class := range []error{fs.ErrPermission, fs.ErrInvalid, fs.ErrNotExist, objstore.ErrUnavailable} {
		if errors.Is(err, class) {
			return class, false
		}
	}
	switch {
	case errors.Is(err, objstore.ErrCorrupt):
		return objstore.ErrCorrupt, true // what garbled the answer may have been on the way
	case errors.Is(err, errStray404):
		return objstore.ErrUnavailable, true
	case errors.As(err, &answer) && answer.StatusCode != 0:
		return classOfAnswer(answer)
	case errors.As(err, &badCert):
		return objstore.ErrUnavailable, false
	case errors.As(err, &badXML):
		return objstore.ErrCorrupt, true
	}
	return objstore.ErrUnavailable, true // the network, or a timeout
}

// classOfAnswer looks at S3's code first, which is exact, then at the status.
func classOfAnswer(e minio.ErrorResponse) (class error, again bool) {
	switch e.Code {
	case minio.NoSuchKey, "NotFound":
		return fs.ErrNotExist, false
	case minio.NoSuchBucket, minio.NoSuchUpload: // not a missing object
		return objstore.ErrUnavailable, false
	case "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull", "InsufficientCapacity", "ServiceQuotaExceeded":
		return objstore.ErrNoSpace, false
	case "BadDigest", "InvalidDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "RequestTimeout":
		return objstore.ErrUnavailable, true // the request was garbled or cut
	case "KeyTooLongError", "EntityTooLarge", "EntityTooSmall", minio.InvalidArgument, "XMinioInvalidObjectName",
		"ExistingObjectIsDirectory", "ObjectParentIsFile", "ObjectExistsAsDirectory", "XMinioParentIsObject":
		return fs.ErrInvalid, false
	}
	switch status := e.StatusCode; {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fs.ErrPermission, false
	case status == http.StatusInsufficientStorage:
		return objstore.ErrNoSpace, false
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status == http.StatusTooManyRequests:
		return objstore.ErrUnavailable, true
	case status == http.StatusNotImplemented:
		return objstore.ErrUnavailable, false
	case status >= 500:
		return objstore.ErrUnavailable, true
	}
	return objstore.ErrUnavailable, false
}

// vanished is for requests that ask for no object: whatever the service misses must
// not pass for a missing one.
func vanished(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", objstore.ErrUnavailable, err.Error())
	}
	return err
}

// isStray404 reports whether err is a 404 that holds no S3 error: a proxy's, or
// the answer to a HEAD, which has no body.
func isStray404(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound && answer.XMLName.Local != "Error"
}

// code returns the S3 error code of err, or "".
func code(err error) string {
	var answer minio.ErrorResponse
	errors.As(err, &answer)
	return answer.Code
}
