package member

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/mlstest"
)

type hexBytes = mlstest.Hex

// equal fails the test if a value is not as expected.
func equal(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %x, want %x", what, got, want)
	}
}

func mustSuite(t testing.TB, id mlscore.CipherSuite) *suite {
	t.Helper()
	s, err := lookupSuite(mlscore.DefaultRegistry(), id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// seeded is a source of randomness for repeatable tests.
func seeded[N ~int | ~byte | ~uint16](n N) *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte{byte(n), byte(int(n) >> 8)})
}

func TestCryptoBasicsVectors(t *testing.T) {
	var cases []struct {
		CipherSuite     mlscore.CipherSuite `json:"cipher_suite"`
		ExpandWithLabel struct {
			Secret, Context, Out hexBytes
			Label                string
			Length               int
		} `json:"expand_with_label"`
		DeriveSecret struct {
			Secret, Out hexBytes
			Label       string
		} `json:"derive_secret"`
		DeriveTreeSecret struct {
			Secret, Out hexBytes
			Label       string
			Generation  uint32
			Length      int
		} `json:"derive_tree_secret"`
		EncryptWithLabel struct {
			Priv, Pub, Context, Plaintext, Ciphertext hexBytes
			Label                                     string
			KEMOutput                                 hexBytes `json:"kem_output"`
		} `json:"encrypt_with_label"`
	}
	mlstest.JSON(t, "mlswg/crypto-basics.json", &cases)
	for _, c := range cases {
		s := mustSuite(t, c.CipherSuite)
		e := c.ExpandWithLabel
		equal(t, "ExpandWithLabel", s.expandWithLabel(e.Secret, e.Label, e.Context, e.Length), e.Out)
		equal(t, "DeriveSecret", s.deriveSecret(c.DeriveSecret.Secret, c.DeriveSecret.Label), c.DeriveSecret.Out)
		d := c.DeriveTreeSecret
		equal(t, "DeriveTreeSecret", s.deriveTreeSecret(d.Secret, d.Label, d.Generation, d.Length), d.Out)

		h := c.EncryptWithLabel
		key := must[*privateKey](t)(s.parsePrivateKey(h.Priv))
		equal(t, "public key", key.public, h.Pub)
		ct := mlscore.HPKECiphertext{KEMOutput: h.KEMOutput, Ciphertext: h.Ciphertext}
		equal(t, "DecryptWithLabel", must[[]byte](t)(s.decryptWithLabel(key, h.Label, h.Context, ct)), h.Plaintext)
		ct = must[mlscore.HPKECiphertext](t)(s.encryptWithLabel(seeded(1), h.Pub, h.Label, h.Context, h.Plaintext))
		equal(t, "round trip", must[[]byte](t)(s.decryptWithLabel(key, h.Label, h.Context, ct)), h.Plaintext)
		if _, err := s.decryptWithLabel(key, h.Label+"x", h.Context, ct); err == nil {
			t.Errorf("suite %d: decrypts under another label", c.CipherSuite)
		}
	}
}

func TestKeyScheduleVectors(t *testing.T) {
	var cases []struct {
		CipherSuite       mlscore.CipherSuite `json:"cipher_suite"`
		GroupID           hexBytes            `json:"group_id"`
		InitialInitSecret hexBytes            `json:"initial_init_secret"`
		Epochs            []struct {
			TreeHash                hexBytes `json:"tree_hash"`
			CommitSecret            hexBytes `json:"commit_secret"`
			PSKSecret               hexBytes `json:"psk_secret"`
			ConfirmedTranscriptHash hexBytes `json:"confirmed_transcript_hash"`
			GroupContext            hexBytes `json:"group_context"`
			JoinerSecret            hexBytes `json:"joiner_secret"`
			WelcomeSecret           hexBytes `json:"welcome_secret"`
			InitSecret              hexBytes `json:"init_secret"`
			SenderDataSecret        hexBytes `json:"sender_data_secret"`
			EncryptionSecret        hexBytes `json:"encryption_secret"`
			ExporterSecret          hexBytes `json:"exporter_secret"`
			EpochAuthenticator      hexBytes `json:"epoch_authenticator"`
			ExternalSecret          hexBytes `json:"external_secret"`
			ExternalPub             hexBytes `json:"external_pub"`
			ConfirmationKey         hexBytes `json:"confirmation_key"`
			MembershipKey           hexBytes `json:"membership_key"`
			ResumptionPSK           hexBytes `json:"resumption_psk"`
			Exporter                struct {
				Label           string
				Context, Secret hexBytes
				Length          int
			}
		}
	}
	mlstest.JSON(t, "mlswg/key-schedule.json", &cases)
	for _, c := range cases {
		s := mustSuite(t, c.CipherSuite)
		init := []byte(c.InitialInitSecret)
		for i, e := range c.Epochs {
			gc := mlscore.GroupContext{
				Version: mlscore.ProtocolVersionMLS10, CipherSuite: c.CipherSuite, GroupID: c.GroupID, Epoch: uint64(i),
				TreeHash: e.TreeHash, ConfirmedTranscriptHash: e.ConfirmedTranscriptHash,
			}
			equal(t, "group_context", gc.Append(nil), e.GroupContext)
			joiner := s.joinerSecret(init, e.CommitSecret, e.GroupContext)
			equal(t, "joiner_secret", joiner, e.JoinerSecret)
			member := s.memberSecret(joiner, e.PSKSecret)
			equal(t, "welcome_secret", s.welcomeSecret(member), e.WelcomeSecret)
			got := s.epochSecrets(member, e.GroupContext)
			equal(t, "init_secret", got.init, e.InitSecret)
			equal(t, "sender_data_secret", got.senderData, e.SenderDataSecret)
			equal(t, "encryption_secret", got.encryption, e.EncryptionSecret)
			equal(t, "exporter_secret", got.exporter, e.ExporterSecret)
			equal(t, "epoch_authenticator", got.epochAuthenticator, e.EpochAuthenticator)
			equal(t, "external_secret", got.external, e.ExternalSecret)
			equal(t, "confirmation_key", got.confirmationKey, e.ConfirmationKey)
			equal(t, "membership_key", got.membershipKey, e.MembershipKey)
			equal(t, "resumption_psk", got.resumptionPSK, e.ResumptionPSK)
			external := must[*privateKey](t)(s.deriveKeyPair(got.external))
			equal(t, "external_pub", external.public, e.ExternalPub)
			x := e.Exporter
			equal(t, "exporter", must[[]byte](t)(s.export(got.exporter, x.Label, x.Context, x.Length)), x.Secret)
			init = got.init
		}
	}
}

func TestExporterLengthIsBounded(t *testing.T) {
	for _, id := range mlscore.Suites() {
		s := mustSuite(t, id)
		if _, err := s.export(s.zero(), "x", nil, 255*s.HashLen()+1); err == nil {
			t.Errorf("suite %d exports more than KDF.Expand can give", id)
		}
		if b, err := s.export(s.zero(), "x", nil, 255*s.HashLen()); err != nil || len(b) != 255*s.HashLen() {
			t.Errorf("suite %d: %d bytes, %v", id, len(b), err)
		}
	}
}

func TestPSKSecretVectors(t *testing.T) {
	var cases []struct {
		CipherSuite mlscore.CipherSuite `json:"cipher_suite"`
		PSKs        []struct {
			ID    hexBytes `json:"psk_id"`
			PSK   hexBytes `json:"psk"`
			Nonce hexBytes `json:"psk_nonce"`
		}
		PSKSecret hexBytes `json:"psk_secret"`
	}
	mlstest.JSON(t, "mlswg/psk_secret.json", &cases)
	for _, c := range cases {
		s := mustSuite(t, c.CipherSuite)
		var psks []psk
		for _, p := range c.PSKs {
			psks = append(psks, psk{mlscore.PreSharedKeyID{Type: mlscore.PSKTypeExternal, ID: p.ID, Nonce: p.Nonce}, p.PSK})
		}
		equal(t, "psk_secret", s.pskSecret(psks), c.PSKSecret)
	}
}

func TestSecretTreeVectors(t *testing.T) {
	var cases []struct {
		CipherSuite      mlscore.CipherSuite `json:"cipher_suite"`
		EncryptionSecret hexBytes            `json:"encryption_secret"`
		SenderData       struct {
			Secret                 hexBytes `json:"sender_data_secret"`
			Ciphertext, Key, Nonce hexBytes
		} `json:"sender_data"`
		Leaves [][]struct {
			Generation       uint32
			ApplicationKey   hexBytes `json:"application_key"`
			ApplicationNonce hexBytes `json:"application_nonce"`
			HandshakeKey     hexBytes `json:"handshake_key"`
			HandshakeNonce   hexBytes `json:"handshake_nonce"`
		}
	}
	mlstest.JSON(t, "mlswg/secret-tree.json", &cases)
	for _, c := range cases {
		s := mustSuite(t, c.CipherSuite)
		k := s.senderDataKey(c.SenderData.Secret, c.SenderData.Ciphertext)
		equal(t, "sender data key", k.key, c.SenderData.Key)
		equal(t, "sender data nonce", k.nonce, c.SenderData.Nonce)
		// Leaves in any order must give the same keys.
		for _, order := range [][]int{forward(len(c.Leaves)), backward(len(c.Leaves))} {
			tree := newSecretTree(s, c.EncryptionSecret, uint32(len(c.Leaves)))
			for _, i := range order {
				leaf := tree.leaf(mlscore.LeafIndex(i))
				for _, g := range c.Leaves[i] {
					for kind, want := range map[mlscore.ContentType][2]hexBytes{
						mlscore.ContentTypeApplication: {g.ApplicationKey, g.ApplicationNonce},
						mlscore.ContentTypeProposal:    {g.HandshakeKey, g.HandshakeNonce},
					} {
						slot := leaf.of(kind)
						got, next, err := (*slot).at(s, g.Generation)
						if err != nil {
							t.Fatal(err)
						}
						*slot = next
						equal(t, fmt.Sprintf("leaf %d generation %d key", i, g.Generation), got.key, want[0])
						equal(t, fmt.Sprintf("leaf %d generation %d nonce", i, g.Generation), got.nonce, want[1])
						if _, _, err := (*slot).at(s, g.Generation); err == nil {
							t.Errorf("generation %d can be used twice", g.Generation)
						}
					}
				}
			}
		}
	}
}

func forward(n int) (list []int) {
	for i := range n {
		list = append(list, i)
	}
	return list
}

func backward(n int) (list []int) {
	for i := range n {
		list = append(list, n-1-i)
	}
	return list
}

func TestRatchetIsBounded(t *testing.T) {
	s := mustSuite(t, 1)
	r := &ratchet{secret: s.zero()}
	if _, _, err := r.at(s, maxSkip+1); err == nil {
		t.Error("a message may skip more than maxSkip generations")
	}
	var err error
	for g := uint32(maxSkip); g <= 5*maxSkip; g += maxSkip {
		if _, r, err = r.at(s, g); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.skipped) != maxKept {
		t.Errorf("%d skipped keys are kept, want %d", len(r.skipped), maxKept)
	}
	_, used, err := r.at(s, r.generation-2)
	if err != nil {
		t.Fatalf("the newest skipped key is gone: %v", err)
	}
	if _, _, err := used.at(s, r.generation-2); err == nil {
		t.Error("a skipped key can be used twice")
	}
	if _, _, err := r.at(s, 3); err == nil {
		t.Error("the oldest skipped key is still there")
	}
}

func TestMessageProtectionVectors(t *testing.T) {
	var cases []struct {
		CipherSuite             mlscore.CipherSuite `json:"cipher_suite"`
		GroupID                 hexBytes            `json:"group_id"`
		Epoch                   uint64
		TreeHash                hexBytes `json:"tree_hash"`
		ConfirmedTranscriptHash hexBytes `json:"confirmed_transcript_hash"`
		SignaturePriv           hexBytes `json:"signature_priv"`
		SignaturePub            hexBytes `json:"signature_pub"`
		EncryptionSecret        hexBytes `json:"encryption_secret"`
		SenderDataSecret        hexBytes `json:"sender_data_secret"`
		MembershipKey           hexBytes `json:"membership_key"`
		Proposal                hexBytes
		ProposalPriv            hexBytes `json:"proposal_priv"`
		ProposalPub             hexBytes `json:"proposal_pub"`
		Commit                  hexBytes
		CommitPriv              hexBytes `json:"commit_priv"`
		CommitPub               hexBytes `json:"commit_pub"`
		Application             hexBytes
		ApplicationPriv         hexBytes `json:"application_priv"`
	}
	mlstest.JSON(t, "mlswg/message-protection.json", &cases)
	reg := mlscore.DefaultRegistry()
	for _, c := range cases {
		s := mustSuite(t, c.CipherSuite)
		gc := (&mlscore.GroupContext{
			Version: mlscore.ProtocolVersionMLS10, CipherSuite: c.CipherSuite, GroupID: c.GroupID, Epoch: c.Epoch,
			TreeHash: c.TreeHash, ConfirmedTranscriptHash: c.ConfirmedTranscriptHash,
		}).Append(nil)
		signer := must[mlscore.Signer](t)(mlscore.NewSigner(s.Signature, c.SignaturePriv))
		equal(t, "signature key", signer.PublicKey(), c.SignaturePub)
		sender := newSecretTree(s, c.EncryptionSecret, 2)

		for _, kind := range []struct {
			name      string
			t         mlscore.ContentType
			raw       []byte
			pub, priv []byte
		}{
			{"proposal", mlscore.ContentTypeProposal, c.Proposal, c.ProposalPub, c.ProposalPriv},
			{"commit", mlscore.ContentTypeCommit, c.Commit, c.CommitPub, c.CommitPriv},
			{"application", mlscore.ContentTypeApplication, codec.AppendOpaque(nil, c.Application), nil, c.ApplicationPriv},
		} {
			t.Run(fmt.Sprintf("%d/%s", c.CipherSuite, kind.name), func(t *testing.T) {
				if kind.pub != nil {
					m := must[*mlscore.MLSMessage](t)(mlscore.ParseMLSMessage(kind.pub, reg)).PublicMessage
					equal(t, "content", m.Content.AppendBody(nil), kind.raw)
					if err := m.VerifySignature(s.Suite, c.SignaturePub, gc); err != nil {
						t.Error(err)
					}
					if err := s.verifyMembershipTag(c.MembershipKey, m, gc); err != nil {
						t.Error(err)
					}
					checkTruncatedTags(t, s, c.MembershipKey, m, gc)
				}
				// What others made.
				m := must[*mlscore.MLSMessage](t)(mlscore.ParseMLSMessage(kind.priv, reg)).PrivateMessage
				receiver := newSecretTree(s, c.EncryptionSecret, 2)
				checkPrivate(t, receiver, c.SenderDataSecret, m, c.SignaturePub, gc, kind.raw)
				// What we make.
				a := &mlscore.AuthenticatedContent{WireFormat: mlscore.WireFormatPrivateMessage, Content: mlscore.FramedContent{
					GroupID: c.GroupID, Epoch: c.Epoch, ContentType: kind.t, AuthenticatedData: []byte("aad"),
					Sender: mlscore.Sender{Type: mlscore.SenderTypeMember, LeafIndex: 1},
				}}
				a.Content.ReadBody(codec.NewReader(kind.raw), reg)
				if kind.t == mlscore.ContentTypeCommit {
					a.ConfirmationTag = []byte("tag")
				}
				if err := a.Sign(signer, gc); err != nil {
					t.Fatal(err)
				}
				m = must[*mlscore.PrivateMessage](t)(sender.encrypt(seeded(2), c.SenderDataSecret, a))
				checkPrivate(t, newSecretTree(s, c.EncryptionSecret, 2), c.SenderDataSecret, m, c.SignaturePub, gc, kind.raw)
			})
		}
	}
}

// checkTruncatedTags checks that no prefix or extension of a tag passes for it.
func checkTruncatedTags(t *testing.T, s *suite, key []byte, m *mlscore.PublicMessage, gc []byte) {
	t.Helper()
	whole := m.MembershipTag
	defer func() { m.MembershipTag = whole }()
	for n := range s.HashLen() {
		m.MembershipTag = whole[:n]
		if s.verifyMembershipTag(key, m, gc) == nil {
			t.Errorf("a membership tag of %d bytes passes", n)
		}
	}
	m.MembershipTag = append(append([]byte(nil), whole...), 0)
	if s.verifyMembershipTag(key, m, gc) == nil {
		t.Error("a membership tag with a byte more passes")
	}
}

// checkPrivate decrypts a PrivateMessage, and checks that it decrypts once, and
// that no changed form of it does or uses a key up.
func checkPrivate(t *testing.T, tree *secretTree, senderDataSecret []byte, m *mlscore.PrivateMessage, signatureKey, gc, want []byte) {
	t.Helper()
	reg := mlscore.DefaultRegistry()
	for _, field := range []*[]byte{&m.EncryptedSenderData, &m.Ciphertext, &m.AuthenticatedData, &m.GroupID} {
		whole := *field
		for n := range len(whole) {
			*field = append([]byte(nil), whole...)
			(*field)[n] ^= 1
			if _, _, err := tree.decrypt(senderDataSecret, m, reg); err == nil {
				t.Fatalf("decrypts with a changed byte")
			}
		}
		*field = whole
	}
	a, use, err := tree.decrypt(senderDataSecret, m, reg)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "decrypted content", a.Content.AppendBody(nil), want)
	if err := a.VerifySignature(tree.suite.Suite, signatureKey, gc); err != nil {
		t.Error(err)
	}
	use()
	if _, _, err := tree.decrypt(senderDataSecret, m, reg); err == nil {
		t.Error("decrypts twice")
	}
}

func TestPaddingMustBeZero(t *testing.T) {
	m := &mlscore.PrivateMessage{ContentType: mlscore.ContentTypeApplication}
	content := codec.AppendOpaque(codec.AppendOpaque(nil, []byte("hello")), []byte("signature"))
	if _, err := parsePrivateContent(append(content, 0, 0, 0), m, 0, mlscore.DefaultRegistry()); err != nil {
		t.Error(err)
	}
	if _, err := parsePrivateContent(append(content, 0, 1, 0), m, 0, mlscore.DefaultRegistry()); err == nil {
		t.Error("padding that is not zero passes")
	}
}

// TestDeriveKeyPairAgreesWithCircl compares ours with the library's where the
// library takes the length that MLS gives.
func TestDeriveKeyPairAgreesWithCircl(t *testing.T) {
	for _, id := range []mlscore.CipherSuite{1, 2, 3, 7} {
		s := mustSuite(t, id)
		random := seeded(byte(id))
		for range 50 {
			ikm := must[[]byte](t)(s.randomSecret(random))
			public, _ := s.scheme.DeriveKeyPair(ikm)
			want, _ := public.MarshalBinary()
			equal(t, fmt.Sprintf("suite %d", id), must[*privateKey](t)(s.deriveKeyPair(ikm)).public, want)
		}
	}
}
