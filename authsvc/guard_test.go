package authsvc_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"leavebroker/authsvc"
	"leavebroker/mlscore"
)

// service is an adapter made of a function.
type service func(context.Context, []mlscore.Credential) (authsvc.Answer, error)

func (s service) Resolve(ctx context.Context, _ string, cs []mlscore.Credential) (authsvc.Answer, error) {
	return s(ctx, cs)
}

var twoCredentials = []mlscore.Credential{mlscore.BasicCredential([]byte("a")), mlscore.BasicCredential([]byte("b"))}

func TestGuardTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := service(func(ctx context.Context, _ []mlscore.Credential) (authsvc.Answer, error) {
			<-ctx.Done()
			return authsvc.Answer{}, ctx.Err()
		})
		start := time.Now()
		_, err := authsvc.Guard(slow, 2*time.Second).Resolve(t.Context(), "t", twoCredentials)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 2*time.Second {
			t.Errorf("error %v after %v", err, time.Since(start))
		}
		earlier, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		_, err = authsvc.Guard(slow, 2*time.Second).Resolve(earlier, "t", twoCredentials)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("with an earlier deadline: error %v after %v", err, time.Since(start))
		}
	})
}

func TestGuardError(t *testing.T) {
	down := errors.New("down")
	broken := service(func(context.Context, []mlscore.Credential) (authsvc.Answer, error) {
		return authsvc.Answer{Results: []authsvc.Result{resolved("a"), resolved("a")}}, down
	})
	answer, err := authsvc.Guard(broken, time.Second).Resolve(t.Context(), "t", twoCredentials)
	if !errors.Is(err, down) || answer.Results != nil {
		t.Errorf("answer %+v, error %v", answer, err)
	}
}

// TestGuardMalformed: an answer that breaks the contract resolves nothing, and
// what is right in it stays.
func TestGuardMalformed(t *testing.T) {
	longest := strings.Repeat("x", authsvc.MaxSubject)
	for _, c := range []struct {
		first authsvc.Result
		want  authsvc.Status
	}{
		{resolved("a"), authsvc.Resolved},
		{resolved(longest), authsvc.Resolved},
		{resolved("\x00\xff"), authsvc.Resolved},
		{authsvc.Result{Status: authsvc.Unknown, Reason: "no account"}, authsvc.Unknown},
		{authsvc.Result{Status: authsvc.Error, Reason: "shard 7 is down"}, authsvc.Error},
		{resolved(""), authsvc.Error},
		{resolved(" \t\u00a0\n"), authsvc.Error},
		{resolved(longest + "x"), authsvc.Error},
		{authsvc.Result{Subject: "a"}, authsvc.Error},
		{authsvc.Result{Status: "RESOLVED", Subject: "a"}, authsvc.Error},
		{authsvc.Result{Status: authsvc.Unknown, Subject: "a"}, authsvc.Error},
		{authsvc.Result{Status: authsvc.Error, Subject: "a"}, authsvc.Error},
	} {
		adapter := service(func(context.Context, []mlscore.Credential) (authsvc.Answer, error) {
			return authsvc.Answer{Revision: "7", Results: []authsvc.Result{c.first, resolved("b")}}, nil
		})
		answer, err := authsvc.Guard(adapter, time.Second).Resolve(t.Context(), "t", twoCredentials)
		if err != nil {
			t.Fatalf("%+v: %v", c.first, err)
		}
		got := answer.Results[0]
		if got.Status != c.want || (got.Subject != "") != (c.want == authsvc.Resolved) {
			t.Errorf("%+v becomes %+v, want status %s", c.first, got, c.want)
		}
		if c.want != authsvc.Resolved && got.Reason == "" {
			t.Errorf("%+v: no reason", c.first)
		}
		if answer.Revision != "7" || answer.Results[1] != resolved("b") {
			t.Errorf("%+v: the rest became %+v", c.first, answer)
		}
	}
}

func TestGuardCount(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		adapter := service(func(context.Context, []mlscore.Credential) (authsvc.Answer, error) {
			return authsvc.Answer{Results: make([]authsvc.Result, n)}, nil
		})
		if _, err := authsvc.Guard(adapter, time.Second).Resolve(t.Context(), "t", twoCredentials); err == nil {
			t.Errorf("%d results for two credentials are accepted", n)
		}
	}
}
