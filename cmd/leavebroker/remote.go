package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"leavebroker/broker/delivery"
)

const (
	defaultWait   = 2 * time.Second
	remoteTimeout = 10 * time.Second
)

// remote are the flags of commands that ask a running broker through NATS.
type remote struct {
	context, prefix, tenant string
	given                   natsContext // what counts before the context
}

// register adds the flags. Those that say how to reach the server have the
// names and variables of the nats command.
func (r *remote) register(cmd *cobra.Command) {
	f := cmd.Flags()
	for _, flag := range []struct {
		value                       *string
		name, short, variable, says string
	}{
		{&r.given.URL, "server", "s", "NATS_URL", "`URL` of the NATS server, if not the context's or " + nats.DefaultURL},
		{&r.context, "context", "", "NATS_CONTEXT", "`NAME` of a context of the nats command, or its file"},
		{&r.given.Creds, "creds", "", "NATS_CREDS", "credentials `FILE`"},
		{&r.given.NKey, "nkey", "", "NATS_NKEY", "`FILE` with a user seed"},
		{&r.given.CA, "tlsca", "", "NATS_CA", "PEM `FILE` with the server's roots"},
		{&r.given.Cert, "tlscert", "", "NATS_CERT", "PEM `FILE` with a client certificate"},
		{&r.given.Key, "tlskey", "", "NATS_KEY", "PEM `FILE` with its private key"},
	} {
		f.StringVarP(flag.value, flag.name, flag.short, os.Getenv(flag.variable), flag.says+"; default: $"+flag.variable)
		f.Lookup(flag.name).DefValue = "" // what the variable holds is not shown: a URL may have a password
	}
	f.StringVar(&r.prefix, "prefix", "leave", "first `TOKEN` of the broker's subjects")
	f.StringVar(&r.tenant, "tenant", "default", "`TENANT` of the group")
}

// connect connects to the server of the context and of what is given beside it.
func (r *remote) connect(name string) (*nats.Conn, error) {
	var c natsContext
	var err error
	if r.context != "" {
		if c, err = loadContext(r.context); err != nil {
			return nil, err
		}
	}
	c = c.override(r.given)
	if err := c.check(); err != nil {
		return nil, usageError("the NATS server: %v", err)
	}
	opts, err := c.options()
	if err != nil {
		return nil, unreadable(err)
	}
	return nats.Connect(cmp.Or(r.given.URL, c.URL, nats.DefaultURL), append(opts, nats.Name(name), nats.Timeout(remoteTimeout))...)
}

// request asks an endpoint and prints the JSON that it answers.
func (r *remote) request(cmd *cobra.Command, wait time.Duration, endpoint string, in any) (json.RawMessage, error) {
	nc, err := r.connect("leavebroker " + endpoint)
	if err != nil {
		return nil, fmt.Errorf("connecting to the NATS server (--server, --context): %w", err)
	}
	defer nc.Close()
	service, err := delivery.New(nc, r.prefix, r.tenant)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), wait+remoteTimeout)
	defer cancel()
	var reply json.RawMessage
	err = service.Request(ctx, endpoint, in, &reply)
	if refusal := (*delivery.Refusal)(nil); errors.As(err, &refusal) && refusal.Code == "400" {
		return nil, &exitError{code: exitUsage, err: err}
	}
	if err != nil {
		return nil, err
	}
	return reply, printJSON(cmd, reply)
}

// badStates are those of an intent that will not, or did not, remove its
// sender by the broker's doing.
var badStates = map[string]bool{"rejected": true, "superseded": true, "cancelled": true, "expired": true}

// verdict prints a reply about an intent and ends with exit code 1 if it says
// that the intent does not stand.
func (r *remote) verdict(cmd *cobra.Command, wait time.Duration, endpoint string, in any) error {
	reply, err := r.request(cmd, wait, endpoint, in)
	if err != nil {
		return err
	}
	var v delivery.Verdict
	if err := json.Unmarshal(reply, &v); err != nil {
		return err
	}
	if badStates[v.State] {
		return negative()
	}
	return nil
}

const verdictStates = `States: parked, held and pending go on; removed and already_gone are done; rejected,
superseded, cancelled and expired end without a removal. reason says why.`

func newIntentSubmit() *cobra.Command {
	var r remote
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "submit [--server URL] [--tenant T] [--wait DURATION] INTENT",
		Short: "Hand an intent to a running broker",
		Long: `Stores an intent, an MLSMessage, with the broker and waits for its verdict. Prints
one JSON object: {id, state, reason?}.

` + verdictStates + `
stored means that no verdict came in time.

Exit codes: 0 the intent stands, 1 it does not, or the broker cannot be reached.`,
		Example: "  leavebroker intent submit --server nats://127.0.0.1:4222 leave.mls",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			message, err := readInput(cmd, args[0])
			if err != nil {
				return err
			}
			return r.verdict(cmd, wait, "intent.submit", map[string]any{"intent": message, "wait": wait.String()})
		},
	}
	r.register(cmd)
	cmd.Flags().DurationVar(&wait, "wait", defaultWait, "how long to wait for the verdict, at most 10s")
	return cmd
}

func newIntentStatus() *cobra.Command {
	var r remote
	var group string
	cmd := &cobra.Command{
		Use:   "status [--server URL] [--tenant T] [--group-id HEX] ID",
		Short: "Ask a running broker where an intent stands",
		Long: `Prints the record of an intent as one JSON object: id, state, reason, mode,
sender_index, its targets and those gone, the epoch and commit of the removal,
and confirmed once a member has signed over an epoch without the leaver. The
group's identifier, if given, makes the search quick.

` + verdictStates + `

Exit codes: 0 the intent stands or is done, 1 it ended without a removal, is not
known, or the broker cannot be reached.`,
		Example: "  leavebroker intent status 6d0c…  # the id that intent submit printed",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := aboutIntent(args[0], group)
			if err != nil {
				return err
			}
			return r.verdict(cmd, 0, "intent.status", in)
		},
	}
	r.register(cmd)
	cmd.Flags().StringVar(&group, "group-id", "", "identifier of the group, `HEX`")
	return cmd
}

// aboutIntent is a request about an intent.
func aboutIntent(id, group string) (map[string]any, error) {
	in := map[string]any{"id": id}
	if group == "" {
		return in, nil
	}
	b, err := hex.DecodeString(group)
	if err != nil {
		return nil, usageError("--group-id %q is not hex", group)
	}
	in["group_id"] = b
	return in, nil
}

// newIntentControl is intent approve or intent cancel.
func newIntentControl(verb, short, long string) *cobra.Command {
	var r remote
	var wait time.Duration
	var group, by string
	cmd := &cobra.Command{
		Use:   verb + " [--server URL] [--tenant T] [--by WHO] ID",
		Short: short,
		Long: long + ` Prints what becomes of
the intent as one JSON object: {id, state, reason?}.

Exit codes: 0 done, 1 the intent is not known, or the broker cannot be reached.`,
		Example: "  leavebroker intent " + verb + " --by alice@example.com 6d0c…",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := aboutIntent(args[0], group)
			if err != nil {
				return err
			}
			in["by"], in["wait"] = by, wait.String()
			_, err = r.request(cmd, wait, "intent."+verb, in)
			return err
		},
	}
	r.register(cmd)
	f := cmd.Flags()
	f.StringVar(&group, "group-id", "", "identifier of the group, `HEX`")
	f.StringVar(&by, "by", "", "`WHO` asks, for the record")
	f.DurationVar(&wait, "wait", defaultWait, "how long to wait for what follows, at most 10s")
	return cmd
}

// newGroupRequest is a command that asks about one group.
func newGroupRequest(verb, short, long string) *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:     verb + " [--server URL] [--tenant T] GROUP_ID",
		Short:   short,
		Long:    long + "\n\nGROUP_ID is hex. Exit codes: 0 done, 1 the group is not known, or the broker cannot\nbe reached.",
		Example: "  leavebroker group " + verb + " 64656d6f",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := hex.DecodeString(args[0])
			if err != nil {
				return usageError("group identifier %q is not hex", args[0])
			}
			_, err = r.request(cmd, 0, "group."+verb, map[string]any{"group_id": id})
			return err
		},
	}
	r.register(cmd)
	return cmd
}
