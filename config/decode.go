package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is a configuration file: what it says, and on which lines.
type document struct {
	root     *yaml.Node // nil when the file is empty
	config   Config     // the defaults with the file's values over them
	problems problems
}

// decode reads a whole file, strictly: no unknown or repeated key, no value of
// another type, no key without a value, no second document. It goes on after a
// problem, as far as the syntax allows.
func decode(text []byte) *document {
	d := &document{config: Default()}
	var root yaml.Node
	stream := yaml.NewDecoder(bytes.NewReader(text))
	if err := stream.Decode(&root); err == io.EOF {
		return d
	} else if err != nil {
		d.addYAML(err)
		return d
	}
	d.root = root.Content[0]
	var second yaml.Node
	if err := stream.Decode(&second); err == nil {
		d.problems = append(d.problems, &Problem{Line: second.Line, Text: "a second YAML document, where one is wanted"})
	} else if err != io.EOF {
		d.addYAML(err)
	}
	if isNull(d.root) {
		return d
	}
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	if err := strict.Decode(&d.config); err != nil {
		d.addYAML(err)
	}
	d.decodeTenants()
	d.check(d.root, reflect.TypeFor[Config](), "")
	return d
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// check refuses what the YAML library lets pass: a key without a value, which
// would leave the default, and a fraction where a whole number is wanted, which
// would be cut off.
func (d *document) check(n *yaml.Node, t reflect.Type, key string) {
	switch {
	case isNull(n):
		d.problems = append(d.problems, &Problem{Line: n.Line, Key: key, Text: "has no value"})
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if field, ok := fieldByKey(t, n.Content[i].Value); ok {
				d.check(n.Content[i+1], field.Type, join(key, n.Content[i].Value))
			}
		}
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for i, item := range n.Content {
			d.check(item, t.Elem(), fmt.Sprintf("%s[%d]", key, i))
		}
	case n.ShortTag() == "!!float" && (t.Kind() == reflect.Int || t.Kind() == reflect.Uint16):
		d.problems = append(d.problems, &Problem{Line: n.Line, Key: key, Text: fmt.Sprintf("%s is not a whole number", n.Value)})
	}
}

// line returns the line on which the file says something about the key, or the
// nearest line above it in the tree; 0 when it says nothing.
func (d *document) line(key string) int {
	n, line := d.root, 0
	for _, step := range strings.FieldsFunc(key, func(r rune) bool { return strings.ContainsRune(".[]", r) }) {
		if n == nil {
			break
		}
		n, line = child(n, step, line)
	}
	return line
}

// child finds the part of a node that one step of a key names, and its line;
// without one it returns nil and the line given.
func child(n *yaml.Node, step string, line int) (*yaml.Node, int) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i+1], n.Content[i].Line
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i < len(n.Content) {
			return n.Content[i], n.Content[i].Line
		}
	}
	return nil, line
}

var (
	yamlLine    = regexp.MustCompile(`^(?:yaml: )?line (\d+): (?s:(.*))$`)
	yamlUnknown = regexp.MustCompile(`^field (\S+) not found in type \S+$`)
	yamlType    = regexp.MustCompile("^cannot unmarshal !!(\\w+)(?: (`[^`]*`))? into (\\S+)$")
)

// addYAML takes the YAML library's errors over, in the words of this package.
func (d *document) addYAML(err error) {
	messages := []string{err.Error()}
	if typed := (*yaml.TypeError)(nil); errors.As(err, &typed) {
		messages = typed.Errors
	}
	for _, message := range messages {
		p := &Problem{Text: strings.TrimPrefix(message, "yaml: ")}
		if m := yamlLine.FindStringSubmatch(message); m != nil {
			p.Line, _ = strconv.Atoi(m[1])
			p.Text = m[2]
		}
		if m := yamlUnknown.FindStringSubmatch(p.Text); m != nil {
			p.Text = fmt.Sprintf("unknown key %q", m[1])
		} else if m := yamlType.FindStringSubmatch(p.Text); m != nil {
			p.Text = fmt.Sprintf("%s is not %s", cmp.Or(m[2], yamlTags[m[1]]), goTypes(m[3]))
		}
		d.problems = append(d.problems, p)
	}
}

// yamlTags names what the library prints without a value.
var yamlTags = map[string]string{"map": "a mapping", "seq": "a list"}

// goTypes names a Go type of the configuration to somebody who writes YAML.
func goTypes(name string) string {
	switch {
	case strings.HasPrefix(name, "[]"):
		return "a list"
	case strings.HasPrefix(name, "config."):
		return "a mapping"
	}
	switch name {
	case "int":
		return "a whole number"
	case "uint16":
		return "a whole number from 0 to 65535"
	case "float64":
		return "a number"
	case "bool":
		return "true or false"
	}
	return "a single value"
}

// decodeTenants reads the tenants again, each over [DefaultTenant]; errors were
// found before.
func (d *document) decodeTenants() {
	var items struct {
		Tenants []yaml.Node `yaml:"tenants"`
	}
	if err := d.root.Decode(&items); err != nil || items.Tenants == nil {
		d.config.Tenants = Default().Tenants
		return
	}
	d.config.Tenants = make([]Tenant, len(items.Tenants))
	for i := range items.Tenants {
		d.config.Tenants[i] = decodeTenant(&items.Tenants[i])
	}
}

// decodeTenant gives a tenant its defaults where the file says nothing, rules
// theirs, and lets self_remove 0x0008 disable app_data_update.
func decodeTenant(n *yaml.Node) Tenant {
	t := DefaultTenant("")
	_ = n.Decode(&t)
	for i := range t.AuthService.Rules {
		rule := &t.AuthService.Rules[i]
		rule.Match = cmp.Or(rule.Match, "basic")
		rule.Encoding = cmp.Or(rule.Encoding, "utf8")
	}
	var set struct {
		CodePoints map[string]any `yaml:"code_points"`
	}
	_ = n.Decode(&set)
	if _, ok := set.CodePoints["app_data_update"]; !ok && t.CodePoints.SelfRemove == draftSelfRemove {
		t.CodePoints.AppDataUpdate = 0
	}
	return t
}
