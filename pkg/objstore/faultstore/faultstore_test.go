package faultstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"marfs/pkg/objstore"
	. "marfs/pkg/objstore/faultstore"
	"marfs/pkg/objstore/memstore"
	"marfs/pkg/objstore/objstoretest"
)

func TestConformanceWithoutFaults(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Store { return New(memstore.New()) }, objstoretest.Options{})
}

const content = "0123456789"

func store(t *testing.T) *Store {
	t.Helper()
	s := New(memstore.New())
	if err := s.Put(t.Context(), "ns/there", strings.NewReader(content), -1); err != nil {
		t.Fatal(err)
	}
	return s
}

func get(ctx context.Context, s objstore.Store, key string) (string, error) {
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return "", err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return string(data), err
}

func TestGet(t *testing.T) {
	for _, test := range []struct {
		name string
		do   Action
		want string
		err  error
	}{
		{"fail", Fail(fs.ErrPermission), "", fs.ErrPermission},
		{"unavailable", Unavailable(), "", objstore.ErrUnavailable},
		{"lose", Lose(), "", fs.ErrNotExist},
		{"flip first", Flip(0), " 123456789", nil},
		{"flip last", Flip(9), "012345678)", nil},
		{"flip beyond", Flip(10), content, nil},
		{"truncate", Truncate(4), "0123", nil},
		{"reset", Reset(4), "0123", objstore.ErrUnavailable},
		{"delay", Delay(time.Millisecond), content, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := store(t)
			s.Inject(Fault{Op: Get, Do: test.do})
			got, err := get(t.Context(), s, "ns/there")
			if got != test.want || !errors.Is(err, test.err) {
				t.Errorf("get: %q, %v; want %q, %v", got, err, test.want, test.err)
			}
			s.Heal()
			if got, err := get(t.Context(), s, "ns/there"); got != content || err != nil {
				t.Errorf("healed: %q, %v", got, err)
			}
		})
	}
}

func TestHangEndsWithTheContext(t *testing.T) {
	s := store(t)
	for _, do := range []Action{Hang(), HangAfter(3), Delay(time.Hour)} {
		remove := s.Inject(Fault{Do: do})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if _, err := get(ctx, s, "ns/there"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("get: %v, want DeadlineExceeded", err)
		}
		cancel()
		remove()
	}
	if got, err := get(t.Context(), s, "ns/there"); got != content || err != nil {
		t.Errorf("with the faults removed: %q, %v", got, err)
	}
}

func TestPut(t *testing.T) {
	for _, test := range []struct {
		name, want string
		do         Action
		err, after error
	}{
		{"drop", "", Drop(), nil, fs.ErrNotExist},
		{"no space", "", NoSpace(), objstore.ErrNoSpace, fs.ErrNotExist},
		{"truncate", "012", Truncate(3), nil, nil},
		{"flip", " 123456789", Flip(0), nil, nil},
		{"reset", "", Reset(3), objstore.ErrUnavailable, fs.ErrNotExist},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := New(memstore.New())
			s.Inject(Fault{Op: Put, Count: 1, Do: test.do})
			r := bytes.NewReader([]byte(content))
			if err := s.Put(t.Context(), "ns/new", r, 10); !errors.Is(err, test.err) {
				t.Errorf("put: %v, want %v", err, test.err)
			}
			if test.err == nil && r.Len() != 0 {
				t.Errorf("%d bytes were not read", r.Len())
			}
			got, err := get(t.Context(), s, "ns/new")
			if got != test.want || !errors.Is(err, test.after) {
				t.Errorf("get: %q, %v; want %q, %v", got, err, test.want, test.after)
			}
		})
	}
}

func TestWhichCalls(t *testing.T) {
	s := store(t)
	boom := errors.New("boom")
	s.Inject(Fault{Op: Stat | Delete, Key: "ns/*", Skip: 1, Count: 2, Do: Fail(boom)})
	stat := func(key string) error {
		_, err := s.Stat(t.Context(), key)
		return err
	}
	for i, want := range []error{nil, boom} {
		if err := stat("ns/there"); !errors.Is(err, want) {
			t.Errorf("stat %d: %v, want %v", i, err, want)
		}
	}
	if err := stat("other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat of another key: %v", err)
	}
	if _, err := get(t.Context(), s, "ns/there"); err != nil {
		t.Errorf("another operation: %v", err)
	}
	if err := s.Delete(t.Context(), "ns/there"); !errors.Is(err, boom) {
		t.Errorf("delete: %v, want %v", err, boom)
	}
	if err := stat("ns/there"); err != nil {
		t.Errorf("stat after Count: %v", err)
	}
	if n, m := s.Calls(Stat), s.Calls(Any); n != 4 || m != 7 {
		t.Errorf("Calls: %d of stat, %d in all; want 4, 7", n, m)
	}
	s.Inject(Fault{Op: List, Do: Unavailable()})
	for _, err := range s.List(t.Context(), "", "") {
		if !errors.Is(err, objstore.ErrUnavailable) {
			t.Errorf("list: %v", err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	s := store(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := 0
	s.Inject(Fault{Op: Stat, Count: 10, Do: Unavailable()})
	for range 50 {
		wg.Go(func() {
			remove := s.Inject(Fault{Op: Put, Do: Drop()})
			_, err := s.Stat(t.Context(), "ns/there")
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed++
			}
			remove()
		})
	}
	wg.Wait()
	if failed != 10 {
		t.Errorf("%d calls failed, want 10", failed)
	}
}
