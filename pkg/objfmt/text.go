package objfmt

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Slots, records and damage notes share one text form, so that an administrator
// can read them with getfattr and cat:
//
//	<head><version> <key>=<value> ... crc=<sum>
//
// Separators are one space (slots) or one newline (records). Keys come in a fixed
// order. The sum covers every byte before its separator. There is one encoding of
// each value: parsers re-encode what they read and refuse input that differs, so
// leading zeros, doubled fields or another order never have two readings.

// textVersion is the version of all text formats so far.
const textVersion = "1"

type textWriter struct {
	b   []byte
	sep string
}

func newText(head, sep string) *textWriter {
	b := append(make([]byte, 0, MaxSlot), head...)
	return &textWriter{b: append(b, textVersion...), sep: sep}
}

func (w *textWriter) put(key, value string) {
	w.b = append(w.b, w.sep...)
	w.b = append(w.b, key...)
	w.b = append(w.b, '=')
	w.b = append(w.b, value...)
}

// opt writes the field unless its value is empty.
func (w *textWriter) opt(key, value string) {
	if value != "" {
		w.put(key, value)
	}
}

// close appends the checksum and returns the whole text.
func (w *textWriter) close() []byte {
	w.put("crc", text64(Checksum(w.b)))
	return w.b
}

// textReader takes fields in order. The first error sticks; values are zero after it.
type textReader struct {
	rest string
	sep  string
	err  error
}

// openText checks version and checksum, in this order, and splits the fields.
func openText(head, sep, s string) (*textReader, error) {
	word, _, _ := strings.Cut(s, sep)
	version, ok := strings.CutPrefix(word, head)
	if !ok || version == "" || strings.Trim(version, "0123456789") != "" {
		return nil, fmt.Errorf("%w: begins with %.24q, want %q", ErrFormat, word, head+textVersion)
	}
	if version != textVersion {
		return nil, fmt.Errorf("%w: %.24q, want %q", ErrVersion, word, head+textVersion)
	}
	end := strings.LastIndex(s, sep+"crc=")
	if end < 0 {
		return nil, fmt.Errorf("%w: no checksum", ErrFormat)
	}
	r := &textReader{sep: sep}
	sum := r.uint64(s[end+len(sep)+len("crc="):])
	if r.err != nil {
		return nil, r.err
	}
	if have := Checksum([]byte(s[:end])); have != sum {
		return nil, fmt.Errorf("%w: have %s, want %s", ErrChecksum, text64(have), text64(sum))
	}
	if end > len(word) {
		r.rest = s[len(word)+len(sep) : end]
	}
	return r, nil
}

func (r *textReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
	}
}

// take returns the next field's value if its key is key.
func (r *textReader) take(key string) (value string, ok bool) {
	rest, ok := strings.CutPrefix(r.rest, key+"=")
	if ok {
		value, r.rest, _ = strings.Cut(rest, r.sep)
	}
	return value, ok
}

// need is take of a field that must be there.
func (r *textReader) need(key string) string {
	value, ok := r.take(key)
	if !ok {
		r.fail("no field %q where it belongs", key)
	}
	return value
}

// opt calls set with the next field's value if its key is key.
func (r *textReader) opt(key string, set func(value string)) {
	if value, ok := r.take(key); ok {
		set(value)
	}
}

// list splits a value into at least least parts and returns most of them: those
// that are missing are empty.
func (r *textReader) list(value, sep string, least, most int) []string {
	parts := strings.SplitN(value, sep, most+1)
	if len(parts) < least || len(parts) > most {
		r.fail("%.80q: want %d to %d parts", value, least, most)
		return make([]string, most)
	}
	return append(parts, make([]string, most-len(parts))...)
}

// end reports the first error, or a field that nobody took.
func (r *textReader) end() error {
	if r.err == nil && r.rest != "" {
		r.fail("unknown, repeated or misplaced field at %.80q", r.rest)
	}
	return r.err
}

// canonical refuses input that is not what the value read from it is written as.
func canonical(v interface{ Encode() ([]byte, error) }, b []byte) error {
	want, err := v.Encode()
	if err == nil && !bytes.Equal(want, b) {
		err = fmt.Errorf("%w: not as it would be written", ErrFormat)
	}
	return err
}

func (r *textReader) int64(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		r.fail("%.40q: want a number of 64 bits", s)
		return 0
	}
	return n
}

func (r *textReader) uint(s string, bits int) uint64 {
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		r.fail("%.40q: want a number of %d bits", s, bits)
		return 0
	}
	return n
}

func (r *textReader) uint32(s string) uint32 { return uint32(r.uint(s, 32)) }

func (r *textReader) octal(s string) uint32 {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil {
		r.fail("%.40q: want an octal number of 32 bits", s)
		return 0
	}
	return uint32(n)
}

// hexID reads the long form of an id, as directories name it.
func (r *textReader) hexID(s string) ID {
	id, err := ParseID(s)
	if err != nil && r.err == nil {
		r.err = err
	}
	return id
}

func (r *textReader) base64(s string, out []byte) {
	// Longer input is never decoded: the decoder would skip newlines in it.
	if len(s) != base64.RawURLEncoding.EncodedLen(len(out)) {
		r.fail("%.40q: want %d bytes in base64url", s, len(out))
		return
	}
	if _, err := base64.RawURLEncoding.Strict().Decode(out, []byte(s)); err != nil {
		r.fail("%.40q: want %d bytes in base64url", s, len(out))
	}
}

func (r *textReader) uint64(s string) uint64 {
	var b [8]byte
	r.base64(s, b[:])
	return binary.BigEndian.Uint64(b[:])
}

func (r *textReader) id(s string) (id ID) {
	r.base64(s, id[:])
	return id
}

func (r *textReader) time(s string) time.Time {
	p := r.list(s, ".", 2, 2)
	sec, nsec := r.int64(p[0]), r.int64(p[1])
	if nsec < 0 || nsec > 999_999_999 {
		r.fail("%.40q: want seconds.nanoseconds", s)
	}
	return time.Unix(sec, nsec).UTC()
}

// text64 and textID write 64 and 128 bits in base64url: hexadecimal ids would
// not leave a slot room for names of 63 bytes.
func text64(n uint64) string {
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, n))
}

func textID(id ID) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// hexID is the id as directories name it, or nothing.
func hexID(id ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func formatUint(n uint64) string { return strconv.FormatUint(n, 10) }

func textTime(t time.Time) string {
	b := strconv.AppendInt(make([]byte, 0, 32), t.Unix(), 10)
	at := len(b)
	b = strconv.AppendInt(b, int64(1e9+t.Nanosecond()), 10) // ten digits: nine after the first
	b[at] = '.'
	return string(b)
}

// escape makes any bytes one printable line: bytes that are not printable ASCII,
// and %, become %XX (upper-case).
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

func (r *textReader) unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		n, err := strconv.ParseUint(s[i+1:min(i+3, len(s))], 16, 8)
		if err != nil {
			r.fail("bad escape in %.80q", s)
			return ""
		}
		b = append(b, byte(n))
		i += 2
	}
	return string(b)
}
