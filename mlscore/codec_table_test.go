package mlscore

import (
	"bytes"
	"testing"

	"leavebroker/mlscore/codec"
)

// decoder decodes all of its input. What it gives encodes the fields again,
// without the bytes they were decoded from.
type decoder func([]byte) (encode func() []byte, err error)

var decoders = map[string]decoder{
	"MLSMessage": func(b []byte) (func() []byte, error) {
		m, err := ParseMLSMessage(b, DefaultRegistry())
		return func() []byte {
			if !bytes.Equal(m.Bytes(), b) {
				return m.Bytes()
			}
			forgetMessage(m)
			return m.Bytes()
		}, err
	},
	"Commit": func(b []byte) (func() []byte, error) {
		c, err := ParseCommit(b, DefaultRegistry())
		return func() []byte { forgetCommit(c); return c.Append(nil) }, err
	},
	"Proposal": func(b []byte) (func() []byte, error) {
		r := codec.NewReader(b)
		p := ReadProposal(r, DefaultRegistry())
		return func() []byte { forgetProposal(p); return p.Bytes() }, r.Finish()
	},
	"UpdatePath": func(b []byte) (func() []byte, error) {
		r := codec.NewReader(b)
		p := ReadUpdatePath(r)
		return func() []byte { forgetLeaf(p.LeafNode); return p.Append(nil) }, r.Finish()
	},
	"AuthenticatedContent": func(b []byte) (func() []byte, error) {
		r := codec.NewReader(b)
		a := ReadAuthenticatedContent(r, DefaultRegistry())
		return func() []byte { forgetContent(&a.Content); return a.Append(nil) }, r.Finish()
	},
	"KeyPackage": func(b []byte) (func() []byte, error) {
		r := codec.NewReader(b)
		k := ReadKeyPackage(r)
		return func() []byte { forgetKeyPackage(k); return k.Bytes() }, r.Finish()
	},
	"LeafNode": func(b []byte) (func() []byte, error) {
		n, err := ParseLeafNode(b)
		return func() []byte { forgetLeaf(n); return n.Bytes() }, err
	},
	"ParentNode": func(b []byte) (func() []byte, error) {
		r := codec.NewReader(b)
		p := ReadParentNode(r)
		return func() []byte { return p.Append(nil) }, r.Finish()
	},
	"RatchetTree": func(b []byte) (func() []byte, error) {
		suite, err := LookupSuite(1)
		if err != nil {
			return nil, err
		}
		tree, err := ParseRatchetTree(suite, b)
		return func() []byte { return tree.Bytes() }, err
	},
	"GroupContext": func(b []byte) (func() []byte, error) {
		r := codec.NewReader(b)
		gc := ReadGroupContext(r)
		return func() []byte { return gc.Append(nil) }, r.Finish()
	},
	"GroupInfo": func(b []byte) (func() []byte, error) {
		r := codec.NewReader(b)
		gi := ReadGroupInfo(r)
		return func() []byte { gi.raw = nil; return gi.Bytes() }, r.Finish()
	},
	"Credential": func(b []byte) (func() []byte, error) {
		r := codec.NewReader(b)
		c := ReadCredential(r)
		return func() []byte { c.raw = nil; return c.Bytes() }, r.Finish()
	},
	"RequiredCapabilities": func(b []byte) (func() []byte, error) {
		c, err := ParseRequiredCapabilities(b)
		return func() []byte { return c.Append(nil) }, err
	},
	"ExternalSenders": func(b []byte) (func() []byte, error) {
		list, err := ParseExternalSenders(b)
		return func() []byte { return AppendExternalSenders(nil, list) }, err
	},
}

func forgetLeaf(n *LeafNode) {
	n.raw, n.Credential.raw = nil, nil
}

func forgetKeyPackage(k *KeyPackage) {
	k.raw = nil
	forgetLeaf(k.LeafNode)
}

func forgetProposal(p *Proposal) {
	p.raw = nil
	if p.KeyPackage != nil {
		forgetKeyPackage(p.KeyPackage)
	}
	if p.LeafNode != nil {
		forgetLeaf(p.LeafNode)
	}
}

func forgetCommit(c *Commit) {
	for _, p := range c.Proposals {
		if p.Proposal != nil {
			forgetProposal(p.Proposal)
		}
	}
	if c.Path != nil {
		forgetLeaf(c.Path.LeafNode)
	}
}

func forgetContent(c *FramedContent) {
	c.raw = nil
	if c.Proposal != nil {
		forgetProposal(c.Proposal)
	}
	if c.Commit != nil {
		forgetCommit(c.Commit)
	}
}

func forgetMessage(m *MLSMessage) {
	switch {
	case m.PublicMessage != nil:
		forgetContent(&m.PublicMessage.Content)
	case m.GroupInfo != nil:
		m.GroupInfo.raw = nil
	case m.KeyPackage != nil:
		forgetKeyPackage(m.KeyPackage)
	}
}

// checkRoundTrip decodes a sample, which must give the same bytes again.
func checkRoundTrip(t *testing.T, kind string, sample []byte) {
	t.Helper()
	encode, err := decoders[kind](sample)
	if err != nil {
		t.Errorf("%s %x: %v", kind, sample, err)
	} else if got := encode(); !bytes.Equal(got, sample) {
		t.Errorf("%s encodes to\n%x, want\n%x", kind, got, sample)
	}
}

// checkNothingElse refuses every proper prefix of a sample, and a byte more.
func checkNothingElse(t *testing.T, kind string, sample []byte) {
	t.Helper()
	for n := range sample {
		if _, err := decoders[kind](sample[:n]); Reason(err) != "malformed" {
			t.Errorf("the first %d bytes of %s %x: got %v", n, kind, sample, err)
		}
	}
	if _, err := decoders[kind](append(bytes.Clone(sample), 0)); Reason(err) != "malformed" {
		t.Errorf("a byte after %s %x: got %v", kind, sample, err)
	}
}

// samples are encodings that the published vectors lack.
func samples() map[string][][]byte {
	reg := DefaultRegistry()
	leaf := &LeafNode{
		EncryptionKey: []byte("encryption key"), SignatureKey: []byte("signature key"),
		Credential: BasicCredential([]byte("alice")),
		Capabilities: Capabilities{
			Versions: []ProtocolVersion{1}, CipherSuites: []CipherSuite{1, 0x0a0a}, Extensions: []ExtensionType{0xf0a3, 0x1a1a},
			Proposals: []ProposalType{0x000a, 0x2a2a}, Credentials: []CredentialType{1, 2, 0x3a3a},
		},
		Source: LeafNodeSourceCommit, ParentHash: []byte("parent hash"),
		Extensions: Extensions{{0xf0a3, []byte{0, 0, 0, 0, 0, 0, 0, 9}}, {0x4a4a, nil}}, Signature: []byte("signature"),
	}
	certified, unknown := *leaf, *leaf
	certified.Credential = Credential{Type: CredentialTypeX509, Certificates: [][]byte{bytes.Repeat([]byte{7}, 70), []byte("issuer")}}
	certified.Source, certified.ParentHash, certified.Lifetime = LeafNodeSourceKeyPackage, nil, Lifetime{1, 1<<64 - 1}
	unknown.Credential = Credential{Type: 0x5a5a, Unknown: []byte("unknown")}
	unknown.Source, unknown.ParentHash = LeafNodeSourceUpdate, nil
	keyPackage := &KeyPackage{
		Version: 1, CipherSuite: 2, InitKey: []byte("init key"), LeafNode: &certified,
		Extensions: Extensions{{0x6a6a, bytes.Repeat([]byte{1}, 64)}}, Signature: []byte("signature"),
	}
	proposals := []*Proposal{
		NewSelfRemove(reg), NewReplace(reg, 7, &unknown),
		{Type: ProposalTypeAdd, KeyPackage: keyPackage},
		{Type: ProposalTypeRemove, Removed: 1<<32 - 1},
		{Type: ProposalTypePSK, PSK: PreSharedKeyID{Type: PSKTypeResumption, Usage: ResumptionPSKUsageBranch, GroupID: []byte("g"), Epoch: 9, Nonce: []byte("n")}},
		{Type: ProposalTypeReInit, ReInit: ReInit{GroupID: []byte("next"), Version: 1, CipherSuite: 3}},
		{Type: ProposalTypeExternalInit, KEMOutput: []byte("kem")},
		{Type: ProposalTypeGroupContextExtensions, Extensions: Extensions{{ExtensionTypeExternalSenders, []byte{0}}}},
		{Type: 0x7a7a, Body: []byte{2, 1, 2}},
	}
	out := map[string][][]byte{
		"LeafNode":   {leaf.Bytes(), certified.Bytes(), unknown.Bytes()},
		"KeyPackage": {keyPackage.Bytes()},
		"Credential": {leaf.Credential.Bytes(), certified.Credential.Bytes(), unknown.Credential.Bytes()},
		"ParentNode": {(&ParentNode{}).Append(nil), (&ParentNode{[]byte("k"), []byte("h"), []LeafIndex{0, 3, 1<<32 - 1}}).Append(nil)},
		"RequiredCapabilities": {(&RequiredCapabilities{}).Append(nil),
			(&RequiredCapabilities{[]ExtensionType{5}, []ProposalType{10, 11}, []CredentialType{1}}).Append(nil)},
		"ExternalSenders": {{0}, AppendExternalSenders(nil, []ExternalSender{{[]byte("key"), leaf.Credential}, {[]byte("key 2"), certified.Credential}})},
	}
	commit := &Commit{Path: &UpdatePath{LeafNode: leaf, Nodes: []UpdatePathNode{
		{[]byte("key"), []HPKECiphertext{{[]byte("kem"), []byte("secret")}, {}}}, {[]byte("key 2"), nil},
	}}}
	for _, p := range proposals {
		out["Proposal"] = append(out["Proposal"], p.Bytes())
		commit.Proposals = append(commit.Proposals, ProposalOrRef{Proposal: p}, ProposalOrRef{Reference: []byte("reference")})
	}
	out["Commit"] = [][]byte{(&Commit{}).Append(nil), commit.Append(nil)}
	out["UpdatePath"] = [][]byte{commit.Path.Append(nil)}
	for _, content := range []FramedContent{
		{Sender: Sender{Type: SenderTypeMember, LeafIndex: 3}, ContentType: ContentTypeCommit, Commit: commit},
		{Sender: Sender{Type: SenderTypeMember}, ContentType: ContentTypeApplication, ApplicationData: []byte("hello")},
		{Sender: Sender{Type: SenderTypeExternal, SenderIndex: 2}, ContentType: ContentTypeProposal, Proposal: proposals[3]},
		{Sender: Sender{Type: SenderTypeNewMemberProposal}, ContentType: ContentTypeProposal, Proposal: proposals[2]},
		{Sender: Sender{Type: SenderTypeNewMemberCommit}, ContentType: ContentTypeCommit, Commit: commit},
	} {
		content.GroupID, content.Epoch, content.AuthenticatedData = []byte("group"), 1<<63, []byte("authenticated")
		auth := AuthenticatedContent{WireFormat: WireFormatPublicMessage, Content: content, Signature: []byte("signature"), ConfirmationTag: []byte("tag")}
		out["AuthenticatedContent"] = append(out["AuthenticatedContent"], auth.Append(nil))
		m := MLSMessage{WireFormat: WireFormatPublicMessage, PublicMessage: &PublicMessage{AuthenticatedContent: auth, MembershipTag: []byte("tag")}}
		out["MLSMessage"] = append(out["MLSMessage"], m.Bytes())
	}
	gi := &GroupInfo{
		GroupContext: GroupContext{
			Version: 1, CipherSuite: 1, GroupID: []byte("group"), Epoch: 5, TreeHash: []byte("tree"), ConfirmedTranscriptHash: []byte("transcript"),
			Extensions: Extensions{{ExtensionTypeExternalSenders, []byte{0}}},
		},
		Extensions: Extensions{{ExtensionTypeExternalPub, []byte("\x03pub")}}, ConfirmationTag: []byte("tag"), Signer: 2, Signature: []byte("signature"),
	}
	out["GroupContext"] = [][]byte{gi.GroupContext.Append(nil)}
	out["GroupInfo"] = [][]byte{gi.Bytes()}
	out["RatchetTree"] = [][]byte{codec.AppendOpaque(nil, bytes.Join([][]byte{
		{1, 1}, leaf.Bytes(), {1, 2}, out["ParentNode"][0], {1, 1}, certified.Bytes(), {0}, {1, 1}, unknown.Bytes(),
	}, nil))}
	return out
}
