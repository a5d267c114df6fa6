package metadata

import (
	"fmt"

	"marfs/pkg/objfmt"
)

// audit lists what should not be there once everything is recovered and swept.
func (w *world) audit() (problems []string) {
	note := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	a := &auditor{w: w, objects: map[chunkName]bool{}, packs: map[objfmt.ObjectID]bool{}, content: map[string]bool{}}
	for _, place := range []string{filesName, stagedName} {
		w.eachFan(ctx, place, func(name string, err error) bool {
			w.must(err)
			a.home(place, name, note)
			return true
		})
	}
	w.eachFan(ctx, versionName, func(name string, err error) bool {
		w.must(err)
		a.version(name, note)
		return true
	})
	a.retired()
	for c := range w.store.has {
		if !a.objects[c] && !a.packs[c.object] {
			note("object %s.%d is named by nothing", c.object, c.chunk)
		}
	}
	for c := range a.objects {
		if !w.store.has[c] {
			note("object %s.%d is named and missing", c.object, c.chunk)
		}
	}
	w.eachFan(ctx, bodiesName, func(name string, err error) bool {
		if !a.content[name] {
			note("body %s is named by nothing", name)
		}
		return true
	})
	for _, dir := range []string{openPacks, deadName} {
		names, err := w.names(dir, "")
		w.must(err)
		for _, n := range names {
			if dir != deadName || n != "versions" {
				note("%s/%s is left", dir, n)
			}
		}
	}
	w.eachFan(ctx, takenName, func(name string, _ error) bool { note("%s/%s is left", takenName, name); return true })
	w.eachFan(ctx, workName, func(name string, _ error) bool { note("work record %s is left", name); return true })
	return problems
}

// auditor collects what slots and versions name.
type auditor struct {
	w       *world
	objects map[chunkName]bool
	packs   map[objfmt.ObjectID]bool // that have a record, and so an end
	content map[string]bool
}

func (a *auditor) home(place, name string, note func(string, ...any)) {
	dir := place + "/" + name[:2]
	fl, err := a.w.openAt(dir, name)
	a.w.must(err)
	defer fl.Close()
	if fl.id.String() != name {
		note("home %s of file %s", name, fl.id)
		return
	}
	chain, junk, err := fl.history()
	a.w.must(err)
	if want, _ := homeFor(chain[0]); want != place {
		note("home %s is in %s, its slot says %s", name, place, want)
	}
	if len(junk) > 0 {
		note("junk slots %v on %s", junk, name)
	}
	if chain[0].State == objfmt.Open {
		note("file %s is still open", name)
	}
	st, err := fl.Inode().Stat()
	a.w.must(err)
	if refs, err := a.w.TrashOf(ctx, fl.id); st.Nlink == 1 && (err != nil || !a.deleted(refs)) {
		note("file %s has no name and no record", name)
	}
	for _, s := range chain {
		a.slot(s)
	}
}

func (a *auditor) deleted(refs []TrashRef) bool {
	for _, r := range refs {
		if rec, err := a.w.ReadTrash(ctx, r); err == nil && rec.Kind == objfmt.RecordFile {
			return true
		}
	}
	return false
}

func (a *auditor) version(name string, note func(string, ...any)) {
	id, err := objfmt.ParseID(name)
	a.w.must(err)
	r, err := a.w.Version(ctx, id)
	a.w.must(err)
	queued := false
	refs, err := a.w.TrashOf(ctx, r.File)
	a.w.must(err)
	for _, ref := range refs {
		rec, err := a.w.ReadTrash(ctx, ref)
		queued = queued || err == nil && rec.Content == id
	}
	if !queued {
		note("version %s is in no queue", name)
	}
	a.slot(*r.Slot)
}

func (a *auditor) slot(s objfmt.Slot) {
	a.content[s.Content.String()] = true
	a.content[s.Source.Tail.String()] = true
	switch s.Source.Kind {
	case objfmt.SourceObj:
		a.objects[chunkName{s.Source.Object.Object, s.Source.Object.Chunk}] = true
	case objfmt.SourceTable:
		t, err := a.w.readTable(s.File, s.Content, s.Source)
		a.w.must(err)
		for _, c := range t.Chunks {
			a.objects[chunkName{c.Object.Object, c.Object.Chunk}] = true
		}
	}
}

// retired collects the packs that are in the queue of expiry or have hints.
func (a *auditor) retired() {
	for _, ref := range a.w.trash() {
		if r, err := a.w.ReadTrash(ctx, ref); err == nil && r.Kind == objfmt.RecordPack {
			a.packs[r.Object] = true
		}
	}
	hints, err := a.w.Hints(ctx)
	a.w.must(err)
	for id := range hints {
		a.packs[id] = true
	}
}
