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
			"Declares that the broker's view of a group is wrong: it proposes nothing until a\nGroupInfo comes, which becomes the new base. Prints {seq}, the place of the reset\nin the log."),
	)
}

// replayInput is one line of the log.
type replayInput struct {
	Message     []byte `json:"mls_message"`
	RatchetTree []byte `json:"ratchet_tree"` // the extension's body, beside a GroupInfo
}

// replayAccepted is the group after an accepted line.
type replayAccepted struct {
	Line                    int    `json:"line"`
	Kind                    string `json:"kind"`
	Accepted                bool   `json:"accepted"`
	Epoch                   uint64 `json:"epoch"`
	TreeHash                string `json:"tree_hash"`
	ConfirmedTranscriptHash string `json:"confirmed_transcript_hash"`
	Members                 int    `json:"members"`
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
	return &cobra.Command{
		Use:   "replay FILE|-",
		Short: "Follow a group through a log of its public messages",
		Long: `Reads JSON Lines {"mls_message": base64, "ratchet_tree"?: base64} in the order of
the delivery service, a GroupInfo first, and prints for each line the group as it
is after it:

  {line, kind, accepted: true, epoch, tree_hash, confirmed_transcript_hash, members}
  {line, kind, accepted: false, reason, error}

line counts from 1, empty lines too, which print nothing; kind is group_info,
proposal, commit, external_commit, private or other; hashes are hex; members is a
count. reason is malformed, invalid, stale (an epoch that is over), ahead (of an
epoch not reached), unresolvable (cannot be followed from outside), diverged (a
member's signature contradicts the state) or unsupported. After a refused line
the old state is kept and replay goes on. A line has at most 64 MiB.

A GroupInfo starts the log: ratchet_tree stands beside it where it does not carry
the tree. A later one replaces nothing: of the current epoch it is compared, and
diverged if it differs; of an older one it is stale; of a newer one it is ahead,
unless a line before it was refused as ahead or was a commit that could not be
followed: then messages are known to be missing, and it is the new state.

Exit codes: 0 every line is accepted, 1 some line is not, 2 the file cannot be
read.`,
		Example: "  leavebroker group replay log.jsonl | jq 'select(.accepted | not)'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := openInput(cmd, args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			return replayLog(cmd, in)
		},
	}
}

func replayLog(cmd *cobra.Command, in io.Reader) error {
	lines := lineReader{in: bufio.NewReaderSize(in, 64<<10), limit: maxInput}
	replay := replay{opts: mlscore.Options{Registry: toolRegistry()}}
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
		kind := kindOther
		if err == nil {
			kind, err = replay.line(text)
		}
		refused = refused || err != nil
		if err := printJSON(cmd, replay.outcome(lines.count, kind, err)); err != nil {
			return err
		}
	}
	if refused {
		return negative()
	}
	return nil
}

// line judges one line and follows it if it can.
func (r *replay) line(text []byte) (kind string, err error) {
	var in replayInput
	if err := json.Unmarshal(text, &in); err != nil {
		return kindOther, refusal(mlscore.ErrMalformed, "not a JSON line: %v", err)
	}
	if len(in.Message) == 0 {
		return kindOther, refusal(mlscore.ErrMalformed, "no mls_message")
	}
	m, err := mlscore.ParseMLSMessage(in.Message, r.opts.Registry)
	if err != nil {
		return kindOther, err
	}
	return kindOf(m), r.message(m, in.RatchetTree)
}

// outcome is what is printed for a line.
func (r *replay) outcome(line int, kind string, err error) any {
	if err != nil {
		return replayRefused{Line: line, Kind: kind, Reason: mlscore.Reason(err), Error: err.Error()}
	}
	g := r.group
	return replayAccepted{
		Line: line, Kind: kind, Accepted: true, Epoch: g.Epoch(), Members: g.Tree().Members(),
		TreeHash:                hex.EncodeToString(g.Tree().TreeHash()),
		ConfirmedTranscriptHash: hex.EncodeToString(g.ConfirmedTranscriptHash()),
	}
}
