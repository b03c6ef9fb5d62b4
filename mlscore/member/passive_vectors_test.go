package member

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/mlstest"
)

func TestWelcomeVectors(t *testing.T) {
	var cases []struct {
		CipherSuite mlscore.CipherSuite `json:"cipher_suite"`
		InitPriv    hexBytes            `json:"init_priv"`
		KeyPackage  hexBytes            `json:"key_package"`
		SignerPub   hexBytes            `json:"signer_pub"`
		Welcome     hexBytes
	}
	mlstest.JSON(t, "mlswg/welcome.json", &cases)
	for _, c := range cases {
		s := mustSuite(t, c.CipherSuite)
		k := &KeyPackage{
			KeyPackage: must[*mlscore.MLSMessage](t)(mlscore.ParseMLSMessage(c.KeyPackage, nil)).KeyPackage,
			suite:      s, init: must[*privateKey](t)(s.parsePrivateKey(c.InitPriv)),
		}
		w := must[*mlscore.MLSMessage](t)(mlscore.ParseMLSMessage(c.Welcome, nil)).Welcome
		secrets := must[*groupSecrets](t)(k.openWelcome(w))
		member := s.memberSecret(secrets.joiner, s.pskSecret(nil))
		r := codec.NewReader(must[[]byte](t)(s.open(s.welcomeKey(member), nil, w.EncryptedGroupInfo)))
		gi := mlscore.ReadGroupInfo(r)
		if err := r.Finish(); err != nil {
			t.Fatal(err)
		}
		if err := gi.VerifySignature(s.Suite, c.SignerPub); err != nil {
			t.Error(err)
		}
		epoch := s.epochSecrets(member, gi.GroupContext.Append(nil))
		equal(t, "confirmation tag", s.confirmationTag(epoch, gi.GroupContext.ConfirmedTranscriptHash), gi.ConfirmationTag)

		k.KeyPackage.InitKey = append([]byte(nil), k.KeyPackage.InitKey...)
		w.Secrets[0].NewMember = s.Sum([]byte("someone else"))
		if _, err := k.openWelcome(w); !errors.Is(err, ErrNotForUs) {
			t.Errorf("a Welcome for someone else: %v", err)
		}
	}
}

type passiveCase struct {
	CipherSuite  mlscore.CipherSuite `json:"cipher_suite"`
	ExternalPSKs []struct {
		ID  hexBytes `json:"psk_id"`
		PSK hexBytes
	} `json:"external_psks"`
	KeyPackage                hexBytes `json:"key_package"`
	SignaturePriv             hexBytes `json:"signature_priv"`
	EncryptionPriv            hexBytes `json:"encryption_priv"`
	InitPriv                  hexBytes `json:"init_priv"`
	Welcome                   hexBytes
	RatchetTree               *hexBytes `json:"ratchet_tree"`
	InitialEpochAuthenticator hexBytes  `json:"initial_epoch_authenticator"`
	Epochs                    []struct {
		Proposals          []hexBytes
		Commit             hexBytes
		EpochAuthenticator hexBytes `json:"epoch_authenticator"`
	}
}

func (c *passiveCase) join(t *testing.T) *Group {
	t.Helper()
	s := mustSuite(t, c.CipherSuite)
	client := &Client{
		CipherSuite: c.CipherSuite,
		Signer:      must[mlscore.Signer](t)(mlscore.NewSigner(s.Signature, c.SignaturePriv)),
		PSK: func(id mlscore.PreSharedKeyID) ([]byte, bool) {
			for _, p := range c.ExternalPSKs {
				if id.Type == mlscore.PSKTypeExternal && bytes.Equal(p.ID, id.ID) {
					return p.PSK, true
				}
			}
			return nil, false
		},
	}
	public := must[*mlscore.MLSMessage](t)(mlscore.ParseMLSMessage(c.KeyPackage, nil)).KeyPackage
	k := must[*KeyPackage](t)(client.ImportKeyPackage(public, c.InitPriv, c.EncryptionPriv))
	var tree []byte
	if c.RatchetTree != nil {
		tree = *c.RatchetTree
	}
	g, err := k.Join(c.Welcome, tree)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "initial epoch authenticator", g.EpochAuthenticator(), c.InitialEpochAuthenticator)
	return g
}

func TestPassiveClientVectors(t *testing.T) {
	for _, name := range []string{"welcome", "handling-commit", "random"} {
		var cases []passiveCase
		mlstest.JSON(t, "mlswg/passive-client-"+name+".json", &cases)
		for i := range cases {
			c := &cases[i]
			t.Run(fmt.Sprintf("%s/%d/suite%d", name, i, c.CipherSuite), func(t *testing.T) {
				t.Parallel()
				g := c.join(t)
				for n, e := range c.Epochs {
					for _, p := range e.Proposals {
						if _, err := g.Process(p); err != nil {
							t.Fatalf("epoch %d: proposal: %v", n, err)
						}
					}
					if _, err := g.Process(e.Commit); err != nil {
						t.Fatalf("epoch %d: commit: %v", n, err)
					}
					equal(t, "epoch authenticator", g.EpochAuthenticator(), e.EpochAuthenticator)
				}
			})
		}
	}
}
