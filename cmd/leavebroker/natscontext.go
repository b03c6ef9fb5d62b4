package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"leavebroker/config"
)

// natsContext is a context of the nats command (NATS ADR-21): where a server is,
// and who one is there. What is empty is not stated.
type natsContext struct {
	URL string `json:"url"` // or several, separated by commas

	User     string `json:"user"`
	Password string `json:"password"`
	Token    string `json:"token"`
	Creds    string `json:"creds"` // paths, here and below
	NKey     string `json:"nkey"`

	CA       string `json:"ca"`
	Cert     string `json:"cert"`
	Key      string `json:"key"`
	TLSFirst bool   `json:"tls_first"`

	Domain      string `json:"jetstream_domain"`
	APIPrefix   string `json:"jetstream_api_prefix"`
	InboxPrefix string `json:"inbox_prefix"`
}

// aboutContext are the keys that change nothing about a connection.
var aboutContext = []string{"name", "description", "color_scheme", "jetstream_event_prefix"}

// elsewhere matches values that the nats command takes from another place.
var elsewhere = regexp.MustCompile(`^((op|nsc|env|file)://|data:)`)

// loadContext reads a context by its name or by the absolute path of its file.
// An error never repeats a value of the file, which holds passwords.
func loadContext(name string) (natsContext, error) {
	path, err := contextPath(name)
	if err != nil {
		return natsContext{}, &exitError{code: exitConfig, err: err}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return natsContext{}, unreadable(fmt.Errorf("context %q: %w", name, err))
	}
	c, err := parseContext(text)
	if err != nil {
		return natsContext{}, &exitError{code: exitConfig, err: fmt.Errorf("context %s: %w", path, err)}
	}
	return c, nil
}

// contextPath is where a context is stored.
func contextPath(name string) (string, error) {
	if err := config.CheckContext(name); err != nil || filepath.IsAbs(name) {
		return name, err
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("context %q: neither $XDG_CONFIG_HOME nor $HOME is set; give the path of its file", name)
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "nats", "context", name+".json"), nil
}

// parseContext refuses what it would have to ignore: keys that are set and that
// natsContext lacks, and values that are kept elsewhere.
func parseContext(text []byte) (c natsContext, err error) {
	var keys map[string]any
	if err := json.Unmarshal(text, &keys); err != nil {
		return c, err
	}
	maps.DeleteFunc(keys, func(key string, value any) bool {
		return value == nil || value == "" || value == false || slices.Contains(aboutContext, key)
	})
	stated, err := json.Marshal(keys)
	if err != nil {
		return c, err
	}
	d := json.NewDecoder(bytes.NewReader(stated))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("not supported: %w", err)
	}
	for _, value := range []string{c.Password, c.Token, c.Creds, c.NKey, c.CA, c.Cert, c.Key} {
		if found := elsewhere.FindString(value); found != "" {
			return c, fmt.Errorf("values that begin with %s are not supported; give plain ones", found)
		}
	}
	for _, path := range []*string{&c.Creds, &c.NKey, &c.CA, &c.Cert, &c.Key} {
		*path = expandPath(*path)
	}
	servers := strings.Split(cmp.Or(c.URL, nats.DefaultURL), ",")
	for i, server := range servers {
		if !strings.Contains(server, "://") {
			servers[i] = "nats://" + strings.TrimSpace(server)
		}
	}
	c.URL = strings.Join(servers, ",")
	return c, errors.Join(config.CheckURLs(c.URL), c.check())
}

// expandPath puts variables and the user's folder into a path.
func expandPath(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		path = "$HOME/" + rest
	}
	return os.ExpandEnv(path)
}

// override is the context with what is given put first: a user's credentials as
// a whole, and the rest one by one.
func (c natsContext) override(given natsContext) natsContext {
	if given.Creds != "" || given.NKey != "" {
		c.User, c.Password, c.Token, c.Creds, c.NKey = "", "", "", given.Creds, given.NKey
	}
	c.CA, c.Cert, c.Key = cmp.Or(given.CA, c.CA), cmp.Or(given.Cert, c.Cert), cmp.Or(given.Key, c.Key)
	return c
}

// check says whether the values go together.
func (c natsContext) check() error {
	users := slices.DeleteFunc([]string{c.User, c.Token, c.Creds, c.NKey}, func(s string) bool { return s == "" })
	switch {
	case len(users) > 1:
		return errors.New("more than one of user, token, credentials and nkey")
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("a client certificate and its key go together")
	}
	return nil
}

// options are those of a connection, but for the servers and for JetStream. The
// error is that of reading the nkey.
func (c natsContext) options() (opts []nats.Option, err error) {
	if c.User != "" {
		opts = append(opts, nats.UserInfo(c.User, c.Password))
	}
	if c.Token != "" {
		opts = append(opts, nats.Token(c.Token))
	}
	if c.Creds != "" { // read again at each reconnect
		opts = append(opts, nats.UserCredentials(c.Creds))
	}
	if c.NKey != "" {
		opt, err := nats.NkeyOptionFromSeed(c.NKey)
		if err != nil {
			return nil, fmt.Errorf("nkey: %w", err)
		}
		opts = append(opts, opt)
	}
	if c.CA != "" {
		opts = append(opts, nats.RootCAs(c.CA))
	}
	if c.Cert != "" {
		opts = append(opts, nats.ClientCert(c.Cert, c.Key))
	}
	if c.TLSFirst {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	if c.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(c.InboxPrefix))
	}
	return opts, nil
}
