package intents_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

var rewrite = flag.Bool("rewrite", false, "write what the scenarios print into their files")

// TestScenarios plays the files of testdata/scenarios on real groups. A line
// is a command; the indented lines after it are what it prints. Words before
// the first "-" of a command are its arguments; see command for all of them.
// With -rewrite the files are written anew: commit the changes only if you know
// what caused them.
func TestScenarios(t *testing.T) {
	files := must[[]string](t)(filepath.Glob("testdata/scenarios/*.txt"))
	if len(files) == 0 {
		t.Fatal("no scenarios")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			playFile(t, file)
		})
	}
}

func playFile(t *testing.T, file string) {
	want := string(must[[]byte](t)(os.ReadFile(file)))
	w := newWorld(t, 1)
	var got strings.Builder
	for _, line := range strings.Split(strings.TrimRight(want, "\n"), "\n") {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		fmt.Fprintln(&got, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		w.lines = nil
		w.command(strings.Fields(line))
		for _, l := range w.lines {
			fmt.Fprintln(&got, "    "+l)
		}
	}
	w.checkReplays()
	if got.String() == want {
		return
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s prints\n%s", file, firstDifference(got.String(), want))
}

func firstDifference(got, want string) string {
	g, v := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(v) || g[i] != v[i] {
			return fmt.Sprintf("line %d:\n%s\nwant\n%s", i+1, strings.Join(g[i:min(i+8, len(g))], "\n"), strings.Join(v[min(i, len(v)):min(i+8, len(v))], "\n"))
		}
	}
	return "fewer lines"
}

// command plays one line.
func (w *world) command(words []string) {
	w.t.Helper()
	verb, rest := words[0], words[1:]
	var args []string
	opts := map[string]string{}
	for _, word := range rest {
		if key, value, ok := strings.Cut(word, "="); ok {
			opts[key] = value
		} else {
			args = append(args, word)
		}
	}
	switch verb {
	case "policy":
		w.setPolicy(opts)
	case "operations": // clients list the LeafOperationProposal in their capabilities
		w.registry = mlscore.DefaultRegistry()
		w.registry.Custom = []mlscore.CustomProposal{intents.DefaultCodePoints().CustomProposal()}
	case "propose-operation": // propose-operation a1 by=bob
		w.handshake(opts["by"], must[[]byte](w.t)(w.group(opts["by"]).Propose(w.operation(args[0]))), "")
	case "private": // from now on, handshakes are PrivateMessages
		w.private = true
		for _, c := range w.clients {
			c.EncryptHandshakes = true
		}
	case "create": // create alice bob [senders=broker,other]
		w.create(listOr(opts["senders"], "broker"), args...)
	case "info": // info alice
		w.feed(intents.KindInfo, must[[]byte](w.t)(w.group(args[0]).GroupInfo()))
	case "lie", "lies", "false-join", "false-info":
		w.falsehood(verb, args[0], opts)
	case "false-sign": // false-sign m by=mallory: an intent for the group that mallory pretends
		w.members["liar"] = w.liars[opts["by"]]
		w.sign(args[0], "liar", modeOf(opts["mode"]))
		delete(w.members, "liar")
	case "leaf": // leaf old by=bob [key=new]: bob signs a leaf and keeps it
		w.signLeaf(args[0], opts)
	case "replace": // replace bob by=alice leaf=old
		p := mlscore.NewReplace(mlscore.DefaultRegistry(), w.group(args[0]).OwnLeaf(), w.drawer[opts["leaf"]])
		w.handshake(opts["by"], must[[]byte](w.t)(w.group(opts["by"]).Propose(p)), "")
	case "stray": // stray bob by=broker: an external Remove from elsewhere
		g := w.any().Public()
		w.last = must[[]byte](w.t)(mlscore.ExternalRemove(g, w.signer(opts["by"]), w.group(args[0]).OwnLeaf()))
		w.deliver(w.last, nil)
		w.feed(intents.KindProposal, w.last)
	case "output": // output [epoch=…] [group=…]: the last message of the broker in an Output
		out := intents.Output{GroupID: groupID, Epoch: w.state.Group().Epoch(), Proposals: [][]byte{w.last}}
		if opts["epoch"] != "" {
			out.Epoch = must[uint64](w.t)(strconv.ParseUint(opts["epoch"], 10, 64))
		}
		if opts["group"] != "" {
			out.GroupID = []byte(opts["group"])
		}
		w.feedJSON(intents.KindRemoval, out)
	case "raw": // raw kind json
		w.feed(kindOf(words[1]), []byte(words[2]))
	case "kept": // the commit that went to the members only; kept tag=bad: with another tag
		w.feed(intents.KindCommit, w.retagged(w.kept, opts["tag"]))
	case "forged-info":
		w.forgedInfo(args[0], opts)
	case "sign": // sign a1 by=alice [mode=2]
		w.sign(args[0], opts["by"], modeOf(opts["mode"]))
	case "submit": // submit a1
		w.feed(intents.KindIntent, w.signed[args[0]])
	case "forge": // forge x of=a1: the same but for the signature
		w.forge(args[0], opts["of"])
	case "alter": // alter x of=a1 [group=…] [mode=…] [ref=length] [index=…]
		w.alter(args[0], opts)
	case "garbage":
		w.feed(kindOf(args[0]), []byte("garbage"))
	case "intent": // sign and submit
		w.sign(args[0], opts["by"], modeOf(opts["mode"]))
		w.feed(intents.KindIntent, w.signed[args[0]])
	case "commit":
		w.commit(args[0], opts)
	case "later": // the proposal that was sent with to=later
		w.feed(intents.KindProposal, w.later)
	case "update": // update bob [to=members] [to=later]
		w.handshake(args[0], must[[]byte](w.t)(w.group(args[0]).ProposeUpdate(nil)), opts["to"])
	case "selfremove":
		w.handshake(args[0], must[[]byte](w.t)(w.group(args[0]).Propose(mlscore.NewSelfRemove(mlscore.DefaultRegistry()))), "")
	case "propose-remove": // propose-remove bob by=alice
		w.handshake(opts["by"], must[[]byte](w.t)(w.group(opts["by"]).ProposeRemove(w.group(args[0]).OwnLeaf())), "")
	case "join": // join dora [resync=yes] [as=…] [to=members]
		w.join(args[0], opts)
	case "reinit":
		w.reinit(args[0])
	case "echo":
		w.feed(intents.KindProposal, w.last)
	case "again": // the last input once more
		last := w.log[len(w.log)-1]
		w.feed(last.Kind, last.Data)
	case "replay": // replay 2: the second input once more
		old := w.log[must[int](w.t)(strconv.Atoi(args[0]))-1]
		w.feed(old.Kind, old.Data)
	case "redeliver": // the last input with its old position
		w.fold(w.log[len(w.log)-1])
	case "answer": // answer a1 associated=bob,carol … [status=error] [epoch=2]
		w.answer(args[0], opts)
	case "control":
		w.control(args, opts)
	case "closed":
		w.feedJSON(intents.KindClosed, intents.Closed{Reason: "deleted"})
	case "wait":
		w.now = w.now.Add(must[time.Duration](w.t)(time.ParseDuration(args[0])))
	case "due":
		w.act(false)
	case "act":
		w.act(true)
	case "records":
		w.printRecords()
	case "pending":
		p := w.state.Pending()
		operations := ""
		if n := len(p.LeafOperationProposals); n > 0 {
			operations = fmt.Sprintf(" leaf_operation_proposals=%d", n)
		}
		w.printf("epoch=%d proposals=%d self_removes=%d must_reference=%d%s", p.Epoch, len(p.Proposals), len(p.SelfRemoves), len(p.MustReference), operations)
	case "members":
		w.printMembers()
	default:
		w.t.Fatalf("unknown command %q", verb)
	}
}

func listOr(s, otherwise string) []string {
	switch s {
	case "":
		s = otherwise
	case "none":
		return nil
	}
	return strings.Split(s, ",")
}

func modeOf(s string) intents.RemovalMode {
	if s == "2" {
		return intents.RemoveAssociatedMembers
	}
	return intents.SenderRemovalOnly
}

func kindOf(s string) intents.Kind {
	for k := intents.KindIntent; k <= intents.KindControl; k++ {
		if k.String() == s {
			return k
		}
	}
	return 0
}

func (w *world) setPolicy(opts map[string]string) {
	for key, value := range opts {
		duration, _ := time.ParseDuration(value)
		number, _ := strconv.ParseFloat(value, 64)
		switch key {
		case "mode2":
			w.policy.Mode2 = map[string]intents.Mode2{"allow": intents.Mode2Allow, "hold": intents.Mode2Hold, "sender_only": intents.Mode2SenderOnly}[value]
		case "association":
			w.policy.Association = value == "yes"
		case "on_replace":
			w.policy.OnReplace = map[string]intents.OnReplace{"superseded": intents.OnReplaceSuperseded, "continue": intents.OnReplaceContinue}[value]
		case "on_error":
			w.policy.OnError = map[string]intents.OnError{"hold": intents.OnErrorHold, "sender_only": intents.OnErrorSenderOnly}[value]
		case "info_trust":
			w.policy.InfoTrustDS = value == "ds"
		case "max_associated":
			w.policy.MaxAssociated = int(number)
		case "max_fraction":
			w.policy.MaxFraction = number
		case "stalled_after":
			w.policy.StalledAfter = int(number)
		case "form":
			w.policy.Form = intents.FormLeafOperation
		case "shared":
			w.policy.SharedAssociation = value == "yes"
		case "fallback_epochs":
			w.policy.FallbackEpochs = int(number)
		case "min_epoch":
			w.policy.MinEpoch = duration
		case "keys":
			w.policy.SenderKeys = nil
			for _, name := range strings.Split(value, ",") {
				w.policy.SenderKeys = append(w.policy.SenderKeys, w.signer(name).PublicKey())
			}
		default:
			w.t.Fatalf("unknown policy %q", key)
		}
	}
}

// handshake brings a message to the members and into the log.
func (w *world) handshake(from string, message []byte, to string) {
	w.t.Helper()
	w.deliver(message, w.group(from))
	switch to {
	case "members":
	case "later":
		w.later = message
	default:
		w.feed(intents.KindProposal, message)
	}
}

// commit plays: commit alice [add=…] [remove=…] [operations=a1,…] [refs=none] [senders=…] [to=members]
func (w *world) commit(name string, opts map[string]string) {
	w.t.Helper()
	var o member.CommitOptions
	if opts["refs"] == "none" {
		o.References = [][]byte{}
	}
	added := listOr(opts["add"], "none")
	if opts["add"] == "" {
		added = nil
	}
	o.Proposals = w.adds(added)
	if opts["remove"] != "" {
		for _, victim := range strings.Split(opts["remove"], ",") {
			o.Proposals = append(o.Proposals, member.Remove(w.group(victim).OwnLeaf()))
		}
	}
	if opts["operations"] != "" {
		for _, name := range strings.Split(opts["operations"], ",") {
			o.Proposals = append(o.Proposals, w.operation(name))
		}
	}
	if opts["senders"] != "" {
		o.Proposals = append(o.Proposals, member.GroupContextExtensions(w.extensions(listOr(opts["senders"], "")...)))
	}
	if user := opts["as"]; user != "" { // the same key, another credential
		client := *w.client(name)
		client.Credential = mlscore.BasicCredential([]byte(user))
		o.Client = &client
	}
	message := w.commitOf(name, o)
	w.deliver(message, nil)
	w.welcome(added)
	w.kept = message
	if opts["spoil"] != "" { // the log has it with a signature that is wrong
		message = bytes.Clone(message)
		message[bytes.Index(message, w.lastTag(message))-1] ^= 1
	}
	if opts["to"] != "members" {
		w.feed(intents.KindCommit, message)
	}
}

// lastTag is the confirmation tag of a commit, as encoded.
func (w *world) lastTag(message []byte) []byte {
	m := must[*mlscore.MLSMessage](w.t)(mlscore.ParseMLSMessage(message, nil))
	return append([]byte{byte(len(m.PublicMessage.ConfirmationTag))}, m.PublicMessage.ConfirmationTag...)
}

func (w *world) join(name string, opts map[string]string) {
	w.t.Helper()
	info := must[[]byte](w.t)(w.any().GroupInfo())
	client := *w.client(name)
	if user := opts["as"]; user != "" { // the same key, another credential
		client.Credential = mlscore.BasicCredential([]byte(user))
	}
	pending := w.state.Pending()
	o := member.ExternalJoinOptions{Resync: opts["resync"] == "yes", Pending: pending.SelfRemoves}
	if opts["include"] == "yes" {
		o.LeafOperations = pending.LeafOperationProposals
	}
	g, commit, err := client.JoinExternal(info, o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.deliver(commit.Message, nil)
	w.members[name] = g
	if opts["twin"] == "yes" { // before it, the log has it with another tag
		w.feed(intents.KindCommit, w.retagged(commit.Message, "bad"))
	}
	if opts["to"] != "members" {
		w.feed(intents.KindCommit, commit.Message)
	}
}

func (w *world) reinit(name string) {
	w.t.Helper()
	message := w.commitOf(name, member.CommitOptions{References: [][]byte{}, Proposals: []*mlscore.Proposal{member.ReInit(mlscore.ReInit{
		GroupID: []byte("next"), Version: mlscore.ProtocolVersionMLS10, CipherSuite: w.suite.ID,
	})}})
	w.feed(intents.KindCommit, message)
}

// forgedInfo is a GroupInfo by a member that is wrong: in its transcript, and
// in what else is named.
func (w *world) forgedInfo(name string, opts map[string]string) {
	w.t.Helper()
	m := must[*mlscore.MLSMessage](w.t)(mlscore.ParseMLSMessage(must[[]byte](w.t)(w.group(name).GroupInfo()), nil))
	gi := *m.GroupInfo
	if epoch := opts["epoch"]; epoch != "" {
		gi.GroupContext.Epoch = must[uint64](w.t)(strconv.ParseUint(epoch, 10, 64))
	}
	if group := opts["group"]; group != "" {
		gi.GroupContext.GroupID = []byte(group)
	}
	if opts["tree"] != "" {
		gi.GroupContext.TreeHash = make([]byte, w.suite.HashLen())
	}
	if signer := opts["signer"]; signer != "" {
		gi.Signer = mlscore.LeafIndex(must[int](w.t)(strconv.Atoi(signer)))
	}
	gi.GroupContext.ConfirmedTranscriptHash = make([]byte, w.suite.HashLen())
	if err := gi.Sign(w.group(name).Client().Signer); err != nil {
		w.t.Fatal(err)
	}
	w.feed(intents.KindInfo, (&mlscore.MLSMessage{WireFormat: mlscore.WireFormatGroupInfo, GroupInfo: &gi}).Bytes())
}

// forge copies an intent with another signature.
func (w *world) forge(name, of string) {
	b := bytes.Clone(w.signed[of])
	b[len(b)-1] ^= 1
	w.signed[name] = b
}

// alter copies an intent with another group or mode, not signed again.
func (w *world) alter(name string, opts map[string]string) {
	w.t.Helper()
	in := must[*intents.LeafOperationIntent](w.t)(intents.ParseMessage(w.signed[opts["of"]], intents.DefaultWireFormat))
	if g := opts["group"]; g != "" {
		in.GroupID = []byte(g)
	}
	if m := opts["mode"]; m != "" {
		in.RemovalMode = intents.RemovalMode(must[int](w.t)(strconv.Atoi(m)))
	}
	if ref := opts["ref"]; ref != "" {
		in.SenderLeafRef = make([]byte, must[int](w.t)(strconv.Atoi(ref)))
	}
	if index := opts["index"]; index != "" {
		in.SenderIndex = mlscore.LeafIndex(must[int](w.t)(strconv.Atoi(index)))
	}
	w.signed[name] = in.Message(intents.DefaultWireFormat)
	w.names[in.ID(w.policy.Tenant)] = name
}

// answer plays the Authentication Service; its leaves are named by number. It
// answers the present question, or one that was asked in another epoch at another
// position.
func (w *world) answer(name string, opts map[string]string) {
	w.t.Helper()
	a := intents.Answer{
		Intent: w.idOf(name), Epoch: w.state.Group().Epoch(), Position: w.state.Position(), Status: intents.StatusResolved, Revision: "r1",
	}
	if opts["position"] != "" {
		a.Position = must[uint64](w.t)(strconv.ParseUint(opts["position"], 10, 64))
	}
	if opts["status"] != "" {
		a.Status = opts["status"]
	}
	if opts["epoch"] != "" {
		a.Epoch = must[uint64](w.t)(strconv.ParseUint(opts["epoch"], 10, 64))
	}
	a.Associated, a.Unrelated, a.Undecided = w.leaves(opts["associated"]), w.leaves(opts["unrelated"]), w.leaves(opts["undecided"])
	if opts["epoch"] == "" {
		for _, q := range w.state.Due(w.now).Ask {
			if q.Intent == a.Intent {
				if err := q.Check(a); err != nil {
					w.printf("not an answer: %v", err)
				}
			}
		}
	}
	w.feedJSON(intents.KindAnswer, a)
}

func (w *world) leaves(s string) []mlscore.LeafIndex {
	if s == "" {
		return nil
	}
	var list []mlscore.LeafIndex
	for _, x := range strings.Split(s, ",") {
		list = append(list, mlscore.LeafIndex(must[uint64](w.t)(strconv.ParseUint(x, 10, 32))))
	}
	return list
}

func (w *world) control(args []string, opts map[string]string) {
	c := intents.Control{Op: args[0], By: "operator"}
	if len(args) > 1 {
		c.Intent = w.idOf(args[1])
	}
	w.feedJSON(intents.KindControl, c)
}

func (w *world) printRecords() {
	for _, r := range w.state.Records() {
		s := w.nameOf(r.ID) + " " + r.State
		if r.Reason != "" {
			s += " (" + r.Reason + ")"
		}
		s += fmt.Sprintf(" %s sender=%d", r.Mode, r.SenderIndex)
		for _, list := range []struct {
			name   string
			leaves []mlscore.LeafIndex
		}{{"targets", r.Targets}, {"gone", r.Gone}} {
			if len(list.leaves) > 0 {
				s += fmt.Sprintf(" %s=%v", list.name, list.leaves)
			}
		}
		if r.RemovedEpoch != 0 {
			s += fmt.Sprintf(" removed_epoch=%d", r.RemovedEpoch)
		}
		if r.Confirmed {
			s += " confirmed"
		}
		w.printf("%s", s)
	}
	w.printf("open=%t", w.state.Open())
}

func (w *world) printMembers() {
	var list []string
	for name, g := range w.members {
		list = append(list, fmt.Sprintf("%d:%s", g.OwnLeaf(), name))
	}
	slices.Sort(list)
	w.printf("epoch=%d %s", w.any().Epoch(), strings.Join(list, " "))
}

// checkReplays folds the log again: in order, with what was sent out folded
// before everything else, and with it folded as late as a commit allows.
func (w *world) checkReplays() {
	w.t.Helper()
	want := describe(w.state, w.now)
	first, second := w.replay(w.log), w.replay(w.log)
	if first.notices != second.notices {
		w.t.Errorf("two replays give different notices:\n%s\n%s", first.notices, second.notices)
	}
	for name, log := range map[string][]intents.Input{"in order": w.log, "removals early": early(w.log), "removals late": late(w.log)} {
		if got := describe(w.replay(log).state, w.now); got != want {
			w.t.Errorf("the log %s leads elsewhere: %s", name, firstDifference(strings.ReplaceAll(got, ",", "\n"), strings.ReplaceAll(want, ",", "\n")))
		}
	}
	w.checkSnapshots("in order", w.log, true, 8)
	w.checkSnapshots("removals early", early(w.log), false, 2)
	w.checkSnapshots("removals late", late(w.log), false, 2)
	w.checkSnapshots("removals without positions", unplaced(w.log), false, 2)
}

type replayed struct {
	state   *intents.State
	notices string
}

func (w *world) replay(log []intents.Input) replayed {
	s := intents.NewState(w.policy, groupID)
	var all []intents.Notice
	for _, in := range log {
		var notices []intents.Notice
		s, notices = s.Step(in)
		all = append(all, notices...)
	}
	return replayed{s, string(must[[]byte](w.t)(json.Marshal(all)))}
}

func early(log []intents.Input) []intents.Input {
	first := slices.Clone(log)
	slices.SortStableFunc(first, func(a, b intents.Input) int { return isRemoval(b) - isRemoval(a) })
	return first
}

func isRemoval(in intents.Input) int {
	if in.Kind == intents.KindRemoval {
		return 1
	}
	return 0
}

// late moves each removal behind the inputs of its epoch.
func late(log []intents.Input) []intents.Input {
	var out, waiting []intents.Input
	for _, in := range log {
		switch in.Kind {
		case intents.KindRemoval:
			waiting = append(waiting, in)
			continue
		case intents.KindCommit, intents.KindInfo, intents.KindProposal:
			out, waiting = append(out, waiting...), nil
		}
		out = append(out, in)
	}
	return append(out, waiting...)
}
