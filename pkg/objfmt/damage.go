package objfmt

import (
	"fmt"
	"strconv"
	"strings"
)

// Damage says which shards of an object are missing, bad or stale. It is a file in
// degraded/: the object needs rebuilding.
type Damage struct {
	Object ObjectRef
	Shards []int // rising
	Why    string
}

const (
	damageHead = "marfs damage v"
	maxDamage  = 1 << 15 // bytes, encoded
)

// Encode returns the note's text. It refuses notes that ParseDamage would refuse.
func (d Damage) Encode() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("damage: %w", err)
	}
	shards := make([]string, len(d.Shards))
	for i, n := range d.Shards {
		shards[i] = strconv.Itoa(n)
	}
	w := newText(damageHead, "\n")
	w.put("object", textObject(d.Object.Object, d.Object.Chunk))
	w.put("at", textLayout(d.Object.Layout))
	w.put("shards", strings.Join(shards, ","))
	w.opt("why", escape(d.Why))
	return append(w.close(), '\n'), nil
}

// ParseDamage reads a note.
func ParseDamage(b []byte) (Damage, error) {
	d, err := parseDamage(b)
	if err != nil {
		return Damage{}, fmt.Errorf("damage: %w", err)
	}
	return d, nil
}

func parseDamage(b []byte) (d Damage, err error) {
	if len(b) > maxDamage {
		return Damage{}, fmt.Errorf("%w: %d bytes, want at most %d", ErrFormat, len(b), maxDamage)
	}
	t, err := openText(damageHead, "\n", strings.TrimSuffix(string(b), "\n"))
	if err != nil {
		return Damage{}, err
	}
	d.Object.Object, d.Object.Chunk = t.object(t.need("object"))
	d.Object.Layout = t.layout(t.need("at"))
	for n := range strings.SplitSeq(t.need("shards"), ",") {
		d.Shards = append(d.Shards, int(t.uint32(n)))
	}
	t.opt("why", func(s string) { d.Why = t.unescape(s) })
	if err := t.end(); err != nil {
		return Damage{}, err
	}
	return d, canonical(d, b)
}

func (d Damage) check() error {
	if err := checkRef(d.Object); err != nil {
		return err
	}
	if len(d.Shards) == 0 {
		return fmt.Errorf("%w: no shards", ErrFormat)
	}
	for i, n := range d.Shards {
		if n < 0 || n >= d.Object.Geometry.Shards() || i > 0 && n <= d.Shards[i-1] {
			return fmt.Errorf("%w: shards %v of %d+%d", ErrFormat, d.Shards, d.Object.Data, d.Object.Parity)
		}
	}
	if len(d.Why) > MaxWhy {
		return fmt.Errorf("%w: reason of %d bytes, want at most %d", ErrFormat, len(d.Why), MaxWhy)
	}
	return nil
}
