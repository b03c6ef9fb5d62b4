package mlscore_test

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/member"
)

// signBytes signs a content given as bytes, and gives the message.
func (w *world) signBytes(content []byte, signer mlscore.Signer) []byte {
	w.t.Helper()
	tbs := slices.Concat([]byte{0, 1, 0, 1}, content, w.group.ContextBytes())
	b := slices.Concat([]byte{0, 1, 0, 1}, content)
	b = codec.AppendOpaque(b, must(mlscore.SignWithLabel(signer, "FramedContentTBS", tbs)))
	b = codec.AppendOpaque(b, make([]byte, 32))    // confirmation_tag
	return codec.AppendOpaque(b, make([]byte, 32)) // membership_tag
}

// content is that of a valid commit of member 1.
func (w *world) content() []byte {
	m := must(mlscore.ParseMLSMessage(w.forge(forge{by: 1}), nil))
	return m.PublicMessage.Content.Bytes()
}

func testVarints(t *testing.T) {
	w := newWorld(t, 4)
	content := w.content()
	w.accepts("the shortest length", w.signBytes(content, w.signer(1)))
	rest := content[1:] // after the length of group_id
	for what, length := range map[string][]byte{
		"two bytes": {0x40, 5}, "four bytes": {0x80, 0, 0, 5}, "prefix 11": {0xc0, 0, 0, 0, 0, 0, 0, 5},
	} {
		w.refuses("group_id with a length of "+what, w.signBytes(append(length, rest...), w.signer(1)), mlscore.ErrMalformed, "")
	}
}

// extensionBodies are the extensions that RFC 9420 defines, well formed.
var extensionBodies = map[mlscore.ExtensionType][]byte{
	mlscore.ExtensionTypeApplicationID:        codec.AppendOpaque(nil, []byte("app")),
	mlscore.ExtensionTypeRequiredCapabilities: (&mlscore.RequiredCapabilities{}).Append(nil),
	mlscore.ExtensionTypeExternalPub:          codec.AppendOpaque(nil, make([]byte, 32)),
	mlscore.ExtensionTypeExternalSenders:      mlscore.AppendExternalSenders(nil, nil),
}

func testTrailingBytes(t *testing.T) {
	w := newWorld(t, 4)
	message := w.forge(forge{by: 1})
	w.accepts("nothing left over", message)
	w.refuses("a byte more", append(bytes.Clone(message), 0), mlscore.ErrMalformed, "")
	for n := range message {
		w.refuses("cut", message[:n], mlscore.ErrMalformed, "")
	}
	for x, body := range extensionBodies {
		leafWith := func(body []byte) *mlscore.Proposal {
			return updateWith(w.update(3, func(n *mlscore.LeafNode) { n.Extensions = n.Extensions.With(x, body) }))
		}
		groupWith := func(body []byte) *mlscore.Proposal {
			return member.GroupContextExtensions(w.group.Context().Extensions.With(x, body))
		}
		w.accepts("a whole body in a leaf", w.proposal(w.by(3), leafWith(body)))
		w.accepts("a whole body in a group", w.proposal(w.by(3), groupWith(body)))
		for _, wrong := range [][]byte{append(bytes.Clone(body), 0), body[:len(body)-1]} {
			w.refuses("a body in a leaf", w.proposal(w.by(3), leafWith(wrong)), mlscore.ErrMalformed, "")
			w.refuses("a body in a group", w.proposal(w.by(3), groupWith(wrong)), mlscore.ErrMalformed, "")
			w.refusesInfo("a body in a GroupContext", func(gi *mlscore.GroupInfo) {
				gi.GroupContext.Extensions = gi.GroupContext.Extensions.With(x, wrong)
			}, mlscore.ErrMalformed, "")
			w.refusesInfo("a body in a GroupInfo", func(gi *mlscore.GroupInfo) {
				gi.Extensions = gi.Extensions.With(x, wrong)
			}, mlscore.ErrMalformed, "")
		}
	}
	w.refusesInfo("a byte more in ratchet_tree", func(gi *mlscore.GroupInfo) {
		tree, _ := gi.Extensions.Find(mlscore.ExtensionTypeRatchetTree)
		gi.Extensions = gi.Extensions.With(mlscore.ExtensionTypeRatchetTree, append(bytes.Clone(tree), 0))
	}, mlscore.ErrMalformed, "")
}

func testLengthsBeforeAllocation(t *testing.T) {
	w := newWorld(t, 4)
	huge := []byte{0, 1, 0, 1, 0xbf, 0xff, 0xff, 0xff} // group_id<2^30-1>
	tree := w.info(func(gi *mlscore.GroupInfo) {
		gi.Extensions = gi.Extensions.With(mlscore.ExtensionTypeRatchetTree, []byte{0xbf, 0xff, 0xff, 0xff, 1})
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w.refuses("a length of 2^30-1", huge, mlscore.ErrMalformed, "")
	_, err := w.starts(tree)
	w.isRefusal("a tree of 2^30-1 bytes", err, mlscore.ErrMalformed, "")
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes allocated for a few", n)
	}
}

func testVersionAndWireFormat(t *testing.T) {
	w := newWorld(t, 4)
	message := w.forge(forge{by: 1})
	for what, head := range map[string][]byte{"version 2": {0, 2, 0, 1}, "version 0": {0, 0, 0, 1}, "wire_format 0": {0, 1, 0, 0}, "an unknown wire_format": {0, 1, 0x0a, 0x0a}} {
		w.refuses(what, append(head, message[4:]...), mlscore.ErrMalformed, "")
	}
	k := w.keyPackage(nil)
	w.refuses("a KeyPackage", (&mlscore.MLSMessage{WireFormat: mlscore.WireFormatKeyPackage, KeyPackage: k}).Bytes(), mlscore.ErrMalformed, "6")
	w.refusesInfo("a group of version 2", func(gi *mlscore.GroupInfo) { gi.GroupContext.Version = 2 }, mlscore.ErrUnsupported, "12.4.3")
	later := w.info(func(gi *mlscore.GroupInfo) { gi.GroupContext.Version = 2 })
	_, err := mlscore.NewPublicGroupWithTree(later, w.group.Tree(), w.opts)
	w.isRefusal("a group of version 2 whose tree is verified", err, mlscore.ErrUnsupported, "12.4.3")
	w.refusesInfo("an unknown suite", func(gi *mlscore.GroupInfo) { gi.GroupContext.CipherSuite = 0x7777 }, mlscore.ErrUnsupported, "17.1")
}

// testUndefinedValues decodes messages that are as short as they get, with values
// that have a meaning and with the same bytes around values that have none.
func testUndefinedValues(t *testing.T) {
	message := func(wireFormat byte, body ...[]byte) func() error {
		b := append([]byte{0, 1, 0, wireFormat}, slices.Concat(body...)...)
		return func() error { _, err := mlscore.ParseMLSMessage(b, nil); return err }
	}
	head := make([]byte, 1+8) // group_id and epoch
	public := func(sender, content byte, body ...byte) func() error {
		return message(1, head, []byte{sender, 0, content}, body, []byte{0}) // authenticated_data is empty, and the signature
	}
	private := func(content byte) func() error { return message(2, head, []byte{content, 0, 0, 0}) }
	commit := func(b ...byte) func() error {
		return func() error { _, err := mlscore.ParseCommit(b, mlscore.DefaultRegistry()); return err }
	}
	remove := []byte{0, 3, 0, 0, 0, 0}
	for what, decode := range map[string]func() error{
		"sender_type 3": public(3, 2, remove...), "content_type 1": public(3, 1, 0), "content_type 3, private": private(3),
		"no proposal": commit(0, 0), "ProposalOrRefType 2": commit(3, 2, 1, 7, 0), "wire_format 9": message(9),
	} {
		if err := decode(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, decode := range map[string]func() error{
		"sender_type 0": public(0, 2, remove...), "sender_type 5": public(5, 2, remove...),
		"content_type 0": public(3, 0), "content_type 4": public(3, 4),
		"content_type 0, private": private(0), "content_type 4, private": private(4),
		"ProposalOrRefType 0": commit(1, 0, 0), "ProposalOrRefType 3": commit(1, 3, 0), "wire_format 0": message(0),
	} {
		if err := decode(); !errors.Is(err, mlscore.ErrMalformed) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func testDuplicateExtensions(t *testing.T) {
	w := newWorld(t, 4)
	once := mlscore.Extensions{{Type: 0x0a0a}}
	for n := range 12 { // few and many
		once = append(once, mlscore.Extension{Type: mlscore.ExtensionType(0xff00 + n)})
	}
	for _, list := range []mlscore.Extensions{once[:2], once} {
		twice := append(slices.Clone(list), list[0])
		w.accepts("once in a GroupContext", w.proposal(w.by(3), member.GroupContextExtensions(list)))
		w.refuses("twice in a GroupContext", w.proposal(w.by(3), member.GroupContextExtensions(twice)), mlscore.ErrMalformed, "")
		leaf := func(x mlscore.Extensions) *mlscore.Proposal {
			return updateWith(w.update(3, func(n *mlscore.LeafNode) { n.Extensions = x }))
		}
		w.accepts("once in a leaf", w.proposal(w.by(3), leaf(list)))
		w.refuses("twice in a leaf", w.proposal(w.by(3), leaf(twice)), mlscore.ErrMalformed, "")
		k := func(x mlscore.Extensions) *mlscore.Proposal {
			return &mlscore.Proposal{Type: mlscore.ProposalTypeAdd, KeyPackage: w.keyPackage(&member.Mutate{KeyPackage: func(k *mlscore.KeyPackage) { k.Extensions = x }})}
		}
		w.accepts("once in a key package", w.proposal(w.by(3), k(list)))
		w.refuses("twice in a key package", w.proposal(w.by(3), k(twice)), mlscore.ErrMalformed, "")
		w.refusesInfo("twice in a GroupInfo", func(gi *mlscore.GroupInfo) { gi.Extensions = append(gi.Extensions, twice...) }, mlscore.ErrMalformed, "")
	}
}

// What nobody knows is accepted, and stays byte for byte what it was.
func testUnknownValues(t *testing.T) {
	const grease = 0x0a0a
	unknown := mlscore.Extensions{{Type: grease, Data: []byte("anything")}}
	odd := func(n *mlscore.LeafNode) {
		c := &n.Capabilities
		c.Versions, c.CipherSuites = append(slices.Clone(c.Versions), grease), append(slices.Clone(c.CipherSuites), grease)
		c.Extensions, c.Proposals = append(slices.Clone(c.Extensions), grease), append(slices.Clone(c.Proposals), grease, grease)
		c.Credentials = append(slices.Clone(c.Credentials), grease)
		n.Extensions = unknown
	}
	w := newWorld(t, 4)
	k := w.keyPackage(&member.Mutate{LeafNode: odd, KeyPackage: func(k *mlscore.KeyPackage) { k.Extensions = unknown }})
	staged := w.flagged("unknown values", w.forge(forge{by: 1, proposals: byValue(member.Add(k)), leaf: odd}))
	if added := staged.Next().Tree().LeafBytes(4); !bytes.Equal(added, k.LeafNode.Bytes()) {
		t.Errorf("the leaf is %x, was %x", added, k.LeafNode.Bytes())
	}
	w.flagsInfo("unknown in a GroupInfo", func(gi *mlscore.GroupInfo) { gi.Extensions = append(gi.Extensions, unknown...) })
	everybody := buildWorld(t, 2, func(c *member.Client) {
		caps := member.DefaultCapabilities(mlscore.DefaultRegistry())
		caps.Extensions = append(caps.Extensions, grease)
		c.Capabilities = &caps
	}, unknown)
	everybody.flagged("unknown in a GroupContext", everybody.forge(forge{by: 1}))
}

func testRatchetTreeShape(t *testing.T) {
	w := newWorld(t, 4)
	tree := w.group.Tree().Bytes()
	content := tree[2:] // a length of two bytes
	encode := func(nodes ...[]byte) func(*mlscore.GroupInfo) {
		return func(gi *mlscore.GroupInfo) {
			gi.Extensions = gi.Extensions.With(mlscore.ExtensionTypeRatchetTree, codec.AppendOpaque(nil, slices.Concat(nodes...)))
		}
	}
	if tree[0]>>6 != 1 {
		t.Fatal("want a length of two bytes")
	}
	w.flagsInfo("as it is", encode(content))
	w.refusesInfo("a blank at the end", encode(content, []byte{0}), mlscore.ErrMalformed, "12.4.3.3")
	w.refusesInfo("two blanks at the end", encode(content, []byte{0, 0}), mlscore.ErrMalformed, "12.4.3.3")
	w.refusesInfo("a parent at the end", encode(content, []byte{1, 2, 1, 7, 0, 0}), mlscore.ErrMalformed, "12.4.3.3")
	w.refusesInfo("a parent in a leaf's place", encode([]byte{1, 2, 1, 7, 0, 0}, content), mlscore.ErrMalformed, "")
	w.refusesInfo("no nodes", encode(), mlscore.ErrMalformed, "12.4.3.3")
}

func testUnmergedLeavesAscend(t *testing.T) {
	w := newWorld(t, 6)
	adds := byValue(member.Add(w.keyPackage(nil)), member.Add(w.keyPackage(nil)))
	tree := w.accepts("two Adds", w.forge(forge{by: 1, noPath: true, proposals: adds})).Next().Tree()
	w.flagsInfo("as it is", withTree(tree))
	ascending := []byte{8, 0, 0, 0, 6, 0, 0, 0, 7}
	for what, list := range map[string][]byte{
		"descending": {8, 0, 0, 0, 7, 0, 0, 0, 6}, "twice the same": {8, 0, 0, 0, 7, 0, 0, 0, 7},
	} {
		w.refusesInfo(what, func(gi *mlscore.GroupInfo) {
			encoded := bytes.Replace(tree.Bytes(), ascending, list, 1)
			if bytes.Equal(encoded, tree.Bytes()) {
				t.Fatal("no parent with the unmerged leaves 6 and 7")
			}
			gi.GroupContext.TreeHash = tree.TreeHash()
			gi.Extensions = gi.Extensions.With(mlscore.ExtensionTypeRatchetTree, encoded)
		}, mlscore.ErrMalformed, "")
	}
}
