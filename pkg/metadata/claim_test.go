package metadata

import (
	"os"
	"testing"
)

// One packer at a time for what an instance has staged; others' are not in the way.
func TestClaim(t *testing.T) {
	w := newWorld(t)
	other := w.node("node2")
	instance := [4]byte{0xff, 0xff, 0xff, 0xff}
	claim := func(f *FS, instance [4]byte, want bool) (release func()) {
		t.Helper()
		release, ok, err := f.Claim(ctx, instance)
		if w.must(err); ok != want {
			t.Errorf("claim of %x: %t, want %t", instance, ok, want)
		}
		return release
	}
	release := claim(w.FS, instance, true)
	claim(w.FS, instance, false)
	claim(other, instance, false)
	claim(other, other.Instance(), true)
	release()
	claim(other, instance, true)
	if ok, err := claimByte(lockless{}, instance); !ok || err != nil {
		t.Errorf("without locks: %t, %v", ok, err)
	}
	st, err := os.Stat(w.root + "/packs/claims")
	if w.must(err); st.Mode() != 0o600 || st.Size() != 0 {
		t.Errorf("packs/claims: %v, %d bytes", st.Mode(), st.Size())
	}
}
