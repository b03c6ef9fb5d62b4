package mlscore

import (
	"slices"

	"leavebroker/mlscore/codec"
)

// ExtensionType is the registry number of an extension (RFC 9420, Section 17.3).
type ExtensionType uint16

// The extensions that RFC 9420 defines.
const (
	ExtensionTypeApplicationID        ExtensionType = 0x0001
	ExtensionTypeRatchetTree          ExtensionType = 0x0002
	ExtensionTypeRequiredCapabilities ExtensionType = 0x0003
	ExtensionTypeExternalPub          ExtensionType = 0x0004
	ExtensionTypeExternalSenders      ExtensionType = 0x0005
)

// ExtensionTypeAppDataDictionary is the GroupContext extension that
// AppDataUpdate changes (draft-ietf-mls-extensions).
const ExtensionTypeAppDataDictionary ExtensionType = 0x0006

// isDefault says whether every client supports the extension, so that
// Capabilities need not list it (RFC 9420, Section 7.2).
func (t ExtensionType) isDefault() bool {
	return t >= ExtensionTypeApplicationID && t <= ExtensionTypeExternalSenders
}

// Extension is one extension, its data undecoded (RFC 9420, Section 13.4).
type Extension struct {
	Type ExtensionType
	Data []byte
}

// Extensions is a list in which each type occurs at most once.
type Extensions []Extension

// Find gives the data of an extension.
func (e Extensions) Find(t ExtensionType) (data []byte, ok bool) {
	for i := range e {
		if e[i].Type == t {
			return e[i].Data, true
		}
	}
	return nil, false
}

// With is a copy in which an extension has the given data.
func (e Extensions) With(t ExtensionType, data []byte) Extensions {
	out := slices.Clone(e)
	for i := range out {
		if out[i].Type == t {
			out[i].Data = data
			return out
		}
	}
	return append(out, Extension{t, data})
}

// ReadExtensions reads Extension extensions<V>. A type that occurs twice is
// refused (RFC 9420, Section 13.4), and a body that is not what RFC 9420 says.
func ReadExtensions(r *codec.Reader) Extensions {
	v := r.Vector()
	var list Extensions
	var seen map[ExtensionType]bool
	for !v.Empty() {
		x := Extension{ExtensionType(v.Uint16()), v.Opaque()}
		if len(list) < 8 { // short lists need no map, long ones must not cost their square
			if _, dup := list.Find(x.Type); dup {
				v.Fail("extension type 0x%04x occurs twice", uint16(x.Type))
			}
		} else {
			if seen == nil {
				seen = make(map[ExtensionType]bool)
				for i := range list {
					seen[list[i].Type] = true
				}
			}
			if seen[x.Type] {
				v.Fail("extension type 0x%04x occurs twice", uint16(x.Type))
			}
			seen[x.Type] = true
		}
		if err := x.checkBody(); err != nil {
			v.Fail("extension type 0x%04x: %v", uint16(x.Type), err)
		}
		list = append(list, x)
	}
	r.Join(v)
	return list
}

// checkBody decodes the body of an extension that RFC 9420 defines, but for
// ratchet_tree, which is decoded with a suite: ParseRatchetTree.
func (x *Extension) checkBody() (err error) {
	switch x.Type {
	case ExtensionTypeApplicationID, ExtensionTypeExternalPub: // opaque<V>
		r := codec.NewReader(x.Data)
		r.Opaque()
		err = r.Finish()
	case ExtensionTypeRequiredCapabilities:
		_, err = ParseRequiredCapabilities(x.Data)
	case ExtensionTypeExternalSenders:
		_, err = ParseExternalSenders(x.Data)
	}
	return err
}

// Append appends Extension extensions<V>.
func (e Extensions) Append(b []byte) []byte {
	return codec.AppendVector(b, func(b []byte) []byte {
		for i := range e {
			b = codec.AppendUint16(b, uint16(e[i].Type))
			b = codec.AppendOpaque(b, e[i].Data)
		}
		return b
	})
}

// RequiredCapabilities is the required_capabilities extension (RFC 9420,
// Section 11.1):
//
//	struct {
//	  ExtensionType extension_types<V>;
//	  ProposalType proposal_types<V>;
//	  CredentialType credential_types<V>;
//	} RequiredCapabilities;
type RequiredCapabilities struct {
	Extensions  []ExtensionType
	Proposals   []ProposalType
	Credentials []CredentialType
}

// ParseRequiredCapabilities decodes the data of the extension.
func ParseRequiredCapabilities(data []byte) (RequiredCapabilities, error) {
	r := codec.NewReader(data)
	c := RequiredCapabilities{
		Extensions:  readUint16s[ExtensionType](r),
		Proposals:   readUint16s[ProposalType](r),
		Credentials: readUint16s[CredentialType](r),
	}
	return c, r.Finish()
}

// Append appends the data of the extension.
func (c *RequiredCapabilities) Append(b []byte) []byte {
	b = appendUint16s(b, c.Extensions)
	b = appendUint16s(b, c.Proposals)
	return appendUint16s(b, c.Credentials)
}

// ExternalSender is an entry of external_senders (RFC 9420, Section 12.1.8.1):
//
//	struct {
//	  SignaturePublicKey signature_key;  // opaque<V>
//	  Credential credential;
//	} ExternalSender;
type ExternalSender struct {
	SignatureKey []byte
	Credential   Credential
}

// ReadExternalSender reads one entry.
func ReadExternalSender(r *codec.Reader) ExternalSender {
	return ExternalSender{SignatureKey: r.Opaque(), Credential: ReadCredential(r)}
}

// Append appends the encoding.
func (s *ExternalSender) Append(b []byte) []byte {
	return s.Credential.Append(codec.AppendOpaque(b, s.SignatureKey))
}

// ParseExternalSenders decodes the data of external_senders: a vector of
// entries, which may be empty.
func ParseExternalSenders(data []byte) ([]ExternalSender, error) {
	r := codec.NewReader(data)
	v := r.Vector()
	var list []ExternalSender
	for !v.Empty() {
		list = append(list, ReadExternalSender(v))
	}
	r.Join(v)
	return list, r.Finish()
}

// AppendExternalSenders appends the data of external_senders.
func AppendExternalSenders(b []byte, list []ExternalSender) []byte {
	return codec.AppendVector(b, func(b []byte) []byte {
		for i := range list {
			b = list[i].Append(b)
		}
		return b
	})
}

func readUint16s[T ~uint16](r *codec.Reader) []T {
	v := r.Vector()
	var list []T
	for !v.Empty() {
		list = append(list, T(v.Uint16()))
	}
	r.Join(v)
	return list
}

func appendUint16s[T ~uint16](b []byte, list []T) []byte {
	b = codec.AppendVarint(b, 2*len(list))
	for _, x := range list {
		b = codec.AppendUint16(b, uint16(x))
	}
	return b
}
