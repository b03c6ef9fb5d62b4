package member

import (
	"bytes"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// groupSecrets is what a Welcome tells one new member (RFC 9420, Section 12.4.3.1):
//
//	struct {
//	  opaque joiner_secret<V>;
//	  optional<PathSecret> path_secret;  // struct { opaque path_secret<V>; }
//	  PreSharedKeyID psks<V>;
//	} GroupSecrets;
type groupSecrets struct {
	joiner []byte
	path   []byte // nil: absent
	psks   []mlscore.PreSharedKeyID
}

func (g *groupSecrets) bytes() []byte {
	b := codec.AppendOpaque(nil, g.joiner)
	b = codec.AppendOptional(b, g.path != nil)
	if g.path != nil {
		b = codec.AppendOpaque(b, g.path)
	}
	return codec.AppendVector(b, func(b []byte) []byte {
		for i := range g.psks {
			b = g.psks[i].Append(b)
		}
		return b
	})
}

func parseGroupSecrets(b []byte) (*groupSecrets, error) {
	r := codec.NewReader(b)
	g := &groupSecrets{joiner: r.Opaque()}
	if r.Optional() {
		g.path = r.Opaque()
	}
	v := r.Vector()
	for !v.Empty() {
		g.psks = append(g.psks, mlscore.ReadPreSharedKeyID(v))
	}
	r.Join(v)
	return g, r.Finish()
}

// welcomeKey is the key that encrypts the GroupInfo of a Welcome (RFC 9420,
// Section 12.4.3.1).
func (s *suite) welcomeKey(member []byte) messageKey {
	secret := s.welcomeSecret(member)
	return messageKey{
		key:   s.expandWithLabel(secret, "key", nil, s.keyLen()),
		nonce: s.expandWithLabel(secret, "nonce", nil, s.nonceLen()),
	}
}

// welcome makes the Welcome of a commit; nil if it adds nobody. The i-th Add of
// the commit fills the i-th of the added leaves, both ascending.
func (b *commitBuilder) welcome(next *epoch, staged *mlscore.Staged, form treeForm) ([]byte, error) {
	var added []*mlscore.KeyPackage
	for _, a := range staged.Applied {
		if a.Proposal.Type == mlscore.ProposalTypeAdd {
			added = append(added, a.Proposal.KeyPackage)
		}
	}
	if len(added) == 0 {
		return nil, nil
	}
	gi, err := groupInfo(b.next, b.suite, next, form)
	if err != nil {
		return nil, err
	}
	s, w := b.suite, &mlscore.Welcome{CipherSuite: b.suite.ID}
	if w.EncryptedGroupInfo, err = s.seal(s.welcomeKey(b.member), nil, gi.Bytes()); err != nil {
		return nil, err
	}
	secrets := groupSecrets{joiner: b.joiner}
	for i := range b.psks {
		secrets.psks = append(secrets.psks, b.psks[i].id)
	}
	for i, k := range added {
		if b.path != nil {
			secrets.path = b.path.secretFor(next.public.Tree(), staged.Added[i])
		}
		c, err := s.encryptWithLabel(b.client.random(), k.InitKey, "Welcome", w.EncryptedGroupInfo, secrets.bytes())
		if err != nil {
			return nil, err
		}
		w.Secrets = append(w.Secrets, mlscore.EncryptedGroupSecrets{NewMember: k.Ref(s.Suite), Secrets: c})
	}
	return (&mlscore.MLSMessage{WireFormat: mlscore.WireFormatWelcome, Welcome: w}).Bytes(), nil
}

// Join joins a group by a Welcome for this key package (RFC 9420, Section
// 12.4.3.1), an encoded MLSMessage. The ratchet tree is the data of a
// ratchet_tree extension, or nil where the Welcome carries it. A group that
// continues another is joined by JoinSuccessor or JoinBranch.
func (k *KeyPackage) Join(welcome, ratchetTree []byte) (*Group, error) {
	return k.join(welcome, ratchetTree, nil)
}

func (k *KeyPackage) join(welcome, ratchetTree []byte, from *origin) (*Group, error) {
	m, err := mlscore.ParseMLSMessage(welcome, k.client.registry())
	if err != nil {
		return nil, err
	}
	if m.Welcome == nil {
		return nil, invalid("12.4.3.1", "wire_format %d is no Welcome", m.WireFormat)
	}
	secrets, err := k.openWelcome(m.Welcome)
	if err != nil {
		return nil, err
	}
	s := k.suite
	psks, err := k.findPSKs(secrets.psks, from)
	if err != nil {
		return nil, err
	}
	member := s.memberSecret(secrets.joiner, s.pskSecret(psks))
	plain, err := s.open(s.welcomeKey(member), nil, m.Welcome.EncryptedGroupInfo)
	if err != nil {
		return nil, invalid("12.4.3.1", "the GroupInfo of the Welcome does not decrypt")
	}
	r := codec.NewReader(plain)
	gi := mlscore.ReadGroupInfo(r)
	if err := r.Finish(); err != nil {
		return nil, err
	}
	if gi.GroupContext.CipherSuite != k.CipherSuite {
		return nil, invalid("12.4.3.1", "a group of suite 0x%04x for a key package of suite 0x%04x", uint16(gi.GroupContext.CipherSuite), uint16(k.CipherSuite))
	}
	if err := checkWelcomePSKs(secrets.psks, &gi.GroupContext); err != nil {
		return nil, err
	}
	public, err := k.client.Shared.publicGroup(s, gi, ratchetTree, mlscore.Options{Registry: k.client.registry()})
	if err != nil {
		return nil, err
	}
	e, err := k.enter(public, gi, member, secrets.path)
	if err != nil {
		return nil, err
	}
	return newGroup(k.client, s, e), nil
}

// openWelcome finds and decrypts the part of a Welcome that is for this key
// package.
func (k *KeyPackage) openWelcome(w *mlscore.Welcome) (*groupSecrets, error) {
	if w.CipherSuite != k.CipherSuite {
		return nil, invalid("12.4.3.1", "a Welcome of suite 0x%04x for a key package of suite 0x%04x", uint16(w.CipherSuite), uint16(k.CipherSuite))
	}
	ref := k.Ref(k.suite.Suite)
	for _, part := range w.Secrets {
		if !bytes.Equal(part.NewMember, ref) {
			continue
		}
		plain, err := k.suite.decryptWithLabel(k.init, "Welcome", w.EncryptedGroupInfo, part.Secrets)
		if err != nil {
			return nil, err
		}
		return parseGroupSecrets(plain)
	}
	return nil, ErrNotForUs
}

// findPSKs gives the values of a Welcome's pre-shared keys. One of them stands
// for the group that the new one is meant to continue.
func (k *KeyPackage) findPSKs(ids []mlscore.PreSharedKeyID, from *origin) (list []psk, err error) {
	continues := false
	for _, id := range ids {
		find := k.client.findPSK
		if from != nil && from.isNamedBy(id) {
			find, continues = from.group.findPSK, true
		}
		value, err := find(id)
		if err != nil {
			return nil, err
		}
		list = append(list, psk{id, value})
	}
	if from != nil && !continues {
		return nil, notSuccessor("none of the %d PSKs of the Welcome is of usage %d and the old group's", len(ids), from.usage)
	}
	return list, nil
}

// checkWelcomePSKs judges the pre-shared keys of a Welcome: a resumption PSK of
// usage reinit or branch stands alone and belongs to the first epoch of a new
// group (RFC 9420, Sections 8.6, 11.2 and 11.3).
func checkWelcomePSKs(ids []mlscore.PreSharedKeyID, gc *mlscore.GroupContext) error {
	successor := 0
	for i := range ids {
		if ids[i].Type == mlscore.PSKTypeResumption && ids[i].Usage != mlscore.ResumptionPSKUsageApplication {
			successor++
		}
	}
	if successor > 1 || successor == 1 && gc.Epoch != 1 {
		return invalid("12.4.3.1", "%d resumption PSKs of usage reinit or branch in a Welcome into epoch %d", successor, gc.Epoch)
	}
	return nil
}

// enter derives the joiner's view of the group's current epoch.
func (k *KeyPackage) enter(public *mlscore.PublicGroup, gi *mlscore.GroupInfo, member, pathSecret []byte) (*epoch, error) {
	s, tree := k.suite, public.Tree()
	x, found := tree.FindEncryptionKey(k.leaf.public)
	if !found || !x.IsLeaf() || !bytes.Equal(tree.Leaf(x.LeafIndex()).Bytes(), k.LeafNode.Bytes()) {
		return nil, invalid("12.4.3.1", "the key package's leaf is not in the tree")
	}
	private := &privateTree{x.LeafIndex(), map[mlscore.NodeIndex]*privateKey{x: k.leaf}}
	secrets := s.epochSecrets(member, public.ContextBytes())
	if !sameMAC(gi.ConfirmationTag, s.confirmationTag(secrets, public.ConfirmedTranscriptHash())) {
		return nil, invalid("12.4.3.1", "the confirmation tag of the GroupInfo is wrong")
	}
	if pathSecret != nil {
		nodes := tree.FilteredDirectPath(gi.Signer)
		common := commonAncestor(tree, nodes, private.index)
		if gi.Signer == private.index || common == len(nodes) {
			return nil, invalid("12.4.3.1", "a path secret of leaf %d, which has no node above leaf %d", gi.Signer, private.index)
		}
		fresh, _, err := s.climb(tree, nodes[common:], pathSecret)
		if err != nil {
			return nil, err
		}
		if private, err = private.after(tree, fresh); err != nil {
			return nil, err
		}
	}
	return newEpoch(s, public, gi.ConfirmationTag, private, secrets), nil
}
