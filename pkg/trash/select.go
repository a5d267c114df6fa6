package trash

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"marfs/pkg/mdfs"
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
	Why  Why // "": it stays

	since time.Time // what its age counts from
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

// why tells why an entry of that age goes; "": it stays.
func (l limits) why(day string, since time.Time) Why {
	switch {
	case !since.Before(l.before(day)):
		return ""
	case day == metadata.PurgedDay:
		return WhyPurged
	case since.Before(l.age):
		return WhyAge
	}
	return WhyPressure
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
	days = slices.DeleteFunc(days, func(day string) bool { return day == metadata.PurgedDay }) // on its way out: it presses nothing else out
	for c, err := range k.candidates(ctx, l, days) {
		if ctx.Err() != nil {
			return l, ctx.Err()
		}
		if err == nil && c.Why == "" {
			h.add(c.since, c.Size)
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

// candidates reads the records of places, several at once, and decides about each.
// Those that stay come too, without a reason.
func (k *collection) candidates(ctx context.Context, l limits, places []string) iter.Seq2[Candidate, error] {
	return func(yield func(Candidate, error) bool) {
		refs := make([]metadata.TrashRef, 0, readAtOnce)
		for ref, err := range k.refs(ctx, places) {
			if err != nil && !yield(Candidate{}, err) {
				return
			}
			if err != nil {
				continue
			}
			if refs = append(refs, ref); len(refs) == readAtOnce {
				if !k.readAll(ctx, l, refs, yield) {
					return
				}
				refs = refs[:0]
			}
		}
		k.readAll(ctx, l, refs, yield)
	}
}

// readAtOnce is how many records are in memory at a time.
const readAtOnce = 256

// readAll reads records in a few goroutines, and yields them in their order.
func (k *collection) readAll(ctx context.Context, l limits, refs []metadata.TrashRef, yield func(Candidate, error) bool) bool {
	type read struct {
		Candidate
		err error
	}
	out := make([]read, len(refs))
	var g sync.WaitGroup
	n := min(runtime.GOMAXPROCS(0), 8, len(refs))
	for w := range n {
		g.Go(func() {
			for i := w; i < len(refs); i += n {
				out[i].Candidate, out[i].err = k.candidate(ctx, l, refs[i])
			}
		})
	}
	g.Wait()
	for i := range out {
		if errors.Is(out[i].err, fs.ErrNotExist) {
			continue // somebody has taken it
		}
		if !yield(out[i].Candidate, out[i].err) {
			return false
		}
	}
	return true
}

// candidate reads what a record stands for and decides about it: without a reason
// it stays. ENOENT: it is in somebody's hands.
func (k *collection) candidate(ctx context.Context, l limits, ref metadata.TrashRef) (Candidate, error) {
	c := Candidate{Entry: Entry{ID: ID(ref), Purged: ref.Day == metadata.PurgedDay}}
	err := k.readRecord(ctx, ref, &c)
	if err != nil {
		return c, err
	}
	c.since = c.Record.When
	switch c.What = whatOf(c.Record.Kind); c.What {
	case WhatFile:
		err = k.readFile(ctx, &c)
	case WhatVersion:
		err = k.readVersion(ctx, &c)
	default:
		c.Mode, c.UID, c.GID, c.MTime = c.Record.Mode, c.Record.UID, c.Record.GID, c.Record.MTime
	}
	c.Why = l.why(ref.Day, c.since)
	return c, err
}

// readRecord reads a record. The name stands in for one of a removal that a power
// failure has torn, as it does when it is destroyed.
func (k *collection) readRecord(ctx context.Context, ref metadata.TrashRef, c *Candidate) (err error) {
	c.Record, err = k.trash.Meta.ReadTrash(ctx, ref)
	if !errors.Is(err, objfmt.ErrFormat) && !errors.Is(err, objfmt.ErrChecksum) {
		return err
	}
	file, e := objfmt.ParseID(ref.Name[:min(32, len(ref.Name))])
	if e != nil {
		return err
	}
	c.Record = objfmt.Record{Kind: objfmt.RecordFile, File: file}
	return nil
}

// readFile looks at the inode of a removed file. Its age counts from when its last
// name went, which its ctime tells. A file with a name loses nothing but the record.
func (k *collection) readFile(ctx context.Context, c *Candidate) error {
	st, err := k.trash.Meta.StatID(ctx, c.Record.File)
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.Nlink > 1 {
		c.What = WhatRecord
		return nil
	}
	if err != nil {
		return err
	}
	if gone := time.Unix(st.Ctim.Unix()); gone.After(c.since) {
		c.since = gone
	}
	c.ofInode(&st, st.Size)
	return nil
}

// readVersion reads the record of an earlier content as it is now. The file may be
// gone for good.
func (k *collection) readVersion(ctx context.Context, c *Candidate) error {
	v, err := k.trash.Meta.Version(ctx, c.Record.Content)
	if errors.Is(err, fs.ErrNotExist) {
		c.What = WhatRecord
		return nil
	}
	if err != nil {
		return err
	}
	c.Record, c.since, c.Size, c.MTime = v, v.When, v.Slot.Size, v.Slot.MTime
	st, err := k.trash.Meta.StatID(ctx, v.File)
	if errors.Is(err, fs.ErrNotExist) {
		c.UID = v.By
		return nil
	}
	c.ofInode(&st, v.Slot.Size)
	return err
}

func (c *Candidate) ofInode(st *mdfs.Stat, size int64) {
	metadata.StatOf(st)
	c.Mode, c.UID, c.GID, c.Size, c.MTime = st.Mode, st.Uid, st.Gid, size, time.Unix(st.Mtim.Unix())
}
