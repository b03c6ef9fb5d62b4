package member_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"log"

	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

func newClient(name string) *member.Client {
	signer, err := mlscore.GenerateSigner(mlscore.Ed25519, rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	return &member.Client{CipherSuite: 1, Signer: signer, Credential: mlscore.BasicCredential([]byte(name))}
}

// Alice creates a group and adds Bob; Carol joins by herself.
func Example() {
	lifetime := mlscore.Lifetime{NotBefore: 1767225600, NotAfter: 1798761600}

	keys, err := newClient("bob").NewKeyPackage(lifetime)
	if err != nil {
		log.Fatal(err)
	}
	alice, err := newClient("alice").Create([]byte("book club"), nil, lifetime)
	if err != nil {
		log.Fatal(err)
	}
	commit, err := alice.Commit(member.CommitOptions{Proposals: []*mlscore.Proposal{member.Add(keys.KeyPackage)}})
	if err != nil {
		log.Fatal(err)
	}
	if err := alice.ConfirmCommit(); err != nil {
		log.Fatal(err)
	}
	bob, err := keys.Join(commit.Welcome, nil)
	if err != nil {
		log.Fatal(err)
	}

	info, err := alice.GroupInfo()
	if err != nil {
		log.Fatal(err)
	}
	carol, commit, err := newClient("carol").JoinExternal(info, member.ExternalJoinOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range []*member.Group{alice, bob} {
		if _, err := m.Process(commit.Message); err != nil {
			log.Fatal(err)
		}
	}

	message, err := carol.Encrypt([]byte("hello"), nil)
	if err != nil {
		log.Fatal(err)
	}
	received, err := bob.Process(message)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("epoch %d: %s\n", bob.Epoch(), received.ApplicationData)
	fmt.Println(bytes.Equal(alice.EpochAuthenticator(), carol.EpochAuthenticator()))
	// Output:
	// epoch 2: hello
	// true
}
