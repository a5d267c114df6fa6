package modelcheck

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"marfs/pkg/metadata"
	"marfs/pkg/objfmt"

	"golang.org/x/sys/unix"
)

// What the packer, gc and restores do, as parties.

// pack archives every staged file that is complete.
func (p *Party) pack() error {
	var pack packing
	for id, err := range p.md.Staged(p.ctx) {
		if err != nil {
			return err
		}
		if err := p.candidate(&pack, id); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, objfmt.ErrChecksum) {
			return err
		}
	}
	return p.write(&pack)
}

// packing is a pack before it is begun.
type packing struct {
	members []metadata.PackMember
	bytes   bytes.Buffer
}

func (p *Party) candidate(pack *packing, id objfmt.ID) error {
	fl, err := p.md.OpenID(p.ctx, id)
	if err != nil {
		return err
	}
	defer fl.Close()
	s, err := fl.Newest(p.ctx)
	if err != nil {
		return err
	}
	if s.State == objfmt.Open || s.Source.Kind != objfmt.SourceOwn && s.Source.Kind != objfmt.SourceBody {
		return nil
	}
	at := pack.bytes.Len()
	sum, err := fl.CopyContent(p.ctx, s, &pack.bytes)
	if err != nil {
		pack.bytes.Truncate(at)
		return err
	}
	pack.members = append(pack.members, metadata.PackMember{Slot: s, Offset: int64(at), Sum: sum})
	return nil
}

func (p *Party) write(pack *packing) error {
	if len(pack.members) == 0 {
		return nil
	}
	w, err := p.md.BeginPack(p.ctx, pack.members)
	if err != nil {
		return err
	}
	if err := p.obj.Put(w.Object, 0, pack.bytes.Bytes()); err != nil {
		return err
	}
	if _, err := w.Publish(p.ctx, ref(w.Object, 0, pack.bytes.Len())); err != nil {
		return errors.Join(err, w.Abort(p.ctx))
	}
	return w.Finish(p.ctx)
}

// readyPublish has everything uploaded; what is left is to publish it.
func (p *Party) readyPublish() func() {
	fl, base, err := p.open("f")
	p.must(err)
	s, err := p.md.Begin(p.ctx, fl, p.as("f"), base)
	p.must(err)
	content, src, err := p.upload(s, "ss", 0)
	p.must(err)
	return func() {
		err := p.try(fl, replaceBy("ss"), func() error { return p.publish(s, content, src, "ss", objfmt.Final) })
		if err == nil {
			_ = s.End(p.ctx)
		}
	}
}

// readyPublishMoved is readyPublish after which a packer has moved the base: the
// publish meets EEXIST, and goes on top of the pack's slot.
func (p *Party) readyPublishMoved() func() {
	publish := p.readyPublish()
	p.must(p.pack())
	return publish
}

// fenceWork recovers the sessions that have records, and nothing else.
func (p *Party) fenceWork() error {
	nodes, err := p.list("work")
	for _, node := range nodes {
		sessions, e := p.list("work/" + node)
		err = errors.Join(err, e)
		for _, s := range sessions {
			err = errors.Join(err, p.md.RecoverWork(p.ctx, node, s))
		}
	}
	return err
}

// fencePacks recovers the packs that have records, and nothing else.
func (p *Party) fencePacks() error {
	names, err := p.list("packs/open")
	for _, name := range names {
		err = errors.Join(err, p.md.RecoverPack(p.ctx, name))
	}
	return err
}

// repack moves the live members of every finished pack into a new one.
func (p *Party) repack() error {
	names, err := p.list("packs")
	if err != nil {
		return err
	}
	for _, name := range names {
		id, err := objfmt.ParseObjectID(name)
		if err != nil {
			continue // packs/open
		}
		if err := p.repackOne(id); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

func (p *Party) repackOne(id objfmt.ObjectID) error {
	t, err := p.md.Members(p.ctx, id)
	if err != nil {
		return err
	}
	if err := p.md.Retire(id, "repack"); err != nil {
		return err
	}
	var pack packing
	for _, m := range t.Members {
		if err := p.remember(&pack, m, id); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return p.write(&pack)
}

// remember adds a member whose newest content is still in the old pack.
func (p *Party) remember(pack *packing, m objfmt.Member, old objfmt.ObjectID) error {
	fl, err := p.md.OpenID(p.ctx, m.File)
	if err != nil {
		return err
	}
	defer fl.Close()
	s, err := fl.Newest(p.ctx)
	if err != nil || s.State == objfmt.Open || s.Source.Object.Object != old {
		return err
	}
	b := make([]byte, s.Source.Stored)
	if err := p.readObject(s.Source.Object, b, s.Source.Offset); err != nil {
		return nil // gone: the member moved
	}
	pack.members = append(pack.members, metadata.PackMember{Slot: s, Offset: int64(pack.bytes.Len()), Sum: objfmt.Checksum(b)})
	pack.bytes.Write(b)
	return nil
}

// release frees the own body of an archived file, and its cache in bodies/.
func (p *Party) release(name string) error {
	fl, _, err := p.open(name)
	if err != nil {
		return err
	}
	defer fl.Close()
	_, err = fl.Release(p.ctx)
	return errors.Join(err, fl.DropBody(p.ctx))
}

// releasePacks frees the bodies of every pack that is in the queue.
func (p *Party) releasePacks() error {
	packs, err := p.md.Resident(p.ctx)
	for _, pack := range packs {
		_, e := p.md.ReleasePack(p.ctx, pack.Object)
		err = errors.Join(err, e)
	}
	return err
}

// restore gives every deleted file in the trash the name again.
func (p *Party) restore(name string) error {
	refs, err := p.trashRefs()
	if err != nil {
		return err
	}
	for _, ref := range refs {
		r, err := p.md.ReadTrash(p.ctx, ref)
		if err != nil || r.Kind != objfmt.RecordFile {
			continue
		}
		return p.md.Restore(p.ctx, p.as(name), ref, p.md.Tree(), name)
	}
	return unix.ENOENT
}

// restoreVersion makes the oldest other content of a file the newest again.
func (p *Party) restoreVersion(name string) error {
	fl, _, err := p.open(name)
	if err != nil {
		return err
	}
	defer fl.Close()
	content, cells, err := p.versionOf(fl)
	if err != nil {
		return err
	}
	return p.try(fl, replaceBy(cells), func() error {
		_, err := p.md.RestoreVersion(p.ctx, fl, p.as(name), content)
		return err
	})
}

// versionOf finds a version of a file and what it holds.
func (p *Party) versionOf(fl *metadata.File) (content objfmt.ID, cells string, err error) {
	refs, err := p.trashRefs()
	for _, ref := range refs {
		r, e := p.md.ReadTrash(p.ctx, ref)
		if e != nil || r.Kind != objfmt.RecordVersion || r.File != fl.ID() {
			continue
		}
		b, e := p.bytesOnce(fl, *r.Slot)
		if e != nil {
			return content, "", fmt.Errorf("version %s: %w", r.Content, e)
		}
		return r.Content, strings.Clone(cellsOf(b)), nil
	}
	return content, "", errors.Join(err, unix.ENOENT)
}

// purge lets everything in the trash go before its time.
func (p *Party) purge() error {
	refs, err := p.trashRefs()
	for _, ref := range refs {
		_, e := p.md.Purge(p.ctx, ref)
		err = errors.Join(err, e)
	}
	return err
}

// gcBack is a gc that may not destroy what it has decided to.
func (p *Party) gcBack() error {
	refs, err := p.trashRefs()
	if err != nil {
		return err
	}
	_, err = p.md.Expire(p.ctx, refs, always, func([]metadata.Doom) error { return unix.ENOSPC })
	return err
}

// hold reads a file again and again, and expects to, whatever becomes of its name.
func (p *Party) hold(name string) error {
	fl, _, err := p.open(name)
	if err != nil {
		return err
	}
	defer fl.Close()
	if named, err := fl.Hold(); !named || err != nil {
		return err
	}
	for range 2 {
		s, err := fl.Newest(p.ctx)
		if err == nil {
			_, err = p.bytes(fl, s)
		}
		if err != nil {
			p.wrong("held content lost", fl, err.Error())
			return err
		}
	}
	return nil
}
