package config

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/objstore/memstore"
)

// hung is a candidate that answers with id when told to, and counts attempts.
type hung struct {
	*candidate
	attempts atomic.Int32
	answer   chan struct{}
	err      error // of the attempt's context when the answer came
}

func newHung(id objfmt.StoreIdentity) *hung {
	h := &hung{candidate: newCandidate(Store{Dir: "/hung"}), answer: make(chan struct{})}
	h.open = func(ctx context.Context) (objstore.Store, objfmt.StoreIdentity, error) {
		h.attempts.Add(1)
		<-h.answer // as in the kernel: no context ends it
		h.err = ctx.Err()
		return memstore.New(), id, nil
	}
	return h
}

func newLate(id objfmt.StoreIdentity, candidates ...*hung) *late {
	l := &late{want: id, log: slog.New(slog.DiscardHandler), cause: errNoIdentity}
	for _, h := range candidates {
		l.candidates = append(l.candidates, h.candidate)
	}
	return l
}

func within50ms(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestStuckAttemptsDoNotPileUp(t *testing.T) {
	id := objfmt.StoreIdentity{Index: 1}
	h := newHung(id)
	for range 3 {
		if _, err := h.take(within50ms(t), id); !errors.Is(err, objstore.ErrUnavailable) {
			t.Errorf("have %v", err)
		}
	}
	if n := h.attempts.Load(); n != 1 {
		t.Errorf("%d attempts are stuck", n)
	}
	close(h.answer)
	if _, err := h.take(t.Context(), id); err != nil {
		t.Errorf("after the answer: %v", err)
	}
}

// A read is cancelled when the other shards have answered, sooner than a probe.
func TestProbeOutlivesItsCaller(t *testing.T) {
	id := objfmt.StoreIdentity{Index: 1}
	h := newHung(id)
	l := newLate(id, h)
	if _, err := l.get(within50ms(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("have %v", err)
	}
	if _, err := l.get(t.Context()); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("while it is tried: %v", err)
	}
	close(h.answer)
	for range 100 {
		if _, err := l.get(t.Context()); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := l.get(t.Context()); err != nil || h.err != nil || h.attempts.Load() != 1 {
		t.Errorf("have %v; the probe's context %v, attempts %d", err, h.err, h.attempts.Load())
	}
}

func TestStuckCandidateHidesNoOther(t *testing.T) {
	id := objfmt.StoreIdentity{Index: 1}
	stuck, good := newHung(objfmt.StoreIdentity{}), newHung(id)
	close(good.answer)
	l := newLate(id, stuck, good)
	if _, err := l.get(t.Context()); err != nil {
		t.Error(err)
	}
	close(stuck.answer)
}

func TestLateStoreThatIsClosedTakesNoOther(t *testing.T) {
	id := objfmt.StoreIdentity{Index: 1}
	h := newHung(id)
	l := newLate(id, h)
	if _, err := l.get(within50ms(t)); err == nil {
		t.Fatal("reached")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	close(h.answer)
	h.turn <- struct{}{} // the attempt has ended
	if st := l.store.Load(); st != nil {
		t.Error("reached after Close")
	}
}
