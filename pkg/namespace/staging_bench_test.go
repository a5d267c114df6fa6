package namespace_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
)

// BenchmarkStaged makes small files as a program on the mount does: create, write,
// close.
func BenchmarkStaged(b *testing.B) {
	for _, lazy := range []bool{false, true} {
		b.Run(fmt.Sprintf("lazy=%t", lazy), func(b *testing.B) {
			w := stagingWorld(b)
			w.lazy = lazy
			d := dir(b, w.node("a"), "/proj")
			content := random(1, 4096)
			for i := 0; b.Loop(); i++ {
				f, _, err := d.Create(ctx, me, fmt.Sprint("f", i), syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, 0o644)
				if err != nil {
					b.Fatal(err)
				}
				_, err = f.WriteAt(ctx, me, content, 0)
				if err := errors.Join(err, f.Flush(ctx), f.Close()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
