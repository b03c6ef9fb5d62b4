package keyfile_test

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/keyfile"
	"leavebroker/mlscore/mlstest"
)

// schemes are those that every openssl knows.
var schemes = []mlscore.SignatureScheme{
	mlscore.ECDSAWithP256AndSHA256, mlscore.ECDSAWithP384AndSHA384, mlscore.ECDSAWithP521AndSHA512, mlscore.Ed25519, mlscore.Ed448,
}

// suiteOf is a suite that signs with a scheme.
func suiteOf(t testing.TB, scheme mlscore.SignatureScheme) *mlscore.Suite {
	t.Helper()
	reg := mlscore.DefaultRegistry()
	for _, id := range reg.Suites() {
		if suite, err := reg.LookupSuite(id); err == nil && suite.Signature == scheme {
			return suite
		}
	}
	t.Fatalf("no suite for %s", scheme)
	return nil
}

func checkSigner(t *testing.T, signer mlscore.Signer, scheme mlscore.SignatureScheme) {
	t.Helper()
	if signer.Scheme() != scheme {
		t.Fatalf("scheme %s, want %s", signer.Scheme(), scheme)
	}
	signature, err := mlscore.SignWithLabel(signer, "test", []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	if err := suiteOf(t, scheme).VerifyWithLabel(signer.PublicKey(), "test", []byte("content"), signature); err != nil {
		t.Error(err)
	}
}

func TestGenerate(t *testing.T) {
	for _, scheme := range slices.Concat(schemes, mldsaSchemes) {
		text, err := keyfile.Generate(scheme)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := keyfile.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", scheme, err)
		}
		checkSigner(t, signer, scheme)
		again, _ := keyfile.Generate(scheme)
		if bytes.Equal(text, again) {
			t.Errorf("%s: the same key twice", scheme)
		}
	}
	if _, err := keyfile.Generate(0x0401); !errors.Is(err, mlscore.ErrUnsupported) {
		t.Errorf("an RSA scheme: %v", err)
	}
}

// publicKeys are those of the keys in testdata, by
// `openssl pkey -in FILE -pubout -outform DER`.
var publicKeys = map[mlscore.SignatureScheme]string{
	mlscore.Ed25519:                "c8bced4890fb1312dd496de45dcd7f47344ffdfc782aaa4f4050992c24713f6a",
	mlscore.Ed448:                  "3f54b3cde379fab9975829592849468b785a12673bd6bb1007fcfc425b6fed3102136fa16cdc662cac93c8599b351601600078feccbde35c80",
	mlscore.ECDSAWithP256AndSHA256: "04ac5f78ee62c54da294d18e847cae251bcf3e44d13f4a26b6faa24344ffa5875f61537aee9f13899c5f1ae81d23f885b074150bcb6c75e95ae12f79b7b8447053",
	mlscore.ECDSAWithP384AndSHA384: "04541ed9f2f0677578c152fa38f17fdba4f3b1175dfcc0e7521bc28cafe2a5a2b5bafb57f740c1fac5cc9b9ee4800e28581ae1dfead0f59418615bbc87fbae8cb98b8455ffa4484261d93b25f5d9480614bf732571aaddbbb756f8e2b4b95f0e87",
	mlscore.ECDSAWithP521AndSHA512: "04005f53410624ca55545b73bb17af2727c14e04ad868adce8b4e6ae58cd4fd102b028082315870a03774eed85d38aecb064a8bac78c9c6644ba199efd5e5bbc0b6f3900e598a19f13113f6791798ac367ec05940a138bbddf86398974a7ab48e0aff69d89dac8ce9095bafa8bf5bfd0480be19ab0f0d7c5bdfb4244b2711caa0f19483d6e",
}

func TestOpenSSLKeys(t *testing.T) {
	for _, scheme := range schemes {
		text, err := os.ReadFile(filepath.Join("testdata", scheme.String()+".pem"))
		if err != nil {
			t.Fatal(err)
		}
		signer, err := keyfile.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", scheme, err)
		}
		checkSigner(t, signer, scheme)
		if got := hex.EncodeToString(signer.PublicKey()); got != publicKeys[scheme] {
			t.Errorf("%s: public key %s, want %s", scheme, got, publicKeys[scheme])
		}
	}
}

// TestOpenSSL: the program itself makes keys that we read, and reads keys that
// we made.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl program")
	}
	openssl := func(args ...string) []byte {
		t.Helper()
		out, err := exec.Command("openssl", args...).Output()
		if err != nil {
			t.Fatalf("openssl %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	dir := t.TempDir()
	for scheme, genpkey := range map[mlscore.SignatureScheme][]string{
		mlscore.Ed25519:                {"ed25519"},
		mlscore.Ed448:                  {"ed448"},
		mlscore.ECDSAWithP256AndSHA256: {"EC", "-pkeyopt", "ec_paramgen_curve:P-256"},
		mlscore.ECDSAWithP384AndSHA384: {"EC", "-pkeyopt", "ec_paramgen_curve:P-384"},
		mlscore.ECDSAWithP521AndSHA512: {"EC", "-pkeyopt", "ec_paramgen_curve:P-521"},
	} {
		theirs := filepath.Join(dir, scheme.String()+"-theirs.pem")
		openssl(append([]string{"genpkey", "-out", theirs, "-algorithm"}, genpkey...)...)
		ours := filepath.Join(dir, scheme.String()+"-ours.pem")
		text, err := keyfile.Generate(scheme)
		if err != nil {
			t.Fatal(err)
		}
		if err := keyfile.Create(ours, text); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{theirs, ours} {
			signer, err := keyfile.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			checkSigner(t, signer, scheme)
			der := openssl("pkey", "-in", path, "-pubout", "-outform", "DER")
			if !bytes.HasSuffix(der, signer.PublicKey()) { // SubjectPublicKeyInfo ends with the key
				t.Errorf("%s: public key %x, openssl says %x", path, signer.PublicKey(), der)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for name, want := range map[string]string{
		"sec1.pem":            "SEC 1",
		"sec1_parameters.pem": "SEC 1",
		"sec1_encrypted.pem":  "SEC 1",
		"encrypted.pem":       "encrypted",
		"explicit_curve.pem":  "PKCS#8",
		"p224.pem":            "P-224",
		"rsa.pem":             "no signature key of a cipher suite",
		"x25519.pem":          "no signature key of a cipher suite",
		"x448.pem":            "PKCS#8",
		"public.pem":          `"PUBLIC KEY"`,
	} {
		text, err := os.ReadFile(filepath.Join("testdata/refused", name))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = keyfile.Load(path)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v does not say %s", name, err, want)
			continue
		}
		if strings.Contains(name, "sec1") || strings.Contains(name, "encrypted") {
			if !strings.Contains(err.Error(), "openssl pkey -in "+path) {
				t.Errorf("%s: error %v does not tell how to convert it", name, err)
			}
		}
	}
}

// TestConvert: the command that a refusal prints does what it says.
func TestConvert(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl program")
	}
	for _, name := range []string{"sec1.pem", "sec1_parameters.pem", "sec1_encrypted.pem", "encrypted.pem"} {
		out, err := exec.Command("openssl", "pkey", "-in", filepath.Join("testdata/refused", name), "-passin", "pass:test").Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := keyfile.Parse(out); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDamaged: no proper prefix of a key's DER is a key, nor is a key with a
// byte after it, and a file holds one key.
func TestDamaged(t *testing.T) {
	encode := func(der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	for _, scheme := range slices.Concat(schemes, mldsaSchemes) {
		text, err := os.ReadFile(filepath.Join("testdata", scheme.String()+".pem"))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		for n := range block.Bytes {
			if _, err := keyfile.Parse(encode(block.Bytes[:n])); err == nil {
				t.Errorf("%s: the first %d of %d bytes are accepted", scheme, n, len(block.Bytes))
			}
		}
		for name, damaged := range map[string][]byte{
			"a byte after the DER": encode(append(slices.Clone(block.Bytes), 0)),
			"two keys":             append(slices.Clone(text), text...),
			"text after the key":   append(slices.Clone(text), "x"...),
			"no PEM":               block.Bytes,
			"nothing":              nil,
			"too much":             append(bytes.Repeat([]byte("\n"), 1<<16), text...),
		} {
			if _, err := keyfile.Parse(damaged); err == nil {
				t.Errorf("%s: %s is accepted", scheme, name)
			}
		}
	}
}

func TestFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	text, err := keyfile.Generate(mlscore.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	if err := keyfile.Create(path, text); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := keyfile.Create(path, text); !errors.Is(err, os.ErrExist) {
		t.Errorf("overwriting: %v", err)
	}
	if _, err := keyfile.Load(path); err != nil {
		t.Error(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := keyfile.Load(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if _, err := keyfile.Load(path + ".absent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*.pem", "testdata/refused/*.pem"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			f.Fatalf("%s: no seeds, %v", pattern, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			if block, _ := pem.Decode(text); block != nil {
				f.Add(block.Bytes)
			}
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		var signer mlscore.Signer
		var err error
		mlstest.CheckAllocation(t, len(text), 32, func() { signer, err = keyfile.Parse(text) })
		if err == nil {
			checkSigner(t, signer, signer.Scheme())
		}
	})
}
