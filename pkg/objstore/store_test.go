package objstore_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"marfs/pkg/objstore"
)

func TestCheckKey(t *testing.T) {
	for _, key := range []string{
		"a", "a/b", "ns/7f/01h2x.12", ".hidden", "...", "a..b/_-.", strings.Repeat("a", 240), strings.Repeat("abc/", 249) + "abc",
	} {
		if err := objstore.CheckKey(key); err != nil {
			t.Errorf("%.40q: %v", key, err)
		}
	}
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "./a", "A", "a b", "a#", "a|b", "a~", "a\n", "\x00", "ü",
		strings.Repeat("a", 241), strings.Repeat("abc/", 250) + "a",
	} {
		if err := objstore.CheckKey(key); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%.40q: %v, want ErrInvalid", key, err)
		}
	}
}

// Every beginning of a key is a prefix that listings must serve.
func FuzzCheckPrefix(f *testing.F) {
	f.Add("ns/7f/01h2x.12", 4)
	f.Add("a/..b", 4)
	f.Add("a/.../b", 3)
	f.Add("a//b", 2)
	f.Fuzz(func(t *testing.T, s string, n int) {
		if n < 0 || n > len(s) {
			return
		}
		if objstore.CheckKey(s) == nil && !objstore.CheckPrefix(s[:n]) {
			t.Errorf("%q begins the key %q, yet is refused", s[:n], s)
		}
		if objstore.CheckPrefix(s) && objstore.CheckKey(s+"a") != nil && len(s) < objstore.MaxKey-1 && len(s)-strings.LastIndexByte(s, '/') <= objstore.MaxComponent {
			t.Errorf("no key begins with %q, yet it passes", s)
		}
	})
}
