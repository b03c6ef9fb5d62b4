package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	prefixPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)
	tenantPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
)

// Validate reports all that is wrong with c, each a [*Problem] with its key,
// joined by [errors.Join]; nil if nothing is. It opens no file.
func (c *Config) Validate() error { return c.problems().join() }

func (c *Config) problems() problems {
	var ps problems
	if c.StateDir == "" {
		ps.add("state_dir", "missing, and none of $STATE_DIRECTORY, $XDG_STATE_HOME and $HOME is set")
	}
	c.NATS.validate(&ps)
	if c.Instance != "" && !prefixPattern.MatchString(c.Instance) {
		ps.add("instance", "%q is not 1 to 32 of A-Z a-z 0-9 _ -", c.Instance)
	}
	if !prefixPattern.MatchString(c.Prefix) {
		ps.add("prefix", "%q is not 1 to 32 of A-Z a-z 0-9 _ -", c.Prefix)
	}
	between(&ps, "partitions", c.Partitions, 1, 1024)
	c.Limits.validate(&ps)
	between(&ps, "pin_ttl", c.PinTTL, Duration(100*time.Millisecond), Duration(5*time.Minute))
	between(&ps, "ack_wait", c.AckWait, Duration(100*time.Millisecond), Duration(5*time.Minute))
	atLeast(&ps, "cache.max_bytes", c.Cache.MaxBytes, 1<<20)
	atLeast(&ps, "compaction.entries", c.Compaction.Entries, 10)
	atLeast(&ps, "compaction.interval", c.Compaction.Interval, Duration(time.Second))
	atLeast(&ps, "events.max_age", c.Events.MaxAge, Duration(time.Minute))
	oneOf(&ps, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(&ps, "log.format", c.Log.Format, "auto", "json", "console")
	if len(c.Tenants) == 0 {
		ps.add("tenants", "at least one tenant is wanted")
	}
	first := map[string]int{}
	for i := range c.Tenants {
		key := fmt.Sprintf("tenants[%d]", i)
		name := c.Tenants[i].Name
		if j, ok := first[name]; ok && name != "" {
			ps.add(key+".name", "%q is the name of tenants[%d] too", name, j)
		} else {
			first[name] = i
		}
		c.Tenants[i].validate(&ps, key)
	}
	return ps
}

func (n *NATS) validate(ps *problems) {
	n.validateServer(ps)
	if n.Credentials != "" && n.NKey != "" {
		ps.add("nats.nkey", "only one of nats.credentials and nats.nkey is used")
	}
	if n.Domain != "" && n.APIPrefix != "" {
		ps.add("nats.api_prefix", "only one of nats.domain and nats.api_prefix is used")
	}
	if (n.TLS.Cert == "") != (n.TLS.Key == "") {
		ps.add("nats.tls", "cert and key go together")
	}
	switch n.Replicas {
	case 1:
	case 3, 5:
		if !n.External() {
			ps.add("nats.replicas", "%d wants a cluster and nats.url; the embedded server is alone", n.Replicas)
		}
	default:
		ps.add("nats.replicas", "%d is not one of 1, 3, 5", n.Replicas)
	}
	n.Embedded.validate(ps, n)
}

// validateServer is about the keys that say where the server is, and those that
// go with them.
func (n *NATS) validateServer(ps *problems) {
	if n.URL != "" {
		if err := CheckURLs(n.URL); err != nil {
			ps.add("nats.url", "%v", err)
		}
	}
	if n.Context != "" {
		if err := CheckContext(n.Context); err != nil {
			ps.add("nats.context", "%v", err)
		}
	}
	for _, given := range []struct{ key, value string }{
		{"url", n.URL}, {"credentials", n.Credentials}, {"nkey", n.NKey}, {"domain", n.Domain}, {"api_prefix", n.APIPrefix},
		{"tls.ca", n.TLS.CA}, {"tls.cert", n.TLS.Cert}, {"tls.key", n.TLS.Key},
	} {
		switch {
		case given.value == "":
		case n.Context != "":
			ps.add("nats."+given.key, "only one of nats.context and nats.%s is used", given.key)
		case n.URL == "":
			ps.add("nats."+given.key, "has no effect without nats.url")
		}
	}
}

// CheckContext says whether a text can be nats.context: the name of a context or
// the absolute path of its file.
func CheckContext(context string) error {
	if !filepath.IsAbs(context) && (strings.ContainsAny(context, `/\`) || strings.Contains(context, "..")) {
		return fmt.Errorf("%q is neither the name of a context nor the absolute path of its file", context)
	}
	return nil
}

// CheckURLs says whether a text is a list of servers such as nats.url. It never
// repeats a URL: it may hold a password.
func CheckURLs(urls string) error {
	for i, text := range strings.Split(urls, ",") {
		u, err := url.Parse(strings.TrimSpace(text))
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return fmt.Errorf("server %d of the list is not a URL such as nats://host:4222 (schemes: nats, tls, ws, wss)", i+1)
		}
	}
	return nil
}

func (e *Embedded) validate(ps *problems, n *NATS) {
	atLeast(ps, "nats.embedded.max_store", e.MaxStore, 0)
	if e.Listen == "" {
		return
	}
	const key = "nats.embedded.listen"
	host, port, err := net.SplitHostPort(e.Listen)
	number, portErr := strconv.ParseUint(port, 10, 16)
	switch {
	case n.Context != "":
		ps.add(key, "has no effect with nats.context")
	case n.URL != "":
		ps.add(key, "has no effect with nats.url")
	case err != nil || portErr != nil || number == 0:
		ps.add(key, "%q is not host:port", e.Listen)
	case !isLoopback(host):
		ps.add(key, "%q is not a loopback address; the embedded server asks nobody for credentials, so others need a NATS server of their own and nats.url", host)
	}
}

func isLoopback(host string) bool {
	if host == "" || host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// maxObject bounds what one GroupInfo may take of the memory.
const maxObject ByteSize = 1 << 30

func (l *Limits) validate(ps *problems) {
	between(ps, "limits.message_bytes", l.MessageBytes, 1<<10, 8<<20)
	atLeast(ps, "limits.intent_bytes", l.IntentBytes, 1<<10)
	if l.IntentBytes > l.MessageBytes {
		ps.add("limits.intent_bytes", "%v is more than limits.message_bytes, %v", l.IntentBytes, l.MessageBytes)
	}
	if l.ObjectBytes < l.MessageBytes {
		ps.add("limits.object_bytes", "%v is less than limits.message_bytes, %v", l.ObjectBytes, l.MessageBytes)
	} else if l.ObjectBytes > maxObject {
		ps.add("limits.object_bytes", "%v is more than %v", l.ObjectBytes, maxObject)
	}
}

// number is what has an order and prints as it is written.
type number interface {
	int | float64 | Duration | ByteSize
}

func between[T number](ps *problems, key string, value, low, high T) {
	if !(value >= low && value <= high) {
		ps.add(key, "%v is not from %v to %v", value, low, high)
	}
}

func atLeast[T number](ps *problems, key string, value, low T) {
	if !(value >= low) {
		ps.add(key, "%v is less than %v", value, low)
	}
}

func oneOf(ps *problems, key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		one := "one of "
		if len(allowed) == 1 {
			one = ""
		}
		ps.add(key, "%q is not %s%s", value, one, strings.Join(allowed, ", "))
	}
}

// supported is oneOf where some values are known but do not work yet.
func supported(ps *problems, key, value string, works []string, later string) {
	if value == later {
		ps.add(key, "%q is not supported yet; use %s", value, strings.Join(works, " or "))
		return
	}
	oneOf(ps, key, value, works...)
}
