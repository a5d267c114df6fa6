package objfmt

import (
	"errors"
	"testing"
)

func TestRecordPart(t *testing.T) {
	for _, c := range []struct {
		name   string
		part   RecordPart
		shared bool
	}{
		{"01ab-0123", RecordPart{}, false},
		{"01ab-0123.00000001", RecordPart{}, false},
		{"01ab-0123+0+228", RecordPart{0, 228}, true},
		{"d.01ab-0123+1048576+1048576.00000001", RecordPart{1 << 20, 1 << 20}, true},
	} {
		p, shared, err := ParseRecordPart(c.name)
		if err != nil || p != c.part || shared != c.shared {
			t.Errorf("%s: %v, %v, %v", c.name, p, shared, err)
		}
	}
	if got := (RecordPart{7, 8}).Name("x"); got != "x+7+8" {
		t.Error(got)
	}
	for _, name := range []string{"x+", "x+1", "x+1+", "x+1+0", "x+01+1", "x+1+01", "x+-1+1", "x+1+1048577", "x+4294967297+1", "x+1+1+1", "x+ 1+1", "x++1+1"} {
		if p, _, err := ParseRecordPart(name); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}
