package packer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"syscall"
	"time"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"
)

// Pack goes through what is staged once. What stores refuse is tried again by the
// next call; what of it concerns single files is told to the log.
func (p *Packer) Pack(ctx context.Context, o PackOptions) (Result, error) {
	if err := p.take(ctx); err != nil {
		return Result{}, err
	}
	defer p.give()
	ps := &pass{p: p, o: o}
	err := ps.run(ctx)
	if o.Release {
		err = errors.Join(err, p.refreshResident(ctx), ps.release(ctx))
	}
	return ps.sum, err
}

// release frees the bodies of all that is packed.
func (ps *pass) release(ctx context.Context) error {
	freed, err := ps.p.release(ctx, func(resident) bool { return true })
	ps.sum.Released += freed
	ps.tell()
	return err
}

// pass is one look at all that is staged.
type pass struct {
	p       *Packer
	o       PackOptions
	patient bool // leave alone what has failed lately, and give way to writers

	claims  claims
	pace    *pace
	window  window
	sum     Result
	queued  int64           // bytes seen in the queue
	due     time.Time       // when the first file that waits is to be packed; zero: none waits
	failed  map[int32]error // by place: its repo takes nothing now
	errs    []error
	single  int   // files that cannot be packed
	example error // of the last of them
	paths   paths
}

// errYield ends a pass because room is wanted at once.
var errYield = errors.New("interrupted by a more urgent pass")

func (ps *pass) run(ctx context.Context) error {
	p := ps.p
	added := p.room.added.Load()
	ps.claims = claims{p: p, others: ps.o.Others}
	ps.failed = map[int32]error{}
	defer ps.claims.release()
	defer ps.paths.close()
	ps.fail(p.abortAgain(ctx))
	err := ps.all(ctx)
	if err == nil {
		p.room.counted(ps.queued-ps.sum.Bytes, added)
	}
	p.reportSingle(ps.single, ps.example)
	return errors.Join(append(ps.errs, err)...)
}

// all packs whatever is to be packed.
func (ps *pass) all(ctx context.Context) error {
	for id, err := range ps.p.c.Meta.Staged(ctx) {
		if err != nil {
			return err
		}
		if err := ps.see(ctx, id); err != nil {
			return err
		}
		if ps.window.full(ps.p.c.Policy.TargetSize) {
			if err := ps.flush(ctx); err != nil {
				return err
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return ps.end(ctx)
}

// flush writes the full packs of a full window.
func (ps *pass) flush(ctx context.Context) error {
	packs, rests := ps.window.cut(ps.p.c.Policy.TargetSize)
	if len(packs) == 0 { // as many repos as a window has packs
		packs, rests = rests, nil
	}
	var rest []candidate
	for _, r := range rests {
		rest = append(rest, r...)
	}
	err := ps.packs(ctx, packs)
	ps.window.keep(rest)
	return err
}

// end writes all of the last window that need not wait.
func (ps *pass) end(ctx context.Context) error {
	packs, rests := ps.window.cut(ps.p.c.Policy.TargetSize)
	for _, rest := range rests {
		pol := &ps.p.c.Policy
		until := oldest(rest).Add(pol.MaxAge)
		if ps.o.All || len(rest) >= pol.MinFiles || !time.Now().Before(until) {
			packs = append(packs, rest)
		} else {
			ps.wait(until)
		}
	}
	return ps.packs(ctx, packs)
}

func (ps *pass) packs(ctx context.Context, packs [][]candidate) error {
	for _, list := range packs {
		for len(list) > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if ps.patient && ps.p.room.urgent.Load() > 0 {
				return errYield
			}
			n, err := ps.pack(ctx, list)
			if err != nil {
				return err
			}
			list = list[n:]
		}
	}
	return nil
}

// wait notes when something is to be packed.
func (ps *pass) wait(until time.Time) {
	if ps.due.IsZero() || until.Before(ps.due) {
		ps.due = until
	}
}

// fail notes an error that does not end the pass.
func (ps *pass) fail(err error) {
	if err != nil {
		ps.errs = append(ps.errs, err)
	}
}

// alone notes that a single file cannot be packed.
func (ps *pass) alone(id objfmt.ID, err error) {
	ps.single++
	ps.example = fmt.Errorf("file %s: %w", id, err)
}

func (ps *pass) tell() {
	if ps.o.Progress != nil {
		ps.o.Progress(ps.sum)
	}
}

// see looks whether a staged file is a candidate. Its error ends the pass.
func (ps *pass) see(ctx context.Context, id objfmt.ID) error {
	if ps.patient && ps.p.room.urgent.Load() > 0 {
		return errYield
	}
	ps.pace.giveWay(ctx)
	st, err := ps.p.c.Meta.StatID(ctx, id)
	if err == nil {
		ps.queued += ps.p.stagedBytes(&st)
		// What is empty has nothing to pack, and waits for recovery to put its home in order.
		if since := ctimeOf(&st); st.Size > 0 && (ps.o.All || ps.rested(since)) && !(ps.patient && ps.p.foreign[id]) {
			err = ps.open(ctx, id, &st)
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && !errors.Is(err, syscall.ENOENT): // ENOENT: packed or destroyed meanwhile
		ps.alone(id, err)
	}
	return nil
}

// stagedBytes is what a staged file takes, without a look at its slot: its content,
// unless it is so large that it must be one that is being streamed to objects.
func (p *Packer) stagedBytes(st *mdfs.Stat) int64 {
	if st.Size <= p.largest() {
		return st.Size
	}
	return min(st.Size, st.Blocks*512)
}

func ctimeOf(st *mdfs.Stat) time.Time { return time.Unix(st.Ctim.Unix()) }

// rested tells whether nothing has happened to a file for the linger time. A clock
// that is far ahead does not keep it for ever.
func (ps *pass) rested(since time.Time) bool {
	const skew = time.Minute
	age := time.Since(since)
	if age >= ps.p.c.Policy.Linger || age < -skew {
		return true
	}
	ps.wait(since.Add(ps.p.c.Policy.Linger))
	return false
}

// open puts a file into the window if it is to be packed, and by this packer.
func (ps *pass) open(ctx context.Context, id objfmt.ID, st *mdfs.Stat) error {
	fl, err := ps.p.c.Meta.OpenID(ctx, id)
	if err != nil {
		return err
	}
	defer fl.Close()
	s, err := fl.Newest(ctx)
	if err != nil {
		return err
	}
	if !packable(s) {
		return nil
	}
	if until, waits := ps.p.troubled.waits(s); waits {
		ps.wait(until)
		return nil
	}
	n := s.Source.Stored
	place, ok := ps.p.place(n)
	if !ok || n > ps.p.largest() {
		return fmt.Errorf("%d bytes fit into no pack: %w", n, syscall.EFBIG)
	}
	if until := ps.p.pausedUntil(place); ps.patient && time.Now().Before(until) {
		ps.wait(until)
		return nil
	}
	mine, err := ps.claims.mine(ctx, metadata.InstanceOf(s.Content))
	if err != nil {
		return err
	}
	if !mine {
		ps.sum.Claimed++
		ps.p.notMine(id)
		return nil
	}
	noted, err := fl.CreationPath(ctx)
	if err != nil {
		noted = "" // it is but a hint
	}
	dir, _ := path.Split(noted)
	ps.window.add(candidate{id: id, ino: st.Ino, bytes: n, since: ctimeOf(st).UnixNano(), dir: dir, uid: st.Uid, place: int32(place)})
	return nil
}

// packable tells whether a content is in a body, and complete.
func packable(s objfmt.Slot) bool {
	kind := s.Source.Kind
	return s.State != objfmt.Open && s.Source.Stored > 0 && (kind == objfmt.SourceOwn || kind == objfmt.SourceBody)
}

// pack makes one pack of the first files of a list, and returns how many they are.
func (ps *pass) pack(ctx context.Context, list []candidate) (n int, err error) {
	place := list[0].place
	if ps.failed[place] != nil {
		return len(list), nil
	}
	items, n, err := ps.items(ctx, list)
	if err != nil || len(items) == 0 {
		return n, err
	}
	object, err := ps.p.write(ctx, ps.p.c.Places[place].Repo, items, ps.pace)
	if ctx.Err() != nil {
		return n, ctx.Err()
	}
	if bad := blamed(items, err); bad != nil { // the next pass makes it without that file
		ps.p.troubled.add(bad.Member.Slot, firstTrouble)
		ps.alone(bad.Member.Slot.File, err)
		ps.wait(time.Now())
		return n, nil
	}
	if ps.p.wrote(int(place), err); err != nil {
		ps.failed[place] = err
		ps.wait(ps.p.pausedUntil(int(place)))
		ps.fail(fmt.Errorf("pack %d files: %w", len(items), err))
		return n, nil
	}
	ps.tally(object, items)
	return n, nil
}

// blamed is the item without which a pack might have been written: package metadata
// names the file that it could not publish.
func blamed(items []Item, err error) *Item {
	var p *fs.PathError
	if !errors.As(err, &p) {
		return nil
	}
	i := slices.IndexFunc(items, func(it Item) bool { return p.Path == "file "+it.Member.Slot.File.String() })
	if i < 0 {
		return nil
	}
	return &items[i]
}

// tally counts what became of the items of a pack.
func (ps *pass) tally(object objfmt.ObjectID, items []Item) {
	before := ps.sum.Bytes
	ps.sum.count(items, func(it *Item) {
		first := firstChange
		if !errors.Is(it.Err, errChanged) {
			first = firstTrouble
			ps.alone(it.Member.Slot.File, it.Err)
		}
		ps.p.troubled.add(it.Member.Slot, first)
		ps.wait(time.Now().Add(first))
	})
	if packed := ps.sum.Bytes - before; packed > 0 {
		ps.p.room.staged.Add(-packed)
		ps.p.nowResident(object, packed)
	}
	ps.tell()
}

// count adds the items of one pack, and calls lost for those that are not in it.
func (r *Result) count(items []Item, lost func(*Item)) {
	before := r.Files
	for i := range items {
		if it := &items[i]; it.Err == nil {
			r.Files++
			r.Bytes += it.Member.Slot.Source.Stored
		} else {
			r.Lost++
			lost(it)
		}
	}
	if r.Files > before {
		r.Packs++
	}
}

// maxTrailer bounds what the files of one pack have in paths and xattrs.
const maxTrailer = 16 << 20

// items reads the first files of a list, up to a pack's worth: they may have changed
// since they were seen. n is how many were looked at.
func (ps *pass) items(ctx context.Context, list []candidate) (items []Item, n int, err error) {
	room := int64(maxTrailer)
	for _, c := range list {
		if room <= 0 {
			break
		}
		ps.pace.giveWay(ctx)
		n++
		it, err := ps.item(ctx, c)
		switch {
		case ctx.Err() != nil:
			return nil, n, ctx.Err()
		case err == nil:
			items = append(items, it)
			room -= trailerBytes(&it.File)
		case errors.Is(err, errChanged): // it may have only moved
			ps.wait(time.Now().Add(firstChange))
		case !errors.Is(err, syscall.ENOENT):
			ps.alone(c.id, err)
		}
	}
	return items, n, nil
}

func trailerBytes(f *objfmt.TrailerFile) int64 {
	n := len(f.Path)
	for name, v := range f.Xattrs {
		n += len(name) + len(v)
	}
	return int64(n)
}

// item reads what a pack and its trailer need of a file.
func (ps *pass) item(ctx context.Context, c candidate) (it Item, err error) {
	meta := ps.p.c.Meta
	fl, err := meta.OpenID(ctx, c.id)
	if err != nil {
		return it, err
	}
	defer fl.Close()
	s, err := fl.Newest(ctx)
	if err != nil {
		return it, err
	}
	if place, _ := ps.p.place(s.Source.Stored); !packable(s) || s.Source.Stored > ps.p.largest() || int32(place) != c.place {
		return it, errChanged
	}
	in := fl.Inode()
	st, err := in.Stat()
	if err != nil {
		return it, err
	}
	noted, err := fl.CreationPath(ctx)
	if err != nil {
		noted = ""
	}
	return Item{
		Member: metadata.PackMember{Slot: s},
		File: objfmt.TrailerFile{Path: ps.paths.verify(meta.Tree(), noted, st.Ino), Mode: st.Mode, UID: st.Uid, GID: st.Gid,
			MTime: time.Unix(st.Mtim.Unix()), Xattrs: metadata.TrailerXattrs(in)},
		Content: &body{ctx: ctx, meta: meta, slot: s},
	}, nil
}
