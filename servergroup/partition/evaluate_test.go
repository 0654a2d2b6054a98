package partition

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// TestMatchers are what a selector is for the replica.
func TestMatchers(t *testing.T) {
	cfg := &config.Group{Labels: lset{"region": "eu"}, ReplicaLabels: []string{"replica"}}
	p := &Piece{partition: &Partition{members: []view.Group{{Config: cfg}}}}
	f := func(selector, want string) {
		t.Helper()
		send, ok := p.Matchers(matchersOf(t, selector))
		require.Equal(t, want != "", ok)
		if ok {
			require.Equal(t, want, transport.Selector(send))
		}
	}
	f(`{region="eu",a="b"}`, `{a="b"}`)
	f(`{region="eu"}`, `{__name__!=""}`)
	f(`{region="us",a="b"}`, "")
	f(`{exported_region="x",a="b"}`, "")
	f(`{replica="a",a="b"}`, "")
	p.narrowed = matchersOf(t, `{instance!~"x|y"}`)
	f(`{region="eu",a="b"}`, `{a="b",instance!~"x|y"}`)
	f(`{region="eu"}`, `{instance!~"x|y",__name__!=""}`)
}

func TestVerdict(t *testing.T) {
	lacks := func(reasons ...string) (out []completeness.Lack) {
		for _, r := range reasons {
			out = append(out, completeness.Lack{Group: "g", Reason: r})
		}
		return out
	}
	gone := func(late bool, groups ...string) error {
		return fmt.Errorf("it is: %w", &completeness.UnavailableError{Lacks: lacks(groups...), Late: late})
	}
	f := func(partial config.PartialResponse, errs ...error) ([]string, error) {
		t.Helper()
		asked := make([]*Partition, len(errs))
		for i := range asked {
			asked[i] = &Partition{view: view.New(&request.Request{}, time.Time{}, partial, nil, nil, nil), members: []view.Group{{Config: &config.Group{}}}}
		}
		ws, err := Verdict(asked, errs)
		return texts(ws), err
	}
	ws, err := f(config.PartialWarn, nil, nil)
	require.NoError(t, err)
	require.Empty(t, ws)
	ws, err = f(config.PartialWarn, nil, gone(true, "a", "b"), gone(false, "c"))
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"partial answer: a", "partial answer: b", "partial answer: c"}, ws)

	var all *completeness.UnavailableError
	_, err = f(config.PartialWarn, gone(true, "a"), gone(true, "b"))
	require.ErrorAs(t, err, &all)
	require.Equal(t, &completeness.UnavailableError{Lacks: lacks("a", "b"), Late: true}, all)
	_, err = f(config.PartialError, nil, gone(true, "a"), gone(false, "b"))
	require.ErrorAs(t, err, &all)
	require.Equal(t, &completeness.UnavailableError{Lacks: lacks("a", "b")}, all)

	over := &fanout.BudgetError{Limit: 1}
	_, err = f(config.PartialWarn, gone(true, "a"), over)
	require.Equal(t, error(over), err)
}

// TestLocal_OfMergedPieces is why they are merged, and nobody is asked.
func TestLocal_OfMergedPieces(t *testing.T) {
	p := &Piece{Why: "no replica is whole"}
	why, err := p.Local(t.Context(), false)
	require.NoError(t, err)
	require.Equal(t, p.Why, why)
}
