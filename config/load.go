package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
)

const envPrefix = "LEAVEBROKER_"

// testVariables begin with envPrefix and belong to the tests.
var testVariables = []string{"LEAVEBROKER_VECTORS", "LEAVEBROKER_REQUIRE_VECTORS"}

// Load reads the file at path, or none if path is empty, and then environ,
// whose entries are name=value as [os.Environ] gives them; an empty value is as
// good as none. The result is valid and complete. The error is that of reading
// the file, or all that is wrong, each a [*Problem] joined by [errors.Join].
func Load(path string, environ []string) (*Config, error) {
	var text []byte
	if path != "" {
		var err error
		if text, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
	}
	return load(path, text, variables(environ))
}

// load is [Load] with the file read.
func load(path string, text []byte, env map[string]string) (*Config, error) {
	file := &fileCodec{}
	cfg, found, err := merge(text, file, env)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	doc := file.doc
	for _, p := range doc.problems {
		p.Source = path
	}
	all := append(doc.problems, found...)
	if doc.root == nil && len(doc.problems) > 0 {
		return nil, all.join() // no syntax, so nothing to validate
	}
	cfg.complete(env)
	for _, p := range cfg.problems() {
		p.Source, p.Line = origin(p.Key, path, doc, env)
		if !doc.problems.hasLine(p.Line) {
			all = append(all, p)
		}
	}
	if err := all.join(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// merge lays the file over the defaults and the environment over the file. The
// problems are those of the environment; the error is a fault of this package.
func merge(text []byte, file *fileCodec, env map[string]string) (*Config, problems, error) {
	registry := viper.NewCodecRegistry()
	if err := registry.RegisterCodec("yaml", file); err != nil {
		return nil, nil, err
	}
	v := viper.NewWithOptions(viper.WithCodecRegistry(registry))
	v.SetConfigType("yaml")
	defaults := Default()
	walk(reflect.ValueOf(defaults), "", func(key string, field reflect.Value) {
		v.SetDefault(key, field.Interface())
	})
	if err := v.ReadConfig(bytes.NewReader(text)); err != nil {
		return nil, nil, err
	}
	values, found := fromEnvironment(env)
	for key, value := range values {
		v.Set(key, value)
	}
	var cfg Config
	err := v.UnmarshalExact(&cfg, func(c *mapstructure.DecoderConfig) {
		c.TagName, c.WeaklyTypedInput, c.DecodeHook = "yaml", false, nil
	})
	return &cfg, found, err
}

// fileCodec gives viper the typed values of the file, so that viper neither
// guesses types nor changes the case of anything.
type fileCodec struct{ doc *document }

// Decode implements [viper.Decoder]. It leaves problems in the document.
func (c *fileCodec) Decode(text []byte, into map[string]any) error {
	c.doc = decode(text)
	tree(reflect.ValueOf(c.doc.config), into)
	return nil
}

// Encode implements [viper.Encoder]; nothing is ever written.
func (c *fileCodec) Encode(map[string]any) ([]byte, error) { return nil, errors.ErrUnsupported }

// fromEnvironment reads the values of all variables that are ours, by key.
func fromEnvironment(env map[string]string) (map[string]any, problems) {
	defaults := Default()
	values := map[string]any{}
	known := map[string]bool{}
	var found problems
	walk(reflect.ValueOf(&defaults).Elem(), "", func(key string, field reflect.Value) {
		name := variable(key)
		if field.Kind() == reflect.Slice {
			return
		}
		known[name] = true
		text := env[name]
		if text == "" {
			return
		}
		if err := setText(field, text); err != nil {
			found = append(found, &Problem{Source: name, Key: key, Text: err.Error()})
			return
		}
		values[key] = field.Interface()
	})
	for _, name := range testVariables {
		known[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if strings.HasPrefix(name, envPrefix) && !known[name] {
			found = append(found, &Problem{Source: name, Text: "unknown environment variable"})
		}
	}
	return values, found
}

// setText gives a field the value that a text stands for.
func setText(field reflect.Value, text string) error {
	if u, ok := field.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch field.Kind() {
	case reflect.String:
		field.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is not true or false", text)
		}
		field.SetBool(b)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		field.SetInt(int64(n))
	default:
		return fmt.Errorf("internal error: no text form of %s", field.Type())
	}
	return nil
}

// complete fills in what depends on the machine.
func (c *Config) complete(env map[string]string) {
	if c.StateDir == "" {
		c.StateDir = stateDir(env)
	}
	if host, port, err := net.SplitHostPort(c.NATS.Embedded.Listen); err == nil && host == "" {
		c.NATS.Embedded.Listen = net.JoinHostPort("127.0.0.1", port)
	}
}

// origin says where the value of a key comes from.
func origin(key, path string, doc *document, env map[string]string) (source string, line int) {
	if name := variable(key); env[name] != "" {
		return name, 0
	}
	if line := doc.line(key); line > 0 {
		return path, line
	}
	return "", 0
}

// variables splits entries of the form name=value.
func variables(environ []string) map[string]string {
	env := make(map[string]string, len(environ))
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return env
}

// variable names the environment variable of a key.
func variable(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}
