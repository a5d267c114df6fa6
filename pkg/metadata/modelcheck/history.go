package modelcheck

import (
	"fmt"
	"slices"
	"strings"

	"marfs/pkg/objfmt"
)

// A content is told as a string of letters, one per cell.
const cellSize = 512

func bytesOf(cells string) []byte {
	b := make([]byte, 0, len(cells)*cellSize)
	for _, c := range []byte(cells) {
		if c == '0' {
			c = 0
		}
		for range cellSize {
			b = append(b, c)
		}
	}
	return b
}

// cellsOf is the inverse: '0' is a cell of zeros, '?' a mixed or partial one.
func cellsOf(b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		cell := b[:min(cellSize, len(b))]
		b = b[len(cell):]
		c := cell[0]
		for _, x := range cell {
			if x != c || len(cell) < cellSize {
				c = '?'
			}
		}
		if c == 0 {
			c = '0'
		}
		s.WriteByte(c)
	}
	return s.String()
}

// change is what one write makes of a content.
type change struct {
	what  string
	apply func(cells string) string
}

func replaceBy(cells string) change {
	return change{"replace by " + cells, func(string) string { return cells }}
}

func setCell(i int, c byte) change {
	return change{fmt.Sprintf("set cell %d to %c", i, c), func(s string) string {
		b := []byte(s + strings.Repeat("0", max(0, i+1-len(s))))
		b[i] = c
		return string(b)
	}}
}

func appendCell(c byte) change {
	return change{fmt.Sprintf("append %c", c), func(s string) string { return s + string(c) }}
}

func cutTo(n int) change {
	return change{fmt.Sprintf("cut to %d", n), func(s string) string {
		return (s + strings.Repeat("0", max(0, n-len(s))))[:n]
	}}
}

type fate uint8

const (
	unknown fate = iota // not answered: killed, or still at it
	acked
	failed
)

// op is one attempt to change a file.
type op struct {
	file       objfmt.ID
	by         string
	change     change
	fate       fate
	start, end int // in the order of starts and answers
}

// history is what was asked of files, and what was answered.
type history struct {
	files map[objfmt.ID]string          // before
	past  map[objfmt.ID]map[string]bool // older contents
	ops   []*op
	now   int
}

func (h *history) start(file objfmt.ID, by string, c change) *op {
	h.now++
	o := &op{file: file, by: by, change: c, start: h.now}
	h.ops = append(h.ops, o)
	return o
}

func (h *history) answer(o *op, err error) {
	h.now++
	if o.end, o.fate = h.now, acked; err != nil {
		o.fate = failed
	}
}

func (h *history) hash() uint64 {
	sum := uint64(len(h.ops))
	for _, o := range h.ops {
		sum = mix(sum, uint64(o.start)<<32|uint64(o.end)<<8|uint64(o.fate))
		for _, c := range []byte(o.by) {
			sum = mix(sum, uint64(c))
		}
	}
	return sum
}

// outcome is a content a file may have in the end, and one it may have had.
type outcome struct{ last, ever map[string]bool }

// outcomes computes what the answers allow: every order of the acknowledged
// changes, and any of the unanswered ones, in which none comes before one that
// was answered before it began. A change that was refused may have been seen,
// but is never the last: it would displace what was acknowledged.
func (h *history) outcomes(file objfmt.ID) outcome {
	out := outcome{map[string]bool{}, map[string]bool{}}
	var ops []*op
	for _, o := range h.ops {
		if o.file == file {
			ops = append(ops, o)
		}
	}
	var extend func(cells string, left []*op, refusedLast bool)
	extend = func(cells string, left []*op, refusedLast bool) {
		out.ever[cells] = true
		if !refusedLast && !slices.ContainsFunc(left, func(o *op) bool { return o.fate == acked }) {
			out.last[cells] = true
		}
		for i, o := range left {
			if slices.ContainsFunc(left, func(p *op) bool { return p.fate == acked && p.end < o.start }) {
				continue
			}
			rest := slices.Delete(slices.Clone(left), i, i+1)
			extend(o.change.apply(cells), rest, o.fate == failed)
		}
	}
	extend(h.files[file], ops, false)
	return out
}

// onlyAppends reports whether all that was done to a file was to append to it.
func (h *history) onlyAppends(file objfmt.ID) bool {
	all, any := true, false
	for _, o := range h.ops {
		if o.file == file {
			any = true
			all = all && strings.HasPrefix(o.change.what, "append")
		}
	}
	return all && any
}

// nothingAcked reports whether no content of a file was ever acknowledged.
func (h *history) nothingAcked(file objfmt.ID) bool {
	_, old := h.files[file]
	return !old && !slices.ContainsFunc(h.ops, func(o *op) bool { return o.file == file && o.fate == acked })
}

// had reports whether a file ever held a content, before or since the start.
func (h *history) had(file objfmt.ID, cells string) bool {
	return h.past[file][cells] || h.outcomes(file).ever[cells]
}

// certain is a file's content when everything was answered in order.
func (h *history) certain(file objfmt.ID) string {
	cells := h.files[file]
	for _, o := range h.ops {
		if o.file == file && o.fate == acked {
			cells = o.change.apply(cells)
		}
	}
	return cells
}

// tell lists a file's history for people.
func (h *history) tell(file objfmt.ID) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q", h.files[file])
	for _, o := range h.ops {
		if o.file == file {
			fmt.Fprintf(&b, "; %s: %s, %s", o.by, o.change.what, [...]string{"unanswered", "acknowledged", "refused"}[o.fate])
		}
	}
	return b.String()
}
