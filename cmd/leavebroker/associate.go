package main

import (
	"context"

	"leavebroker/authsvc"
	"leavebroker/intents"
	"leavebroker/mlscore"
)

// association answers the broker's questions about members from an
// Authentication Service that resolves credentials: associated are those of
// the sender's subject.
type association struct{ service authsvc.Service }

// Associate asks about the sender and all candidates at once.
func (a association) Associate(ctx context.Context, tenant string, q intents.Question) (intents.Answer, error) {
	credentials := []mlscore.Credential{q.Sender.Credential}
	for _, c := range q.Candidates {
		credentials = append(credentials, c.Credential)
	}
	resolved, err := a.service.Resolve(ctx, tenant, credentials)
	if err != nil {
		return intents.Answer{}, err
	}
	answer := intents.Answer{
		Intent: q.Intent, Epoch: q.Epoch, Status: string(resolved.Results[0].Status),
		Revision: resolved.Revision, Hash: resolved.Hash(),
	}
	if answer.Status != intents.StatusResolved {
		return answer, nil
	}
	for i, c := range q.Candidates {
		switch authsvc.Relate(resolved.Results[0], resolved.Results[i+1]) {
		case authsvc.Associated:
			answer.Associated = append(answer.Associated, c.Leaf)
		case authsvc.Unrelated:
			answer.Unrelated = append(answer.Unrelated, c.Leaf)
		default:
			answer.Undecided = append(answer.Undecided, c.Leaf)
		}
	}
	return answer, nil
}
