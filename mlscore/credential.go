package mlscore

import "leavebroker/mlscore/codec"

// CredentialType is the registry number of a credential type (RFC 9420, Section 17.5).
type CredentialType uint16

// The credential types that are decoded.
const (
	CredentialTypeBasic CredentialType = 0x0001
	CredentialTypeX509  CredentialType = 0x0002
)

// Credential is a client's claim of identity (RFC 9420, Section 5.3):
//
//	struct {
//	  CredentialType credential_type;
//	  select (Credential.credential_type) {
//	    case basic: opaque identity<V>;
//	    case x509:  Certificate certificates<V>;  // struct { opaque cert_data<V>; }
//	  };
//	} Credential;
//
// A type that is not known is read as one opaque<V>.
type Credential struct {
	Type         CredentialType
	Identity     []byte   // basic
	Certificates [][]byte // x509: DER, end entity first
	Unknown      []byte   // any other type: the content of its opaque<V>
	raw          []byte
}

// BasicCredential is a basic credential of an identity.
func BasicCredential(identity []byte) Credential {
	return Credential{Type: CredentialTypeBasic, Identity: identity}
}

// ReadCredential reads a credential.
func ReadCredential(r *codec.Reader) Credential {
	start := r.Offset()
	c := Credential{Type: CredentialType(r.Uint16())}
	switch c.Type {
	case CredentialTypeBasic:
		c.Identity = r.Opaque()
	case CredentialTypeX509:
		v := r.Vector()
		for !v.Empty() {
			c.Certificates = append(c.Certificates, v.Opaque())
		}
		r.Join(v)
	default:
		c.Unknown = r.Opaque()
	}
	c.raw = r.Since(start)
	return c
}

// Append appends the encoding.
func (c *Credential) Append(b []byte) []byte {
	b = codec.AppendUint16(b, uint16(c.Type))
	switch c.Type {
	case CredentialTypeBasic:
		return codec.AppendOpaque(b, c.Identity)
	case CredentialTypeX509:
		return codec.AppendVector(b, func(b []byte) []byte {
			for _, cert := range c.Certificates {
				b = codec.AppendOpaque(b, cert)
			}
			return b
		})
	}
	return codec.AppendOpaque(b, c.Unknown)
}

// Bytes is the encoding: as received, if it was.
func (c *Credential) Bytes() []byte {
	if c.raw != nil {
		return c.raw
	}
	return c.Append(nil)
}
