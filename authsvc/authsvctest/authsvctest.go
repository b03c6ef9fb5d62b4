// Package authsvctest tests that a Service keeps its contract. Only tests
// import it.
package authsvctest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"leavebroker/authsvc"
	"leavebroker/mlscore"
)

// Known is a credential and what the service under test must say about it.
type Known struct {
	Credential mlscore.Credential
	Status     authsvc.Status
	Subject    string
}

// Run asks a service for known credentials, at least two of them, in the ways
// that its contract allows.
func Run(t *testing.T, service authsvc.Service, tenant string, known []Known) {
	if len(known) < 2 {
		t.Fatal("too few known credentials to test an order")
	}
	t.Run("one by one", func(t *testing.T) {
		for _, k := range known {
			ask(t, service, tenant, []Known{k})
		}
	})
	t.Run("empty question", func(t *testing.T) { ask(t, service, tenant, nil) })
	t.Run("any order", func(t *testing.T) {
		ask(t, service, tenant, known)
		reversed := slices.Clone(known)
		slices.Reverse(reversed)
		ask(t, service, tenant, reversed)
	})
	t.Run("the same twice", func(t *testing.T) { ask(t, service, tenant, slices.Concat(known, known)) })
	t.Run("many at once", func(t *testing.T) {
		ask(t, service, tenant, slices.Repeat(known, 1+2000/len(known)))
	})
	t.Run("concurrent", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() { ask(t, service, tenant, known[i%len(known):]) })
		}
		wg.Wait()
	})
	t.Run("unknown credential type", func(t *testing.T) {
		other := mlscore.Credential{Type: 0xf123, Unknown: known[0].Credential.Identity}
		answer, err := service.Resolve(t.Context(), tenant, []mlscore.Credential{other})
		if err == nil && answer.Results[0].Status == authsvc.Resolved {
			t.Errorf("resolved to %q", answer.Results[0].Subject)
		}
	})
	t.Run("context done", func(t *testing.T) { askTooLate(t, service, tenant, known) })
}

// ask checks one question's answer.
func ask(t *testing.T, service authsvc.Service, tenant string, question []Known) {
	t.Helper()
	credentials := make([]mlscore.Credential, len(question))
	before := make([]string, len(question))
	for i, k := range question {
		credentials[i] = k.Credential
		before[i] = string(k.Credential.Bytes())
	}
	answer, err := service.Resolve(t.Context(), tenant, credentials)
	if err != nil {
		t.Errorf("no answer: %v", err)
		return
	}
	if len(answer.Results) != len(question) {
		t.Errorf("%d results for %d credentials", len(answer.Results), len(question))
		return
	}
	for i, got := range answer.Results {
		if want := question[i]; got.Status != want.Status || got.Subject != want.Subject {
			t.Errorf("credential %d is %s %q (%s), want %s %q", i, got.Status, got.Subject, got.Reason, want.Status, want.Subject)
		}
		if string(credentials[i].Bytes()) != before[i] {
			t.Errorf("credential %d was changed", i)
		}
	}
}

func askTooLate(t *testing.T, service authsvc.Service, tenant string, question []Known) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start := time.Now()
	_, err := service.Resolve(ctx, tenant, []mlscore.Credential{question[0].Credential})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v does not wrap that of the context", err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("returned after %v", took)
	}
}
