package trash

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"time"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// Why something is destroyed.
type Why string

// The reasons.
const (
	WhyAge       Why = "age"       // older than Keep and Grace
	WhyPurged    Why = "purged"    // let go by its owner, and older than Grace
	WhyPressure  Why = "pressure"  // of the oldest, while there is more than MaxBytes
	WhyAbandoned Why = "abandoned" // left by a process that is no more
)

// What is destroyed.
type What string

// The kinds of things.
const (
	WhatFile      What = "file"
	WhatVersion   What = "version"
	WhatDir       What = "dir"
	WhatLink      What = "link" // symbolic links, fifos, sockets and devices
	WhatPack      What = "pack"
	WhatRecord    What = "record"    // nothing but a record, of what lives or is gone
	WhatAbandoned What = "abandoned" // unfinished writes and other leftovers
)

func whatOf(k objfmt.RecordKind) What {
	switch k {
	case objfmt.RecordFile:
		return WhatFile
	case objfmt.RecordVersion:
		return WhatVersion
	case objfmt.RecordDir:
		return WhatDir
	case objfmt.RecordSymlink, objfmt.RecordSpecial:
		return WhatLink
	case objfmt.RecordPack:
		return WhatPack
	}
	return WhatAbandoned
}

// Candidate is an entry that would be destroyed.
type Candidate struct {
	Entry
	What What
	Why  Why
}

// Row sums what is destroyed of one kind for one reason.
type Row struct {
	What    What
	Why     Why
	Entries int64
	Bytes   int64     // of content
	Oldest  time.Time // when the oldest was removed or replaced
}

// rows adds up by kind and reason.
type rows map[[2]string]*Row

func (m rows) add(what What, why Why, bytes int64, when time.Time) {
	key := [2]string{string(what), string(why)}
	r := m[key]
	if r == nil {
		r = &Row{What: what, Why: why, Oldest: when}
		m[key] = r
	}
	r.Entries++
	r.Bytes += bytes
	if when.Before(r.Oldest) {
		r.Oldest = when
	}
}

// The order of rows.
var (
	kinds   = []What{WhatFile, WhatVersion, WhatDir, WhatLink, WhatPack, WhatRecord, WhatAbandoned}
	reasons = []Why{WhyAge, WhyPurged, WhyPressure, WhyAbandoned}
)

func (m rows) sorted() []Row {
	list := make([]Row, 0, len(m))
	for _, r := range m {
		list = append(list, *r)
	}
	slices.SortFunc(list, func(a, b Row) int {
		if d := slices.Index(kinds, a.What) - slices.Index(kinds, b.What); d != 0 {
			return d
		}
		return slices.Index(reasons, a.Why) - slices.Index(reasons, b.Why)
	})
	return list
}

// limits are the times before which entries go, by reason.
type limits struct {
	age, pressure time.Time // of records in days
	floor         time.Time // of purged ones; no other limit is later
}

// before is the latest limit for the records of a day, or of PurgedDay.
func (l limits) before(day string) time.Time {
	switch {
	case day == metadata.PurgedDay:
		return l.floor
	case l.pressure.After(l.age):
		return l.pressure
	}
	return l.age
}

// why tells why an entry of that age goes, if it does.
func (l limits) why(day string, since time.Time) (why Why, goes bool) {
	switch {
	case !since.Before(l.before(day)):
		return "", false
	case day == metadata.PurgedDay:
		return WhyPurged, true
	case since.Before(l.age):
		return WhyAge, true
	}
	return WhyPressure, true
}

// limits decides what goes. Only MaxBytes needs a look at what is young.
func (k *collection) limits(ctx context.Context) (limits, error) {
	p := k.trash.Policy
	l := limits{floor: k.now.Add(-p.Grace), age: k.now.Add(-max(p.Keep, p.Grace))}
	if p.MaxBytes <= 0 {
		return l, nil
	}
	h := histogram{now: k.now, bytes: map[int64]int64{}}
	days, err := k.trash.Meta.TrashDays(ctx)
	if err != nil {
		return l, err
	}
	for _, day := range days {
		if day == metadata.PurgedDay {
			continue // on its way out: it presses nothing else out
		}
		for e, err := range k.entries(ctx, day) {
			if ctx.Err() != nil {
				return l, ctx.Err()
			}
			if err == nil && !e.since.Before(l.age) {
				h.add(e.since, e.Size)
			}
		}
	}
	if cut := h.cut(p.MaxBytes); cut.Before(l.floor) {
		l.pressure = cut
	} else {
		l.pressure = l.floor
	}
	return l, nil
}

// histogram sums bytes by time: by minute for the last two days, by hour before.
// So pressure frees up to an hour's (or a minute's) worth more than it must.
type histogram struct {
	now   time.Time
	bytes map[int64]int64 // by the second where the bucket begins; bounded by the age of the oldest
}

const fineFor = 48 * time.Hour

// oldestBucket bounds the buckets: what is older shares one.
const oldestBucket = 10 * 365 * 24 * time.Hour

func (h *histogram) width(t time.Time) time.Duration {
	if h.now.Sub(t) < fineFor {
		return time.Minute
	}
	return time.Hour
}

func (h *histogram) add(t time.Time, bytes int64) {
	if oldest := h.now.Add(-oldestBucket); t.Before(oldest) {
		t = oldest
	}
	h.bytes[t.Truncate(h.width(t)).Unix()] += bytes
}

// cut is the time before which everything must go so that at most limit bytes are
// left; zero: nothing must.
func (h *histogram) cut(limit int64) time.Time {
	var sum int64
	for _, start := range slices.Backward(slices.Sorted(maps.Keys(h.bytes))) {
		if sum += h.bytes[start]; sum > limit {
			t := time.Unix(start, 0)
			return t.Add(h.width(t))
		}
	}
	return time.Time{}
}

// places lists the days that may hold something to destroy, oldest first, and
// what was purged. Younger days are not opened.
func (k *collection) places(ctx context.Context, l limits) ([]string, error) {
	days, err := k.trash.Meta.TrashDays(ctx)
	last := l.before("").UTC().Format(time.DateOnly)
	return slices.DeleteFunc(days, func(day string) bool { return day != metadata.PurgedDay && day > last }), err
}

// refs lists the records of the places, without reading them.
func (k *collection) refs(ctx context.Context, places []string) iter.Seq2[metadata.TrashRef, error] {
	return func(yield func(metadata.TrashRef, error) bool) {
		for _, day := range places {
			for ref, err := range k.trash.Meta.TrashFrom(ctx, day, k.o.From) {
				if !yield(ref, err) {
					return
				}
			}
		}
	}
}

// entries reads the records of one day. Those that stand for nothing any more come
// as what they are, without size.
func (k *collection) entries(ctx context.Context, day string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for ref, err := range k.trash.Meta.TrashFrom(ctx, day, k.o.From) {
			var e Entry
			if err == nil {
				e, err = k.trash.entry(ctx, ref)
			}
			if errors.Is(err, fs.ErrNotExist) {
				continue // somebody has taken it
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// candidate reads what a record stands for and decides about it.
func (k *collection) candidate(ctx context.Context, l limits, ref metadata.TrashRef) (c Candidate, goes bool, err error) {
	c.Entry, err = k.trash.entry(ctx, ref)
	switch {
	case errors.Is(err, errGone):
		c.What = WhatRecord
		if c.Version() && c.Size > 0 { // of a file that is gone for good
			c.What = WhatVersion
		} else {
			c.Size = 0
		}
	case errors.Is(err, objfmt.ErrFormat), errors.Is(err, objfmt.ErrChecksum):
		c.ID, c.What = ID(ref), WhatFile // of a removal whose record a power failure has taken; Expire stands in for it
		return c, false, err
	case err != nil:
		return c, false, ignoreGone(err)
	default:
		c.What = whatOf(c.Record.Kind)
	}
	c.Why, goes = l.why(ref.Day, c.since)
	return c, goes, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
