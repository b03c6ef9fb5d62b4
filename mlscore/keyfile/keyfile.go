// Package keyfile reads and writes the signature keys of package mlscore as
// files: one unencrypted PKCS#8 private key (RFC 5958) in PEM (RFC 7468,
// Section 10), as `openssl genpkey` writes it. ECDSA keys are on the named
// curves P-256, P-384 and P-521 (RFC 5915); Ed25519 and Ed448 keys have the
// form of RFC 8410, Section 7, and ML-DSA keys that of RFC 9881, Section 6, with
// their seed.
package keyfile

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"leavebroker/mlscore"
)

// maxFile bounds what is read, in bytes: the largest key takes 7,000.
const maxFile = 64 << 10

const pemType = "PRIVATE KEY"

// Load reads the key in a file. A regular file that others than its owner may
// read or write is refused, by its mode; where the mode says nothing, as in
// $CREDENTIALS_DIRECTORY of systemd, which uses access control lists, read the
// file and Parse it.
func Load(path string) (mlscore.Signer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: mode %04o lets others than its owner at the key; run: chmod 600 %s", path, mode.Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	signer, err := parse(text, path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return signer, nil
}

// Parse reads the key in a PEM text. Nothing but that key may be in it, bar
// text before it.
func Parse(text []byte) (mlscore.Signer, error) { return parse(text, "KEY") }

func parse(text []byte, name string) (mlscore.Signer, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("more than %d bytes: not a private key", maxFile)
	}
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block: not a private key")
	}
	convert := fmt.Sprintf("convert it with: openssl pkey -in %s -out pkcs8.pem", name)
	switch block.Type {
	case pemType:
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the key is encrypted; " + convert)
	case "EC PRIVATE KEY", "EC PARAMETERS":
		return nil, errors.New("the key is in SEC 1 form, not PKCS#8; " + convert)
	default:
		return nil, fmt.Errorf("PEM block %q, want %q", block.Type, pemType)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("more follows the private key; a file holds one key")
	}
	return parsePKCS8(block.Bytes)
}

// Create writes a new file that its owner alone may read. It fails with
// [os.ErrExist] rather than overwrite anything, and returns once the key would
// survive a power loss.
func Create(path string, text []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
