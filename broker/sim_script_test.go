package broker

import (
	"crypto/sha256"
	"slices"

	"leavebroker/mlscore"
)

// simScript is the life of one group: what is published about it, in order, and
// the truth, which is what its members see. Members are slow, so scripts are
// played once, and each is published under many schedules.
type simScript struct {
	signers []mlscore.Signer
	trustDS bool
	hostile bool // insiders lie: an observer may be in an epoch that is none
	lossy   bool // commits are missing
	steps   []simStep
	rosters map[uint64]roster   // the epochs that there were
	lies    map[uint64][]roster // and those that were pretended
	wishes  []*simWish
}

// simStep is one message.
type simStep struct {
	kind  kind
	data  []byte
	text  string
	epoch uint64              // the group's, when it is published
	needs []mlscore.LeafIndex // its commit refers to our removals of these
	echo  [][]byte            // those removals
	// sure says that whoever has read up to here can know the truth.
	sure bool
	// leaving are the leaves with a SelfRemove in this epoch: we propose none.
	leaving []mlscore.LeafIndex
}

// seat is a leaf of an epoch. The identity is the member's: one who left and
// comes back is another, even with the same leaf.
type seat struct {
	id        int // 0 in an epoch that is pretended
	user, key string
	ref       [sha256.Size]byte // of the leaf's bytes
}

type roster map[mlscore.LeafIndex]seat

// rosterOf are the leaves of a group.
func rosterOf(g *mlscore.PublicGroup, ids map[mlscore.LeafIndex]int) roster {
	r := roster{}
	for index, leaf := range g.Tree().All() {
		r[index] = seat{ids[index], string(leaf.Credential.Identity), string(leaf.SignatureKey), sha256.Sum256(leaf.Bytes())}
	}
	return r
}

// find gives the leaf of a member.
func (r roster) find(id int) (mlscore.LeafIndex, seat, bool) {
	for index, s := range r {
		if s.id == id {
			return index, s, true
		}
	}
	return 0, seat{}, false
}

// simWish is an intent as the members see it.
type simWish struct {
	id         string
	who        int
	seat       seat
	associated bool   // mode remove_associated_members
	from       uint64 // the epoch from which on it counts
	published  int    // its step
	fates      map[uint64]fate
	reused     bool // its leaf left the group before, as another member's
	doubtful   bool // its leaf came back before a member signed over its removal: it may be held
	decided    int  // the step by which an operator cancels it then; 0 for none
}

// fate is what is to become of an intent, as of an epoch.
type fate struct {
	pending    bool
	senderGone bool
	targets    []mlscore.LeafIndex // ascending
}

// follow tells the fates of an intent from the epochs that there were.
func (w *simWish) follow(rosters map[uint64]roster) {
	w.fates = map[uint64]fate{}
	for epoch := range w.from {
		for _, s := range rosters[epoch] {
			// Whether anybody can tell depends on when the log begins: the intent is
			// refused or followed.
			w.reused = w.reused || s.ref == w.seat.ref && s.id != w.who
		}
	}
	var others map[int]bool // of the sender's last epoch, once it has left
	for epoch := w.from; ; epoch++ {
		now, ok := rosters[epoch]
		if !ok {
			return
		}
		index, s, here := now.find(w.who)
		switch {
		case others != nil:
		case here && s.ref != w.seat.ref, !here && epoch == w.from, !here && w.cameBack(rosters[epoch-1], now):
			return // superseded, or gone before
		case !here:
			others = map[int]bool{}
			for _, s := range rosters[epoch-1] {
				others[s.id] = true
			}
		}
		f := fate{pending: true, senderGone: others != nil}
		if here {
			f.targets = append(f.targets, index)
		}
		for other, s := range now {
			if w.associated && s.id != w.who && s.user == w.seat.user && (others == nil || others[s.id]) {
				f.targets = append(f.targets, other)
			}
		}
		if len(f.targets) == 0 {
			return // removed
		}
		slices.Sort(f.targets)
		w.fates[epoch] = f
	}
}

// cameBack says whether the commit that removed a sender added it again.
func (w *simWish) cameBack(before, now roster) bool {
	for _, s := range now {
		_, _, was := before.find(s.id)
		if !was && s.key == w.seat.key && s.user == w.seat.user {
			return true
		}
	}
	return false
}
