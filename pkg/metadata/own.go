package metadata

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"marfs/pkg/mdfs"
	"marfs/pkg/metadata/internal/omit"
	"marfs/pkg/objfmt"
)

// ErrNotAppendable means that the file cannot be appended to in its own body:
// the change has to be made in a session.
var ErrNotAppendable = fmt.Errorf("own body cannot be appended to: %w", syscall.ESTALE)

// Own is the right to write the own body of a file: its creator's, until the
// first commit, and an appender's, until his. There is no work record: whoever
// publishes the next slot ends it. Its calls are made by one goroutine at a time.
type Own struct {
	fl   *File
	base objfmt.Slot // the open slot that gives the right
	id   objfmt.ID   // of the session in it
	who  Who
}

// Own returns the creator's right to write the own body, when fl comes from
// Create, and nothing was published since. Bytes are written to Inode(); nobody
// reads them before Commit.
func (fl *File) Own(ctx context.Context, who Who) (*Own, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := fl.firstSlot()
	if err != nil {
		return nil, fileError("write", fl.id, err)
	}
	fl.used.Store(true)
	return &Own{fl: fl, base: s, id: fl.created, who: who}, nil
}

// firstSlot is the open slot that Create has made, while it is the newest.
func (fl *File) firstSlot() (objfmt.Slot, error) {
	s, _, err := fl.newest()
	if err == nil && (fl.created.IsZero() || s.State != objfmt.Open || s.Session != fl.created || s.Gen != 1) {
		err = errLost
	}
	return s, err
}

// Append gets the right to write behind the bytes of base, a final own slot, by
// publishing it again as open, on exactly that slot. Anything else that was
// published meanwhile is ErrNotAppendable and never retried: the body may have
// been archived and be about to be punched, or another appender be at it.
func (f *FS) Append(ctx context.Context, fl *File, who Who, base objfmt.Slot) (*Own, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if base.Source.Kind != objfmt.SourceOwn || base.State != objfmt.Final || base.Size != base.Source.Stored {
		return nil, fileError("append", fl.id, ErrNotAppendable)
	}
	o := &Own{fl: fl, id: f.newSession(), who: who}
	open := base
	open.State, open.Session = objfmt.Open, o.id
	var err error
	for range maxRaces {
		if o.base, err = fl.publish(stepPublish, base, open); !errors.Is(err, errLost) {
			break
		}
		if err = ErrNotAppendable; !f.o.Omit.Has(omit.AppendNoRetry) {
			break
		}
		if base, _, err = fl.newest(); err != nil || base.Content != open.Content {
			break
		}
	}
	if err != nil {
		return nil, fileError("append", fl.id, err)
	}
	return o, nil
}

// ownContents is how many content ids a session without a record uses: that of
// its open slot, and that of its commit.
const ownContents = 2

// Begin goes on as a session: what is written has become too large for the own
// body, or is no append. Bytes in the own body behind Base's are lost with it.
func (o *Own) Begin(ctx context.Context) (*Session, error) {
	return o.fl.f.begin(ctx, o.fl, o.who, o.id, o.base)
}

// Base is the slot that gives the right: an append writes from its Size on.
func (o *Own) Base() objfmt.Slot { return o.base }

// Body is the inode, to be written to.
func (o *Own) Body() mdfs.File { return o.fl.inode }

// Commit makes the first size bytes of the own body the file's content, under a
// new content id: sum is their CRC-64/NVME. On return they are durable, with the
// slot and the inode's names, by one fsync. The right to write ends; an append
// gets it again. ESTALE: somebody else published.
func (o *Own) Commit(ctx context.Context, size int64, sum uint64) (objfmt.Slot, error) {
	if err := ctx.Err(); err != nil {
		return objfmt.Slot{}, err
	}
	s, err := o.commit(size, sum)
	return s, fileError("commit", o.fl.id, err)
}

func (o *Own) commit(size int64, sum uint64) (objfmt.Slot, error) {
	st, err := o.fl.inode.Stat()
	if err != nil {
		return objfmt.Slot{}, err
	}
	if st.Size != size {
		return objfmt.Slot{}, fmt.Errorf("own body has %d bytes, commit names %d: %w", st.Size, size, syscall.EINVAL)
	}
	next := objfmt.Slot{State: objfmt.Final, Content: numbered(o.id, ownContents), Size: size, MTime: mtimeOf(&st),
		Source: objfmt.Source{Kind: objfmt.SourceOwn, Stored: size, Sum: sum}}
	if size == 0 {
		next.Source = objfmt.Source{Kind: objfmt.SourceEmpty}
	}
	if !empty(o.base) && !o.fl.f.o.Omit.Has(omit.SyncPublish) {
		// An append: were its slot durable before its bytes, the old content
		// would be unreadable too [F].
		if err := syncFile(stepBodySync, o.fl.inode); err != nil {
			return objfmt.Slot{}, err
		}
	}
	if empty(o.base) && staged(next) { // an append finds the note of the first commit
		o.fl.notePath(o.who.Path)
	}
	s, err := o.fl.publish(stepPublish, o.base, next)
	if errors.Is(err, errRaced) {
		s, err = o.fl.landed(next, err)
	}
	if err != nil {
		return objfmt.Slot{}, err
	}
	if o.fl.f.o.Omit.Has(omit.SyncPublish) {
		return s, nil
	}
	// One fsync for the bytes and the slot: should the slot be durable and the
	// bytes not, its checksum tells.
	if err := syncFile(stepSync, o.fl.inode); err != nil {
		return s, err
	}
	if err := o.fl.syncNames(); err != nil || empty(o.base) {
		return s, err // a new file's lower slot goes when it is packed
	}
	// The slots below an append, or a log file fills its inode with them.
	_, err = o.fl.dropLower(o.who, "append", s.Nonce)
	return s, err
}
