package trash

import (
	"errors"
	"slices"
)

// Failures groups errors by their cause, in bounded memory.
type Failures struct {
	Count  int64
	Groups []FailureGroup // by first appearance
}

// FailureGroup is errors of one cause.
type FailureGroup struct {
	Cause   string
	Count   int64
	Samples []error // the first few
}

// Bounds of what is kept of failures.
const (
	maxGroups  = 20
	maxSamples = 3
)

const otherCauses = "other causes"

// Add counts an error.
func (f *Failures) Add(err error) {
	f.Count++
	g := f.group(cause(err))
	g.Count++
	if len(g.Samples) < maxSamples {
		g.Samples = append(g.Samples, err)
	}
}

func (f *Failures) group(cause string) *FailureGroup {
	at := func() int { return slices.IndexFunc(f.Groups, func(g FailureGroup) bool { return g.Cause == cause }) }
	if at() < 0 && len(f.Groups) >= maxGroups {
		cause = otherCauses
	}
	if at() < 0 {
		f.Groups = append(f.Groups, FailureGroup{Cause: cause})
	}
	return &f.Groups[at()]
}

// Merge adds those of another.
func (f *Failures) Merge(other Failures) {
	f.Count += other.Count
	for _, o := range other.Groups {
		g := f.group(o.Cause)
		g.Count += o.Count
		g.Samples = append(g.Samples, o.Samples[:min(len(o.Samples), maxSamples-len(g.Samples))]...)
	}
}

// cause is the innermost error, which is the same for many entries.
func cause(err error) string {
	for {
		next := errors.Unwrap(err)
		if several, ok := err.(interface{ Unwrap() []error }); ok && len(several.Unwrap()) > 0 {
			next = several.Unwrap()[0]
		}
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// flat lists the errors that others join.
func flat(err error) []error {
	if err == nil {
		return nil
	}
	several, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(several.Unwrap()...).Error() != err.Error() {
		return []error{err}
	}
	var list []error
	for _, e := range several.Unwrap() {
		list = append(list, flat(e)...)
	}
	return list
}
