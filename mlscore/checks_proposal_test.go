package mlscore_test

import (
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/member"
)

func testAdd(t *testing.T) {
	w := newWorld(t, 4)
	add := func(m *member.Mutate) *mlscore.Proposal {
		return &mlscore.Proposal{Type: mlscore.ProposalTypeAdd, KeyPackage: w.keyPackage(m)}
	}
	keyPackage := func(change func(*mlscore.KeyPackage)) *mlscore.Proposal {
		return add(&member.Mutate{KeyPackage: change})
	}
	good := w.pend(w.by(2), add(nil))
	w.flagged("a good key package", w.forge(forge{by: 1, proposals: []mlscore.ProposalOrRef{good}}))
	for what, p := range map[string]*mlscore.Proposal{
		"another version": keyPackage(func(k *mlscore.KeyPackage) { k.Version = 2 }),
		"another suite":   keyPackage(func(k *mlscore.KeyPackage) { k.CipherSuite = 3 }),
		"one key twice":   keyPackage(func(k *mlscore.KeyPackage) { k.InitKey = k.LeafNode.EncryptionKey }),
		"a leaf of source commit": keyPackage(func(k *mlscore.KeyPackage) {
			k.LeafNode.Source = mlscore.LeafNodeSourceCommit
			must(0, k.LeafNode.Sign(w.signer(1), nil, 0))
		}),
		"a leaf of source update": keyPackage(func(k *mlscore.KeyPackage) {
			k.LeafNode.Source = mlscore.LeafNodeSourceUpdate
			must(0, k.LeafNode.Sign(w.signer(1), nil, 0))
		}),
	} {
		w.refusesProposal(what, w.by(2), p, mlscore.ErrInvalid, "10.1")
		w.refuses(what+", by value", w.forge(forge{by: 1, proposals: byValue(p)}), mlscore.ErrInvalid, "10.1")
	}
	w.refusesProposal("a leaf signed by another", w.by(2), keyPackage(func(k *mlscore.KeyPackage) {
		must(0, k.LeafNode.Sign(w.signer(1), nil, 0))
	}), mlscore.ErrInvalid, "5.1.2")
	stolen := w.keyPackage(nil)
	must(0, stolen.Sign(w.signer(1)))
	w.refusesProposal("a key package signed by another", w.by(2), &mlscore.Proposal{Type: mlscore.ProposalTypeAdd, KeyPackage: stolen}, mlscore.ErrInvalid, "5.1.2")

	// An init_key may be another's encryption_key: nothing forbids it.
	odd := keyPackage(func(k *mlscore.KeyPackage) { k.InitKey = w.group.Tree().Leaf(2).EncryptionKey })
	w.flagged("an init_key that is in the tree", w.forge(forge{by: 1, proposals: byValue(odd)}))
}

// The keys of a new leaf are nobody else's, once the proposals are applied.
func testKeysOfNewLeaves(t *testing.T) {
	w := newWorld(t, 6)
	tree := w.group.Tree()
	withKey := func(key []byte) *mlscore.Proposal {
		return w.add(func(n *mlscore.LeafNode) { n.EncryptionKey = key })
	}
	again := func(leaf mlscore.LeafIndex) *mlscore.Proposal {
		return member.Add(must(w.members[leaf].Client().NewKeyPackage(forever)).KeyPackage)
	}
	commit := func(list ...*mlscore.Proposal) []byte { return w.forge(forge{by: 1, proposals: byValue(list...)}) }
	w.refuses("an Add with a member's encryption_key", commit(withKey(tree.Leaf(4).EncryptionKey)), mlscore.ErrInvalid, "12.4.2")
	w.refuses("an Add with a parent's encryption_key", commit(withKey(tree.Parent(7).EncryptionKey)), mlscore.ErrInvalid, "12.4.2")
	w.flagged("an Add with a removed member's encryption_key", commit(member.Remove(4), withKey(tree.Leaf(4).EncryptionKey)))
	w.refuses("an Add of a member", commit(again(4)), mlscore.ErrInvalid, "7.3")
	w.flagged("an Add of a removed member", commit(again(4), member.Remove(4)))
	leaving := w.pend(w.by(4), mlscore.NewSelfRemove(w.group.Registry()))
	w.flagged("an Add of a member who removes itself", w.forge(forge{by: 1, proposals: append(byValue(again(4)), leaving)}))
	key := w.key()
	w.refuses("two Adds with one encryption_key", commit(withKey(key), withKey(key)), mlscore.ErrInvalid, "12.4.2")
	newcomer := w.client()
	twice := func() *mlscore.Proposal { return member.Add(must(newcomer.NewKeyPackage(forever)).KeyPackage) }
	w.refuses("two Adds of one client", commit(twice(), twice()), mlscore.ErrInvalid, "7.3")
	w.flagged("one Add of it", commit(twice()))

	updating := func(leaf mlscore.LeafIndex, change func(*mlscore.LeafNode)) mlscore.ProposalOrRef {
		return w.pend(w.by(leaf), updateWith(w.update(leaf, change)))
	}
	one := updating(3, func(n *mlscore.LeafNode) { n.EncryptionKey = key })
	other := updating(5, func(n *mlscore.LeafNode) { n.EncryptionKey = key })
	w.flagged("an Update", w.forge(forge{by: 1, proposals: []mlscore.ProposalOrRef{one}}))
	w.refuses("two Updates with one encryption_key", w.forge(forge{by: 1, proposals: []mlscore.ProposalOrRef{one, other}}), mlscore.ErrInvalid, "12.4.2")
	w.refuses("an Update and an Add with one encryption_key", w.forge(forge{by: 1, proposals: append(byValue(withKey(key)), one)}), mlscore.ErrInvalid, "12.4.2")
	w.refuses("an Update and a path with one encryption_key", w.forge(forge{by: 1, proposals: []mlscore.ProposalOrRef{one}, leaf: func(n *mlscore.LeafNode) {
		n.EncryptionKey = key
	}}), mlscore.ErrInvalid, "12.4.2")
	w.refuses("a path leaf with a member's encryption_key", w.forge(forge{by: 1, leaf: func(n *mlscore.LeafNode) {
		n.EncryptionKey = tree.Leaf(4).EncryptionKey
	}}), mlscore.ErrInvalid, "12.4.2")
	w.refuses("an Update with a member's encryption_key", w.forge(forge{by: 1, proposals: []mlscore.ProposalOrRef{
		updating(3, func(n *mlscore.LeafNode) { n.EncryptionKey = tree.Leaf(4).EncryptionKey }),
	}}), mlscore.ErrInvalid, "12.4.2")
	moved := updating(4, nil)
	w.flagged("an Add with a key that an Update frees", w.forge(forge{by: 1, proposals: append(byValue(withKey(tree.Leaf(4).EncryptionKey)), moved)}))

	// The signature keys of Updates and paths: signed with the other's key.
	twin := *w.update(3, nil)
	twin.SignatureKey = w.signer(4).PublicKey()
	must(0, twin.Sign(w.signer(4), w.group.GroupID(), 3))
	w.refuses("an Update with a member's signature_key", w.forge(forge{by: 1, proposals: []mlscore.ProposalOrRef{
		w.pend(w.by(3), updateWith(&twin)),
	}}), mlscore.ErrInvalid, "7.3")
	w.refuses("a path leaf with a member's signature_key", w.forge(forge{by: 1, signed: func(n *mlscore.LeafNode) {
		n.SignatureKey = w.signer(4).PublicKey()
		must(0, n.Sign(w.signer(4), w.group.GroupID(), 1))
	}}), mlscore.ErrInvalid, "7.3")
}

func testUpdate(t *testing.T) {
	w := newWorld(t, 5)
	good := updateWith(w.update(3, nil))
	w.flagged("an Update", w.forge(forge{by: 1, proposals: []mlscore.ProposalOrRef{w.pend(w.by(3), good)}}))
	w.refuses("an Update by value", w.forge(forge{by: 1, proposals: byValue(updateWith(w.update(1, nil)))}), mlscore.ErrInvalid, "12.1.2")
	w.refuses("an Update by an external sender", w.proposal(external, good), mlscore.ErrMalformed, "12.1.8")
	w.refusesProposal("an Update that keeps the encryption_key", w.by(3), updateWith(w.update(3, func(n *mlscore.LeafNode) {
		n.EncryptionKey = w.group.Tree().Leaf(3).EncryptionKey
	})), mlscore.ErrInvalid, "7.3")
	w.refusesProposal("an Update signed for another leaf", w.by(4), good, mlscore.ErrInvalid, "5.1.2")
	elsewhere := *good.LeafNode
	must(0, elsewhere.Sign(w.signer(3), []byte("other"), 3))
	w.refusesProposal("an Update signed for another group", w.by(3), updateWith(&elsewhere), mlscore.ErrInvalid, "5.1.2")
}

func testRemove(t *testing.T) {
	w := newWorld(t, 5)
	w.flagged("a Remove", w.forge(forge{by: 1, proposals: byValue(member.Remove(4))}))
	for _, leaf := range []mlscore.LeafIndex{5, 7, 8, 1 << 24, 1 << 31, 1<<32 - 1} {
		w.refusesProposal("a Remove of a leaf that is not there", w.by(2), member.Remove(leaf), mlscore.ErrInvalid, "12.1.3")
		w.refusesProposal("the same from outside", external, member.Remove(leaf), mlscore.ErrInvalid, "12.1.3")
		w.refuses("the same by value", w.forge(forge{by: 1, proposals: byValue(member.Remove(leaf))}), mlscore.ErrInvalid, "12.1.3")
	}
}

func testPSK(t *testing.T) {
	w := newWorld(t, 4)
	resumption := func(usage mlscore.ResumptionPSKUsage) *mlscore.Proposal {
		return &mlscore.Proposal{Type: mlscore.ProposalTypePSK, PSK: mlscore.PreSharedKeyID{
			Type: mlscore.PSKTypeResumption, Usage: usage, GroupID: []byte("g"), Epoch: 1, Nonce: make([]byte, 32),
		}}
	}
	w.flagged("an application's", w.forge(forge{by: 1, noPath: true, proposals: byValue(resumption(mlscore.ResumptionPSKUsageApplication))}))
	for _, usage := range []mlscore.ResumptionPSKUsage{mlscore.ResumptionPSKUsageReInit, mlscore.ResumptionPSKUsageBranch} {
		w.refusesProposal("a successor's, later", w.by(2), resumption(usage), mlscore.ErrInvalid, "12.1.4")
		fresh := buildWorld(t, 1, nil, nil)
		fresh.flagged("a successor's, first", fresh.forge(forge{by: 0, noPath: true, proposals: byValue(resumption(usage))}))
	}
	for _, n := range []int{0, 31, 33} {
		p := psk("x")
		p.PSK.Nonce = make([]byte, n)
		w.refusesProposal("a nonce of another length", w.by(2), p, mlscore.ErrInvalid, "12.1.4")
		w.refuses("the same in an external commit", w.forge(forge{joiner: w.client(), proposals: byValue(w.externalInit(), p)}), mlscore.ErrInvalid, "12.1.4")
	}
	for what, spoil := range map[string]func(*mlscore.PreSharedKeyID){
		"psktype 3": func(id *mlscore.PreSharedKeyID) { id.Type = 3 },
		"usage 0":   func(id *mlscore.PreSharedKeyID) { id.Usage = 0 },
		"usage 4":   func(id *mlscore.PreSharedKeyID) { id.Usage = 4 },
	} {
		p := resumption(mlscore.ResumptionPSKUsageApplication)
		spoil(&p.PSK)
		w.refuses(what, w.proposal(w.by(2), p), mlscore.ErrMalformed, "")
	}
}

func testReInit(t *testing.T) {
	w := newWorld(t, 4)
	reInit := func(version mlscore.ProtocolVersion) *mlscore.Proposal {
		return member.ReInit(mlscore.ReInit{GroupID: []byte("next"), Version: version, CipherSuite: 1})
	}
	w.refusesProposal("an older version", w.by(2), reInit(0), mlscore.ErrInvalid, "12.1.5")
	w.accepts("a later version", w.forge(forge{by: 1, proposals: byValue(reInit(7))}))
	staged := w.flagged("the same version", w.forge(forge{by: 1, noPath: true, proposals: byValue(reInit(1))}))
	if w.group.Closed() || !staged.Next().Closed() {
		t.Errorf("closed before: %t, after: %t", w.group.Closed(), staged.Next().Closed())
	}
	w.group = staged.Next()
	w.refuses("a commit after it", w.forge(forge{by: 1}), mlscore.ErrInvalid, "12.4.2")
	w.refuses("a proposal after it", w.proposal(external, member.Remove(1)), mlscore.ErrInvalid, "12.4.2")
}

// able lets a client support a few strange types.
func able(c *member.Client) {
	caps := member.DefaultCapabilities(mlscore.DefaultRegistry())
	caps.Extensions = append(caps.Extensions, 0xff01)
	caps.Proposals = append(caps.Proposals, 0xff02, 0x0008, 0x0009)
	caps.Credentials = append(caps.Credentials, 0xff03)
	c.Capabilities = &caps
}

// unable takes those types away from one client of a group.
func unable(n *mlscore.LeafNode) {
	n.Capabilities = member.DefaultCapabilities(mlscore.DefaultRegistry())
}

func testGroupContextExtensions(t *testing.T) {
	required := func(c mlscore.RequiredCapabilities) *mlscore.Proposal {
		return member.GroupContextExtensions(mlscore.Extensions{{Type: mlscore.ExtensionTypeRequiredCapabilities, Data: c.Append(nil)}})
	}
	wanted := map[string]struct {
		*mlscore.Proposal
		section string
	}{
		"required extension":  {required(mlscore.RequiredCapabilities{Extensions: []mlscore.ExtensionType{0xff01}}), "11.1"},
		"required proposal":   {required(mlscore.RequiredCapabilities{Proposals: []mlscore.ProposalType{0xff02}}), "11.1"},
		"required credential": {required(mlscore.RequiredCapabilities{Credentials: []mlscore.CredentialType{0xff03}}), "11.1"},
		"extension":           {member.GroupContextExtensions(mlscore.Extensions{{Type: 0xff01}}), "13.4"},
	}
	// One of five does not support them: member 4, by its own last commit.
	w := buildWorld(t, 5, able, nil)
	w.group = w.accepts("a path", w.forge(forge{by: 4, leaf: unable})).Next()
	ableAdd := w.add(func(n *mlscore.LeafNode) {
		c := &member.Client{}
		able(c)
		n.Capabilities = *c.Capabilities
	})
	for what, p := range wanted {
		commit := func(list ...*mlscore.Proposal) []byte {
			return w.forge(forge{by: 1, proposals: byValue(append(list, p.Proposal)...)})
		}
		w.refuses("a member without "+what, commit(), mlscore.ErrInvalid, p.section)
		w.flagged("it is removed with "+what, commit(member.Remove(4)))
		w.flagged("an able one is added with "+what, commit(member.Remove(4), ableAdd))
		w.refuses("another is added with "+what, commit(member.Remove(4), w.add(nil)), mlscore.ErrInvalid, p.section)
	}
	// Default types need not be listed; extensions are replaced as a whole.
	staged := w.flagged("default types", w.forge(forge{by: 1, proposals: byValue(required(mlscore.RequiredCapabilities{
		Extensions: []mlscore.ExtensionType{mlscore.ExtensionTypeExternalSenders}, Proposals: []mlscore.ProposalType{mlscore.ProposalTypeAdd},
		Credentials: []mlscore.CredentialType{mlscore.CredentialTypeBasic},
	}))}))
	if n := len(staged.Next().ExternalSenders()); n != 0 {
		t.Errorf("%d external senders after they were left out", n)
	}
	w.flagged("ratchet_tree in a GroupContext", w.forge(forge{by: 1, proposals: byValue(member.GroupContextExtensions(mlscore.Extensions{
		{Type: mlscore.ExtensionTypeRatchetTree},
	}))}), mlscore.FlagMisplacedExtension)
}

func testExternalSenders(t *testing.T) {
	w := newWorld(t, 4)
	list := func(keys ...[]byte) *mlscore.Proposal {
		var senders []mlscore.ExternalSender
		for _, key := range keys {
			senders = append(senders, mlscore.ExternalSender{SignatureKey: key, Credential: mlscore.BasicCredential(nil)})
		}
		return member.GroupContextExtensions(mlscore.Extensions{{Type: mlscore.ExtensionTypeExternalSenders, Data: mlscore.AppendExternalSenders(nil, senders)}})
	}
	commit := func(p *mlscore.Proposal) []byte { return w.forge(forge{by: 1, proposals: byValue(p)}) }
	w.flagged("an empty list", commit(list()))
	w.flagged("a key of another scheme", commit(list(w.broker.PublicKey(), w.key()[1:])), mlscore.FlagExternalSenderKey)
	w.flagged("a key that two have", commit(list(w.broker.PublicKey(), w.broker.PublicKey())))
	truncated := mlscore.AppendExternalSenders(nil, w.group.ExternalSenders())
	truncated = truncated[:len(truncated)-1]
	w.refuses("a list that does not decode", commit(member.GroupContextExtensions(mlscore.Extensions{
		{Type: mlscore.ExtensionTypeExternalSenders, Data: truncated},
	})), mlscore.ErrMalformed, "")
	w.flagsInfo("a key of another scheme in a GroupInfo", nil)
}

func testExternalInit(t *testing.T) {
	w := newWorld(t, 4)
	w.refusesProposal("an ExternalInit by a member", w.by(2), w.externalInit(), mlscore.ErrInvalid, "12.1.6")
	w.refuses("an ExternalInit by an external sender", w.proposal(external, w.externalInit()), mlscore.ErrMalformed, "12.1.8")
	for _, n := range []int{0, 31, 33} {
		p := &mlscore.Proposal{Type: mlscore.ProposalTypeExternalInit, KEMOutput: make([]byte, n)}
		w.refuses("kem_output of another length", w.forge(forge{joiner: w.client(), proposals: byValue(p)}), mlscore.ErrInvalid, "12.1.6")
	}
}

// A type that RFC 9420 does not define, and whose effect is known: AppEphemeral.
func testCustomTypesSupported(t *testing.T) {
	ephemeral := &mlscore.Proposal{Type: 0x0009, Body: []byte{0, 1, 1, 'x'}}
	w := buildWorld(t, 5, able, nil)
	w.flagged("all support it", w.forge(forge{by: 1, noPath: true, proposals: byValue(ephemeral)}))
	w.flagged("one who is added does not", w.forge(forge{by: 1, proposals: byValue(ephemeral, w.add(nil))}))
	before := w.group
	w.group = w.accepts("a path", w.forge(forge{by: 4, leaf: unable})).Next()
	w.refuses("one does not", w.forge(forge{by: 1, proposals: byValue(ephemeral)}), mlscore.ErrInvalid, "12.2")
	w.flagged("it is removed", w.forge(forge{by: 1, proposals: byValue(ephemeral, member.Remove(4))}))
	w.refuses("another is removed", w.forge(forge{by: 1, proposals: byValue(ephemeral, member.Remove(3))}), mlscore.ErrInvalid, "12.2")
	leaving := w.pend(w.by(4), mlscore.NewSelfRemove(w.group.Registry()))
	w.flagged("it removes itself", w.forge(forge{by: 1, proposals: append(byValue(ephemeral), leaving)}))
	learns := w.pend(w.by(4), updateWith(w.update(4, func(n *mlscore.LeafNode) { n.Capabilities = before.Tree().Leaf(4).Capabilities })))
	w.flagged("its Update supports it", w.forge(forge{by: 1, proposals: append(byValue(ephemeral), learns)}))
	w.refuses("in an external commit", w.forge(forge{joiner: w.client(), proposals: byValue(w.externalInit(), ephemeral)}), mlscore.ErrInvalid, "12.2")
}

// Which sender may send what (Section 12.1.8 and the IANA registry).
func testSenderTypes(t *testing.T) {
	w := buildWorld(t, 4, able, nil)
	reg := w.group.Registry()
	reInit := member.ReInit(mlscore.ReInit{GroupID: []byte("next"), Version: 1, CipherSuite: 1})
	for what, p := range map[string]*mlscore.Proposal{
		"add": w.add(nil), "remove": member.Remove(1), "psk": psk("x"), "reinit": reInit,
		"group_context_extensions": member.GroupContextExtensions(nil),
		"app_ephemeral":            {Type: 0x0009, Body: []byte{0, 1, 0}},
		"app_data_update":          {Type: 0x0008, Body: []byte{0, 1, 2}},
	} {
		if staged := w.flagged(what+" by an external sender", w.proposal(external, p)); staged.Proposal.Invalid != nil {
			t.Errorf("%s: %v", what, staged.Proposal.Invalid)
		}
	}
	for what, p := range map[string]*mlscore.Proposal{
		"update": updateWith(w.update(1, nil)), "external_init": w.externalInit(),
		"self_remove": mlscore.NewSelfRemove(reg), "replace": mlscore.NewReplace(reg, 1, w.update(1, nil)),
	} {
		w.refuses(what+" by an external sender", w.proposal(external, p), mlscore.ErrMalformed, "12.1.8")
	}
	// An external proposal, and a SelfRemove, in what a PrivateMessage held.
	for _, c := range []struct {
		sender mlscore.Sender
		p      *mlscore.Proposal
		signer mlscore.Signer
	}{{external, member.Remove(1), w.broker}, {w.by(2), mlscore.NewSelfRemove(reg), w.signer(2)}} {
		a := &mlscore.AuthenticatedContent{WireFormat: mlscore.WireFormatPrivateMessage, Content: mlscore.FramedContent{
			GroupID: w.group.GroupID(), Epoch: w.group.Epoch(), Sender: c.sender,
			ContentType: mlscore.ContentTypeProposal, Proposal: c.p,
		}}
		must(0, a.Sign(c.signer, w.group.ContextBytes()))
		w.isRefusal("in a PrivateMessage", must(w.group.StageContent(a, nil)).Proposal.Invalid, mlscore.ErrInvalid, "12.1.8")
	}
}

// The proposals of draft-ietf-mls-extensions whose bodies are kept as bytes.
func testAppProposals(t *testing.T) {
	w := buildWorld(t, 4, able, nil)
	update := codec.AppendOpaque([]byte{0, 7, 1}, []byte("patch"))
	remove := []byte{0, 7, 2}
	for what, body := range map[string][]byte{"update": update, "remove": remove} {
		p := &mlscore.Proposal{Type: 0x0008, Body: body}
		ref := w.pend(external, p)
		if got := w.group.Proposal(ref.Reference).Proposal.Body; !slices.Equal(got, body) {
			t.Errorf("%s: body %x, want %x", what, got, body)
		}
		w.refuses(what+" by reference", w.forge(forge{by: 1, proposals: []mlscore.ProposalOrRef{ref}}), mlscore.ErrUnresolvable, "12.4.2")
		w.refuses(what+" by value", w.forge(forge{by: 1, proposals: byValue(p, member.Remove(3))}), mlscore.ErrUnresolvable, "12.4.2")
		w.refuses(what+" in an external commit", w.forge(forge{joiner: w.client(), proposals: byValue(w.externalInit(), p)}), mlscore.ErrUnresolvable, "12.4.2")
	}
	for what, body := range map[string][]byte{
		"operation 0": {0, 7, 0}, "operation 3": {0, 7, 3}, "a removal with data": {0, 7, 2, 0}, "an update without data": {0, 7, 1}, "half an id": {0},
	} {
		w.refuses(what, w.proposal(external, &mlscore.Proposal{Type: 0x0008, Body: body}), mlscore.ErrMalformed, "")
	}
	w.refuses("AppEphemeral without data", w.proposal(external, &mlscore.Proposal{Type: 0x0009, Body: []byte{0, 7}}), mlscore.ErrMalformed, "")
	unknown := &mlscore.Proposal{Type: 0xff02, Body: codec.AppendOpaque(nil, []byte("?"))}
	w.refuses("a type that nobody knows", w.forge(forge{by: 1, proposals: byValue(unknown)}), mlscore.ErrUnresolvable, "12.4.2")
}
