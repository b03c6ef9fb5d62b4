package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"leavebroker/broker"
	"leavebroker/broker/delivery"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// crowd is a group of real members and its delivery service, which reach a
// daemon through NATS alone and are patient with it: it may crash at any time.
type crowd struct {
	fail   func(error) // does not return
	ctx    context.Context
	nc     *nats.Conn
	ds     *delivery.Service
	tenant string
	suite  *mlscore.Suite
	id     []byte
	sender mlscore.ExternalSender
	random io.Reader
	shared *member.Shared
	split  bool // the servers can be cut off from each other

	members []*member.Group // who is in the group and has its state
	named   int
}

// newCrowd is a crowd of a test that has no members yet.
func newCrowd(t testing.TB, d *daemonProcess, tenant, id string) *crowd {
	t.Helper()
	suite, err := mlscore.LookupSuite(1)
	if err != nil {
		t.Fatal(err)
	}
	nc := d.connect()
	t.Cleanup(nc.Close)
	ds, err := delivery.New(nc, "leave", tenant)
	if err != nil {
		t.Fatal(err)
	}
	return &crowd{
		fail: func(err error) { t.Helper(); t.Fatal(err) }, ctx: t.Context(), nc: nc, ds: ds, tenant: tenant, suite: suite, id: []byte(id),
		sender: d.externalSender(tenant, suite), random: rand.Reader, shared: new(member.Shared),
	}
}

func (c *crowd) check(err error) {
	if err != nil {
		c.fail(fmt.Errorf("%s: group %s: %w", callers(), c.id, err))
	}
}

// callers are the places that led to a failure, the innermost first.
func callers() string {
	var pcs [8]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	var places []string
	for {
		f, more := frames.Next()
		if name := filepath.Base(f.File); strings.HasSuffix(name, "_test.go") {
			places = append(places, fmt.Sprintf("%s:%d", name, f.Line))
		}
		if !more {
			return strings.Join(places, " < ")
		}
	}
}

// got gives a value that came without an error.
func got[T any](c *crowd) func(T, error) T {
	return func(v T, err error) T {
		c.check(err)
		return v
	}
}

// newName is the identity of one more client.
func (c *crowd) newName() string {
	c.named++
	return fmt.Sprintf("%s-client-%d", c.id, c.named)
}

func (c *crowd) client(name string) *member.Client {
	return &member.Client{
		CipherSuite: c.suite.ID, Random: c.random, Shared: c.shared, Credential: mlscore.BasicCredential([]byte(name)),
		Signer: got[mlscore.Signer](c)(mlscore.GenerateSigner(c.suite.Signature, c.random)),
	}
}

// create makes the group of one, without telling the broker.
func (c *crowd) create(name string) {
	senders := mlscore.AppendExternalSenders(nil, []mlscore.ExternalSender{c.sender})
	g := got[*member.Group](c)(c.client(name).Create(c.id, mlscore.Extensions{{Type: mlscore.ExtensionTypeExternalSenders, Data: senders}}, demoLife()))
	c.members = []*member.Group{g}
}

// found makes the group: the broker gets its first GroupInfo, and the commit
// by which its creator adds the others, which proves the GroupInfo.
func (c *crowd) found(names ...string) {
	c.create(names[0])
	c.info()
	c.add(names[1:]...)
}

// add lets the first member add others.
func (c *crowd) add(names ...string) {
	opts := member.CommitOptions{References: [][]byte{}}
	var keys []*member.KeyPackage
	for _, name := range names {
		k := got[*member.KeyPackage](c)(c.client(name).NewKeyPackage(demoLife()))
		keys = append(keys, k)
		opts.Proposals = append(opts.Proposals, member.Add(k.KeyPackage))
	}
	commit := c.commit(c.members[0], opts)
	for _, k := range keys {
		c.members = append(c.members, got[*member.Group](c)(k.Join(commit.Welcome, nil)))
	}
}

func (c *crowd) epoch() uint64 { return c.members[0].Epoch() }

// info hands on the GroupInfo of the current epoch.
func (c *crowd) info() {
	c.publish("info", got[[]byte](c)(c.members[0].GroupInfo()))
}

// commit lets a member commit, and brings it to the broker and to everybody.
func (c *crowd) commit(by *member.Group, opts member.CommitOptions) *member.Commit {
	commit := got[*member.Commit](c)(by.Commit(opts))
	c.accept(commit.Message)
	return commit
}

// empty lets a member commit nothing but a fresh path.
func (c *crowd) empty(by *member.Group) *member.Commit {
	return c.commit(by, member.CommitOptions{References: [][]byte{}})
}

// join lets a new client join by an external commit.
func (c *crowd) join(client *member.Client) *member.Group {
	info := got[[]byte](c)(c.members[0].GroupInfo())
	g, commit, err := client.JoinExternal(info, member.ExternalJoinOptions{})
	c.check(err)
	c.accept(commit.Message)
	c.members = append(c.members, g)
	return g
}

// accept is the delivery service taking a commit.
func (c *crowd) accept(commit []byte) {
	c.publish("commit", commit)
	for _, m := range c.members {
		if _, err := m.Process(commit); err != nil {
			c.check(fmt.Errorf("leaf %d refuses a commit: %w", m.OwnLeaf(), err))
		}
	}
	c.members = slices.DeleteFunc(c.members, (*member.Group).Removed)
}

// fanOut brings the broker's proposals to all members, who must accept them.
func (c *crowd) fanOut(proposals [][]byte) {
	for _, p := range proposals {
		for _, m := range c.members {
			if _, err := m.Process(p); err != nil {
				c.check(fmt.Errorf("leaf %d refuses a proposal of the broker: %w", m.OwnLeaf(), err))
			}
		}
	}
}

// sign gives the intent of a member.
func (c *crowd) sign(m *member.Group, mode intents.RemovalMode) []byte {
	leaf := m.Public().Tree().Leaf(m.OwnLeaf())
	in := got[*intents.LeafOperationIntent](c)(intents.New(m.Client().Signer, c.suite, c.id, m.OwnLeaf(), leaf, mode))
	return in.Message(intents.DefaultWireFormat)
}

// vanish drops a member's state: nobody hears of it any more.
func (c *crowd) vanish(m *member.Group) {
	c.members = slices.DeleteFunc(c.members, func(o *member.Group) bool { return o == m })
}

// leave signs the intent of a member, who vanishes.
func (c *crowd) leave(m *member.Group, mode intents.RemovalMode) []byte {
	message := c.sign(m, mode)
	c.vanish(m)
	return message
}

// intentID is the id of an encoded intent.
func (c *crowd) intentID(message []byte) string {
	return got[*intents.LeafOperationIntent](c)(intents.ParseMessage(message, intents.DefaultWireFormat)).ID(c.tenant)
}

// again calls the broker until it answers, and gives what it says of its own:
// no error, or a refusal that stays.
func (c *crowd) again(call func(context.Context) error) error {
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(c.ctx, 3*time.Second)
		err := call(ctx)
		cancel()
		refusal := (*delivery.Refusal)(nil)
		if err == nil || errors.As(err, &refusal) && refusal.Code != "503" {
			return err
		}
		if time.Since(begin) > patience || c.ctx.Err() != nil {
			return fmt.Errorf("no answer in %s: %w", time.Since(begin), err)
		}
	}
}

// submit hands an intent to intent.submit until the broker answers.
func (c *crowd) submit(message []byte) (v *delivery.Verdict) {
	c.check(c.again(func(ctx context.Context) (err error) {
		v, err = c.ds.SubmitIntent(ctx, message, 300*time.Millisecond)
		return err
	}))
	return v
}

// verdict hands an intent to intent.submit until there is a verdict.
func (c *crowd) verdict(message []byte) *delivery.Verdict {
	v := c.submit(message)
	for begin := time.Now(); v.State == "stored"; v = c.submit(message) {
		if time.Since(begin) > patience {
			c.check(fmt.Errorf("no verdict on intent %s", v.ID))
		}
	}
	return v
}

// publish stores an input of the log directly until it is acknowledged, and
// gives its sequence.
func (c *crowd) publish(kind string, body []byte) (seq uint64) {
	js := got[jetstream.JetStream](c)(jetstream.New(c.nc))
	subject := "leave.in." + c.tenant + "." + broker.GroupToken(c.id) + "." + kind
	id := nuid.Next()
	c.check(c.again(func(ctx context.Context) error {
		ack, err := js.Publish(ctx, subject, body, jetstream.WithMsgID(id))
		if err == nil {
			seq = ack.Sequence
		}
		return err
	}))
	return seq
}

// status asks where an intent of the group stands. The broker must know it; where
// servers can be split, but for the time in which one answers that was cut off.
func (c *crowd) status(id string) (v *delivery.Verdict) {
	c.check(c.again(func(ctx context.Context) (err error) {
		v, err = c.ds.IntentStatus(ctx, c.id, id)
		if refusal := (*delivery.Refusal)(nil); c.split && errors.As(err, &refusal) && refusal.Code == "404" {
			err = errors.New(refusal.Text) // asked again, while there is patience
		}
		return err
	}))
	return v
}

// awaitStatus waits until an intent stands as wanted.
func (c *crowd) awaitStatus(id string, wanted func(*delivery.Verdict) bool) *delivery.Verdict {
	v := c.status(id)
	for begin := time.Now(); !wanted(v); v = c.status(id) {
		if time.Since(begin) > patience {
			c.check(fmt.Errorf("intent %s is still %+v", id, v))
		}
		time.Sleep(20 * time.Millisecond)
	}
	return v
}

// pending asks for the broker's proposals of the current epoch, nil while it
// lags behind.
func (c *crowd) pending() (proposals [][]byte) {
	c.check(c.again(func(ctx context.Context) error {
		p, err := c.ds.Pending(ctx, c.id)
		if refusal := (*delivery.Refusal)(nil); c.split && errors.As(err, &refusal) && refusal.Code == "404" {
			return nil // the first GroupInfo is not folded yet
		}
		if err == nil && p.Epoch == c.epoch() {
			proposals = p.Proposals
		}
		return err
	}))
	return proposals
}

// awaitProposals waits until the broker's proposals of the current epoch remove
// exactly these leaves, and gives them.
func (c *crowd) awaitProposals(leaves ...mlscore.LeafIndex) [][]byte {
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		proposals := c.pending()
		var removed []mlscore.LeafIndex
		for _, p := range proposals {
			removed = append(removed, c.removedBy(p))
		}
		slices.Sort(removed)
		if slices.Equal(removed, leaves) {
			return proposals
		}
		if time.Since(begin) > patience {
			c.check(fmt.Errorf("the proposals of epoch %d remove %v, want %v", c.epoch(), removed, leaves))
		}
	}
}

// removedBy is the leaf that a proposal of the broker removes.
func (c *crowd) removedBy(proposal []byte) mlscore.LeafIndex {
	leaf, err := removedLeaf(proposal)
	c.check(err)
	return leaf
}

// removedLeaf is the leaf that an encoded external Remove is about.
func removedLeaf(message []byte) (mlscore.LeafIndex, error) {
	m, err := mlscore.ParseMLSMessage(message, nil)
	if err != nil {
		return 0, err
	}
	if m.PublicMessage == nil || m.PublicMessage.Content.Proposal == nil ||
		m.PublicMessage.Content.Proposal.Type != mlscore.ProposalTypeRemove ||
		m.PublicMessage.Content.Sender.Type != mlscore.SenderTypeExternal {
		return 0, errors.New("not an external Remove")
	}
	return m.PublicMessage.Content.Proposal.Removed, nil
}

// agree checks that exactly these leaves are left and share their secrets.
func (c *crowd) agree() {
	tree := c.members[0].Public().Tree()
	if tree.Members() != len(c.members) {
		c.check(fmt.Errorf("%d leaves are in the tree, %d members are left", tree.Members(), len(c.members)))
	}
	for _, m := range c.members {
		if m.Epoch() != c.epoch() || !bytes.Equal(m.EpochAuthenticator(), c.members[0].EpochAuthenticator()) {
			c.check(fmt.Errorf("leaf %d is not in the epoch of the others", m.OwnLeaf()))
		}
	}
}
