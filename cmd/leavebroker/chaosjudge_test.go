package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"leavebroker/intents"
	"leavebroker/mlscore"
)

// judgedGroup is what the driver of a group knows, against which the log is
// judged.
type judgedGroup struct {
	token   string
	intents map[string]string // acknowledged: id -> how it ended, removed or superseded
	waited  map[uint64][]mlscore.LeafIndex
	final   uint64
}

// kind is the last token of the subject.
func (m *stored) kind() string { return m.subject[len(m.subject)-1] }

// chaosJudge judges the log of one group from its bytes alone: it follows the
// group by the GroupInfo and the commits, and compares what was asked with what
// was proposed.
type chaosJudge struct {
	judgedGroup
	wrongs []string

	group    *mlscore.PublicGroup // at the place in the log
	epochs   map[uint64]judgedEpoch
	asked    []judgedIntent
	byID     map[string]int                               // index into asked
	proposed map[uint64]map[mlscore.LeafIndex]judgedPlace // by epoch
}

type judgedPlace = uint64 // sequence in the log

// judgedEpoch is an epoch and the commit or GroupInfo that opened it.
type judgedEpoch struct {
	group *mlscore.PublicGroup
	at    judgedPlace
}

type judgedIntent struct {
	*intents.LeafOperationIntent
	id string
	at judgedPlace // of the first submission
}

// judgeChaos gives all that is wrong with a log and its events.
func judgeChaos(groups []judgedGroup, log []stored, events []told) (wrongs []string) {
	for _, g := range groups {
		j := &chaosJudge{
			judgedGroup: g, epochs: map[uint64]judgedEpoch{}, byID: map[string]int{},
			proposed: map[uint64]map[mlscore.LeafIndex]judgedPlace{},
		}
		for _, m := range log {
			if len(m.subject) == 6 && m.subject[4] == g.token {
				j.entry(&m)
			}
		}
		j.promise()
		j.verdicts(events)
		wrongs = append(wrongs, j.wrongs...)
	}
	return wrongs
}

func (j *chaosJudge) wrong(format string, args ...any) {
	j.wrongs = append(j.wrongs, "group "+j.token+": "+fmt.Sprintf(format, args...))
}

// entry takes the next entry of the log.
func (j *chaosJudge) entry(m *stored) {
	var err error
	switch m.kind() {
	case "info":
		err = j.info(m)
	case "commit":
		err = j.commit(m)
	case "intent":
		err = j.intent(m)
	case "removal":
		err = j.output(m)
	}
	if err != nil {
		j.wrong("%s %d: %v", m.kind(), m.seq, err)
	}
}

func (j *chaosJudge) info(m *stored) error {
	if j.group != nil {
		return nil
	}
	msg, err := mlscore.ParseMLSMessage(m.data, nil)
	if err != nil {
		return err
	}
	g, err := mlscore.NewPublicGroup(msg.GroupInfo, nil, mlscore.Options{})
	if err == nil {
		j.enter(g, m.seq)
	}
	return err
}

func (j *chaosJudge) commit(m *stored) error {
	if j.group == nil {
		return nil // before the broker could know the group
	}
	msg, err := mlscore.ParseMLSMessage(m.data, nil)
	if err != nil {
		return err
	}
	staged, err := j.group.Stage(msg)
	if err != nil {
		return err
	}
	j.enter(staged.Next(), m.seq)
	return nil
}

func (j *chaosJudge) enter(g *mlscore.PublicGroup, at judgedPlace) {
	j.group = g
	j.epochs[g.Epoch()] = judgedEpoch{g, at}
}

func (j *chaosJudge) intent(m *stored) error {
	in, err := intents.ParseMessage(m.data, intents.DefaultWireFormat)
	if err != nil {
		return err
	}
	id := in.ID("acme")
	if _, again := j.byID[id]; again {
		return nil
	}
	if j.judgedGroup.intents[id] == "" {
		return fmt.Errorf("nobody sent intent %s", id)
	}
	j.byID[id] = len(j.asked)
	j.asked = append(j.asked, judgedIntent{in, id, m.seq})
	return nil
}

// output judges one output: for an epoch that was there, of leaves that asked
// and that the proposals remove, and of all of them.
func (j *chaosJudge) output(m *stored) error {
	var out intents.Output
	if err := json.Unmarshal(m.data, &out); err != nil {
		return err
	}
	epoch, known := j.epochs[out.Epoch]
	if !known {
		return fmt.Errorf("epoch %d has not begun", out.Epoch)
	}
	if string(out.GroupID) != string(epoch.group.GroupID()) {
		return fmt.Errorf("an output of group %s", out.GroupID)
	}
	already := j.proposed[out.Epoch]
	if already == nil {
		already = map[mlscore.LeafIndex]judgedPlace{}
		j.proposed[out.Epoch] = already
	}
	for _, p := range out.Proposals {
		leaf, next, err := j.proposal(epoch.group, p, m.seq)
		if err != nil {
			return err
		}
		epoch.group = next
		if at, twice := already[leaf]; twice {
			return fmt.Errorf("leaf %d was proposed in epoch %d by output %d", leaf, out.Epoch, at)
		}
		already[leaf] = m.seq
	}
	j.epochs[out.Epoch] = epoch
	if out.Epoch == j.group.Epoch() {
		j.group = epoch.group
	}
	return j.complete(&out, epoch)
}

// proposal judges one proposal as members of its epoch do, and gives the leaf
// that it removes, which must have asked before, and the group that has it.
func (j *chaosJudge) proposal(g *mlscore.PublicGroup, p []byte, at judgedPlace) (mlscore.LeafIndex, *mlscore.PublicGroup, error) {
	leaf, err := removedLeaf(p)
	if err != nil {
		return 0, nil, err
	}
	msg, err := mlscore.ParseMLSMessage(p, nil)
	if err != nil {
		return 0, nil, err
	}
	staged, err := g.Stage(msg)
	if err == nil {
		err = staged.Proposal.Invalid
	}
	if err != nil {
		return 0, nil, fmt.Errorf("members of epoch %d refuse the removal of leaf %d: %w", g.Epoch(), leaf, err)
	}
	if !slices.ContainsFunc(j.asked, func(in judgedIntent) bool { return in.at < at && in.SenderIndex == leaf && leaves(in, g) }) {
		return 0, nil, fmt.Errorf("leaf %d is proposed in epoch %d and did not ask", leaf, g.Epoch())
	}
	return leaf, staged.Next(), nil
}

// leaves says whether the leaf that signed an intent is in an epoch.
func leaves(in judgedIntent, g *mlscore.PublicGroup) bool {
	return in.Verify(g.Suite(), g.GroupID(), g.Tree().Leaf) == nil
}

// complete judges whether an output, with those before it in the epoch, has
// everybody whom the broker knew of when it decided: it had read the commit
// that opened the epoch and the intents that the output answers, and so all
// before them.
func (j *chaosJudge) complete(out *intents.Output, epoch judgedEpoch) error {
	read := epoch.at
	for _, id := range out.Intents {
		i, known := j.byID[id]
		if !known {
			return fmt.Errorf("intent %s is not in the log", id)
		}
		read = max(read, j.asked[i].at)
	}
	for _, in := range j.asked {
		if _, proposed := j.proposed[out.Epoch][in.SenderIndex]; in.at <= read && leaves(in, epoch.group) && !proposed {
			return fmt.Errorf("intent %s of leaf %d, stored as %d, was read and is not proposed in epoch %d", in.id, in.SenderIndex, in.at, out.Epoch)
		}
	}
	return nil
}

// promise judges the log as a whole: in every epoch that waited for the broker,
// everybody who had to be proposed was; in the last, nobody who asked is left.
func (j *chaosJudge) promise() {
	if j.group == nil || j.group.Epoch() != j.final {
		j.wrong("the log does not lead to epoch %d", j.final)
	}
	for epoch, must := range j.waited {
		for _, leaf := range must {
			if _, ok := j.proposed[epoch][leaf]; !ok {
				j.wrong("leaf %d is not proposed in epoch %d", leaf, epoch)
			}
		}
	}
	for _, in := range j.asked {
		if j.group != nil && leaves(in, j.group) {
			j.wrong("leaf %d asked to leave and is there at the end", in.SenderIndex)
		}
	}
}

// verdicts judges the events: every acknowledged intent is in the log and got
// its verdict, and a removal was confirmed after it was told.
func (j *chaosJudge) verdicts(events []told) {
	ends := map[string][]string{}
	for _, e := range events {
		if e.Group == j.token && e.Intent != "" {
			ends[e.Intent] = append(ends[e.Intent], e.Type)
		}
	}
	for id, want := range j.judgedGroup.intents {
		if _, stored := j.byID[id]; !stored {
			j.wrong("the acknowledged intent %s is not in the log", id)
		}
		end, confirmed := slices.Index(ends[id], want), slices.Index(ends[id], intents.NoticeConfirmed)
		if end < 0 || (want == intents.StateRemoved) != (confirmed > end) {
			j.wrong("intent %s: the events %v, want %s", id, ends[id], want)
		}
	}
}

// outputSumOf is outputSum of a stored output.
func outputSumOf(data []byte) (sum [32]byte, err error) {
	var out intents.Output
	if err := json.Unmarshal(data, &out); err != nil {
		return sum, err
	}
	return outputSum(out.GroupID, out.Epoch, out.Proposals), nil
}

// chaosWrong is a log with one wrong in it, and what the judge has to say.
type chaosWrong struct {
	name      string
	group     judgedGroup
	log       []stored
	events    []told
	complaint string
}

// chaosWrongs puts wrongs into copies of a log and its events, one in each.
func chaosWrongs(groups []judgedGroup, log []stored, events []told) (wrongs []chaosWrong) {
	for _, g := range groups {
		at := slices.IndexFunc(log, func(m stored) bool { return m.of(g.token, "removal") && waitedFor(&g, &m) })
		if at < 0 {
			continue // nobody waited in this group
		}
		add := func(name, complaint string, instead ...stored) {
			wrongs = append(wrongs, chaosWrong{name, g, slices.Concat(log[:at], instead, log[at+1:]), events, complaint})
		}
		add("an output lost", "is not proposed in epoch")
		add("an output twice", "was proposed in epoch", log[at], log[at])
		add("an output of another epoch", "refuse the removal", editOutput(log[at], func(out *intents.Output) { out.Epoch-- }))
		add("an output too early", "has not begun", editOutput(log[at], func(out *intents.Output) { out.Epoch += 1000 }))
		add("a proposal with a flipped bit", "refuse the removal", editOutput(log[at], func(out *intents.Output) {
			out.Proposals[0][len(out.Proposals[0])-1] ^= 1
		}))
		add("an output without its first proposal", "was read and is not proposed",
			editOutput(log[at], func(out *intents.Output) { out.Proposals = out.Proposals[1:] }))
		asked := slices.IndexFunc(log, func(m stored) bool { return m.of(g.token, "intent") && answeredBy(&log[at], &m) })
		wrongs = append(wrongs, chaosWrong{"a removal without an intent", g, slices.DeleteFunc(slices.Clone(log), func(m stored) bool {
			return m.of(g.token, "intent") && string(m.data) == string(log[asked].data)
		}), events, "did not ask"})
		last := len(log) - 1
		for ; !log[last].of(g.token, "commit"); last-- {
		}
		wrongs = append(wrongs,
			chaosWrong{"a commit lost", g, slices.Delete(slices.Clone(log), last, last+1), events, "does not lead to epoch"},
			chaosWrong{"no verdicts", g, log, slices.DeleteFunc(slices.Clone(events), func(e told) bool { return e.Type == intents.StateRemoved }), "want removed"},
			chaosWrong{"no confirmations", g, log, slices.DeleteFunc(slices.Clone(events), func(e told) bool { return e.Type == intents.NoticeConfirmed }), "want removed"})
		return wrongs // one group is enough
	}
	return nil
}

// of says whether an entry is of a group and a kind.
func (m *stored) of(token, kind string) bool {
	return len(m.subject) == 6 && m.subject[4] == token && m.kind() == kind
}

func decodeOutput(m *stored) (out intents.Output) {
	_ = json.Unmarshal(m.data, &out) // judged before
	return out
}

// waitedFor says whether somebody waited for the first proposal of an output.
func waitedFor(g *judgedGroup, m *stored) bool {
	out := decodeOutput(m)
	if len(out.Proposals) == 0 {
		return false
	}
	leaf, err := removedLeaf(out.Proposals[0])
	return err == nil && slices.Contains(g.waited[out.Epoch], leaf)
}

// answeredBy says whether an intent is the first that an output answers.
func answeredBy(output, intent *stored) bool {
	in, err := intents.ParseMessage(intent.data, intents.DefaultWireFormat)
	out := decodeOutput(output)
	return err == nil && len(out.Intents) > 0 && in.ID("acme") == out.Intents[0]
}

func editOutput(m stored, edit func(*intents.Output)) stored {
	out := decodeOutput(&m)
	edit(&out)
	m.data, _ = json.Marshal(out)
	return m
}
