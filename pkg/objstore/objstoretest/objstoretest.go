// Package objstoretest is the conformance suite of objstore.Store. Every store,
// and everything built of stores, passes it:
//
//	func TestConformance(t *testing.T) {
//		objstoretest.Run(t, func(t *testing.T) objstore.Store { return open(t) }, objstoretest.Options{})
//	}
package objstoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/errgroup"

	"marfs/pkg/objstore"
)

// Options fit the suite to a store.
type Options struct {
	// PartSize is where the store begins to do something else (a second part,
	// stripe or chunk): sizes around it and its multiples are tried. 0: 1 MiB.
	PartSize int64
	// SkipConcurrentReplace is for stores that only promise that concurrent Puts
	// of one key are detected, not that one of them wins.
	SkipConcurrentReplace bool
}

// Run tests the stores that open makes: an empty one for each call.
func Run(t *testing.T, open func(t *testing.T) objstore.Store, o Options) {
	if o.PartSize == 0 {
		o.PartSize = 1 << 20
	}
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"Sizes", (*suite).sizes},
		{"Readers", (*suite).readers},
		{"FailingReader", (*suite).failingReader},
		{"WrongSize", (*suite).wrongSize},
		{"Replace", (*suite).replace},
		{"ConcurrentPuts", (*suite).concurrentPuts},
		{"Ranges", (*suite).ranges},
		{"ManyReaders", (*suite).manyReaders},
		{"Stat", (*suite).stat},
		{"Delete", (*suite).delete},
		{"Missing", (*suite).missing},
		{"BadCalls", (*suite).badCalls},
		{"ListOrder", (*suite).listOrder},
		{"ListPages", (*suite).listPages},
		{"ListStops", (*suite).listStops},
		{"Canceled", (*suite).canceled},
		{"CancelInPut", (*suite).cancelInPut},
		{"Peek", (*suite).peek},
		{"CancelInGet", (*suite).cancelInGet},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(&suite{T: t, Options: o, store: open(t)})
		})
	}
}

// suite is one test on one fresh store.
type suite struct {
	*testing.T
	Options
	store objstore.Store
}

// ctx is the test's context (testing.T.Context, named shorter).
func (s *suite) ctx() context.Context { return s.Context() }

func (s *suite) mustPut(key string, data []byte) {
	s.Helper()
	if err := s.store.Put(s.ctx(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		s.Fatalf("put %s, %d bytes: %v", key, len(data), err)
	}
}

// putMany stores a short object under each key, some at a time.
func (s *suite) putMany(keys []string) {
	s.Helper()
	g, ctx := errgroup.WithContext(s.ctx())
	g.SetLimit(8)
	for _, key := range keys {
		g.Go(func() error { return s.store.Put(ctx, key, bytes.NewReader([]byte(key)), int64(len(key))) })
	}
	if err := g.Wait(); err != nil {
		s.Fatal(err)
	}
}

func (s *suite) get(ctx context.Context, key string, off, n int64) ([]byte, error) {
	r, err := s.store.Get(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// wantContent checks the whole object, by Get and Stat.
func (s *suite) wantContent(key string, want []byte) {
	s.Helper()
	got, err := s.get(s.ctx(), key, 0, -1)
	if err != nil {
		s.Fatalf("get %s: %v", key, err)
	}
	if d := diff(got, want); d != "" {
		s.Fatalf("get %s: %s", key, d)
	}
	info, err := s.store.Stat(s.ctx(), key)
	if err != nil || info.Size != int64(len(want)) || info.Key != key {
		s.Fatalf("stat %s: %+v, %v; want %d bytes", key, info, err, len(want))
	}
}

// wantAbsent checks that no call sees the object.
func (s *suite) wantAbsent(key string) {
	s.Helper()
	if _, err := s.get(s.ctx(), key, 0, -1); !errors.Is(err, fs.ErrNotExist) {
		s.Errorf("get %s: %v, want ErrNotExist", key, err)
	}
	if _, err := s.store.Stat(s.ctx(), key); !errors.Is(err, fs.ErrNotExist) {
		s.Errorf("stat %s: %v, want ErrNotExist", key, err)
	}
	for info, err := range s.store.List(s.ctx(), "", "") {
		if err != nil || info.Key == key {
			s.Errorf("list: %+v, %v; %s must not be there", info, err, key)
		}
	}
}

// wantErr checks that err is, or wraps, want.
func (s *suite) wantErr(what string, err error, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: error %v, want one that is %q", what, err, want)
	}
}

// content returns n bytes that differ between seeds and positions.
func content(seed byte, n int64) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data) // never fails
	return data
}

func diff(got, want []byte) string {
	if bytes.Equal(got, want) {
		return ""
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("%d bytes, want %d; first difference at %d", len(got), len(want), i)
		}
	}
	return fmt.Sprintf("%d bytes, want %d; equal as far as both go", len(got), len(want))
}
