package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
)

// errStale is a shard of another write than the layout's: left over, or put
// under this key by mistake.
var errStale = fmt.Errorf("%w: shard of another write", objstore.ErrCorrupt)

// Inspect looks at every shard's presence, size, header and footer (cheap), or
// at every byte when deep.
func (r *Repo) Inspect(ctx context.Context, key string, l objfmt.Layout, deep bool) ([]Shard, error) {
	shards, err := r.Locate(key, l)
	if err != nil {
		return nil, err
	}
	all := make([]int, len(shards))
	for i := range all {
		all[i] = i
	}
	return shards, r.inspect(ctx, key, l, shards, all, deep)
}

// inspect fills in the state of some shards.
func (r *Repo) inspect(ctx context.Context, key string, l objfmt.Layout, shards []Shard, which []int, deep bool) error {
	stores, err := r.locate(key, l)
	if err != nil {
		return err
	}
	memory := min(rowMemory(len(which), 1, l.Cell()), r.reads.size)
	if err := r.reads.acquire(ctx, memory); err != nil {
		return fmt.Errorf("inspect %s in repo %s, pod %s: %w", key, r.cfg.Name, l.Pod, err)
	}
	defer r.reads.release(memory)
	var all sync.WaitGroup
	for _, i := range which {
		all.Go(func() {
			err := r.inspectShard(ctx, stores[i], key, l, i, deep)
			stores[i].reads.report(err)
			shards[i].State, shards[i].Err = shardState(err), err
		})
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("inspect %s in repo %s, pod %s: %w", key, r.cfg.Name, l.Pod, err)
	}
	return nil
}

// inspectShard returns what is wrong with a shard.
func (r *Repo) inspectShard(ctx context.Context, s *store, key string, l objfmt.Layout, i int, deep bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(r.cfg.StallTimeout, func() { cancel(errStalled) })
	defer stalled.Stop()
	err := checkEnds(ctx, s, key, l, i)
	if err == nil && deep {
		err = r.checkCells(ctx, s, key, l, i, func() { stalled.Reset(r.cfg.StallTimeout) })
	}
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("store %s: shard %d: %w", s.Name, i, err)
}

// checkEnds compares size, header and footer with what they must be.
func checkEnds(ctx context.Context, s *store, key string, l objfmt.Layout, i int) error {
	info, err := s.Stat(ctx, key)
	if err != nil {
		return err
	}
	header, _, err := readHeader(ctx, s, key)
	switch {
	case err != nil:
		return err
	case header.WriteID != l.WriteID:
		return fmt.Errorf("%w: %s, not %s", errStale, header.WriteID, l.WriteID)
	case header != l.Header(key, i):
		return fmt.Errorf("%w: header of another shard: %+v", objstore.ErrCorrupt, header)
	case info.Size != l.ShardSize(key, i):
		return fmt.Errorf("%w: %d bytes, not %d", objstore.ErrCorrupt, info.Size, l.ShardSize(key, i))
	}
	footer, err := readFooter(ctx, s, key, info.Size)
	if err == nil && footer != l.Footer(i) {
		err = fmt.Errorf("%w: footer of another shard: %+v", objstore.ErrCorrupt, footer)
	}
	return err
}

// checkCells verifies every cell. progress is called as they come.
func (r *Repo) checkCells(ctx context.Context, s *store, key string, l objfmt.Layout, i int, progress func()) error {
	if l.Payload(i) == 0 {
		return nil
	}
	body, err := s.Get(ctx, key, l.HeaderSize(key), l.Stored(l.Payload(i)))
	if err != nil {
		return err
	}
	defer body.Close()
	buf := r.cell(l.Cell())
	defer r.giveCell(buf)
	sums := l.CellSum(i)
	for c := range l.Cells(i) {
		stored := (*buf)[:l.CellLen(i, c)+objfmt.SumSize]
		if _, err := io.ReadFull(body, stored); err != nil {
			return truncated(err)
		}
		if !sums.Verify(c, stored) {
			return fmt.Errorf("%w: cell %d: bad checksum", objstore.ErrCorrupt, c)
		}
		progress()
	}
	return nil
}

// readHeader reads a shard's header, and what comes with it.
func readHeader(ctx context.Context, s *store, key string) (objfmt.ShardHeader, []byte, error) {
	b, err := readRange(ctx, s, key, 0, objfmt.MaxShardHeader)
	if err != nil {
		return objfmt.ShardHeader{}, nil, err
	}
	h, err := objfmt.ParseShardHeader(b)
	return h, b, corrupt(err)
}

// readFooter reads the footer of a shard's file of so many bytes.
func readFooter(ctx context.Context, s *store, key string, size int64) (objfmt.ShardFooter, error) {
	b, err := readRange(ctx, s, key, max(size-objfmt.ShardFooterSize, 0), objfmt.ShardFooterSize)
	if err != nil {
		return objfmt.ShardFooter{}, err
	}
	f, err := objfmt.ParseShardFooter(b)
	return f, corrupt(err)
}

func readRange(ctx context.Context, s *store, key string, off, n int64) ([]byte, error) {
	body, err := s.Get(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(body, n)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// corrupt classes an error of a parser. A version of the future is no damage.
func corrupt(err error) error {
	if err == nil || errors.Is(err, objfmt.ErrVersion) {
		return err
	}
	return fmt.Errorf("%w: %w", objstore.ErrCorrupt, err)
}
