package mlscore

import (
	"testing"
	"time"

	"leavebroker/mlscore/codec"
)

// groupInfoOf is a GroupInfo of a tree, signed by its first leaf's key.
func groupInfoOf(g *testGroup, tree []byte, extensions Extensions) []byte {
	parsed := mustParseTree(g.t, g.suite, tree)
	gi := &GroupInfo{
		GroupContext: GroupContext{
			Version: ProtocolVersionMLS10, CipherSuite: g.suite.ID, GroupID: g.groupID, Epoch: 1,
			TreeHash: parsed.TreeHash(), ConfirmedTranscriptHash: make([]byte, g.suite.HashLen()), Extensions: extensions,
		},
		Extensions:      Extensions{{Type: ExtensionTypeRatchetTree, Data: tree}},
		ConfirmationTag: make([]byte, g.suite.HashLen()),
	}
	if err := gi.Sign(g.signers[0]); err != nil {
		g.t.Fatal(err)
	}
	return (&MLSMessage{WireFormat: WireFormatGroupInfo, GroupInfo: gi}).Bytes()
}

// judgeGroupInfo is the time from a message's bytes to a verdict.
func judgeGroupInfo(b []byte) (time.Duration, error) {
	start := time.Now()
	m, err := ParseMLSMessage(b, nil)
	if err == nil {
		_, err = NewPublicGroup(m.GroupInfo, nil, Options{})
	}
	return time.Since(start), err
}

// capable is a group of n leaves that support many extensions, the first of
// which carries as many as asked.
func capable(t testing.TB, suite *Suite, n, capabilities, carried int) *testGroup {
	g := newTestGroup(t, suite, n)
	list := make([]ExtensionType, capabilities)
	for i := range list {
		list[i] = 0xffff - ExtensionType(max(0, capabilities-1-i)%0xf000)
	}
	e := g.tree.Edit()
	for i := range LeafIndex(n) {
		leaf := g.leaf(i, LeafNodeSourceUpdate)
		leaf.Capabilities.Extensions = list
		for j := range carried {
			leaf.Extensions = append(leaf.Extensions, Extension{Type: 0xffff - ExtensionType(j)})
		}
		carried = 0
		g.sign(leaf, i)
		if err := e.Update(i, leaf); err != nil {
			t.Fatal(err)
		}
	}
	g.tree = e.Tree()
	return g
}

// hostileGroupInfos are messages of about 1 MiB that cost as much to judge as
// their writer can make them. All but the leaves of the hostile trees is signed.
func hostileGroupInfos(t testing.TB, suite *Suite) map[string][]byte {
	all := make(map[string][]byte)
	first := newTestGroup(t, suite, 2)
	for name, tree := range hostileTrees(suite) {
		all["tree: "+name] = groupInfoOf(first, tree, nil)
	}
	required := RequiredCapabilities{Extensions: make([]ExtensionType, 1<<18)}
	for i := range required.Extensions {
		required.Extensions[i] = 0xffff // which the leaves list last
	}
	demanding := capable(t, suite, 4, 1<<16, 0)
	all["required capabilities, one many times"] = groupInfoOf(demanding, demanding.tree.Bytes(), Extensions{
		{Type: ExtensionTypeRequiredCapabilities, Data: required.Append(nil)},
	})
	required.Extensions = required.Extensions[:1<<16-1<<12]
	for i := range required.Extensions {
		required.Extensions[i] = 0xffff - ExtensionType(i)
	}
	demanding = capable(t, suite, 6, 1<<16, 0)
	all["required capabilities, many"] = groupInfoOf(demanding, demanding.tree.Bytes(), Extensions{
		{Type: ExtensionTypeRequiredCapabilities, Data: required.Append(nil)},
	})
	carrier := capable(t, suite, 1, 3<<17, 60000)
	all["extensions of a leaf"] = groupInfoOf(carrier, carrier.tree.Bytes(), nil)
	var extensions Extensions
	for i := range 60000 {
		extensions = append(extensions, Extension{Type: 0xffff - ExtensionType(i)})
	}
	carrier = capable(t, suite, 6, 1<<16, 0)
	all["extensions of the group"] = groupInfoOf(carrier, carrier.tree.Bytes(), extensions)
	senders := codec.AppendVector(nil, func(b []byte) []byte {
		one := ExternalSender{Credential: BasicCredential(nil)}
		for len(b) < 1<<20 {
			b = one.Append(b)
		}
		return b
	})
	all["external senders"] = groupInfoOf(first, first.tree.Bytes(), Extensions{{Type: ExtensionTypeExternalSenders, Data: senders}})
	return all
}

// BenchmarkHostileGroupInfo: what it costs to judge a hostile GroupInfo of about
// 1 MiB. x-honest is the ratio of the time for one byte to that of an honest one
// of that size, in the same run; it has to stay below 100.
func BenchmarkHostileGroupInfo(b *testing.B) {
	suite := mustSuite(b, 1)
	g := newTestGroup(b, suite, 1<<12)
	g.merge()
	honest := groupInfoOf(g, g.tree.Bytes(), nil)
	for name, hostile := range hostileGroupInfos(b, suite) {
		b.Run(name, func(b *testing.B) {
			var hostileTime, honestTime time.Duration
			var refusal error
			for range b.N {
				d, err := judgeGroupInfo(honest)
				if err != nil {
					b.Fatal(err)
				}
				honestTime += d
				d, refusal = judgeGroupInfo(hostile)
				hostileTime += d
			}
			b.Logf("%d bytes, an honest one %d: %v", len(hostile), len(honest), refusal)
			b.ReportMetric(hostileTime.Seconds()/float64(b.N), "hostile-s")
			b.ReportMetric(float64(hostileTime)/float64(len(hostile))/(float64(honestTime)/float64(len(honest))), "x-honest")
		})
	}
}
