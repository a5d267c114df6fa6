package config

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"marfs/pkg/namespace"
)

// decoder fills the structs of this package from YAML nodes. yaml.v3's own
// decoding stops at the first mistake in a value, and knows no positions afterwards.
type decoder struct {
	file     string
	lines    map[string]int    // where each key was given: "repos[0].data" is on line …
	values   map[string]string // what is written there, of single values
	failed   map[string]bool   // keys whose values were reported
	problems Problems
}

// scalarParser is a value with a text form of its own.
type scalarParser interface {
	parse(text string) error
	hint() string
}

// nodeParser is a value that is more than one scalar.
type nodeParser interface {
	parseNode(d *decoder, n *yaml.Node, key string)
}

// maxEntries bounds a list, so that checks of every pair stay quick.
const maxEntries = 4096

// AllPerms is every permission, the default.
const AllPerms = Perms(namespace.RM | namespace.WM | namespace.RD | namespace.WD | namespace.UD | namespace.TD)

func reflectOf(c *Config) reflect.Value { return reflect.ValueOf(c).Elem() }

func newDecoder(file string) *decoder {
	return &decoder{file: file, lines: map[string]int{}, values: map[string]string{}, failed: map[string]bool{}}
}

func (d *decoder) report(line int, key, value, rule, hint string) {
	d.failed[key] = true
	d.problems = append(d.problems, Problem{File: d.file, Line: line, Key: key, Value: value, Rule: rule, Hint: hint})
}

// value decodes n into v, which may be a struct, a list of structs, a pointer to
// a struct, or a scalar. The depth of the types bounds the recursion.
func (d *decoder) value(n *yaml.Node, v reflect.Value, key string) {
	d.lines[key] = n.Line
	if d.anchored(n, key) {
		return
	}
	if n.Kind == yaml.ScalarNode {
		d.values[key] = n.Value
	}
	if n.Kind == yaml.AliasNode {
		d.report(n.Line, key, "*"+n.Value, "aliases are not supported", "write the value out")
		return
	}
	if !strings.HasPrefix(n.Tag, "!!") {
		d.report(n.Line, key, n.Tag, "tags are not supported", "quote the value if it begins with !")
		return
	}
	if n.Tag == "!!null" {
		d.report(n.Line, key, "", "has no value", "give it one, or remove the key")
		return
	}
	switch t := v.Addr().Interface().(type) {
	case nodeParser:
		t.parseNode(d, n, key)
		return
	case scalarParser:
		if text, ok := d.scalar(n, key); ok {
			if err := t.parse(text); err != nil {
				d.report(n.Line, key, text, err.Error(), t.hint())
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.mapping(n, v.Elem(), key)
	case reflect.Struct:
		d.mapping(n, v, key)
	case reflect.Slice:
		d.list(n, v, key)
	default:
		d.plain(n, v, key)
	}
}

// anchored reports an anchor, which only an alias could use.
func (d *decoder) anchored(n *yaml.Node, key string) bool {
	if n.Anchor != "" {
		d.report(n.Line, key, "&"+n.Anchor, "anchors are not supported", "remove it: aliases are not supported either; quote a value that begins with &")
	}
	return n.Anchor != ""
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, key string) {
	if t, ok := v.Addr().Interface().(defaulter); ok {
		t.setDefaults()
	}
	if n.Kind != yaml.MappingNode {
		d.report(n.Line, key, n.Value, "must be keys and values", "known keys are "+strings.Join(keysOf(v.Type()), ", "))
		return
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		at := join(key, k.Value)
		if first, dup := seen[k.Value]; dup {
			d.report(k.Line, at, "", fmt.Sprintf("is already given on line %d", first), "keep one of the two")
			continue
		}
		seen[k.Value] = k.Line
		if d.anchored(k, at) {
			continue
		}
		field, ok := fieldOf(v, k.Value)
		if !ok || k.Kind != yaml.ScalarNode {
			d.report(k.Line, at, "", "unknown key", didYouMean(k.Value, keysOf(v.Type())))
			continue
		}
		d.value(n.Content[i+1], field, at)
		d.lines[at] = k.Line // a list or mapping begins on a later line than its key
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.SequenceNode {
		d.report(n.Line, key, n.Value, "must be a list", "begin each entry with \"- \"")
		return
	}
	if len(n.Content) > maxEntries {
		d.report(n.Line, key, "", fmt.Sprintf("has %d entries: must be at most %d", len(n.Content), maxEntries), "")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, e := range n.Content {
		d.value(e, v.Index(i), fmt.Sprintf("%s[%d]", key, i))
	}
}

// plain decodes a string, whole number, fraction or truth value.
func (d *decoder) plain(n *yaml.Node, v reflect.Value, key string) {
	text, ok := d.scalar(n, key)
	if !ok {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int:
		i, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			d.report(n.Line, key, text, "must be a whole number", "")
			return
		}
		v.SetInt(i)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			d.report(n.Line, key, text, "must be a number", "")
			return
		}
		v.SetFloat(f)
	case reflect.Bool:
		if text != "true" && text != "false" {
			d.report(n.Line, key, text, "must be true or false", "")
			return
		}
		v.SetBool(text == "true")
	}
}

func (d *decoder) scalar(n *yaml.Node, key string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.report(n.Line, key, "", "must be a single value", "")
		return "", false
	}
	return n.Value, true
}

// strings decodes one scalar or a list of them.
func (d *decoder) strings(n *yaml.Node, key string) (out []string) {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	for i, e := range nodes {
		at := fmt.Sprintf("%s[%d]", key, i)
		d.lines[at] = e.Line
		if d.anchored(e, at) {
			continue
		}
		if text, ok := d.scalar(e, at); ok {
			out = append(out, text)
		}
	}
	return out
}

func (t *Dirs) parseNode(d *decoder, n *yaml.Node, key string) { *t = d.strings(n, key) }

// MarshalYAML writes one directory without a list.
func (t Dirs) MarshalYAML() (any, error) {
	if len(t) == 1 {
		return t[0], nil
	}
	return []string(t), nil
}

func (p *Perms) parseNode(d *decoder, n *yaml.Node, key string) {
	*p = 0
	if n.Kind != yaml.SequenceNode {
		d.report(n.Line, key, n.Value, "must be a list", "for example [rm, rd]; [] allows nothing")
		return
	}
	for i, name := range d.strings(n, key) {
		one, err := namespace.ParsePerm([]string{name})
		at := fmt.Sprintf("%s[%d]", key, i)
		switch {
		case err != nil:
			d.report(d.lines[at], at, name, "is no permission", "permissions are rm, wm, rd, wd, ud and td")
		case *p&Perms(one) != 0:
			d.report(d.lines[at], at, name, "is given twice", "")
		}
		*p |= Perms(one)
	}
}

func (p Perms) String() string { return namespace.Perm(p).String() }

// MarshalYAML writes a set of permissions as the file does.
func (p Perms) MarshalYAML() (any, error) {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for name := range strings.SplitSeq(p.String(), ",") {
		if name != "" {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name})
		}
	}
	return n, nil
}

func join(key, sub string) string {
	if key == "" {
		return shown(sub)
	}
	return key + "." + shown(sub)
}

// fieldOf returns the field of struct v that is called key in the file.
func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if tagOf(v.Type().Field(i)) == key && key != "" {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// keysOf lists the keys that the file may use for struct type t.
func keysOf(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		if tag := tagOf(t.Field(i)); tag != "" {
			keys = append(keys, tag)
		}
	}
	return keys
}

func tagOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if name == "-" {
		return ""
	}
	return name
}

// didYouMean proposes the key that is at most two edits away, or lists them all.
func didYouMean(key string, keys []string) string {
	best, least := "", 3
	for _, k := range keys {
		if n := edits(key, k, least); n < least {
			best, least = k, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "known keys here are " + strings.Join(keys, ", ")
}

// edits is the Levenshtein distance of a and b, or limit when it is not below that.
func edits(a, b string, limit int) int {
	if max(len(a)-len(b), len(b)-len(a)) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}
