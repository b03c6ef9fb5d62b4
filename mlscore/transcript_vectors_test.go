package mlscore

import (
	"bytes"
	"testing"

	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/mlstest"
)

func TestTranscriptHashVectors(t *testing.T) {
	var cases []struct {
		CipherSuite CipherSuite `json:"cipher_suite"`
		Content     mlstest.Hex `json:"authenticated_content"`
		InterimOld  mlstest.Hex `json:"interim_transcript_hash_before"`
		Confirmed   mlstest.Hex `json:"confirmed_transcript_hash_after"`
		Interim     mlstest.Hex `json:"interim_transcript_hash_after"`
	}
	mlstest.JSON(t, "mlswg/transcript-hashes.json", &cases)
	for _, c := range cases {
		suite, err := LookupSuite(c.CipherSuite)
		if err != nil {
			t.Fatal(err)
		}
		r := codec.NewReader(c.Content)
		a := ReadAuthenticatedContent(r, DefaultRegistry())
		if err := r.Finish(); err != nil {
			t.Fatal(err)
		}
		confirmed := ConfirmedTranscriptHash(suite, c.InterimOld, a)
		if !bytes.Equal(confirmed, c.Confirmed) {
			t.Errorf("suite %d: confirmed %x, want %x", c.CipherSuite, confirmed, c.Confirmed)
		}
		if got := InterimTranscriptHash(suite, confirmed, a.ConfirmationTag); !bytes.Equal(got, c.Interim) {
			t.Errorf("suite %d: interim %x, want %x", c.CipherSuite, got, c.Interim)
		}
	}
	if len(cases) < 7 {
		t.Errorf("%d cases", len(cases))
	}
}

// The public part of message protection: the signatures of the PublicMessages.
func TestMessageProtectionVectors(t *testing.T) {
	var cases []struct {
		CipherSuite     CipherSuite `json:"cipher_suite"`
		GroupID         mlstest.Hex `json:"group_id"`
		Epoch           uint64      `json:"epoch"`
		TreeHash        mlstest.Hex `json:"tree_hash"`
		ConfirmedHash   mlstest.Hex `json:"confirmed_transcript_hash"`
		SignaturePublic mlstest.Hex `json:"signature_pub"`
		Proposal        mlstest.Hex `json:"proposal"`
		ProposalPublic  mlstest.Hex `json:"proposal_pub"`
		Commit          mlstest.Hex `json:"commit"`
		CommitPublic    mlstest.Hex `json:"commit_pub"`
	}
	mlstest.JSON(t, "mlswg/message-protection.json", &cases)
	for _, c := range cases {
		suite, err := LookupSuite(c.CipherSuite)
		if err != nil {
			t.Fatal(err)
		}
		gc := GroupContext{
			Version: ProtocolVersionMLS10, CipherSuite: c.CipherSuite, GroupID: c.GroupID, Epoch: c.Epoch,
			TreeHash: c.TreeHash, ConfirmedTranscriptHash: c.ConfirmedHash,
		}
		for name, pair := range map[string][2]mlstest.Hex{"proposal": {c.ProposalPublic, c.Proposal}, "commit": {c.CommitPublic, c.Commit}} {
			m := parseMessage(t, pair[0]).PublicMessage
			if body := m.Content.AppendBody(nil); !bytes.Equal(body, pair[1]) {
				t.Errorf("suite %d: %s is %x", c.CipherSuite, name, body)
			}
			if err := m.VerifySignature(suite, c.SignaturePublic, gc.Append(nil)); err != nil {
				t.Errorf("suite %d: %s: %v", c.CipherSuite, name, err)
			}
			gc := gc
			gc.Epoch++
			if err := m.VerifySignature(suite, c.SignaturePublic, gc.Append(nil)); err == nil {
				t.Errorf("suite %d: %s verifies over another GroupContext", c.CipherSuite, name)
			}
		}
	}
	if len(cases) < 7 {
		t.Errorf("%d cases", len(cases))
	}
}
