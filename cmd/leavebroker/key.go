package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"leavebroker/mlscore"
	"leavebroker/mlscore/keyfile"
)

// defaultIdentity is the identity of the broker's basic credential.
const defaultIdentity = "leavebroker"

func newKey() *cobra.Command {
	return parent(&cobra.Command{Use: "key", Short: "Make and show signing keys"}, newKeyNew(), newKeyShow())
}

// schemes are the signature schemes of the suites of a registry, in their order.
func schemes(reg *mlscore.Registry) []mlscore.SignatureScheme {
	var list []mlscore.SignatureScheme
	for _, id := range reg.Suites() {
		if suite, err := reg.LookupSuite(id); err == nil && !slices.Contains(list, suite.Signature) {
			list = append(list, suite.Signature)
		}
	}
	return list
}

func schemeNames() []string {
	var names []string
	for _, s := range schemes(toolRegistry()) {
		names = append(names, s.String())
	}
	return names
}

// parseScheme finds a scheme by its name.
func parseScheme(name string) (mlscore.SignatureScheme, error) {
	for _, s := range schemes(toolRegistry()) {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, usageError("signature scheme %q is none of %s", name, strings.Join(schemeNames(), ", "))
}

// shownKey is what may be known of a key.
type shownKey struct {
	Scheme         string `json:"scheme"`
	PublicKey      string `json:"public_key"`      // hex
	Identity       string `json:"identity"`        // of the basic credential in the next
	ExternalSender string `json:"external_sender"` // hex of the ExternalSender
}

func showKey(signer mlscore.Signer, identity string) shownKey {
	sender := mlscore.ExternalSender{SignatureKey: signer.PublicKey(), Credential: mlscore.BasicCredential([]byte(identity))}
	return shownKey{
		Scheme:         signer.Scheme().String(),
		PublicKey:      hex.EncodeToString(signer.PublicKey()),
		Identity:       identity,
		ExternalSender: hex.EncodeToString(sender.Append(nil)),
	}
}

// keyOutput are the flags that say how a key is shown.
type keyOutput struct {
	identity string
	format   textOrJSON
}

func (o *keyOutput) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.identity, "identity", defaultIdentity, "`IDENTITY` in the ExternalSender's credential, 1 to 255 bytes")
	outputFormat(cmd, &o.format)
}

func (o *keyOutput) check() error {
	if n := len(o.identity); n < 1 || n > 255 {
		return usageError("an identity of %d bytes, want 1 to 255", n)
	}
	return nil
}

func (o *keyOutput) print(cmd *cobra.Command, signer mlscore.Signer) error {
	k := showKey(signer, o.identity)
	if o.format == "json" {
		return printJSON(cmd, k)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "scheme:          %s\npublic key:      %s\nidentity:        %s\nexternal sender: %s\n",
		k.Scheme, k.PublicKey, k.Identity, k.ExternalSender)
	return err
}

func newKeyNew() *cobra.Command {
	var (
		suiteID uint16
		name    string
		output  keyOutput
	)
	cmd := &cobra.Command{
		Use:   "new [--cipher-suite N | --scheme NAME] FILE",
		Short: "Make a signing key",
		Long: `Makes a new private key for the signature scheme of a cipher suite, writes it to
FILE as unencrypted PKCS#8 PEM that its owner alone may read, and shows its
public parts as key show does. A file that exists is never overwritten.

Schemes: ` + strings.Join(schemeNames(), " ") + `.`,
		Example: "  leavebroker key new --cipher-suite 2 broker-p256.pem",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			scheme, err := chooseScheme(suiteID, name)
			if err != nil {
				return err
			}
			if err := output.check(); err != nil {
				return err
			}
			signer, err := createKey(args[0], scheme)
			if err != nil {
				return err
			}
			return output.print(cmd, signer)
		},
	}
	cmd.Flags().Uint16Var(&suiteID, "cipher-suite", 1, "make it for the groups of suite `N`, "+suiteNumbers)
	cmd.Flags().StringVar(&name, "scheme", "", "make it for the signature scheme `NAME`")
	cmd.MarkFlagsMutuallyExclusive("cipher-suite", "scheme")
	if err := cmd.RegisterFlagCompletionFunc("scheme", cobra.FixedCompletions(schemeNames(), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic("internal error: " + err.Error())
	}
	output.register(cmd)
	return cmd
}

func chooseScheme(suiteID uint16, name string) (mlscore.SignatureScheme, error) {
	if name != "" {
		return parseScheme(name)
	}
	suite, err := toolRegistry().LookupSuite(mlscore.CipherSuite(suiteID))
	if err != nil {
		return 0, usageError("%v", err)
	}
	return suite.Signature, nil
}

// createKey makes a key of a scheme in a new file.
func createKey(path string, scheme mlscore.SignatureScheme) (mlscore.Signer, error) {
	text, err := keyfile.Generate(scheme)
	if err != nil {
		return nil, err
	}
	if err := keyfile.Create(path, text); errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%s exists; a key is never overwritten", path)
	} else if err != nil {
		return nil, err
	}
	return keyfile.Parse(text)
}

func newKeyShow() *cobra.Command {
	var output keyOutput
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "Show the public parts of a signing key",
		Long: `Prints the signature scheme and the public key of a PKCS#8 PEM file, and the
ExternalSender (RFC 9420, Section 12.1.8.1) that a group has to list in its
external_senders extension before it takes proposals by this key. Bytes are
hex. JSON: {scheme, public_key, identity, external_sender}.`,
		Example: "  leavebroker key show -o json broker-p256.pem",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(); err != nil {
				return err
			}
			signer, err := loadKey(cmd, args[0])
			if err != nil {
				return err
			}
			return output.print(cmd, signer)
		},
	}
	output.register(cmd)
	return cmd
}

// loadKey reads the key in a file, or in standard input for -.
func loadKey(cmd *cobra.Command, name string) (mlscore.Signer, error) {
	if name != "-" {
		signer, err := keyfile.Load(name)
		if err != nil {
			return nil, unreadable(err)
		}
		return signer, nil
	}
	text, err := readInput(cmd, name)
	if err != nil {
		return nil, err
	}
	signer, err := keyfile.Parse(text)
	if err != nil {
		return nil, unreadable(fmt.Errorf("standard input: %w", err))
	}
	return signer, nil
}
