package modelcheck

import "errors"

// deed is one thing that can be done to the file f (and g beside it).
type deed struct {
	name string
	do   func(p *Party) error
	late bool
	// named: only in scenarios that name it; it is made of deeds that are in all.
	named bool
	// ready does the first part unscheduled and returns the rest, to keep
	// scenarios with much interleaving small.
	ready func(p *Party) func()
}

func (d deed) role(name string) Role {
	// An error is an answer: the history has it.
	return Role{Name: name + ":" + d.name, Late: d.late, Ready: d.ready, Do: func(p *Party) { _ = d.do(p) }}
}

var deeds = map[string]deed{}

func init() {
	for _, d := range []deed{
		// users
		{name: "create", do: func(p *Party) error { return p.create("f", "n") }},
		{name: "createmulti", do: func(p *Party) error { return p.createStream("f", "no", 2) }},
		{name: "stream", do: func(p *Party) error { return p.stream("f", "ss", 0) }},
		{name: "multi", do: func(p *Party) error { return p.stream("f", "mm", 2) }},
		{name: "fsync", do: func(p *Party) error { return p.streamSync("f", "xy") }},
		{name: "change", do: func(p *Party) error { return p.change("f", 0, 'c', false) }},
		{name: "change1", do: func(p *Party) error { return p.change("f", 1, 'k', false) }},
		{name: "changesync", do: func(p *Party) error { return p.change("f", 1, 'd', true) }},
		{name: "append", do: func(p *Party) error { return p.append("f", 'e') }},
		{name: "append2", do: func(p *Party) error { return p.append("f", 'h') }},
		{name: "cut", do: func(p *Party) error { return p.truncate("f", 1) }},
		{name: "empty", do: func(p *Party) error { return p.truncate("f", 0) }},
		{name: "extend", do: func(p *Party) error { return p.truncate("f", 3) }},
		{name: "unlink", do: func(p *Party) error { return p.unlink("f") }},
		{name: "renameover", do: func(p *Party) error { return p.rename("g", "f") }},
		{name: "renamelink", do: func(p *Party) error { return p.rename("h", "f") }}, // h is another name of f
		{name: "link", do: func(p *Party) error { return p.link("f", "h") }},
		{name: "linkstream", do: func(p *Party) error { return errors.Join(p.link("f", "h"), p.stream("f", "ss", 0)) }, named: true},
		{name: "rmdir", do: func(p *Party) error { return p.rmdir("d") }},
		{name: "mkin", do: func(p *Party) error { return p.createIn("d", "x", "n") }},
		{name: "read", do: func(p *Party) error { return p.read("f") }},
		{name: "hold", do: func(p *Party) error { return p.hold("f") }, named: true},
		{name: "touch", do: func(p *Party) error { return p.touch("f") }},
		// keepers
		{name: "batch", do: func(p *Party) error { return p.batch("f", "n") }},
		{name: "fence", do: func(p *Party) error { return p.recover() }},
		{name: "pack", do: func(p *Party) error { return p.pack() }},
		{name: "repack", do: func(p *Party) error { return p.repack() }},
		{name: "release", do: func(p *Party) error { return p.release("f") }},
		{name: "releasepacks", do: (*Party).releasePacks},
		{name: "packthenrelease", do: func(p *Party) error { _ = p.pack(); return p.releasePacks() }, named: true},
		{name: "packrelease", do: func(p *Party) error { _ = p.pack(); return p.release("f") }},
		{name: "restore", do: func(p *Party) error { return p.restore("f") }},
		{name: "restorever", do: func(p *Party) error { return p.restoreVersion("f") }},
		{name: "appendpack", do: func(p *Party) error { return errors.Join(p.append("f", 'e'), p.pack()) }},
		{name: "restorestream", do: func(p *Party) error { return errors.Join(p.restoreVersion("f"), p.stream("f", "ss", 0)) }},
		{name: "packreleasestream", do: func(p *Party) error { return errors.Join(p.pack(), p.release("f"), p.stream("f", "tt", 0)) }, named: true},
		{name: "repackgcstream", do: func(p *Party) error { return errors.Join(p.repack(), p.gc(always), p.stream("f", "tt", 0)) }, late: true, named: true},
		{name: "unlinkgc", do: func(p *Party) error { return errors.Join(p.unlink("f"), p.gc(always)) }, late: true},
		{name: "gctwice", do: func(p *Party) error { return errors.Join(p.gc(always), p.gc(always)) }, late: true},
		{name: "publish", ready: (*Party).readyPublish},
		{name: "publishmoved", ready: (*Party).readyPublishMoved},
		{name: "fencework", do: (*Party).fenceWork},
		{name: "fencepacks", do: (*Party).fencePacks, named: true},
		{name: "gc", do: func(p *Party) error { return p.gc(setupEnd) }},              // keeps its distance
		{name: "gcall", do: func(p *Party) error { return p.gc(always) }, late: true}, // no grace at all
		{name: "purge", do: (*Party).purge},
		{name: "gcback", do: (*Party).gcBack, late: true, named: true}, // cannot tell, and gives all back
		{name: "fencegc", do: func(p *Party) error { _ = p.recover(); return p.gc(always) }, late: true},
	} {
		deeds[d.name] = d
	}
}

// setups are what scenarios begin with; there is always a second small file g.
var setups = map[string]func(p *Party){
	"nothing":    func(*Party) {},
	"homeless":   func(p *Party) { p.must(p.mknod("f")) },
	"small":      func(p *Party) { p.must(p.create("f", "ab")) },
	"object":     func(p *Party) { p.must(p.createStream("f", "ab", 0)) },
	"multi":      func(p *Party) { p.must(p.createStream("f", "ab", 2)) },
	"body":       func(p *Party) { p.must(p.create("f", "ab")); p.must(p.change("f", 1, 'B', false)) },
	"bodypacked": func(p *Party) { p.must(p.create("f", "ab")); p.must(p.change("f", 1, 'B', false)); p.must(p.pack()) },
	"packed":     func(p *Party) { p.must(p.create("f", "ab")); p.must(p.pack()) },
	"released":   func(p *Party) { p.must(p.create("f", "ab")); p.must(p.pack()); p.must(p.release("f")) },
	"linked":     func(p *Party) { p.must(p.create("f", "ab")); p.must(p.link("f", "h")) },
	"dir":        func(p *Party) { p.must(p.mkdir("d")) },
	"trashed":    func(p *Party) { p.must(p.create("f", "ab")); p.must(p.unlink("f")) },
	"trashedtwice": func(p *Party) {
		p.must(p.createStream("f", "ab", 0))
		p.must(p.link("f", "h"))
		p.must(p.unlink("f"))
		p.must(p.unlink("h"))
	},
	"trashedobject": func(p *Party) {
		p.must(p.createStream("f", "ab", 0))
		p.must(p.unlink("f"))
	},
	"trashedpacked": func(p *Party) { p.must(p.create("f", "ab")); p.must(p.pack()); p.must(p.unlink("f")) },
	// an old object content is a version of a newer one
	"versioned":       func(p *Party) { p.must(p.createStream("f", "ab", 0)); p.must(p.stream("f", "cd", 0)) },
	"versionedmulti":  func(p *Party) { p.must(p.createStream("f", "ab", 2)); p.must(p.stream("f", "cd", 2)) },
	"versionedown":    func(p *Party) { p.must(p.create("f", "ab")); p.must(p.change("f", 1, 'B', false)) },
	"versionedpacked": func(p *Party) { p.must(p.create("f", "ab")); p.must(p.pack()); p.must(p.stream("f", "cd", 0)) },
}

// scenario names a situation: setup/deed x deed ...
func scenario(setup string, names ...string) Scenario {
	s := Scenario{Name: setup + "/", Setup: func(p *Party) {
		setups[setup](p)
		p.must(p.create("g", "z"))
	}}
	for i, n := range names {
		if i > 0 {
			s.Name += " x "
		}
		s.Name += n
		d, ok := deeds[n]
		if !ok {
			panic("no deed " + n)
		}
		s.Actors = append(s.Actors, d.role(string(rune('A'+i))))
	}
	s.Lenient = lenient(setup, names)
	return s
}
