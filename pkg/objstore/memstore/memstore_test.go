package memstore_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"marfs/pkg/objstore"
	"marfs/pkg/objstore/memstore"
	"marfs/pkg/objstore/objstoretest"
)

func TestConformance(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Store { return memstore.New() }, objstoretest.Options{})
}

func TestMaxCountsWhatIsStored(t *testing.T) {
	s := &memstore.Store{Max: 100}
	put := func(key string, n int) error {
		return s.Put(t.Context(), key, bytes.NewReader(make([]byte, n)), int64(n))
	}
	if err := put("a", 60); err != nil {
		t.Fatal(err)
	}
	if err := put("b", 60); !errors.Is(err, objstore.ErrNoSpace) {
		t.Fatalf("put beyond Max: %v, want ErrNoSpace", err)
	}
	if err := put("a", 100); err != nil {
		t.Fatalf("replacing within Max: %v", err)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "b", strings.NewReader("x"), -1); err != nil {
		t.Fatalf("put after delete: %v", err)
	}
}
