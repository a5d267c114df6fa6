package trash

import (
	"encoding/binary"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"marfs/pkg/objfmt"
)

// However many restores users begin and do not read, what they hold in memory is
// bounded, for each and for all.
func TestPlansOfUsersAreBounded(t *testing.T) {
	path := strings.Repeat("p", 60<<10)
	fill := func(p *plan) error {
		for range maxRestorePaths/len(path) - 1 {
			if err := p.add(item{target: path}); err != nil {
				return err
			}
		}
		return nil
	}
	var all []*plan
	for uid := uint32(1); ; uid++ {
		begun := len(all)
		for {
			p := &plan{dirs: map[string]item{}, uid: uid}
			all = append(all, p)
			err := fill(p)
			if err != nil {
				wantErrno(t, err, syscall.EAGAIN)
				break
			}
			if len(all)-begun > maxPlansOfUser/(2*maxRestorePaths)+1 {
				t.Fatal("one user has as many as that user likes")
			}
		}
		if len(all)-begun == 1 || uid > 5 {
			break
		}
	}
	if plans.total > maxPlans {
		t.Errorf("%d bytes", plans.total)
	}
	if err := fill(&plan{dirs: map[string]item{}}); err != nil {
		t.Errorf("root's: %v", err)
	}
	for _, p := range all {
		p.release()
	}
	if plans.total != 0 || len(plans.by) != 0 {
		t.Errorf("%d bytes of %d users are left", plans.total, len(plans.by))
	}
}

// What cannot be restored counts too.
func TestFailuresOfAPlanAreBounded(t *testing.T) {
	p := &plan{dirs: map[string]item{}, uid: 1}
	defer p.release()
	x := found{}
	x.Record.Path = strings.Repeat("p", 60<<10)
	n := 0
	for ; n < 2*maxPlansOfUser/len(x.Record.Path); n++ {
		if err := p.fail(x); err != nil {
			break
		}
	}
	if n == 2*maxPlansOfUser/len(x.Record.Path) {
		t.Error("failures without end")
	}
}

// The versions of a file that was written often, at the end of a long path, are more
// than memory should hold.
func TestVersionsAreBounded(t *testing.T) {
	for _, path := range []int{0, 10, 60 << 10} {
		l := versionList{seen: map[objfmt.ID]bool{}}
		e := Entry{}
		e.Record.Path = strings.Repeat("p", path)
		n := 0
		for ; !l.full() && n <= MaxVersions; n++ {
			binary.LittleEndian.PutUint32(e.Record.Content[:], uint32(n))
			l.add(e)
			l.add(e)
		}
		if n > MaxVersions || len(l.list) != n || n*path > maxVersionPaths+path {
			t.Errorf("%d of %d with paths of %d bytes", len(l.list), n, path)
		}
	}
}

// A restore closes what it opens at once, however it ends: a collector that comes
// some time is too late for who begins thousands.
func TestRestoreClosesDirectories(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(list)
	}
	w := newWorld(t)
	u := someone()
	w.mkdir(u, "a", 0o755)
	w.mkdir(u, "a/b", 0o755)
	w.mkdir(u, "a/b/c", 0o755)
	w.file(u, "a/b/c/f", "text")
	w.remove(u, "a/b")
	id := w.only(u, Filter{Match: "f"}).ID
	for _, r := range []Restoration{
		{DryRun: true}, {DryRun: true, IDs: []ID{id}}, {To: "none"}, {To: "none", DryRun: true}, {To: "a", DryRun: true},
		{Filter: Filter{Match: "["}}, {Filter: Filter{Under: "none"}}, {}, {Force: true}, {IDs: []ID{id}},
	} {
		for n := range 2 { // the first may open what stays open
			before := open()
			w.restore(u, r)
			if now := open(); n > 0 && now > before {
				t.Errorf("%+v: %d more are open", r, now-before)
			}
		}
	}
}
