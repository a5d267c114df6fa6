package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxFile bounds a configuration or credentials file: a thousand namespaces
// with every key take about half of it.
const maxFile = 1 << 20

// Load reads and checks the file. Mistakes in it are [Problems]; a file that
// cannot be read is an *fs.PathError.
func Load(file string) (*Config, error) {
	data, err := readLimited(file)
	if err != nil {
		return nil, err
	}
	return Parse(file, data)
}

// Parse checks the text of a configuration. file is its name for messages;
// relative paths in the text start at its directory.
func Parse(file string, data []byte) (*Config, error) {
	c := &Config{File: file}
	d := newDecoder(file)
	if root := d.document(data); root != nil {
		d.value(root, reflectOf(c), "")
	}
	k := &checker{decoder: d, cfg: c}
	if len(d.lines) > 0 { // else there is no mapping to look at
		k.config()
	}
	if len(d.problems) > 0 {
		slices.SortStableFunc(d.problems, func(a, b Problem) int { return a.Line - b.Line })
		return nil, d.problems
	}
	slices.SortStableFunc(k.warnings, func(a, b Problem) int { return a.Line - b.Line })
	c.Warnings = k.warnings
	return c, nil
}

// Effective returns the configuration with every default filled in and every
// path absolute, as YAML that loads to the same. It holds no secrets: the file
// has none, only the names of the files that do.
func (c *Config) Effective() ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(c); err != nil {
		return nil, fmt.Errorf("%s: %w", c.File, err)
	}
	return b.Bytes(), e.Close()
}

func readLimited(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, Problems{{File: file, Rule: fmt.Sprintf("is larger than %v", Size(maxFile))}}
	}
	return data, nil
}

// document parses one YAML document and returns its root mapping, or nil after
// reporting why there is none.
func (d *decoder) document(data []byte) *yaml.Node {
	if len(data) > maxFile {
		d.report(0, "", "", fmt.Sprintf("is larger than %v", Size(maxFile)), "")
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		d.report(0, "", "", "is empty", "start from one of the files in configs/")
		return nil
	}
	if err != nil {
		d.syntax(err, data)
		return nil
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		d.report(second.Line, "", "", "a second YAML document begins here", "put everything into one")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err, data)
	}
	return doc.Content[0]
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): (.*)`)

// syntax reports what the YAML parser says. Of a mistake in the structure, it
// gives the line before the one where the block began that it could not end.
func (d *decoder) syntax(err error, data []byte) {
	line, rule, where := 0, strings.TrimPrefix(err.Error(), "yaml: "), ""
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1])
		rule = m[2]
	}
	if line > 0 && strings.HasPrefix(rule, "did not find expected") {
		line = min(line+1, 1+bytes.Count(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")))
		where = ", on this line or in the block that begins here"
	}
	d.report(line, "", "", "is not YAML"+where+": "+rule, "look at the indentation and the colons of this line and the one before")
}

// absolute makes a path of the file absolute: relative ones start at the
// directory of the configuration file, wherever the command runs.
func (c *Config) absolute(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	dir, err := filepath.Abs(filepath.Dir(c.File))
	if err != nil { // the working directory is gone
		dir = filepath.Dir(c.File)
	}
	return filepath.Join(dir, p)
}
