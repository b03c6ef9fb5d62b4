package mlscore

import "strings"

// kemLengths are the lengths of a KEM's encapsulated and public keys in bytes.
type kemLengths struct{ output, publicKey int }

// kems are KEMs by their part of a cipher suite's name. An observer uses none of
// them, and can still tell what no member could decapsulate.
var kems = map[string]kemLengths{
	// RFC 9180, Section 7.1
	"DHKEMX25519": {32, 32}, "DHKEMX448": {56, 56},
	"DHKEMP256": {65, 65}, "DHKEMP384": {97, 97}, "DHKEMP521": {133, 133},
	// draft-ietf-hpke-pq
	"MLKEM768": {1088, 1184}, "MLKEM1024": {1568, 1568},
	"MLKEM768X25519": {1120, 1216}, "MLKEM768P256": {1153, 1249}, "MLKEM1024P384": {1665, 1665},
}

// kem gives the lengths of the suite's KEM, zero where they are not known.
func (s *Suite) kem() kemLengths {
	parts := strings.SplitN(s.Name, "_", 4) // MLS_LVL_KEM_…
	if len(parts) < 4 {
		return kemLengths{}
	}
	return kems[parts[2]]
}

// isPublicKey says whether bytes may be a public key of the KEM.
func (k kemLengths) isPublicKey(key []byte) bool {
	return k.publicKey == 0 || len(key) == k.publicKey
}

// isOutput says whether bytes may be an encapsulated key of the KEM.
func (k kemLengths) isOutput(output []byte) bool {
	return k.output == 0 || len(output) == k.output
}
