package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"leavebroker/mlscore"
)

// associations stand for an Authentication Service where none can be asked: the
// leaves that are associated with a sender in an epoch.
type associations map[associationKey][]mlscore.LeafIndex

type associationKey struct {
	epoch  uint64
	sender mlscore.LeafIndex
}

// of answers for an epoch.
func (a associations) of(epoch uint64) mlscore.Associations {
	return func(sender mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) {
		associated, known := a[associationKey{epoch, sender}]
		return associated, known
	}
}

// readAssociations reads JSON Lines {"epoch", "sender", "associated"}. Its error
// ends the command with exitUsage.
func readAssociations(cmd *cobra.Command, name string) (associations, error) {
	in, err := openInput(cmd, name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	a := associations{}
	lines := lineReader{in: bufio.NewReader(in), limit: maxInput}
	for {
		text, err := lines.next()
		if err == io.EOF {
			return a, nil
		}
		if err == nil && len(text) > 0 {
			err = a.add(text)
		}
		if err != nil {
			return nil, unreadable(fmt.Errorf("%s, line %d: %w", name, lines.count, err))
		}
	}
}

// add takes one line.
func (a associations) add(text []byte) error {
	var line struct {
		Epoch      *uint64             `json:"epoch"`
		Sender     *mlscore.LeafIndex  `json:"sender"`
		Associated []mlscore.LeafIndex `json:"associated"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&line); err != nil {
		return err
	}
	if line.Epoch == nil || line.Sender == nil || line.Associated == nil || d.More() {
		return errors.New("want one object with epoch, sender and associated, which may be []")
	}
	key := associationKey{*line.Epoch, *line.Sender}
	if _, twice := a[key]; twice {
		return fmt.Errorf("epoch %d and sender %d a second time", key.epoch, key.sender)
	}
	a[key] = line.Associated
	return nil
}

// askUser is the refusal of a commit that needs associations, with what would
// let it be followed.
func askUser(needed *mlscore.AssociationNeeded, epoch uint64) error {
	var lines []string
	for _, p := range needed.Proposals {
		lines = append(lines, fmt.Sprintf(`{"epoch":%d,"sender":%d,"associated":[...]}`, epoch, p.Expansion.Sender))
	}
	return fmt.Errorf("%w; give it in a file by --associations: %s", needed, strings.Join(lines, " "))
}
