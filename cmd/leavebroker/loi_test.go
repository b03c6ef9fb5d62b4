package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"leavebroker/mlscore/mlstest"
)

// loiReasons are the reason codes of the vectors, by the end of their names.
// anothers-index is wrong in reference and signature; the reference comes first.
var loiReasons = map[string]string{
	"sender-only": "", "associated": "",
	"other-group": "group_mismatch", "other-group-same-length": "group_mismatch",
	"index-is-width": "leaf_ref_mismatch", "index-out-of-tree": "leaf_ref_mismatch", "blank-leaf": "leaf_ref_mismatch",
	"wrong-leaf-ref": "leaf_ref_mismatch", "anothers-index": "leaf_ref_mismatch",
	"reserved-mode": "unsupported_mode", "unknown-mode": "unsupported_mode",
	"wrong-label": "bad_signature", "anothers-leaf": "bad_signature", "bad-signature": "bad_signature", "empty-signature": "bad_signature",
	"truncated": "malformed", "trailing": "malformed", "non-minimal-length": "malformed",
}

// TestVerifyVectors puts every vector through the command, bare and as an
// MLSMessage.
func TestVerifyVectors(t *testing.T) {
	var vectors []struct {
		Name        string
		CipherSuite uint16      `json:"cipher_suite"`
		GroupID     mlstest.Hex `json:"group_id"`
		RatchetTree mlstest.Hex `json:"ratchet_tree"`
		Valid       bool
		Intent      mlstest.Hex
	}
	mlstest.JSON(t, "loi.json", &vectors)
	if len(vectors) != 355 {
		t.Errorf("%d vectors, want 355", len(vectors))
	}
	for _, v := range vectors {
		reason, known := loiReasons[strings.SplitN(v.Name, "-", 3)[2]]
		if !known || v.Valid != (reason == "") {
			t.Fatalf("%s: no reason code is known for it", v.Name)
		}
		tree := mustWrite(t, "tree", v.RatchetTree)
		args := []string{
			"intent", "verify", "--cipher-suite", fmt.Sprint(v.CipherSuite), "--group-id", fmt.Sprintf("%x", []byte(v.GroupID)), "--ratchet-tree", tree,
		}
		bareCode, bare, _ := run(string(v.Intent), append(args, "--bare", "-")...)
		code, out, errOut := run("\x00\x01\xf0\xa1"+string(v.Intent), append(args, "-")...)
		if bare != out || bareCode != code {
			t.Errorf("%s: bare: exit code %d, %s; as a message: %d, %s", v.Name, bareCode, bare, code, out)
		}
		checkVerdict(t, v.Name, reason, code, out, errOut)
	}
}

func checkVerdict(t *testing.T, name, reason string, code int, out, errOut string) {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%s: %q: %v", name, out, err)
	}
	wantCode := exitFailure
	if reason == "" {
		wantCode = 0
	}
	if got["valid"] != (reason == "") || code != wantCode || (errOut != "") != (reason != "") {
		t.Errorf("%s: exit code %d, %s, %s", name, code, out, errOut)
	}
	if found, ok := got["reason"]; ok != (reason != "") || ok && found != reason {
		t.Errorf("%s: reason %v, want %q", name, found, reason)
	}
	for _, field := range []string{"id", "sender_index", "removal_mode"} {
		if _, ok := got[field]; ok != (reason != "malformed") {
			t.Errorf("%s: field %s is there: %v", name, field, ok)
		}
	}
}
