package objfmt

import (
	"fmt"
	"strconv"
	"strings"
)

// RecordPart is where in a file a record is. A file that holds many records has a
// name for each of them, which ends with its part; what follows after a dot is not
// of it. A name without a part is that of a file which is one record.
type RecordPart struct {
	Off int64
	Len int
}

// maxShared bounds where in a file a record can begin.
const maxShared = 1 << 32

// Name returns base with the part.
func (p RecordPart) Name(base string) string {
	b := append(make([]byte, 0, len(base)+20), base...)
	b = strconv.AppendInt(append(b, '+'), p.Off, 10)
	return string(strconv.AppendInt(append(b, '+'), int64(p.Len), 10))
}

// ParseRecordPart reads the part in a record's name, when it has one.
func ParseRecordPart(name string) (p RecordPart, shared bool, err error) {
	_, text, shared := strings.Cut(name, "+")
	if !shared {
		return p, false, nil
	}
	text, _, _ = strings.Cut(text, ".")
	off, n, _ := strings.Cut(text, "+")
	p.Off, err = strconv.ParseInt(off, 10, 64)
	if err == nil {
		p.Len, err = strconv.Atoi(n)
	}
	if err != nil || p.Off < 0 || p.Off > maxShared || p.Len < 1 || p.Len > MaxRecord || p.Name("") != "+"+text {
		return RecordPart{}, true, fmt.Errorf("%w: %q does not say where the record is", ErrFormat, name)
	}
	return p, true, nil
}
