package intents

import (
	"bytes"
	"errors"
	"fmt"

	"leavebroker/mlscore"
)

// Why an intent is refused, in the order of the checks. The text of each is
// its reason code.
var (
	// ErrMalformed: the bytes are no encoding of an intent.
	ErrMalformed = mlscore.ErrMalformed
	// ErrUnsupportedMode: removal_mode is not one that the draft defines.
	ErrUnsupportedMode = errors.New("unsupported_mode")
	// ErrGroupMismatch: the intent was made for another group.
	ErrGroupMismatch = errors.New("group_mismatch")
	// ErrLeafRefMismatch: sender_leaf_ref is not the reference of a leaf at
	// sender_index: another leaf, a blank one, or an index outside the tree.
	ErrLeafRefMismatch = errors.New("leaf_ref_mismatch")
	// ErrBadSignature: the signature is not that of the leaf's key.
	ErrBadSignature = errors.New("bad_signature")
)

// Verify makes the checks of Section 2.3 of the draft against a group, in its
// order, after the removal mode: group_id, sender_leaf_ref, signature. The
// leaf function gives the leaf at an index, nil where it is blank or outside
// the tree.
func (in *LeafOperationIntent) Verify(suite *mlscore.Suite, groupID []byte, leaf func(mlscore.LeafIndex) *mlscore.LeafNode) error {
	if err := in.checkMode(); err != nil {
		return err
	}
	if err := in.checkGroup(groupID); err != nil {
		return err
	}
	node := leaf(in.SenderIndex)
	if node == nil {
		return fmt.Errorf("%w: no leaf at sender_index %d", ErrLeafRefMismatch, in.SenderIndex)
	}
	if ref := node.Ref(suite); !bytes.Equal(ref, in.SenderLeafRef) {
		return fmt.Errorf("%w: the leaf at %d is %x, not %x", ErrLeafRefMismatch, in.SenderIndex, ref, in.SenderLeafRef)
	}
	return in.checkSignature(suite, node.SignatureKey)
}

func (in *LeafOperationIntent) checkMode() error {
	switch in.RemovalMode {
	case SenderRemovalOnly, RemoveAssociatedMembers:
		return nil
	}
	return fmt.Errorf("%w: removal_mode %d", ErrUnsupportedMode, uint8(in.RemovalMode))
}

func (in *LeafOperationIntent) checkGroup(groupID []byte) error {
	if !bytes.Equal(in.GroupID, groupID) {
		return fmt.Errorf("%w: group_id %x, not %x", ErrGroupMismatch, in.GroupID, groupID)
	}
	return nil
}

func (in *LeafOperationIntent) checkSignature(suite *mlscore.Suite, key []byte) error {
	if err := suite.VerifyWithLabel(key, Label, in.TBS(), in.Signature); err != nil {
		return fmt.Errorf("%w: %v", ErrBadSignature, err)
	}
	return nil
}

// Reason is the reason code of a refusal: malformed, unsupported_mode,
// group_mismatch, leaf_ref_mismatch or bad_signature; "error" for any other
// error and "" for none.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	for _, class := range []error{ErrMalformed, ErrUnsupportedMode, ErrGroupMismatch, ErrLeafRefMismatch, ErrBadSignature} {
		if errors.Is(err, class) {
			return class.Error()
		}
	}
	return "error"
}
