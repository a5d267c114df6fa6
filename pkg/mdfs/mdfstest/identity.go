package mdfstest

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"marfs/pkg/mdfs"
)

var identityCases = []testCase{
	{name: "Owner", run: identityOwner},
	{name: "Modes", run: identityModes},
	{name: "Search", run: identitySearch},
	{name: "Groups", run: identityGroups},
	{name: "SetgidDir", run: identitySetgidDir},
	{name: "Sticky", run: identitySticky},
	{name: "NotOwner", run: identityNotOwner},
	{name: "OwnDirectory", run: identityOwnDirectory},
	{name: "Capabilities", run: identityCapabilities},
	{name: "Root", run: identityRoot},
	{name: "Refused", run: identityRefused},
	{name: "Nested", run: identityNested},
	{name: "Concurrent", run: identityConcurrent},
}

// Users that need no entry in any table.
var (
	alice = mdfs.Cred{UID: 70001, GID: 80001, Groups: []uint32{80001, 90001}}
	bob   = mdfs.Cred{UID: 70002, GID: 80002, Groups: []uint32{80002, 90001, 90002}}
	super = mdfs.Cred{}
)

// public makes a directory where everybody may make names.
func (e *env) public() mdfs.Dir {
	e.Helper()
	return e.mkdir(e.root, "public", 0o777)
}

func (e *env) owner(d mdfs.Dir, name string, uid, gid uint32) {
	e.Helper()
	st := e.lstat(d, name)
	same(e, "uid of "+name, st.Uid, uid)
	same(e, "gid of "+name, st.Gid, gid)
}

func identityOwner(e *env) {
	d := e.public()
	for name, make := range map[string]func(name string) error{
		"file":      func(name string) error { return opens(unix.O_CREAT|unix.O_EXCL|unix.O_RDWR)(d, name) },
		"directory": func(name string) error { return d.Mkdir(name, 0o755) },
		"symlink":   func(name string) error { return d.Symlink("x", name) },
		"fifo":      func(name string) error { return d.Mknod(name, unix.S_IFIFO|0o600, 0) },
	} {
		e.ok(e.As(alice, func() error { return make(name) }))
		e.owner(d, name, alice.UID, alice.GID)
		e.ok(make("root's " + name))
		e.owner(d, "root's "+name, 0, 0)
	}
}

// identityModes: the mode bits decide as they do for the user's own process.
func identityModes(e *env) {
	d := e.public()
	for _, c := range []struct {
		perm uint32
		flag int
		who  mdfs.Cred
		want error
	}{
		{0o600, unix.O_RDWR, alice, nil},
		{0o600, unix.O_RDONLY, bob, unix.EACCES},
		{0o600, unix.O_WRONLY | unix.O_TRUNC, bob, unix.EACCES},
		{0o604, unix.O_RDONLY, bob, nil},
		{0o604, unix.O_RDWR, bob, unix.EACCES},
		{0o066, unix.O_RDONLY, alice, unix.EACCES},
		{0o066, unix.O_RDWR, bob, nil},
		{0o000, unix.O_RDONLY, alice, unix.EACCES},
		{0o000, unix.O_PATH, bob, nil},
	} {
		e.ok(e.As(alice, func() error { return opens(unix.O_CREAT|unix.O_RDWR)(d, "f") }))
		e.ok(d.Chmod("f", c.perm))
		if err := e.As(c.who, func() error { return opens(c.flag)(d, "f") }); !errors.Is(err, c.want) {
			e.Errorf("uid %d opens mode %o with %#x: got %v, want %v", c.who.UID, c.perm, c.flag, err, c.want)
		}
		e.ok(d.Remove("f"))
	}
	e.ok(d.Chmod(".", 0o755))
	err := e.As(alice, func() error { return d.Mkdir("x", 0o755) })
	e.fails("Mkdir where only root may write", err, unix.EACCES)
}

// identitySearch: a Dir gives no rights to what is in it.
func identitySearch(e *env) {
	d := e.public()
	e.ok(e.As(alice, func() error { return d.Mkdir("home", 0o700) }))
	home := e.opendir(d, "home")
	e.file(home, "f", 0o666)
	e.ok(e.As(alice, func() error { _, err := home.Lstat("f"); return err }))
	for _, c := range calls {
		name := "f"
		if c.makes {
			name = "new"
		}
		err := e.As(bob, func() error { return c.do(home, name) })
		e.fails(c.name+" in another's directory", err, unix.EACCES)
	}
	for what, do := range map[string]func() error{
		"Walk":    func() error { _, err := mdfs.Walk(d, "home/sub"); return err },
		"Entries": func() error { _, err := home.Entries(); return err },
		"Sync":    home.Sync,
	} {
		e.fails(what+" of another's directory", e.As(bob, do), unix.EACCES)
	}
	// A directory that may be read but not searched, and the other way round.
	e.ok(d.Chmod("home", 0o704))
	e.ok(e.As(bob, func() error {
		ents, err := home.Entries()
		if err == nil {
			err = ents.Close()
		}
		return err
	}))
	e.fails("Lstat", e.As(bob, func() error { _, err := home.Lstat("f"); return err }), unix.EACCES)
	e.ok(d.Chmod("home", 0o701))
	e.ok(e.As(bob, func() error { return opens(unix.O_RDONLY)(home, "f") }))
	e.fails("Entries", e.As(bob, func() error { _, err := home.Entries(); return err }), unix.EACCES)
}

func identityGroups(e *env) {
	d := e.public()
	e.file(d, "f", 0o040)
	for gid, want := range map[uint32]error{
		alice.GID: nil, 90001: nil, 90002: unix.EACCES, 0: unix.EACCES,
	} {
		e.ok(d.Lchown("f", 0, int(gid)))
		if err := e.As(alice, func() error { return opens(unix.O_RDONLY)(d, "f") }); !errors.Is(err, want) {
			e.Errorf("a file of group %d: got %v, want %v", gid, err, want)
		}
	}
	alone := mdfs.Cred{UID: alice.UID, GID: alice.GID}
	e.ok(d.Lchown("f", 0, 90001))
	err := e.As(alone, func() error { return opens(unix.O_RDONLY)(d, "f") })
	e.fails("without supplementary groups", err, unix.EACCES)
	many := alone
	for i := range uint32(1000) {
		many.Groups = append(many.Groups, 91000-i) // not sorted
	}
	e.ok(e.As(many, func() error { return opens(unix.O_RDONLY)(d, "f") }))
	same(e, "first of the groups, afterwards", many.Groups[0], 91000)
}

func identitySetgidDir(e *env) {
	d := e.mkdir(e.root, "shared", 0o777)
	e.ok(d.Lchown(".", 0, 90002))
	e.ok(d.Chmod(".", 0o2777))
	e.ok(e.As(alice, func() error { return opens(unix.O_CREAT|unix.O_RDWR)(d, "f") }))
	e.owner(d, "f", alice.UID, 90002)
	e.ok(e.As(alice, func() error { return d.Mkdir("sub", 0o700) }))
	e.owner(d, "sub", alice.UID, 90002)
	same(e, "mode of sub", mode(e.lstat(d, "sub")), 0o2700)
	// Who is not in the group may not make files that run with its rights.
	e.ok(e.As(alice, func() error { return d.Chmod("f", 0o2755) }))
	same(e, "mode set by a stranger to the group", mode(e.lstat(d, "f")), 0o755)
	e.ok(e.As(bob, func() error { return opens(unix.O_CREAT|unix.O_RDWR)(d, "bob") }))
	e.ok(e.As(bob, func() error { return d.Chmod("bob", 0o2755) }))
	same(e, "mode set by a member of the group", mode(e.lstat(d, "bob")), 0o2755)
}

func identitySticky(e *env) {
	d := e.mkdir(e.root, "tmp", 0o1777)
	e.ok(e.As(alice, func() error { return opens(unix.O_CREAT|unix.O_RDWR)(d, "a") }))
	e.ok(e.As(bob, func() error { return opens(unix.O_CREAT|unix.O_RDWR)(d, "b") }))
	e.fails("Remove", e.As(bob, func() error { return d.Remove("a") }), unix.EPERM, unix.EACCES)
	e.fails("Rename", e.As(bob, func() error { return d.Rename("a", d, "x", 0) }), unix.EPERM, unix.EACCES)
	e.fails("Rename over it", e.As(bob, func() error { return d.Rename("b", d, "a", 0) }), unix.EPERM, unix.EACCES)
	e.ok(e.As(alice, func() error { return d.Remove("a") }))
	e.ok(d.Remove("b"))
}

func identityNotOwner(e *env) {
	d := e.public()
	e.ok(e.As(alice, func() error { return opens(unix.O_CREAT|unix.O_RDWR)(d, "f") }))
	e.ok(d.Chmod("f", 0o644))
	soon := mdfs.TimeSet{Time: time.Unix(5e9, 0)}
	for what, c := range map[string]struct {
		do   func() error
		want []error
	}{
		"Chmod":        {func() error { return d.Chmod("f", 0o777) }, []error{unix.EPERM}},
		"Lchown":       {func() error { return d.Lchown("f", int(bob.UID), -1) }, []error{unix.EPERM}},
		"Lchtimes":     {func() error { return d.Lchtimes("f", soon, soon) }, []error{unix.EPERM}},
		"Lchtimes now": {func() error { return d.Lchtimes("f", mdfs.TimeSet{Now: true}, mdfs.TimeSet{Now: true}) }, []error{unix.EACCES}},
		"Setxattr":     {func() error { return d.Setxattr("f", attr, nil, 0) }, []error{unix.EACCES, unix.EPERM}},
	} {
		err := e.As(bob, c.do)
		if !errors.Is(err, c.want[0]) && !errors.Is(err, c.want[len(c.want)-1]) {
			e.Errorf("%s of another's file: got %v, want %v", what, err, c.want)
		}
	}
	giveAway := e.As(alice, func() error { return d.Lchown("f", int(bob.UID), -1) })
	e.fails("giving a file away", giveAway, unix.EPERM)
	e.ok(e.As(alice, func() error { return d.Lchown("f", -1, 90001) }))
	e.fails("group of others", e.As(alice, func() error { return d.Lchown("f", -1, 90002) }), unix.EPERM)
	e.owner(d, "f", alice.UID, 90001)
}

// identityOwnDirectory: who has locked himself out can let himself in again.
func identityOwnDirectory(e *env) {
	d := e.public()
	e.ok(e.As(alice, func() error { return d.Mkdir("own", 0) }))
	own := e.opendir(d, "own")
	e.fails("Mkdir", e.As(alice, func() error { return own.Mkdir("x", 0o755) }), unix.EACCES)
	e.ok(e.As(alice, func() error { _, err := own.Lstat("."); return err }))
	e.ok(e.As(alice, func() error { return own.Lchtimes(".", mdfs.TimeSet{Now: true}, mdfs.TimeSet{Omit: true}) }))
	e.fails("Chmod . by another", e.As(bob, func() error { return own.Chmod(".", 0o777) }), unix.EPERM)
	e.ok(e.As(alice, func() error { return own.Chmod(".", 0o700) }))
	e.ok(e.As(alice, func() error { return own.Mkdir("x", 0o755) }))
}

// identityCapabilities: nothing of what root may do is left.
func identityCapabilities(e *env) {
	d := e.public()
	f := e.file(d, "f", 0o666)
	e.ok(f.Setxattr("trusted.mdfstest", []byte("secret"), 0))
	for what, do := range map[string]func() error{
		"device":       func() error { return d.Mknod("null", unix.S_IFCHR|0o666, unix.Mkdev(1, 3)) },
		"trusted":      func() error { return d.Setxattr("f", "trusted.x", nil, 0) },
		"open trusted": func() error { return f.Setxattr("trusted.x", nil, 0) },
		"chown":        func() error { return f.Chown(int(alice.UID), int(alice.GID)) },
		"chmod":        func() error { return f.Chmod(0o777) },
	} {
		e.fails(what, e.As(alice, do), unix.EPERM)
	}
	err := e.As(alice, func() error { _, err := d.Getxattr("f", "trusted.mdfstest"); return err })
	e.fails("reading a trusted xattr", err, unix.ENODATA, unix.EPERM)
	e.clean()
	e.ok(d.Mknod("null", unix.S_IFCHR|0o666, unix.Mkdev(1, 3)))
}

func identityRoot(e *env) {
	d := e.public()
	e.ok(e.As(alice, func() error { return d.Mkdir("home", 0o700) }))
	home := e.opendir(d, "home")
	e.ok(e.As(alice, func() error { return opens(unix.O_CREAT|unix.O_RDWR)(home, "f") }))
	e.ok(home.Chmod("f", 0))
	for _, who := range []mdfs.Cred{super, {Groups: []uint32{0}}, {GID: 7}, {GID: 7, Groups: []uint32{7, 8, 90001}}} {
		e.ok(e.As(who, func() error { return opens(unix.O_RDWR)(home, "f") }))
		e.ok(e.As(who, func() error { return home.Mkdir("made", 0o755) }))
		e.owner(home, "made", 0, who.GID)
		e.ok(home.RemoveDir("made"))
	}
}

// identityRefused: when the switch fails, nothing is done.
func identityRefused(e *env) {
	for what, who := range map[string]mdfs.Cred{
		"no uid":          {UID: math.MaxUint32, GID: 1},
		"no gid":          {UID: 70001, GID: math.MaxUint32},
		"root, no gid":    {GID: math.MaxUint32},
		"too many groups": {UID: 70001, GID: 1, Groups: make([]uint32, 65537)},
		"no group":        {UID: 70001, GID: 1, Groups: []uint32{1, math.MaxUint32}},
	} {
		ran := false
		if err := e.As(who, func() error { ran = true; return nil }); !errors.Is(err, unix.EINVAL) || ran {
			e.Errorf("%s: got %v, ran: %v, want EINVAL and nothing run", what, err, ran)
		}
	}
	e.clean()
}

// identityNested: the innermost decides, and the outer is back afterwards.
func identityNested(e *env) {
	d := e.public()
	makes := func(name string) func() error {
		return func() error { return d.Mkdir(name, 0o755) }
	}
	e.ok(e.As(alice, func() error {
		refused := e.As(mdfs.Cred{UID: math.MaxUint32}, makes("nobody"))
		if !errors.Is(refused, unix.EINVAL) {
			return fmt.Errorf("refused identity: %w", refused)
		}
		return errors.Join(
			makes("alice 1")(),
			e.As(bob, func() error {
				return errors.Join(e.As(super, makes("root")), makes("bob")())
			}),
			e.As(alice, makes("alice 2")),
			e.As(super, makes("root 2")),
			makes("alice 3")(),
		)
	}))
	e.owner(d, "bob", bob.UID, bob.GID)
	e.owner(d, "root", 0, 0)
	e.owner(d, "root 2", 0, 0)
	for i := 1; i <= 3; i++ {
		e.owner(d, fmt.Sprintf("alice %d", i), alice.UID, alice.GID)
	}
	e.absent(d, "nobody")
}

// identityConcurrent: 32 users and root at once, and never a wrong owner.
func identityConcurrent(e *env) {
	const users = 32
	d := e.public()
	var wg sync.WaitGroup
	for u := range uint32(users) {
		who := mdfs.Cred{UID: 70000 + u, GID: 80000 + u, Groups: []uint32{80000 + u, 90000 + u}}
		wg.Go(func() {
			e.makeOwned(d, fmt.Sprint(u), who, func(fn func() error) error { return e.As(who, fn) })
		})
	}
	for i := range 2 {
		wg.Go(func() {
			e.makeOwned(d, fmt.Sprint("root", i), super, func(fn func() error) error { return fn() })
		})
	}
	wg.Wait()
	same(e, "left", len(e.list(d)), 0)
	e.clean()
}

// makeOwned makes, changes and removes a name again and again by as, and looks
// from outside whose it is.
func (e *env) makeOwned(d mdfs.Dir, name string, who mdfs.Cred, as func(fn func() error) error) {
	for range 500 {
		if err := as(func() error { return d.Mknod(name, unix.S_IFREG|0o600, 0) }); err != nil {
			e.Error(err)
			return
		}
		st, err := d.Lstat(name)
		if err != nil || st.Uid != who.UID || st.Gid != who.GID {
			e.Errorf("made by %d:%d: belongs to %d:%d, %v", who.UID, who.GID, st.Uid, st.Gid, err)
			return
		}
		err = errors.Join(
			as(func() error { return d.Chmod(name, 0o640) }),
			as(func() error { return opens(unix.O_RDWR)(d, name) }),
			as(func() error { return d.Remove(name) }),
		)
		if err != nil {
			e.Error(err)
			return
		}
	}
}
