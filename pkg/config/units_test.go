package config

import (
	"testing"
	"time"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "512": 512, "1B": 1, "64KiB": 64 << 10, "1MiB": 1 << 20, "3GiB": 3 << 30, "100TiB": 100 << 40,
		"1kB": 1000, "10TB": 1e13, "2 GiB": 2 << 30, "7EiB": 7 << 60, "9223372036854775807": 1<<63 - 1,
	} {
		have, err := ParseSize(text)
		if err != nil || have != want {
			t.Errorf("%s: have %d, %v, want %d", text, have, err, want)
		}
		if again, err := ParseSize(have.String()); err != nil || again != have {
			t.Errorf("%s: written as %s, reads as %d, %v", text, have, again, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "1mib", "1KB", "1 MiB x", "8EiB", "9223372036854775808", "1e3", "0x10", "１MiB"} {
		if have, err := ParseSize(text); err == nil {
			t.Errorf("%q: accepted as %d", text, have)
		}
	}
}

func TestCounts(t *testing.T) {
	for text, want := range map[string]Count{"0": 0, "7": 7, "20k": 20000, "10M": 1e7, "2G": 2e9} {
		have, err := ParseCount(text)
		if err != nil || have != want || have.String() != text {
			t.Errorf("%s: have %v, %v", text, have, err)
		}
	}
	for _, text := range []string{"", "k", "-1", "1K", "1Ki", "1.5M", "10000000000G"} {
		if have, err := ParseCount(text); err == nil {
			t.Errorf("%q: accepted as %d", text, have)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0s": 0, "5s": 5 * time.Second, "1m": time.Minute, "12h": 12 * time.Hour, "30d": 720 * time.Hour,
		"1h30m": 90 * time.Minute, "1d12h": 36 * time.Hour, "500ms": time.Second / 2, "1m500ms": time.Minute + time.Second/2,
	} {
		have, err := ParseDuration(text)
		if err != nil || have.Std() != want || have.String() != text {
			t.Errorf("%s: have %v, %v", text, have, err)
		}
	}
	for _, text := range []string{"", "s", "5", "-1s", "1.5h", "30m1h", "1m1m", "1s x", "1w", "200000d", "106751d24h", "99999999999999999999s"} {
		if have, err := ParseDuration(text); err == nil {
			t.Errorf("%q: accepted as %v", text, have)
		}
	}
}
