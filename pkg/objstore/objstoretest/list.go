package objstoretest

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// list collects the keys of a listing and checks what comes with them.
func (s *suite) list(prefix, after string) []string {
	s.Helper()
	var keys []string
	for info, err := range s.store.List(s.ctx(), prefix, after) {
		if err != nil {
			s.Fatalf("list %q after %q: %v", prefix, after, err)
		}
		if info.Size != int64(len(info.Key)) || info.ModTime.IsZero() {
			s.Errorf("list %q after %q: %+v", prefix, after, info)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func want(keys []string, prefix, after string) (out []string) {
	for _, key := range keys {
		if strings.HasPrefix(key, prefix) && key > after {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// listOrder: keys come in byte order, which is not the order of a directory
// walk ('-' and '.' sort before '/'), with any prefix and any start.
func (s *suite) listOrder() {
	if got := s.list("", ""); len(got) != 0 {
		s.Fatalf("a new store lists %q", got)
	}
	keys := []string{
		"a/b", "a/b-c", "a/b.c", "a-b/c", "a.b/c", "a0", "a_", "ab/c/d", "ab/c-d", "ab/c0/d", "ab/c.d/e", "b/0", "b/00", "b/1/2/3", "z",
	}
	s.putMany(keys)
	starts := append([]string{"", "a", "a/", "a/a", "a/b/", "a/b-", "a-", "ab/c/", "ab/c/d", "b/0", "b/1", "b/1/2/3/4", "y", "zz", "~", "\x01", "é", "A B"}, keys...)
	prefixes := []string{"", "a", "a/", "a/b", "a-", "ab/", "ab/c", "ab/c/", "b/1/2", "b/1/2/3", "nope", "nope/", "a/nope/deep", "/", "..", "../", "é", "a//", "./a"}
	for _, prefix := range prefixes {
		for _, after := range starts {
			if got := s.list(prefix, after); !slices.Equal(got, want(keys, prefix, after)) {
				s.Errorf("list %q after %q:\n got %q\nwant %q", prefix, after, got, want(keys, prefix, after))
			}
		}
	}
}

// listPages: more keys than a page of S3 holds (1000), each once.
func (s *suite) listPages() {
	var keys []string
	for i := range 1101 {
		keys = append(keys, fmt.Sprintf("pages/%02x/%04d", i%7, i))
	}
	s.putMany(keys)
	s.mustPut("other", []byte("other"))
	for _, after := range []string{"", "pages/03", "pages/06/0999"} {
		got, wanted := s.list("pages/", after), want(keys, "pages/", after)
		if !slices.Equal(got, wanted) {
			s.Errorf("list after %q: %d keys, want %d; or in another order", after, len(got), len(wanted))
		}
	}
}

// listStops: a consumer may stop, list again, and delete what it sees.
func (s *suite) listStops() {
	keys := []string{"stop/a", "stop/b/c", "stop/d"}
	s.putMany(keys)
	for info, err := range s.store.List(s.ctx(), "stop/", "") {
		if err != nil || info.Key != "stop/a" {
			s.Fatalf("first of the list: %+v, %v", info, err)
		}
		break
	}
	seq := s.store.List(s.ctx(), "stop/", "")
	for info, err := range seq {
		if err != nil {
			s.Fatal(err)
		}
		if err := s.store.Delete(s.ctx(), info.Key); err != nil {
			s.Fatal(err)
		}
	}
	for info, err := range seq {
		s.Errorf("list after deleting everything: %+v, %v", info, err)
	}
	_, err := s.store.Stat(s.ctx(), "stop/b/c")
	s.wantErr("stat after delete", err, fs.ErrNotExist)
}
