package objfmt

import (
	"fmt"
	"strings"
)

// StoreIdentityKey is the object that tells each store which one it is. It holds
// no slash, so it is no namespace's.
const StoreIdentityKey = "marfs-store.json"

// maxName is the longest name of a namespace, repo or pod: that of an S3 bucket.
const maxName = 63

// CheckName refuses what cannot be the name of a namespace, repo or pod. Names
// are permanent and part of keys, slots and paths: [a-z0-9][a-z0-9._-]{0,62}.
// kind is for the message.
func CheckName(kind, s string) error {
	if s == "" || len(s) > maxName {
		return fmt.Errorf("%w: %s name %.80q: want 1 to %d characters", ErrFormat, kind, s, maxName)
	}
	for i := range len(s) {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return fmt.Errorf("%w: %s name %q: want lower-case letters, digits, and after the first also . _ -", ErrFormat, kind, s)
		}
	}
	return nil
}

// ObjectKey returns <namespace>/<hh>/<object id>[.<chunk>].
func ObjectKey(namespace string, id ObjectID, chunk uint32) string {
	return namespace + "/" + id.Fan() + "/" + textObject(id, chunk)
}

// ParseObjectKey takes a key made by [ObjectKey] apart.
func ParseObjectKey(key string) (namespace string, id ObjectID, chunk uint32, err error) {
	r := &textReader{}
	p := r.list(key, "/", 3, 3)
	id, chunk = r.object(p[2])
	if r.err == nil {
		r.err = CheckName("namespace", p[0])
	}
	if r.err == nil && ObjectKey(p[0], id, chunk) != key {
		r.fail("not as it would be written")
	}
	if r.err != nil {
		return "", ObjectID{}, 0, fmt.Errorf("object key %.200q: %w", key, r.err)
	}
	return p[0], id, chunk, nil
}
