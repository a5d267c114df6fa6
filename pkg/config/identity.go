package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"marfs/pkg/objfmt"
	"marfs/pkg/objstore"
	"marfs/pkg/repo"
)

// A StoreError says why a store cannot be used.
type StoreError struct {
	Repo, Pod string
	Store     string // its name: a directory, or endpoint/bucket
	Err       error
	hint      string
}

func (e *StoreError) Error() string {
	return fmt.Sprintf("store of repo %s, pod %s, %s: %v", e.Repo, e.Pod, e.Store, e.Err)
}

func (e *StoreError) Unwrap() error { return e.Err }

// Hint says what to do about it, or nothing.
func (e *StoreError) Hint() string { return e.hint }

// hinted is an error that says what to do about it.
type hinted struct {
	error
	hint string
}

func (e hinted) Unwrap() error { return e.error }

// Hint says what to do about it.
func (e hinted) Hint() string { return e.hint }

// errForeign is a store that another shard, pod, repo or installation owns.
var errForeign = errors.New("is not this pod's")

// errNoIdentity is a store that init has not made, or whose content is gone.
var errNoIdentity = errors.New("has no identity: it is new, empty or not mounted")

// member is one store of a pod, in the order of the file, and what was found in it.
type member struct {
	repo.Store // without a store when it could not be opened
	spec       Store
	pod        *Pod
	state      standing
	id         objfmt.StoreIdentity // identified
	err        error                // why it is not identified
	fail       *StoreError          // why it cannot be used, found when all are known
}

// standing is what is known of a store before its identity is judged.
type standing int

const (
	unreachable standing = iota
	broken               // it answers, but not as a store should; or its configuration is wrong
	empty                // it has no identity
	identified
)

// known reports whether the member's place in the pod is.
func (m *member) known() bool { return m.state == identified && m.fail == nil }

// pods holds what was found in every store of one repo.
type pods struct {
	repo    *Repo
	members [][]*member // by pod and place in the file
	uuid    objfmt.ID   // of the repo; zero when no store has an identity
}

// identify connects to every store of a repo and reads its identity. What is
// wrong with a store is in its member; the error is that of ctx. The caller
// closes the stores.
func identify(ctx context.Context, r *Repo) (*pods, error) {
	ps := &pods{repo: r}
	var g errgroup.Group
	g.SetLimit(64)
	for i := range r.Pods {
		p := &r.Pods[i]
		var members []*member
		for _, spec := range p.Stores {
			m := &member{spec: spec, pod: p, Store: repo.Store{Name: spec.String()}}
			members = append(members, m)
			g.Go(func() error {
				m.connect(ctx)
				return ctx.Err()
			})
		}
		ps.members = append(ps.members, members)
	}
	if err := g.Wait(); err != nil {
		return nil, errors.Join(err, ps.close())
	}
	ps.judge()
	return ps, nil
}

// connect opens the member's store and reads its identity.
func (m *member) connect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, connectDeadline)
	defer cancel()
	if m.Store.Store == nil {
		st, err := m.spec.connect(ctx)
		if err != nil {
			m.err = err
			if !isAway(err) {
				m.state = broken
			}
			return
		}
		m.Store.Store = st
	}
	m.id, m.err = readIdentity(ctx, m.Store)
	switch {
	case m.err == nil:
		m.state = identified
	case errors.Is(m.err, fs.ErrNotExist):
		m.lookInside(ctx)
	case !isAway(m.err):
		m.state = broken
	}
}

// lookInside tells a new store from one that has content but no identity: whose
// that is nobody can tell.
func (m *member) lookInside(ctx context.Context) {
	m.state = empty
	st, ok := m.Store.Store.(interface {
		Content(ctx context.Context) (string, error)
	})
	if !ok {
		return
	}
	name, err := st.Content(ctx)
	switch {
	case err != nil:
		m.state, m.err = unreachable, err
		if !isAway(err) {
			m.state = broken
		}
	case name != "":
		m.state, m.err = broken, fmt.Errorf("%w: it has no identity but is not empty (%s)", errForeign, name)
	}
}

// isAway reports whether a store did not answer, so that it may later.
func isAway(err error) bool {
	return errors.Is(err, objstore.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

// close closes every store that was opened.
func (ps *pods) close() error {
	var errs []error
	for _, m := range slices.Concat(ps.members...) {
		if m.Store.Store != nil {
			errs = append(errs, closeStore(m.Store.Store))
		}
	}
	return errors.Join(errs...)
}

func readIdentity(ctx context.Context, st objstore.Store) (objfmt.StoreIdentity, error) {
	const limit = 64 << 10
	rd, err := st.Get(ctx, objfmt.StoreIdentityKey, 0, limit)
	if err != nil {
		return objfmt.StoreIdentity{}, err
	}
	defer rd.Close()
	b, err := io.ReadAll(io.LimitReader(rd, limit))
	if err != nil {
		return objfmt.StoreIdentity{}, err
	}
	return objfmt.ParseStoreIdentity(b)
}

// writeIdentity makes a store the given member of a pod.
func writeIdentity(ctx context.Context, st objstore.Store, id objfmt.StoreIdentity) error {
	b, err := id.Encode()
	if err != nil {
		return err
	}
	return st.Put(ctx, objfmt.StoreIdentityKey, bytes.NewReader(b), int64(len(b)))
}

// majority returns the uuid that most stores of this repo's name carry, the
// first in the order of the file among equals.
func (ps *pods) majority() (best objfmt.ID) {
	votes := map[objfmt.ID]int{}
	for _, m := range slices.Concat(ps.members...) {
		if m.state == identified && m.id.Repo == ps.repo.Name {
			votes[m.id.UUID]++
		}
	}
	for _, m := range slices.Concat(ps.members...) {
		if votes[m.id.UUID] > votes[best] {
			best = m.id.UUID
		}
	}
	return best
}

// judge says what is wrong with each store, but for those that could not be
// reached or have no identity.
func (ps *pods) judge() {
	ps.uuid = ps.majority()
	for _, members := range ps.members {
		holder := map[int]*member{}
		for _, m := range members {
			switch m.fail = nil; m.state {
			case broken:
				m.blame(ps, m.err, "")
			case identified:
				ps.judgeIdentity(m, holder)
			}
		}
	}
}

func (ps *pods) judgeIdentity(m *member, holder map[int]*member) {
	id, r := m.id, ps.repo
	switch {
	case id.Repo != r.Name || id.Pod != m.pod.Name:
		m.blame(ps, fmt.Errorf("%w: it holds shard %d of repo %s, pod %s", errForeign, id.Index, id.Repo, id.Pod),
			"put every store where it belongs in the configuration; names of repos and pods are permanent")
	case id.UUID != ps.uuid:
		m.blame(ps, fmt.Errorf("%w: it belongs to another repo that is also called %s (uuid %v, the other stores have %v)", errForeign, r.Name, id.UUID, ps.uuid),
			"give the store that belongs here, or an empty one")
	case id.Data != r.Data || id.Parity != r.Parity:
		m.blame(ps, fmt.Errorf("%w: it was made for %d+%d, the configuration says %d+%d", errForeign, id.Data, id.Parity, r.Data, r.Parity),
			"data and parity of a repo are permanent: describe a second repo and place new files there")
	case holder[id.Index] != nil:
		m.blame(ps, fmt.Errorf("%w: it holds shard %d, as does %s", errForeign, id.Index, holder[id.Index].Name),
			"one of the two is a copy: remove it, and give the store that is missing")
	default:
		holder[id.Index] = m
	}
}

func (m *member) blame(ps *pods, err error, hint string) {
	m.fail = &StoreError{Repo: ps.repo.Name, Pod: m.pod.Name, Store: m.Name, Err: err, hint: hint}
}

// faults returns what is wrong with the members, each a *StoreError.
func faults(members []*member) (errs []error) {
	for _, m := range members {
		if m.fail != nil {
			errs = append(errs, m.fail)
		}
	}
	return errs
}

// inOrder puts the members of a pod in the order of their shards. Those without
// a known place take the places that are left, in the order of the file. With
// one of them that is certainly right; with several it is a guess, for names in
// messages only: a [late] store goes by the identity that it finds.
func inOrder(members []*member) []*member {
	placed := make([]*member, len(members))
	for _, m := range members {
		if m.known() {
			placed[m.id.Index] = m
		}
	}
	next := 0
	for _, m := range members {
		if m.known() {
			continue
		}
		for placed[next] != nil {
			next++
		}
		placed[next] = m
	}
	return placed
}

// stores returns what the repo is made of: the pod's stores in the order of their
// shards. One that was not reached or is empty is away for now.
func (ps *pods) stores(members []*member, log *slog.Logger) (out []repo.Store) {
	var missing []*candidate
	for _, m := range members {
		if !m.known() {
			missing = append(missing, newCandidate(m.spec))
		}
	}
	for i, m := range inOrder(members) {
		l := &late{want: ps.identity(m.pod, i), candidates: []*candidate{newCandidate(m.spec)},
			log: log.With("repo", ps.repo.Name, "pod", m.pod.Name, "shard", i)}
		if m.known() {
			l.store.Store(&reached{m.Store.Store, m.Name})
		} else {
			l.candidates, l.cause, l.tried = missing, m.err, time.Now()
			if m.state == empty {
				l.cause = errNoIdentity
			}
			if m.Store.Store != nil {
				_ = closeStore(m.Store.Store) // nothing was written
			}
		}
		out = append(out, repo.Store{Name: m.Name, Store: l})
	}
	return out
}

// identity is what the store for shard i of a pod must say of itself.
func (ps *pods) identity(p *Pod, i int) objfmt.StoreIdentity {
	return objfmt.StoreIdentity{Repo: ps.repo.Name, Pod: p.Name, Index: i, UUID: ps.uuid, Data: ps.repo.Data, Parity: ps.repo.Parity}
}
