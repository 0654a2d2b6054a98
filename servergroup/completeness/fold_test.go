package completeness

import (
	"errors"
	"testing"

	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// TestFoldLost: each replica that was lost is named once, whatever it has said to whom.
func TestFoldLost(t *testing.T) {
	eu, us := Group{Name: "eu"}, Group{Name: "us", Region: "r"}
	of := func(replica, why string) error { return &transport.Error{URL: replica, Err: errors.New(why)} }
	var ws annotations.Annotations
	ws.Add(&LostReplicas{Outcome{Group: eu, Asked: 3, Failed: []error{of("http://b", "y")}}})
	ws.Add(&LostReplicas{Outcome{Group: eu, Asked: 3, Failed: []error{of("http://a", "x")}}})
	ws.Add(&LostReplicas{Outcome{Group: eu, Asked: 3, Failed: []error{of("http://a", "z"), of("http://b", "z")}}})
	ws.Add(&LostReplicas{Outcome{Group: us, Asked: 2, Failed: []error{of("http://c", "x")}}})
	ws.Add(errors.New("other"))
	foldLost(ws)
	warnings, infos := ws.AsStrings("", 0, 0)
	require.Equal(t, []string{"other"}, warnings)
	require.ElementsMatch(t, []string{
		`PromQL info: server group "eu" answered without a replica: http://a: x; http://b: z`,
		`PromQL info: server group "us" (region "r") answered without a replica: http://c: x`,
	}, infos)
}
