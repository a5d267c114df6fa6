package fault

import (
	"errors"
	"slices"
	"testing"
)

var (
	one = New("test.one")
	two = New("test.two")
)

func run(s *Step) (done bool, err error) {
	err = s.Do(func() error { done = true; return nil })
	return done, err
}

func TestUnarmed(t *testing.T) {
	if done, err := run(one); !done || err != nil {
		t.Errorf("done %v, %v", done, err)
	}
	own := errors.New("own")
	if err := one.Do(func() error { return own }); err != own {
		t.Errorf("error %v", err)
	}
}

func TestArmed(t *testing.T) {
	tests := []struct {
		spec  string
		done  []bool // of one, one, two
		fails []bool
	}{
		{"test.one.before=error", []bool{false, true, true}, []bool{true, false, false}},
		{"test.one.after=error", []bool{true, true, true}, []bool{true, false, false}},
		{"test.one.before=error:2", []bool{true, false, true}, []bool{false, true, false}},
		{"test.one.after=dead", []bool{true, false, false}, []bool{true, true, true}},
		{"test.two.before=dead", []bool{true, true, false}, []bool{false, false, true}},
	}
	for _, tt := range tests {
		disarm, err := Arm(tt.spec)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range []*Step{one, one, two} {
			done, err := run(s)
			if done != tt.done[i] || (err != nil) != tt.fails[i] || err != nil && !errors.Is(err, ErrInjected) {
				t.Errorf("%s: step %d: done %v, %v", tt.spec, i, done, err)
			}
		}
		if !disarm() {
			t.Errorf("%s: not hit", tt.spec)
		}
	}
	if disarm, _ := Arm("test.one.before=error:9"); disarm() {
		t.Error("a point that was not reached counts as hit")
	}
}

func TestArmRefuses(t *testing.T) {
	for _, spec := range []string{"", "test.one.before", "x=explode", "x=error:0", "x=error:y", "x=error:-1"} {
		if _, err := Arm(spec); err == nil {
			t.Errorf("%q was accepted", spec)
		}
	}
}

func TestTrace(t *testing.T) {
	stop := Trace()
	for _, s := range []*Step{one, two, one} {
		if done, err := run(s); !done || err != nil {
			t.Errorf("done %v, %v", done, err)
		}
	}
	seen := stop()
	if seen["test.one.before"] != 2 || seen["test.two.after"] != 1 {
		t.Errorf("seen %v", seen)
	}
}

func TestNames(t *testing.T) {
	names := Names()
	if !slices.IsSorted(names) || !slices.Contains(names, "test.one.before") || !slices.Contains(names, "test.two.after") {
		t.Errorf("names %v", names)
	}
}

func BenchmarkUnarmed(b *testing.B) {
	for b.Loop() {
		_ = one.Do(func() error { return nil })
	}
}
