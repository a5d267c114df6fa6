package modelcheck

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"marfs/pkg/mdfs"
	"marfs/pkg/mdfs/mdfssim"
	"marfs/pkg/objfmt"

	"golang.org/x/sys/unix"
)

// Check implements System: it judges what is there when everybody stopped, has a
// fresh node recover, judges again, expires everything, and looks for litter.
func (w *world) Check() error {
	if w.wrong != nil {
		return w.wrong
	}
	return w.checkDisk(w.disk, w.objects)
}

// CheckCrash implements crasher.
func (w *world) CheckCrash() error {
	return crashes(w.disk, func(d *mdfssim.Disk) error {
		return w.checkDisk(d, w.objects.clone())
	})
}

func (w *world) checkDisk(d *mdfssim.Disk, objects *Objects) error {
	if err := w.checkLive("as left", d, objects); err != nil {
		return err
	}
	p, err := w.healer(d, objects)
	if err != nil {
		return &Violation{"does not open", err.Error()}
	}
	if err := p.recoverAll(); err != nil {
		return &Violation{"recovery fails", err.Error()}
	}
	if err := w.checkLive("recovered", d, objects); err != nil {
		return err
	}
	if err := w.checkDeleted(d, objects); err != nil {
		return err
	}
	if err := p.pack(); err != nil { // as a packer would, whatever it finds
		return &Violation{"packing fails", err.Error()}
	}
	if err := w.checkLive("packed", d, objects); err != nil {
		return err
	}
	if err := p.expireAll(); err != nil {
		return &Violation{"gc fails", err.Error()}
	}
	if err := p.openAll(); err != nil {
		return &Violation{"does not open", err.Error()}
	}
	if err := w.checkLive("after gc", d, objects); err != nil {
		return err
	}
	return w.checkLitter(d, objects)
}

// healer is a node that nobody disturbs.
func (w *world) healer(d *mdfssim.Disk, objects *Objects) (p *Party, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	after := &world{base: w.base, disk: d, objects: objects}
	tick := int64(0)
	clock := func() int64 { tick++; return epoch + 1e12 + tick }
	return after.party("healer", d.Mount(mdfssim.MountOptions{Clock: clock, ID: 4096}), nil, 1000, true), nil
}

// checkLive: every file that has a name is readable, and holds what the answers allow.
func (w *world) checkLive(when string, d *mdfssim.Disk, objects *Objects) error {
	v, err := look(d, objects)
	if err != nil {
		return &Violation{"unreadable metadata", when + ": " + err.Error()}
	}
	for _, f := range v.sorted() {
		if len(f.names) == 0 {
			continue
		}
		if err := w.checkFile(v, f, when == "as left"); err != nil {
			return &Violation{err.Kind, fmt.Sprintf("%s: %s: %s", when, f, err.Detail)}
		}
	}
	return w.checkVersions(when, v)
}

func (v *view) sorted() []*fileView {
	var fs []*fileView
	for _, f := range v.files {
		fs = append(fs, f)
	}
	slices.SortFunc(fs, func(a, b *fileView) int { return int(int64(a.ino) - int64(b.ino)) })
	return fs
}

func (w *world) checkFile(v *view, f *fileView, left bool) *Violation {
	if len(f.chain) == 0 {
		return nil // its creator died at once: an empty file
	}
	top := f.top()
	if top.State == objfmt.Open && top.Source.Kind == objfmt.SourceBody {
		top.Source.Sum = 0 // being written in place
	}
	b, err := v.content(f, top)
	if err != nil && w.neverDurable(top) && (left || !w.base.disk.OneJournal) {
		return nil
	}
	if err != nil {
		return &Violation{"live content lost", fmt.Sprintf("%v; history %s", err, w.history.tell(top.File))}
	}
	out := w.history.outcomes(top.File)
	got := cellsOf(b)
	if !out.ever[got] {
		return &Violation{"content that was never written", fmt.Sprintf("%q; history %s", got, w.history.tell(top.File))}
	}
	if !out.last[got] && top.State != objfmt.Open && !w.s.Lenient.has(orphanContent) {
		// (Without any grace a gc can make what follows a publish fail.)
		return &Violation{"acknowledged write lost", fmt.Sprintf("%q; history %s", got, w.history.tell(top.File))}
	}
	return nil
}

// neverDurable: an own body whose slot reached the disk before its bytes, because
// power failed before the one fsync. The checksum tells, and nothing was promised.
// Where one journal orders bytes before the size, recovery empties the file.
func (w *world) neverDurable(s objfmt.Slot) bool {
	return s.Source.Kind == objfmt.SourceOwn && w.history.nothingAcked(s.File)
}

// checkVersions: every version record leads to its content.
func (w *world) checkVersions(when string, v *view) error {
	for p, r := range v.records {
		if !strings.HasPrefix(p, "versions/") || r.Slot == nil {
			continue
		}
		b, err := v.content(v.byID[r.File], *r.Slot)
		if r.Slot.Source.Kind == objfmt.SourceOwn {
			err = fmt.Errorf("a version record says own")
		}
		if err != nil {
			if w.s.Lenient.has(danglingVersion) {
				continue
			}
			return &Violation{"version lost", fmt.Sprintf("%s: %s: %v", when, p, err)}
		}
		if got := cellsOf(b); !w.history.had(r.File, got) {
			return &Violation{"version that was never written", fmt.Sprintf("%s: %s: %q; history %s", when, p, got, w.history.tell(r.File))}
		}
	}
	return nil
}

// checkDeleted: a file without names is readable and in the trash, once for each
// name that it lost at most; what was replaced is a version.
func (w *world) checkDeleted(d *mdfssim.Disk, objects *Objects) error {
	v, err := look(d, objects)
	if err != nil {
		return err
	}
	if w.s.Strict {
		if err := w.checkRecords(v); err != nil {
			return err
		}
	}
	for _, f := range v.sorted() {
		taken := len(f.homes) > 0 && strings.HasPrefix(f.homes[0], "dead/") // a gc goes on with it
		if len(f.names) > 0 || taken || len(f.chain) == 0 || f.top().Source.Kind == objfmt.SourceEmpty {
			continue
		}
		records := 0
		for p, r := range v.records {
			queued := strings.HasPrefix(p, "trash/") || strings.HasPrefix(p, "dead/d.") || strings.HasPrefix(p, "work/")
			if queued && r.Kind == objfmt.RecordFile && r.File == f.top().File {
				records++
			}
		}
		records += v.torn(f.top().File)
		if records == 0 && !w.s.Lenient.has(unrecordedDeletion) {
			return &Violation{"deleted without record", f.String()}
		}
		if _, err := v.content(f, f.top()); err != nil && !w.neverDurable(f.top()) {
			return &Violation{"deleted content lost", fmt.Sprintf("%s: %v", f, err)}
		}
	}
	return nil
}

// checkRecords: when nobody was killed, every name that a file lost has exactly
// one record, and what was only appended to has no version.
func (w *world) checkRecords(v *view) error {
	before, err := look(w.image.Disk(mdfssim.Options{}), w.base.objects)
	if err != nil {
		return err
	}
	for id, old := range before.byID {
		now := v.byID[id]
		if now == nil || w.s.Lenient != 0 {
			continue
		}
		lost := max(0, len(old.names)-len(now.names))
		if records := v.deletions(id) - before.deletions(id); records > lost {
			return &Violation{"deleted once, recorded twice", fmt.Sprintf("%s: %d records more, %d names less", now, records, lost)}
		}
		if len(w.s.Actors) == 1 && w.history.onlyAppends(id) && v.versions(id) > before.versions(id) {
			return &Violation{"version of an append", now.String()}
		}
	}
	return nil
}

// torn counts the records of a file's deletion whose bytes a power failure took:
// their names lead to the file, in trash/ and once a gc or a restore has taken them.
func (v *view) torn(id objfmt.ID) (n int) {
	for _, p := range slices.Concat(v.below["trash"], v.below["dead"], v.below["work"]) {
		name := strings.TrimPrefix(p[strings.LastIndex(p, "/")+1:], "d.")
		if _, whole := v.records[p]; !whole && strings.HasPrefix(name, id.String()+"-") {
			n++
		}
	}
	return n
}

func (v *view) deletions(id objfmt.ID) int { return v.count("trash/", objfmt.RecordFile, id) }
func (v *view) versions(id objfmt.ID) int  { return v.count("versions/", objfmt.RecordVersion, id) }

func (v *view) count(prefix string, k objfmt.RecordKind, id objfmt.ID) (n int) {
	for p, r := range v.records {
		if strings.HasPrefix(p, prefix) && r.Kind == k && r.File == id {
			n++
		}
	}
	return n
}

// archived is where a slot wants the home: true for files/.
func archived(s objfmt.Slot) bool {
	switch s.Source.Kind {
	case objfmt.SourceOwn, objfmt.SourceBody:
		return false
	case objfmt.SourceTable:
		return s.Source.Tail.IsZero()
	}
	return true
}

// checkLitter: with everything expired nothing is left but live files and what
// their newest slots name.
func (w *world) checkLitter(d *mdfssim.Disk, objects *Objects) error {
	v, err := look(d, objects)
	if err != nil {
		return err
	}
	r := &reached{bodies: map[objfmt.ID]bool{}, tables: map[objfmt.ID]bool{}, objects: map[objectKey]bool{}}
	for _, f := range v.sorted() {
		if len(f.names) == 0 {
			if w.s.Lenient.has(unrecordedDeletion) {
				if len(f.chain) > 0 {
					r.reach(v, f.top())
				}
				continue
			}
			return &Violation{"deleted file is left", f.String()}
		}
		if err := checkHome(f); err != nil {
			return err
		}
		r.reach(v, f.top())
	}
	return r.orphans(v, w.s.Lenient)
}

func checkHome(f *fileView) error {
	if len(f.chain) == 0 || len(f.homes) != 1 || f.nlink != uint64(len(f.names))+1 {
		return &Violation{"no home, or two", fmt.Sprintf("%s: %d links", f, f.nlink)}
	}
	top := f.top()
	want := "staged/"
	if archived(top) {
		want = "files/"
	}
	switch {
	case top.State == objfmt.Open:
		return &Violation{"slot stays open", f.String()}
	case top.Source.Kind == objfmt.SourceEmpty: // in staged/ until recovery looks
	case !strings.HasPrefix(f.homes[0], want) || !strings.HasSuffix(f.homes[0], "/"+top.File.String()):
		return &Violation{"home in the wrong place", f.String()}
	case f.size != top.Size:
		return &Violation{"wrong size", fmt.Sprintf("%s: st_size %d, slot %d", f, f.size, top.Size)}
	case f.note:
		return &Violation{"note of a punch is left", f.String()}
	}
	return nil
}

// reached is what live files name.
type reached struct {
	bodies  map[objfmt.ID]bool // contents, and tails
	tables  map[objfmt.ID]bool
	objects map[objectKey]bool
}

func (r *reached) reach(v *view, s objfmt.Slot) {
	r.bodies[s.Content] = true // also a cache of archived content
	r.bodies[s.Source.Tail] = true
	switch s.Source.Kind {
	case objfmt.SourceObj:
		r.objects[objectKey{s.Source.Object.Object, s.Source.Object.Chunk}] = true
	case objfmt.SourceTable:
		r.tables[s.Content] = true
		if t, err := v.table(s); err == nil {
			for _, c := range t.Chunks {
				r.objects[objectKey{c.Object.Object, c.Object.Chunk}] = true
			}
		}
	}
}

// orphans reports what nothing live names.
func (r *reached) orphans(v *view, lenient residue) error {
	for k := range v.objects.held {
		if !r.objects[k] && !lenient.has(orphanContent) {
			return &Violation{"orphan object", fmt.Sprintf("%s.%d", k.id, k.chunk)}
		}
	}
	for _, p := range slices.Concat(v.below["bodies"], v.below["chunks"]) {
		id, err := objfmt.ParseID(p[strings.LastIndex(p, "/")+1:])
		spared := lenient.has(orphanContent) && strings.HasPrefix(p, "bodies/")
		if err != nil || !r.bodies[id] && !r.tables[id] && !spared {
			return &Violation{"orphan body or table", p}
		}
	}
	for _, top := range []string{"versions", "trash", "work", "dead"} {
		for _, p := range v.below[top] {
			if k := (objectKey{id: v.records[p].Object}); top == "trash" && v.records[p].Kind == objfmt.RecordPack && r.objects[k] {
				continue // a repack died: gc keeps the record until the pack is dead
			}
			return &Violation{"record is left", p + ": " + fmt.Sprintf("%+v", v.records[p])}
		}
	}
	return r.packs(v, lenient)
}

// packs: an open pack is never left; a finished one holds something live.
func (r *reached) packs(v *view, lenient residue) error {
	for _, p := range v.below["packs"] {
		name := p[strings.LastIndex(p, "/")+1:] // one in packs/resident is another name of its table
		id, err := objfmt.ParseObjectID(name)
		spared := lenient.has(unrecordedDeletion) && err == nil
		if err != nil || !r.objects[objectKey{id: id}] && !spared {
			return &Violation{"pack is left", p}
		}
	}
	return nil
}

// eachName calls fn with the files below a directory of users.
func eachName(d mdfs.Dir, fn func(d mdfs.Dir, name string) error) error {
	e, err := d.Entries()
	if err != nil {
		return err
	}
	for {
		ent, err := e.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && ent.Type == unix.S_IFREG {
			err = fn(d, ent.Name)
		}
		if err == nil && ent.Type == unix.S_IFDIR {
			var sub mdfs.Dir
			if sub, err = d.OpenDir(ent.Name); err == nil {
				err = eachName(sub, fn)
			}
		}
		if err != nil {
			return err
		}
	}
}
