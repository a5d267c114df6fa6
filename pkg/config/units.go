package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written with a unit: 64KiB, 10TB. A bare number is bytes.
type Size int64

// Count is a number of things, written with a decimal suffix: 500, 20k, 10M, 2G.
type Count int64

// Duration is a length of time, written largest unit first: 30d, 1h30m, 500ms.
// A day is 24 hours.
type Duration time.Duration

// unit is one suffix and what it stands for.
type unit struct {
	suffix string
	factor int64
}

// sizeUnits are ordered as [Size.String] tries them: the binary ones first, so
// that 1073741824 reads as 1GiB.
var sizeUnits = []unit{
	{"EiB", 1 << 60}, {"PiB", 1 << 50}, {"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"EB", 1e18}, {"PB", 1e15}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
}

var countUnits = []unit{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}, {"", 1}}

var durationUnits = []unit{
	{"d", int64(24 * time.Hour)}, {"h", int64(time.Hour)}, {"m", int64(time.Minute)},
	{"s", int64(time.Second)}, {"ms", int64(time.Millisecond)},
}

var (
	errSize     = errors.New("is not a size: want a whole number and a unit")
	errCount    = errors.New("is not a count: want a whole number, perhaps with k, M or G")
	errDuration = errors.New("is not a duration: want whole numbers and units, largest first")
	errTooBig   = errors.New("is too big")
)

const (
	hintSize     = "units are B, kB MB GB TB PB (powers of 1000) and KiB MiB GiB TiB PiB (powers of 1024): 512KiB, 10TB"
	hintCount    = "for example 500, 20k, 10M"
	hintDuration = "units are d, h, m, s and ms: 30d, 12h, 1h30m, 500ms"
)

// ParseSize reads the text form of a size.
func ParseSize(s string) (Size, error) {
	n, suffix, err := number(s, errSize)
	if err != nil {
		return 0, err
	}
	if suffix == "" {
		return Size(n), nil
	}
	v, err := scale(n, suffix, sizeUnits, errSize)
	return Size(v), err
}

func (s Size) String() string {
	if s == 0 {
		return "0B"
	}
	return format(int64(s), sizeUnits)
}

// ParseCount reads the text form of a count.
func ParseCount(s string) (Count, error) {
	n, suffix, err := number(s, errCount)
	if err != nil {
		return 0, err
	}
	v, err := scale(n, suffix, countUnits, errCount)
	return Count(v), err
}

func (c Count) String() string { return format(int64(c), countUnits) }

// ParseDuration reads the text form of a duration. There are no negative ones.
func ParseDuration(s string) (Duration, error) {
	if s == "0" {
		return 0, nil
	}
	var total int64
	for units := durationUnits; ; {
		n, rest, err := number(s, errDuration)
		if err != nil {
			return 0, err
		}
		end := strings.IndexAny(rest, "0123456789")
		if end < 0 {
			end = len(rest)
		}
		v, err := scale(n, rest[:end], units, errDuration)
		if err != nil {
			return 0, err
		}
		if total > math.MaxInt64-v {
			return 0, errTooBig
		}
		total += v
		if end == len(rest) {
			return Duration(total), nil
		}
		units = below(units, rest[:end])
		s = rest[end:]
	}
}

func (d Duration) String() string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	rest := int64(d)
	for _, u := range durationUnits {
		if n := rest / u.factor; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.suffix)
			rest -= n * u.factor
		}
	}
	return b.String()
}

// Std is the duration as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// number splits s into its leading decimal digits and the rest.
func number(s string, bad error) (n int64, rest string, err error) {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	if end == 0 {
		return 0, "", bad
	}
	n, err = strconv.ParseInt(s[:end], 10, 64)
	if err != nil { // only ErrRange is left
		return 0, "", errTooBig
	}
	return n, strings.TrimLeft(s[end:], " "), nil
}

func scale(n int64, suffix string, units []unit, bad error) (int64, error) {
	for _, u := range units {
		if u.suffix != suffix {
			continue
		}
		if n > math.MaxInt64/u.factor {
			return 0, errTooBig
		}
		return n * u.factor, nil
	}
	return 0, bad
}

// below returns the units smaller than the one with this suffix.
func below(units []unit, suffix string) []unit {
	for i, u := range units {
		if u.suffix == suffix {
			return units[i+1:]
		}
	}
	return nil
}

// format writes n with the first unit that divides it.
func format(n int64, units []unit) string {
	if n != 0 {
		for _, u := range units {
			if n%u.factor == 0 {
				return strconv.FormatInt(n/u.factor, 10) + u.suffix
			}
		}
	}
	return "0"
}

// The text forms, for the decoder and for [Config.Effective].

func (s *Size) parse(text string) error     { return assign(s, text, ParseSize) }
func (c *Count) parse(text string) error    { return assign(c, text, ParseCount) }
func (d *Duration) parse(text string) error { return assign(d, text, ParseDuration) }

// assign keeps the default when the text is wrong, so that a mistake is not
// reported again by the rules between keys.
func assign[T any](to *T, text string, parse func(string) (T, error)) error {
	v, err := parse(text)
	if err == nil {
		*to = v
	}
	return err
}

func (*Size) hint() string     { return hintSize }
func (*Count) hint() string    { return hintCount }
func (*Duration) hint() string { return hintDuration }

// MarshalYAML writes a size as the file does.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

// MarshalYAML writes a duration as the file does.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// MarshalYAML writes a count as the file does, unquoted when it is a plain number.
func (c Count) MarshalYAML() (any, error) {
	if n, err := strconv.Atoi(c.String()); err == nil {
		return n, nil
	}
	return c.String(), nil
}
