package dirstore

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// The benchmarks move 64 MiB and 4 KiB objects; "raw" is the least that is as
// durable: a temporary file, fsync, rename, fsync of the directory.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 20} {
		data := make([]byte, size)
		dir := b.TempDir()
		b.Run(fmt.Sprintf("%dKiB/raw", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for i := range b.N {
				tmp, name := filepath.Join(dir, "tmp"), filepath.Join(dir, fmt.Sprintf("r%d", i%8))
				if err := rawPut(dir, tmp, name, data); err != nil {
					b.Fatal(err)
				}
			}
		})
		s, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		b.Run(fmt.Sprintf("%dKiB/store", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for i := range b.N {
				if err := s.Put(b.Context(), fmt.Sprintf("ns/7f/k%d", i%8), bytes.NewReader(data), -1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func rawPut(dir, tmp, name string, data []byte) error {
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func BenchmarkGet(b *testing.B) {
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for _, size := range []int{4 << 10, 64 << 20} {
		key := fmt.Sprintf("ns/7f/k%d", size)
		if err := s.Put(b.Context(), key, bytes.NewReader(make([]byte, size)), -1); err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, min(size, 1<<20))
		read := func(r io.ReadCloser, err error) {
			for err == nil {
				_, err = r.Read(buf)
			}
			if err != io.EOF {
				b.Fatal(err)
			}
			r.Close()
		}
		b.Run(fmt.Sprintf("%dKiB/raw", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				f, err := s.root.Open(key)
				read(f, err)
			}
		})
		b.Run(fmt.Sprintf("%dKiB/store", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				r, err := s.Get(b.Context(), key, 0, -1)
				read(r, err)
			}
		})
	}
}
