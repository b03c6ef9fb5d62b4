package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"leavebroker/mlscore"
)

func newGroup() *cobra.Command {
	return parent(&cobra.Command{Use: "group", Short: "Follow the public state of groups"},
		newGroupReplay(),
		newGroupRequest("show", "Show what a running broker knows of a group",
			"Prints a group as one JSON object: its epoch, members, hashes, whether a member\nhas signed over the epoch (proven), whether the broker may propose (authorised),\nand its intents."),
		newGroupRequest("pending", "Show the proposals that wait in a group's current epoch",
			"Prints what an external joiner includes and what a delivery service may demand of\na commit: {epoch, proposals, self_removes, leaf_operation_proposals,\nmust_reference}, all base64."),
		newGroupRequest("reset", "Let the next GroupInfo be the new base of a group",
			"Declares that the broker's view of a group is wrong: it proposes nothing until a\nGroupInfo comes, which becomes the new base. It is stored for a group that is not\nknown too. Prints {seq}, the place of the reset in the log."),
	)
}

// replayInput is one line of the log.
type replayInput struct {
	Message     []byte `json:"mls_message"`
	RatchetTree []byte `json:"ratchet_tree"` // the extension's body, beside a GroupInfo
}

// replayAccepted is the group after an accepted line.
type replayAccepted struct {
	Line                    int      `json:"line"`
	Kind                    string   `json:"kind"`
	Accepted                bool     `json:"accepted"`
	Epoch                   uint64   `json:"epoch"`
	TreeHash                string   `json:"tree_hash"`
	ConfirmedTranscriptHash string   `json:"confirmed_transcript_hash"`
	Members                 int      `json:"members"`
	Flags                   []string `json:"flags,omitempty"` // mlscore's Flag constants
}

// replayRefused tells why a line was refused.
type replayRefused struct {
	Line     int    `json:"line"`
	Kind     string `json:"kind"`
	Accepted bool   `json:"accepted"`
	Reason   string `json:"reason"`
	Error    string `json:"error"`
}

func newGroupReplay() *cobra.Command {
	var known string
	cmd := &cobra.Command{
		Use:   "replay [--associations FILE] FILE|-",
		Short: "Follow a group through a log of its public messages",
		Long: `Reads JSON Lines {"mls_message": base64, "ratchet_tree"?: base64} in the order of
the delivery service, a GroupInfo first, and prints for each line the group as it
is after it:

  {line, kind, accepted: true, epoch, tree_hash, confirmed_transcript_hash, members}
  {line, kind, accepted: false, reason, error}

line counts from 1, empty lines too, which print nothing; kind is group_info,
proposal, commit, external_commit, private or other; hashes are hex; members is a
count. What is wrong with an accepted line, because members accept it, is beside
these in flags: [name, ...]. reason is malformed, invalid, stale (an epoch that is
over), ahead (of an epoch not reached), unresolvable (cannot be followed from
outside), diverged (a member's signature contradicts the state) or unsupported.
After a refused line the old state is kept and replay goes on. A line has at most
64 MiB.

A GroupInfo starts the log: ratchet_tree stands beside it where it does not carry
the tree. A later one replaces nothing: of the current epoch it is compared, and
diverged if it differs; of an older one it is stale; of a newer one it is ahead,
unless a line before it was refused as ahead or was a commit that could not be
followed: then messages are known to be missing, and it is the new state.

A commit may contain LeafOperationProposals, with the code points that a broker
has by default. One that removes the members associated with its sender can be
followed only by who knows them: --associations names a file of JSON Lines

  {"epoch": N, "sender": LEAF, "associated": [LEAF, ...]}

that gives them as they were in the epoch in which the commit was sent. Without,
the commit is unresolvable.

Exit codes: 0 every line is accepted, 1 some line is not, 2 a file cannot be read.`,
		Example: "  leavebroker group replay log.jsonl | jq 'select(.accepted | not)'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneStandardInput(args[0], known); err != nil {
				return err
			}
			replay := replay{opts: mlscore.Options{Registry: toolRegistry()}}
			if known != "" {
				var err error
				if replay.known, err = readAssociations(cmd, known); err != nil {
					return err
				}
			}
			in, err := openInput(cmd, args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			return replay.log(cmd, in)
		},
	}
	cmd.Flags().StringVar(&known, "associations", "", "`FILE` that tells which members belong to the senders of intents")
	return cmd
}

// log follows a log to its end.
func (r *replay) log(cmd *cobra.Command, in io.Reader) error {
	lines := lineReader{in: bufio.NewReaderSize(in, 64<<10), limit: maxInput}
	refused := false
	for {
		text, err := lines.next()
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, mlscore.ErrMalformed) {
			return unreadable(err)
		}
		if err == nil && len(text) == 0 {
			continue
		}
		kind, flags := kindOther, []string(nil)
		if err == nil {
			kind, flags, err = r.line(text)
		}
		refused = refused || err != nil
		if err := printJSON(cmd, r.outcome(lines.count, kind, flags, err)); err != nil {
			return err
		}
	}
	if refused {
		return negative()
	}
	return nil
}

// line judges one line and follows it if it can.
func (r *replay) line(text []byte) (kind string, flags []string, err error) {
	var in replayInput
	if err := json.Unmarshal(text, &in); err != nil {
		return kindOther, nil, refusal(mlscore.ErrMalformed, "not a JSON line: %v", err)
	}
	if len(in.Message) == 0 {
		return kindOther, nil, refusal(mlscore.ErrMalformed, "no mls_message")
	}
	m, err := mlscore.ParseMLSMessage(in.Message, r.opts.Registry)
	if err != nil {
		return kindOther, nil, err
	}
	flags, err = r.message(m, in.RatchetTree)
	return kindOf(m), flags, err
}

// outcome is what is printed for a line.
func (r *replay) outcome(line int, kind string, flags []string, err error) any {
	if err != nil {
		return replayRefused{Line: line, Kind: kind, Reason: mlscore.Reason(err), Error: err.Error()}
	}
	g := r.group
	return replayAccepted{
		Line: line, Kind: kind, Accepted: true, Epoch: g.Epoch(), Members: g.Tree().Members(),
		TreeHash:                hex.EncodeToString(g.Tree().TreeHash()),
		ConfirmedTranscriptHash: hex.EncodeToString(g.ConfirmedTranscriptHash()),
		Flags:                   flags,
	}
}
