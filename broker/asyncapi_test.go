package broker

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"leavebroker/intents"
	"leavebroker/mlscore"
)

// document is the part of asyncapi.yaml that code and document share.
type document struct {
	AsyncAPI string `yaml:"asyncapi"`
	Channels map[string]struct {
		Address    string
		Parameters map[string]struct{ Enum []string }
		Messages   map[string]struct {
			Ref string `yaml:"$ref"`
		}
	}
	Operations map[string]struct {
		Action  string
		Channel struct {
			Ref string `yaml:"$ref"`
		}
	}
	Components struct {
		Messages map[string]struct {
			Headers schema
			Payload schema
		}
		Schemas map[string]schema
	}
}

type schema struct {
	Ref        string `yaml:"$ref"`
	Type       string
	Enum       []string
	Required   []string
	MaxLength  int `yaml:"maxLength"`
	Properties map[string]yaml.Node
}

func readDocument(t *testing.T) (d document, text string) {
	t.Helper()
	b := must[[]byte](t)(os.ReadFile("asyncapi.yaml"))
	if err := yaml.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return d, string(b)
}

// same reports what only one of two sets holds.
func same(t *testing.T, what string, documented, coded []string) {
	t.Helper()
	for _, s := range documented {
		if !slices.Contains(coded, s) {
			t.Errorf("%s %q is documented and not in the code", what, s)
		}
	}
	for _, s := range coded {
		if !slices.Contains(documented, s) {
			t.Errorf("%s %q is in the code and not documented", what, s)
		}
	}
}

func TestDocumentedSubjects(t *testing.T) {
	d, _ := readDocument(t)
	if d.AsyncAPI != "3.0.0" {
		t.Errorf("asyncapi %q", d.AsyncAPI)
	}
	n, k := names{prefix: "{prefix}", partitions: 1}, groupKey{"{tenant}", "{group}"}
	var coded, documented []string
	for _, what := range inputKinds {
		coded = append(coded, n.in(k, what))
	}
	coded = append(coded, strings.Replace(n.log(k, "{kind}"), ".0.", ".{partition}.", 1), n.removal(k), n.event(k, "{type}"), n.instances())
	for _, e := range endpoints {
		coded = append(coded, n.api("{tenant}", e.name))
	}
	for name, c := range d.Channels {
		documented = append(documented, c.Address)
		for p := range c.Parameters {
			if !strings.Contains(c.Address, "{"+p+"}") {
				t.Errorf("channel %s: parameter %s is not in %s", name, p, c.Address)
			}
		}
		if len(c.Parameters) != strings.Count(c.Address, "{") {
			t.Errorf("channel %s: %d parameters for %s", name, len(c.Parameters), c.Address)
		}
		for _, m := range c.Messages {
			if _, ok := d.Components.Messages[strings.TrimPrefix(m.Ref, "#/components/messages/")]; !ok {
				t.Errorf("channel %s: %s does not exist", name, m.Ref)
			}
		}
	}
	same(t, "subject", documented, coded)
	var kinds []string
	for _, what := range slices.Concat(inputKinds, ownKinds) {
		kinds = append(kinds, string(what))
	}
	same(t, "kind", d.Channels["log"].Parameters["kind"].Enum, kinds)
	used := map[string]int{}
	for name, o := range d.Operations {
		channel := strings.TrimPrefix(o.Channel.Ref, "#/channels/")
		if _, ok := d.Channels[channel]; !ok {
			t.Errorf("operation %s: %s does not exist", name, o.Channel.Ref)
		}
		used[channel]++
	}
	for name := range d.Channels {
		if used[name] != 1 {
			t.Errorf("channel %s has %d operations", name, used[name])
		}
	}
}

func TestDocumentedCodes(t *testing.T) {
	d, text := readDocument(t)
	schemas := d.Components.Schemas
	same(t, "event type", schemas["type"].Enum, eventTypes)
	same(t, "reason", schemas["reason"].Enum, reasons)
	same(t, "error code", schemas["code"].Enum, []string{codeBadRequest, codeNotFound, codeBusy, codeUnavailable})
	if got := d.Components.Messages["intent"].Payload.MaxLength; got != defaultIntentBytes {
		t.Errorf("intents of %d bytes", got)
	}
	for _, m := range []string{"handshake", "groupInfo"} {
		if got := d.Components.Messages[m].Payload.MaxLength; got != defaultMessageBytes {
			t.Errorf("%s of %d bytes", m, got)
		}
	}
	n := names{prefix: "{prefix}", partitions: 1}
	for _, name := range []string{n.logStream(), n.eventStream(), n.removalsConsumer("{tenant}"), eventTypePrefix + "{type}"} {
		if !strings.Contains(text, name) {
			t.Errorf("%q is not documented", name)
		}
	}
	e := event{key: groupKey{"t", "g"}, Type: "held", Intent: "i"}
	m, err := e.message(n)
	if err != nil {
		t.Fatal(err)
	}
	var headers, documented []string
	for h := range m.Header {
		if h != "Nats-Msg-Id" {
			headers = append(headers, h)
		}
	}
	for h := range d.Components.Messages["event"].Headers.Properties {
		documented = append(documented, h)
	}
	same(t, "header", documented, headers)
}

func TestDocumentedBodies(t *testing.T) {
	d, text := readDocument(t)
	for name, v := range map[string]any{
		"removal": intents.Output{}, "answer": intents.Answer{}, "control": intents.Control{},
		"event": event{}, "heartbeat": heartbeat{}, "submitRequest": submitRequest{}, "statusRequest": statusRequest{}, "controlRequest": controlRequest{},
		"groupRequest": groupRequest{}, "verdict": verdict{}, "record": statusReply{}, "pending": intents.Pending{},
		"group": groupReply{}, "stored": resetReply{}, "error": apiError{},
	} {
		s, ok := d.Components.Schemas[name]
		if !ok {
			t.Errorf("no schema %s", name)
			continue
		}
		coded, required := jsonFields(reflect.TypeOf(v))
		var documented []string
		for p := range s.Properties {
			documented = append(documented, p)
		}
		same(t, name+" field", documented, coded)
		same(t, name+" required field", s.Required, required)
	}
	// Every reference leads somewhere.
	for _, line := range strings.Split(text, "\n") {
		_, ref, found := strings.Cut(line, "$ref: '#/components/schemas/")
		if !found {
			continue
		}
		ref, _, _ = strings.Cut(ref, "'")
		if _, ok := d.Components.Schemas[ref]; !ok {
			t.Errorf("schema %s does not exist", ref)
		}
	}
}

// jsonFields are the names of a struct's fields in JSON, and of those that are
// always there.
func jsonFields(t reflect.Type) (all, required []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			a, r := jsonFields(f.Type)
			all, required = append(all, a...), append(required, r...)
			continue
		}
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		all = append(all, name)
		if opts != "omitempty" {
			required = append(required, name)
		}
	}
	return all, required
}

// Every reason code that the fold can give is documented.
func TestReasonsAreThoseOfTheFold(t *testing.T) {
	for _, value := range constants(t, "../intents", "Reason") {
		if !slices.Contains(reasons, value) {
			t.Errorf("%q is no reason of the broker's", value)
		}
	}
	for _, err := range []error{mlscore.ErrMalformed, mlscore.ErrInvalid, mlscore.ErrStale, mlscore.ErrAhead, mlscore.ErrUnresolvable, mlscore.ErrDiverged, mlscore.ErrUnsupported} {
		if !slices.Contains(reasons, mlscore.Reason(err)) {
			t.Errorf("%q is no reason of the broker's", mlscore.Reason(err))
		}
	}
}

func TestDocumentedFlags(t *testing.T) {
	d, _ := readDocument(t)
	same(t, "flag", d.Components.Schemas["flag"].Enum, constants(t, "../mlscore", "Flag"))
}

// constants are the values of the string constants of a package whose names
// begin with a prefix: at least ten.
func constants(t *testing.T, dir, prefix string) (values []string) {
	t.Helper()
	for _, name := range must[[]string](t)(filepath.Glob(dir + "/*.go")) {
		file := must[*ast.File](t)(parser.ParseFile(token.NewFileSet(), name, nil, 0))
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for i, name := range spec.Names {
				if !strings.HasPrefix(name.Name, prefix) || i >= len(spec.Values) {
					continue
				}
				if lit, ok := spec.Values[i].(*ast.BasicLit); ok {
					values = append(values, must[string](t)(strconv.Unquote(lit.Value)))
				}
			}
			return true
		})
	}
	if len(values) < 10 {
		t.Errorf("%d constants %s* in %s", len(values), prefix, dir)
	}
	return values
}
