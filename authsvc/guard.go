package authsvc

import (
	"context"
	"fmt"
	"time"

	"leavebroker/mlscore"
)

// Guard holds a service to its contract: a question gets at most timeout, and
// the answer has a result for each credential. A result that breaks the
// contract becomes [Error]: a status that is none, a subject that cannot be
// used, or a subject beside another status than [Resolved].
func Guard(service Service, timeout time.Duration) Service {
	return &guard{service, timeout}
}

type guard struct {
	service Service
	timeout time.Duration
}

func (g *guard) Resolve(ctx context.Context, tenant string, credentials []mlscore.Credential) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	answer, err := g.service.Resolve(ctx, tenant, credentials)
	if err != nil {
		return Answer{}, err
	}
	if len(answer.Results) != len(credentials) {
		return Answer{}, fmt.Errorf("authentication service: %d results for %d credentials", len(answer.Results), len(credentials))
	}
	checked := Answer{Revision: answer.Revision, Results: make([]Result, len(credentials))}
	for i, r := range answer.Results {
		checked.Results[i] = checkResult(r)
	}
	return checked, nil
}

func checkResult(r Result) Result {
	var fault string
	switch r.Status {
	case Resolved:
		fault = checkSubject(r.Subject)
	case Unknown, Error:
		if r.Subject != "" {
			fault = fmt.Sprintf("a subject beside status %s", r.Status)
		}
	default:
		fault = fmt.Sprintf("status %.32q", r.Status)
	}
	if fault != "" {
		return Result{Status: Error, Reason: fault}
	}
	return r
}
